//! Blocks of steps that families share.

use super::family::{Block, Rule, Step, When, step};
use crate::model::Role;

/// Token embedding as it is.
pub(super) const EMBED: &[Step] = &[
    step("tok_embed", Rule::TokenEmbedding, &[], &[Role::TokenEmbedding]),
    step("embed", Rule::Identity, &["tok_embed"], &[]),
];

/// Token embedding, scaled.
pub(super) const EMBED_SCALED: &[Step] = &[
    step("tok_embed", Rule::TokenEmbedding, &[], &[Role::TokenEmbedding]),
    step("embed", Rule::Scale, &["tok_embed"], &[]),
];

/// Token embedding plus position embedding.
pub(super) const EMBED_POSITIONS: &[Step] = &[
    step("tok_embed", Rule::TokenEmbedding, &[], &[Role::TokenEmbedding]),
    step("pos_embed", Rule::PositionEmbedding, &[], &[Role::PositionEmbedding]),
    step("embed", Rule::Add, &["tok_embed", "pos_embed"], &[]),
];

/// RMSNorm before attention.
pub(super) const ATTN_RMS_NORM: &[Step] = &[step("attn_norm", Rule::Norm, &["input"], &[Role::AttnNorm])];

/// LayerNorm before attention.
pub(super) const ATTN_LAYER_NORM: &[Step] =
    &[step("attn_norm", Rule::Norm, &["input"], &[Role::AttnNorm, Role::AttnNormBias])];

/// Query, key and value.
pub(super) const QKV: &[Step] = &[
    step("q", Rule::Biased { matmul: "q_matmul" }, &["attn_norm"], &[Role::Q, Role::QBias]),
    step("k", Rule::Biased { matmul: "k_matmul" }, &["attn_norm"], &[Role::K, Role::KBias]),
    step("v", Rule::Biased { matmul: "v_matmul" }, &["attn_norm"], &[Role::V, Role::VBias]),
];

/// Queries and keys turn; the cache takes the turned keys.
pub(super) const ROPE: &[Step] = &[
    step("q_rope", Rule::Rope, &["q"], &[]),
    step("k_rope", Rule::Rope, &["k"], &[]),
    step("k_cache", Rule::Store, &["k_rope"], &[]),
    step("v_cache", Rule::Store, &["v"], &[]),
    step("attn_scores", Rule::Scores, &["q_rope", "k_cache"], &[]),
];

/// The same after a norm of each head.
pub(super) const NORMED_ROPE: &[Step] = &[
    step("q_norm", Rule::HeadNorm, &["q"], &[Role::QNorm]),
    step("k_norm", Rule::HeadNorm, &["k"], &[Role::KNorm]),
    step("q_rope", Rule::Rope, &["q_norm"], &[]),
    step("k_rope", Rule::Rope, &["k_norm"], &[]),
    step("k_cache", Rule::Store, &["k_rope"], &[]),
    step("v_cache", Rule::Store, &["v"], &[]),
    step("attn_scores", Rule::Scores, &["q_rope", "k_cache"], &[]),
];

/// Scores where positions are learned.
pub(super) const NO_ROPE: &[Step] = &[
    step("k_cache", Rule::Store, &["k"], &[]),
    step("v_cache", Rule::Store, &["v"], &[]),
    step("attn_scores", Rule::Scores, &["q", "k_cache"], &[]),
];

/// From scores to the output projection.
pub(super) const ATTEND: &[Step] = &[
    step("attn_probs", Rule::Softmax, &["attn_scores"], &[]),
    step("attn_ctx", Rule::Context, &["attn_probs", "v_cache"], &[]),
    step("attn_out", Rule::Biased { matmul: "attn_out_matmul" }, &["attn_ctx"], &[Role::AttnOut, Role::AttnOutBias]),
];

/// Residual stream after attention.
pub(super) const RESID_MID: &[Step] = &[step("resid_mid", Rule::Add, &["input", "attn_out"], &[])];

/// RMSNorm before the FFN.
pub(super) const FFN_RMS_NORM: &[Step] = &[step("ffn_norm", Rule::Norm, &["resid_mid"], &[Role::FfnNorm])];

