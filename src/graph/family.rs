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
    Sum,
    Scale,
    SoftCap,
    Multiply,
    Norm,
    /// A norm of each head.
    HeadNorm,
    /// A product that never has a bias.
    Product,
    /// A product, and a bias after it where the model holds one: then the product alone is point `matmul`.
    Biased {
        matmul: &'static str,
    },
    /// A product, and a bias where the model holds one; the vocabulary has no point between them.
    Linear,
    Rope,
    Store,
    Scores,
    Softmax,
    Context,
    Activate,
    RowSoftmax,
    TopK,
    ExpertWeights,
    ExpertProduct,
    /// Reads the weights of the chosen, and the newest tensor of its second input in every slot.
    ExpertSum,
    GatedProduct,
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

/// Which layers (or models) have a block of steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Always,
    /// Layers with a plain FFN.
    Plain,
    /// Layers with experts.
    Experts,
    /// The same; each step is made once for every slot of the chosen, with the slot as its occurrence.
    EverySlot,
    /// Layers with experts and none that all tokens share.
    Routed,
    /// Layers with experts and one that all tokens share.
    Shared,
    /// Models in which attention and FFN both read the layer's input.
    Parallel,
    /// Models in which the FFN reads what attention made.
    Sequential,
    /// Models that cap their logits.
    Capped,
    /// Models that do not.
    Uncapped,
}

/// A block of steps, and when it is there.
pub(super) type Block = (When, &'static [Step]);

/// A family: its steps before, in and after the layers.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) architectures: &'static [Architecture],
    pub(super) norm: Norm,
    pub(super) before: &'static [Step],
    pub(super) layer: &'static [&'static [Block]],
    /// The points that layer 0 and every later layer read as `input`.
    pub(super) layer_input: (&'static str, &'static str),
    pub(super) after: &'static [Block],
}
