//! gpt2: LayerNorm, learned positions, a bias on every projection, an FFN without a gate.

use crate::graph::blocks::{
    ATTEND, ATTN_LAYER_NORM, EMBED_POSITIONS, LAYER_NORM_HEAD, NO_ROPE, QKV, RESID_MID, UNGATED_FFN,
};
use crate::graph::family::{Block, Family, Norm, Rule, Step, When, step};
use crate::model::{Architecture, Role};

/// The pre-norm decoder with learned positions and a non-gated FFN.
pub(in crate::graph) const FAMILY: Family = Family {
    architectures: &[Architecture::Gpt2],
    norm: Norm::Layer,
    before: EMBED_POSITIONS,
    layer: &[LAYER],
    layer_input: ("embed", "resid_post"),
    after: LAYER_NORM_HEAD,
};

const LAYER: &[Block] = &[
    (When::Always, ATTN_LAYER_NORM),
    (When::Always, QKV),
    (When::Always, NO_ROPE),
    (When::Always, ATTEND),
    (When::Always, RESID_MID),
    (When::Always, FFN_NORM),
    (When::Always, UNGATED_FFN),
    (When::Always, RESID_POST),
];

const FFN_NORM: &[Step] = &[step("ffn_norm", Rule::Norm, &["resid_mid"], &[Role::FfnNorm, Role::FfnNormBias])];

const RESID_POST: &[Step] = &[step("resid_post", Rule::Add, &["resid_mid", "ffn_out"], &[])];