/// An FFN with a gate.
pub(super) const GATED_FFN: &[Step] = &[
    step("ffn_gate", Rule::Linear, &["ffn_norm"], &[Role::FfnGate, Role::FfnGateBias]),
    step("ffn_up", Rule::Biased { matmul: "ffn_up_matmul" }, &["ffn_norm"], &[Role::FfnUp, Role::FfnUpBias]),
    step("ffn_act", Rule::Activate, &["ffn_gate"], &[]),
    step("ffn_glu", Rule::Multiply, &["ffn_act", "ffn_up"], &[]),
    step("ffn_out", Rule::Biased { matmul: "ffn_out_matmul" }, &["ffn_glu"], &[Role::FfnDown, Role::FfnDownBias]),
];

/// An FFN without a gate.
pub(super) const UNGATED_FFN: &[Step] = &[
    step("ffn_up", Rule::Biased { matmul: "ffn_up_matmul" }, &["ffn_norm"], &[Role::FfnUp, Role::FfnUpBias]),
    step("ffn_act", Rule::Activate, &["ffn_up"], &[]),
    step("ffn_out", Rule::Biased { matmul: "ffn_out_matmul" }, &["ffn_act"], &[Role::FfnDown, Role::FfnDownBias]),
];

/// The inside of the shared expert: the gated FFN of that layer.
const SHARED_FFN: &[Step] = &[
    step("ffn_gate", Rule::Product, &["ffn_norm"], &[Role::SharedGate]),
    step("ffn_up", Rule::Product, &["ffn_norm"], &[Role::SharedUp]),
    step("ffn_act", Rule::Activate, &["ffn_gate"], &[]),
    step("ffn_glu", Rule::Multiply, &["ffn_act", "ffn_up"], &[]),
];

const ROUTER: &[Step] = &[
    step("moe_logits", Rule::Product, &["ffn_norm"], &[Role::Router]),
    step("moe_probs", Rule::RowSoftmax, &["moe_logits"], &[]),
    step("moe_topk", Rule::TopK, &["moe_probs"], &[]),
    step("moe_weights", Rule::ExpertWeights, &["moe_probs", "moe_topk"], &[]),
];

const EXPERT: &[Step] = &[
    step("moe_gate", Rule::ExpertProduct, &["ffn_norm", "moe_topk"], &[Role::ExpertGate]),
    step("moe_up", Rule::ExpertProduct, &["ffn_norm", "moe_topk"], &[Role::ExpertUp]),
    step("moe_act", Rule::Activate, &["moe_gate"], &[]),
    step("moe_glu", Rule::Multiply, &["moe_act", "moe_up"], &[]),
    step("moe_down", Rule::ExpertProduct, &["moe_glu", "moe_topk"], &[Role::ExpertDown]),
];

const MOE_OUT: &[Step] = &[step("moe_out", Rule::ExpertSum, &["moe_weights", "moe_down"], &[])];

const SHARED_OUT: &[Step] = &[
    step("shared_out", Rule::GatedProduct, &["ffn_glu", "ffn_norm"], &[Role::SharedDown, Role::SharedRouter]),
    step("ffn_out", Rule::Add, &["moe_out", "shared_out"], &[]),
];

const ROUTED_OUT: &[Step] = &[step("ffn_out", Rule::Identity, &["moe_out"], &[])];

/// Residual stream after the FFN.
const RESID_POST: &[Step] = &[step("resid_post", Rule::Add, &["resid_mid", "ffn_out"], &[])];

/// A gated FFN, or experts, and the residual stream after it.
pub(super) const FFN_OR_EXPERTS: &[Block] = &[
    (When::Plain, GATED_FFN),
    (When::Shared, SHARED_FFN),
    (When::Experts, ROUTER),
    (When::EverySlot, EXPERT),
    (When::Experts, MOE_OUT),
    (When::Shared, SHARED_OUT),
    (When::Routed, ROUTED_OUT),
    (When::Always, RESID_POST),
];

/// RMSNorm and the output head.
pub(super) const HEAD: &[Block] = &[
    (When::Always, &[step("final_norm", Rule::Norm, &["resid_post"], &[Role::FinalNorm])]),
    (When::Uncapped, LOGITS),
    (
        When::Capped,
        &[
            step("logits_matmul", Rule::Product, &["final_norm"], &[Role::Output]),
            step("logits", Rule::SoftCap, &["logits_matmul"], &[]),
        ],
    ),
];

/// LayerNorm and the output head.
pub(super) const LAYER_NORM_HEAD: &[Block] = &[
    (When::Always, &[step("final_norm", Rule::Norm, &["resid_post"], &[Role::FinalNorm, Role::FinalNormBias])]),
    (When::Always, LOGITS),
];

const LOGITS: &[Step] = &[step("logits", Rule::Product, &["final_norm"], &[Role::Output])];
