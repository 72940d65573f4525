//! gpt_neox: LayerNorm, rotary positions on a part of each head, biases, an FFN without a gate. Attention and FFN both
//! read the layer's input (most models), or one follows the other.

use crate::graph::blocks::{ATTEND, ATTN_LAYER_NORM, EMBED, LAYER_NORM_HEAD, QKV, RESID_MID, ROPE, UNGATED_FFN};
use crate::graph::family::{Block, Family, Norm, Rule, Step, When, step};
use crate::model::{Architecture, Role};

/// The pre-norm decoder with attention and FFN side by side.
pub(in crate::graph) const FAMILY: Family = Family {
    architectures: &[Architecture::GptNeox],
    norm: Norm::Layer,
    before: EMBED,
    layer: &[LAYER],
    layer_input: ("embed", "resid_post"),
    after: LAYER_NORM_HEAD,
};

const LAYER: &[Block] = &[
    (When::Always, ATTN_LAYER_NORM),
    (When::Always, QKV),
    (When::Always, ROPE),
    (When::Always, ATTEND),
    (When::Parallel, NORM_OF_INPUT),
    (When::Sequential, RESID_MID),
    (When::Sequential, NORM_OF_MID),
    (When::Always, UNGATED_FFN),
    (When::Parallel, SUM_OF_THREE),
    (When::Sequential, SUM_OF_TWO),
];

const NORMS: &[Role] = &[Role::FfnNorm, Role::FfnNormBias];

const NORM_OF_INPUT: &[Step] = &[step("ffn_norm", Rule::Norm, &["input"], NORMS)];

const NORM_OF_MID: &[Step] = &[step("ffn_norm", Rule::Norm, &["resid_mid"], NORMS)];

/// In the order in which transformers adds.
const SUM_OF_THREE: &[Step] = &[step("resid_post", Rule::Sum, &["ffn_out", "attn_out", "input"], &[])];

const SUM_OF_TWO: &[Step] = &[step("resid_post", Rule::Add, &["ffn_out", "resid_mid"], &[])];
