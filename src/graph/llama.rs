//! llama and qwen2: RMSNorm, rotary positions, gated FFN. They differ in biases (qwen2 has them on q, k
//! and v), and a projection has a bias where the model holds one.

use super::family::{Family, Norm, Rule, Step, step};
use crate::model::{Architecture, Role};

/// The pre-norm decoder with rotary positions and a gated FFN.
pub(super) const FAMILY: Family = Family {
    architectures: &[Architecture::Llama, Architecture::Qwen2],
    norm: Norm::Rms,
    before: &[
        step("tok_embed", Rule::TokenEmbedding, &[], &[Role::TokenEmbedding]),
        step("embed", Rule::Identity, &["tok_embed"], &[]),
    ],
    layer: LAYER,
    layer_input: ("embed", "resid_post"),
    after: &[
        step("final_norm", Rule::Norm, &["resid_post"], &[Role::FinalNorm]),
        step("logits", Rule::Product, &["final_norm"], &[Role::Output]),
    ],
};

const LAYER: &[Step] = &[
    step("attn_norm", Rule::Norm, &["input"], &[Role::AttnNorm]),
    step("q", Rule::Biased { matmul: "q_matmul" }, &["attn_norm"], &[Role::Q, Role::QBias]),
    step("k", Rule::Biased { matmul: "k_matmul" }, &["attn_norm"], &[Role::K, Role::KBias]),
    step("v", Rule::Biased { matmul: "v_matmul" }, &["attn_norm"], &[Role::V, Role::VBias]),
    step("q_rope", Rule::Rope, &["q"], &[]),
    step("k_rope", Rule::Rope, &["k"], &[]),
    step("k_cache", Rule::Store, &["k_rope"], &[]),
    step("v_cache", Rule::Store, &["v"], &[]),
    step("attn_scores", Rule::Scores, &["q_rope", "k_cache"], &[]),
    step("attn_probs", Rule::Softmax, &["attn_scores"], &[]),
    step("attn_ctx", Rule::Context, &["attn_probs", "v_cache"], &[]),
    step("attn_out", Rule::Biased { matmul: "attn_out_matmul" }, &["attn_ctx"], &[Role::AttnOut, Role::AttnOutBias]),
    step("resid_mid", Rule::Add, &["input", "attn_out"], &[]),
    step("ffn_norm", Rule::Norm, &["resid_mid"], &[Role::FfnNorm]),
    step("ffn_gate", Rule::Product, &["ffn_norm"], &[Role::FfnGate]),
    step("ffn_up", Rule::Biased { matmul: "ffn_up_matmul" }, &["ffn_norm"], &[Role::FfnUp, Role::FfnUpBias]),
    step("ffn_act", Rule::Activate, &["ffn_gate"], &[]),
    step("ffn_glu", Rule::Multiply, &["ffn_act", "ffn_up"], &[]),
    step("ffn_out", Rule::Biased { matmul: "ffn_out_matmul" }, &["ffn_glu"], &[Role::FfnDown, Role::FfnDownBias]),
    step("resid_post", Rule::Add, &["resid_mid", "ffn_out"], &[]),
];
