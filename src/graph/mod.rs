//! The forward pass of a family as data: every capture point, the operation that makes it, what it reads.
//!
//! Forward pass, coverage and comparison read this one description; a backend executes it.

mod builder;
mod family;
mod gpt2;
mod llama;

use crate::error::Result;
use crate::model::{Activation, Model, WeightKey};

/// Index of a [`Site`] in its [`Graph`]: sites stand in forward order.
pub type SiteId = u32;

/// One operation: makes one tensor (a row per token) from the inputs and weights of its [`Site`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Operation {
    /// Row `token_id` of the weight.
    TokenEmbedding,
    /// Row `position` of the weight.
    PositionEmbedding,
    /// The input itself, under the name of another point (`embed` where nothing is summed or scaled).
    Identity,
    /// Sum of the two inputs, element by element.
    Add,
    /// `x / sqrt(mean(x^2) + epsilon) * weight`.
    RmsNorm {
        /// Added under the root.
        epsilon: f32,
    },
    /// `(x - mean) / sqrt(var + epsilon) * weight + bias`; weights in that order.
    LayerNorm {
        /// Added under the root.
        epsilon: f32,
    },
    /// `x W^T`, W as `[out, in]`.
    MatMul,
    /// `x + bias`.
    Bias,
    /// Rotary embedding of each head, halves layout (NeoX): element `i` turns with `i + rotary_dim / 2`,
    /// by the angle `position * base^(-2 i / rotary_dim)`.
    Rope {
        /// Heads in a row.
        heads: u32,
        /// Elements of a head.
        head_dim: u32,
        /// Leading elements of a head that turn.
        rotary_dim: u32,
        /// Base of the frequencies (`rope_theta`).
        base: f64,
    },
    /// Appends the input's rows to the cache of the site's layer and yields them as stored.
    CacheStore,
    /// `q . k * scale` for every head and every visible key; inputs: q, stored keys.
    AttnScores {
        /// Query heads.
        heads: u32,
        /// Key heads; query head h reads key head `h / (heads / kv_heads)`.
        kv_heads: u32,
        /// Elements of a head.
        head_dim: u32,
        /// Factor on the product.
        scale: f32,
    },
    /// Softmax over the visible keys of each head.
    Softmax {
        /// Query heads.
        heads: u32,
    },
    /// Probability-weighted sum of values, heads merged; inputs: probabilities, stored values.
    AttnContext {
        /// Query heads.
        heads: u32,
        /// Value heads.
        kv_heads: u32,
        /// Elements of a head.
        head_dim: u32,
    },
    /// The activation function, element by element.
    Activate(Activation),
    /// Product of the two inputs, element by element.
    Multiply,
}

impl Operation {
    /// The name in records and tables.
    pub fn name(self) -> &'static str {
        match self {
            Operation::TokenEmbedding => "token_embedding",
            Operation::PositionEmbedding => "position_embedding",
            Operation::Identity => "identity",
            Operation::Add => "add",
            Operation::RmsNorm { .. } => "rms_norm",
            Operation::LayerNorm { .. } => "layer_norm",
            Operation::MatMul => "mat_mul",
            Operation::Bias => "bias",
            Operation::Rope { .. } => "rope",
            Operation::CacheStore => "cache_store",
            Operation::AttnScores { .. } => "attn_scores",
            Operation::Softmax { .. } => "softmax",
            Operation::AttnContext { .. } => "attn_context",
            Operation::Activate(Activation::Silu) => "silu",
            Operation::Activate(Activation::GeluTanh) => "gelu_tanh",
            Operation::Multiply => "multiply",
        }
    }
}

/// The elements of one token's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowAxes {
    /// One axis: `[width]`.
    Flat {
        /// Elements.
        width: u32,
    },
    /// Two axes: `[heads, dim]`.
    Heads {
        /// Heads.
        heads: u32,
        /// Elements of a head.
        dim: u32,
    },
    /// Ragged: `[heads, visible keys]`.
    Keys {
        /// Heads.
        heads: u32,
    },
}

impl RowAxes {
    /// Elements of a row, or `None` where it depends on the position.
    pub fn width(self) -> Option<u32> {
        match self {
            RowAxes::Flat { width } => Some(width),
            RowAxes::Heads { heads, dim } => heads.checked_mul(dim),
            RowAxes::Keys { .. } => None,
        }
    }
}

/// One place of the forward pass: the tensor that one operation makes.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// Its index in the graph.
    pub id: SiteId,
    /// The layer, or `None` outside the layers.
    pub layer: Option<u32>,
    /// The capture point's name, from `schema/capture-points.toml`.
    pub point: &'static str,
    /// Which of several tensors of one point in one layer (experts); 0 otherwise.
    pub occurrence: u32,
    /// How it is made.
    pub operation: Operation,
    /// What it is made from; every input stands before its site.
    pub inputs: Vec<SiteId>,
    /// Weights in the order that the operation names.
    pub weights: Vec<WeightKey>,
    /// The shape of a row.
    pub axes: RowAxes,
}

/// A family's forward pass with the numbers of one model.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    /// Sites in forward order; the last is `logits`.
    pub sites: Vec<Site>,
    /// Layers.
    pub layers: u32,
}

impl Graph {
    /// The forward pass of `model`: its family's description with its numbers and the biases that it holds.
    ///
    /// # Errors
    /// Unsupported where the architecture is unknown; malformed where a weight is missing or has another
    /// shape than the hyper-parameters say.
    pub fn of(model: &Model) -> Result<Graph> {
        builder::build(model)
    }

    /// The site that makes `point` in `layer`.
    pub fn site(&self, layer: Option<u32>, point: &str) -> Option<&Site> {
        self.sites.iter().find(|site| site.layer == layer && site.point == point)
    }
}
