//! llama, mistral, qwen2, phi3 and, with experts, mixtral and qwen2_moe: RMSNorm, rotary positions, gated FFN. They
//! differ in biases (a projection has one where the model holds one), windows, and in how files hold their weights.

use crate::graph::blocks::{ATTEND, ATTN_RMS_NORM, EMBED, FFN_OR_EXPERTS, FFN_RMS_NORM, HEAD, QKV, RESID_MID, ROPE};
use crate::graph::family::{Block, Family, Norm, When};
use crate::model::Architecture;

/// The pre-norm decoder with rotary positions and a gated FFN.
pub(in crate::graph) const FAMILY: Family = Family {
    architectures: &[
        Architecture::Llama,
        Architecture::Mistral,
        Architecture::Qwen2,
        Architecture::Phi3,
        Architecture::Mixtral,
        Architecture::Qwen2Moe,
    ],
    norm: Norm::Rms,
    before: EMBED,
    layer: &[ATTENTION, FFN_OR_EXPERTS],
    layer_input: ("embed", "resid_post"),
    after: HEAD,
};

const ATTENTION: &[Block] = &[
    (When::Always, ATTN_RMS_NORM),
    (When::Always, QKV),
    (When::Always, ROPE),
    (When::Always, ATTEND),
    (When::Always, RESID_MID),
    (When::Always, FFN_RMS_NORM),
];
