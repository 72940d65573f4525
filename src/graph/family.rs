//! A family as a table of steps.

use crate::model::{Architecture, Role};

/// What a family's norms are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Norm {
    Rms,
    Layer,
}

/// How a step makes its tensor; the numbers come from the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    TokenEmbedding,
    PositionEmbedding,
    Identity,
    Add,
    Multiply,
    Norm,
    /// A product that never has a bias.
    Product,
    /// A product, and a bias after it where the model holds one: then the product alone is point `matmul`.
    Biased {
        matmul: &'static str,
    },
    Rope,
    Store,
    Scores,
    Softmax,
    Context,
    Activate,
}

/// One row of a family's table. Inputs are points of the same layer; `input` is the layer's input.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) point: &'static str,
    pub(super) rule: Rule,
    pub(super) inputs: &'static [&'static str],
    /// In the order of the operation; for a product the matrix, then the bias that may be there.
    pub(super) weights: &'static [Role],
}

pub(super) const fn step(
    point: &'static str,
    rule: Rule,
    inputs: &'static [&'static str],
    weights: &'static [Role],
) -> Step {
    Step { point, rule, inputs, weights }
}

/// A family: its table of steps before, in and after the layers.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) architectures: &'static [Architecture],
    pub(super) norm: Norm,
    pub(super) before: &'static [Step],
    pub(super) layer: &'static [Step],
    /// The points that layer 0 and every later layer read as `input`.
    pub(super) layer_input: (&'static str, &'static str),
    pub(super) after: &'static [Step],
}
