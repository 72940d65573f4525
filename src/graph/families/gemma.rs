//! gemma2 and gemma3: scaled embedding, a norm before and one after attention and FFN. gemma2 caps scores and logits,
//! gemma3 norms each query and key head.

use crate::graph::blocks::{
    ATTEND, ATTN_RMS_NORM, EMBED_SCALED, FFN_RMS_NORM, GATED_FFN, HEAD, NORMED_ROPE, QKV, ROPE,
};
use crate::graph::family::{Block, Family, Norm, Rule, Step, When, step};
use crate::model::{Architecture, Role};

/// Gemma 2.
pub(in crate::graph) const GEMMA2: Family = Family {
    architectures: &[Architecture::Gemma2],
    norm: Norm::Rms,
    before: EMBED_SCALED,
    layer: &[&[(When::Always, ATTN_RMS_NORM), (When::Always, QKV), (When::Always, ROPE)], REST],
    layer_input: ("embed", "resid_post"),
    after: HEAD,
};

/// Gemma 3.
pub(in crate::graph) const GEMMA3: Family = Family {
    architectures: &[Architecture::Gemma3],
    layer: &[&[(When::Always, ATTN_RMS_NORM), (When::Always, QKV), (When::Always, NORMED_ROPE)], REST],
    ..GEMMA2
};

/// What follows the scores in both.
const REST: &[Block] = &[
    (When::Always, ATTEND),
    (When::Always, NORMED_MID),
    (When::Always, FFN_RMS_NORM),
    (When::Always, GATED_FFN),
    (When::Always, NORMED_POST),
];

const NORMED_MID: &[Step] = &[
    step("attn_post_norm", Rule::Norm, &["attn_out"], &[Role::AttnPostNorm]),
    step("resid_mid", Rule::Add, &["input", "attn_post_norm"], &[]),
];

const NORMED_POST: &[Step] = &[
    step("ffn_post_norm", Rule::Norm, &["ffn_out"], &[Role::FfnPostNorm]),
    step("resid_post", Rule::Add, &["resid_mid", "ffn_post_norm"], &[]),
];
