//! qwen3 and, with experts, qwen3_moe: llama with a norm of each query and key head.

use crate::graph::blocks::{
    ATTEND, ATTN_RMS_NORM, EMBED, FFN_OR_EXPERTS, FFN_RMS_NORM, HEAD, NORMED_ROPE, QKV, RESID_MID,
};
use crate::graph::family::{Block, Family, Norm, When};
use crate::model::Architecture;

/// The pre-norm decoder with normed heads.
pub(in crate::graph) const FAMILY: Family = Family {
    architectures: &[Architecture::Qwen3, Architecture::Qwen3Moe],
    norm: Norm::Rms,
    before: EMBED,
    layer: &[ATTENTION, FFN_OR_EXPERTS],
    layer_input: ("embed", "resid_post"),
    after: HEAD,
};

const ATTENTION: &[Block] = &[
    (When::Always, ATTN_RMS_NORM),
    (When::Always, QKV),
    (When::Always, NORMED_ROPE),
    (When::Always, ATTEND),
    (When::Always, RESID_MID),
    (When::Always, FFN_RMS_NORM),
];
