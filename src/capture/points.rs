//! temporary
use crate::error::{Error, Result};
/// p
#[derive(Debug, Clone)]
pub struct Point {
    /// n
    pub name: String,
    /// s
    pub scope: Scope,
}
/// s
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// i
    Input,
    /// l
    Layer,
    /// o
    Output,
}
/// v
pub fn vocabulary() -> &'static [Point] {
    static V: std::sync::LazyLock<Vec<Point>> = std::sync::LazyLock::new(|| {
        let mk = |n: &str, scope| Point { name: n.to_owned(), scope };
        let mut v: Vec<Point> = ["tok_embed", "pos_embed", "embed"].iter().map(|n| mk(n, Scope::Input)).collect();
        v.extend(
            [
                "attn_norm",
                "q_matmul",
                "k_matmul",
                "v_matmul",
                "q",
                "k",
                "v",
                "q_norm",
                "k_norm",
                "q_rope",
                "k_rope",
                "k_cache",
                "v_cache",
                "attn_scores",
                "attn_probs",
                "attn_ctx",
                "attn_out_matmul",
                "attn_out",
                "attn_post_norm",
                "resid_mid",
                "ffn_norm",
                "ffn_gate",
                "ffn_up_matmul",
                "ffn_up",
                "ffn_act",
                "ffn_glu",
                "ffn_out_matmul",
                "ffn_out",
                "ffn_post_norm",
                "resid_post",
            ]
            .iter()
            .map(|n| mk(n, Scope::Layer)),
        );
        v.extend(["final_norm", "logits_matmul", "logits"].iter().map(|n| mk(n, Scope::Output)));
        v
    });
    &V
}
/// p
pub fn point(name: &str) -> Result<&'static Point> {
    vocabulary().iter().find(|p| p.name == name).ok_or_else(|| Error::usage("x"))
}
/// h
pub fn vocabulary_hash() -> [u8; 32] {
    [0; 32]
}
