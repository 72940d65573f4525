//! gpt2: LayerNorm, learned positions, a bias on every projection, an FFN without a gate.

use super::family::{Family, Norm, Rule, Step, step};
use crate::model::{Architecture, Role};

/// The pre-norm decoder with learned positions and a non-gated FFN.
pub(super) const FAMILY: Family = Family {
    architectures: &[Architecture::Gpt2],
    norm: Norm::Layer,
    before: &[
        step("tok_embed", Rule::TokenEmbedding, &[], &[Role::TokenEmbedding]),
        step("pos_embed", Rule::PositionEmbedding, &[], &[Role::PositionEmbedding]),
        step("embed", Rule::Add, &["tok_embed", "pos_embed"], &[]),
    ],
    layer: LAYER,
    layer_input: ("embed", "resid_post"),
    after: &[
        step("final_norm", Rule::Norm, &["resid_post"], &[Role::FinalNorm, Role::FinalNormBias]),
        step("logits", Rule::Product, &["final_norm"], &[Role::Output]),
    ],
};

const LAYER: &[Step] = &[
    step("attn_norm", Rule::Norm, &["input"], &[Role::AttnNorm, Role::AttnNormBias]),
    step("q", Rule::Biased { matmul: "q_matmul" }, &["attn_norm"], &[Role::Q, Role::QBias]),
    step("k", Rule::Biased { matmul: "k_matmul" }, &["attn_norm"], &[Role::K, Role::KBias]),
    step("v", Rule::Biased { matmul: "v_matmul" }, &["attn_norm"], &[Role::V, Role::VBias]),
    step("k_cache", Rule::Store, &["k"], &[]),
    step("v_cache", Rule::Store, &["v"], &[]),
    step("attn_scores", Rule::Scores, &["q", "k_cache"], &[]),
    step("attn_probs", Rule::Softmax, &["attn_scores"], &[]),
    step("attn_ctx", Rule::Context, &["attn_probs", "v_cache"], &[]),
    step("attn_out", Rule::Biased { matmul: "attn_out_matmul" }, &["attn_ctx"], &[Role::AttnOut, Role::AttnOutBias]),
    step("resid_mid", Rule::Add, &["input", "attn_out"], &[]),
    step("ffn_norm", Rule::Norm, &["resid_mid"], &[Role::FfnNorm, Role::FfnNormBias]),
    step("ffn_up", Rule::Biased { matmul: "ffn_up_matmul" }, &["ffn_norm"], &[Role::FfnUp, Role::FfnUpBias]),
    step("ffn_act", Rule::Activate, &["ffn_up"], &[]),
    step("ffn_out", Rule::Biased { matmul: "ffn_out_matmul" }, &["ffn_act"], &[Role::FfnDown, Role::FfnDownBias]),
    step("resid_post", Rule::Add, &["resid_mid", "ffn_out"], &[]),
];
