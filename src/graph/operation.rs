//! What a site computes.

use crate::model::{Activation, RopeParameters};

/// One operation: makes one tensor (a row per token) from the inputs and weights of its [`super::Site`].
///
/// Each row is made from the same row of the inputs, and in attention from the cache. Results and steps between are
/// f32 where nothing else is said; the order of sums inside dots and norms is the backend's.
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
    /// Sum of all inputs (two or more), element by element, from the first to the last: `(a + b) + c`.
    Sum,
    /// `x * factor`.
    Scale {
        /// The factor.
        factor: f32,
    },
    /// `cap * tanh(x / cap)`: divided, then tanh, then multiplied.
    SoftCap {
        /// Bound of the result.
        cap: f32,
    },
    /// `x / sqrt(mean(x^2) + epsilon) * (weight + weight_offset)`, in each of `groups` equal parts of the row alone. The
    /// weight is as wide as a part. The sum `weight + weight_offset` is rounded to f32; with offset 0 it is the weight.
    RmsNorm {
        /// Added under the root.
        epsilon: f32,
        /// Added to every weight: 1 in Gemma's safetensors, else 0.
        weight_offset: f32,
        /// Parts that are normed each alone: heads in the norm of queries and keys, else 1.
        groups: u32,
    },
    /// `(x - mean) / sqrt(var + epsilon) * weight + bias`; weights in that order.
    LayerNorm {
        /// Added under the root.
        epsilon: f32,
    },
    /// `x W^T`, W as `[out, in]`.
    MatMul,
    /// `x W^T + bias`, for places whose product has no point of its own: the product is rounded as in
    /// [`Operation::MatMul`], then the bias is added as in [`Operation::Bias`]. Weights: W, bias.
    Linear,
    /// `x + bias`.
    Bias,
    /// Rotary embedding of each head, halves layout (NeoX): element `i` turns with `i + rotary_dim / 2`, by `position`
    /// times frequency `i` of [`RopeParameters::frequencies`]; elements from `rotary_dim` on stay. Angles are f64, their
    /// cosines and sines f32. Weights: the divisors of the frequencies where the scaling is `Stored`, else none.
    Rope {
        /// Heads in a row.
        heads: u32,
        /// Elements of a head.
        head_dim: u32,
        /// Base, turning elements, scaling.
        rope: RopeParameters,
    },
    /// Appends the input's rows to the cache of the site's layer and yields them as stored.
    CacheStore,
    /// `q . k * scale` for every head and every visible key; inputs: q, stored keys. With a cap `c`, that is then
    /// `c * tanh(x / c)`. The token at position `p` sees keys `max(0, p + 1 - window)` up to `p`, in that order.
    AttnScores {
        /// Query heads.
        heads: u32,
        /// Key heads; query head h reads key head `h / (heads / kv_heads)`.
        kv_heads: u32,
        /// Elements of a head.
        head_dim: u32,
        /// Factor on the product.
        scale: f32,
        /// Bound of the scores.
        softcap: Option<f32>,
        /// Keys that a token sees, its own among them; `None` for all up to its own.
        window: Option<u32>,
    },
    /// Softmax over the visible keys of each head.
    Softmax {
        /// Query heads.
        heads: u32,
        /// As in [`Operation::AttnScores`].
        window: Option<u32>,
    },
    /// Probability-weighted sum of values, heads merged; inputs: probabilities, stored values.
    AttnContext {
        /// Query heads.
        heads: u32,
        /// Value heads.
        kv_heads: u32,
        /// Elements of a head.
        head_dim: u32,
        /// As in [`Operation::AttnScores`].
        window: Option<u32>,
    },
    /// The activation function, element by element.
    Activate(Activation),
    /// Product of the two inputs, element by element.
    Multiply,
    /// Softmax over the whole row, the largest taken away first: a router's probabilities.
    RowSoftmax,
    /// The numbers of the `count` largest elements of the row, in ascending order of number, as f32: a set has one form.
    /// Of equals the lowest number is taken, and NaN counts as less than everything.
    TopK {
        /// How many.
        count: u32,
    },
    /// `probability[expert]` for each chosen expert; inputs: probabilities, what [`Operation::TopK`] chose.
    ExpertWeights {
        /// Whether each is divided by the sum of them all, added from the first slot to the last.
        normalised: bool,
    },
    /// `x W^T` with the matrix of the expert in slot `slot`, rounded as in [`Operation::MatMul`]; inputs: x, what
    /// [`Operation::TopK`] chose. Weights: one matrix for each expert of the layer, expert 0 first. Rows of one tensor
    /// may belong to different experts; the row of the chosen says which.
    ExpertMatMul {
        /// Which of the chosen.
        slot: u32,
    },
    /// `w[0] * x_0 + w[1] * x_1 + ...`, each product rounded, added from the first slot to the last; inputs: what
    /// [`Operation::ExpertWeights`] made, then the rows of each slot.
    ExpertSum,
    /// `x W^T * sigmoid(y . g)`: the shared expert after its own gate. Inputs: x, y; weights: W, the vector g. The
    /// product is rounded as in [`Operation::MatMul`], the dot is f32.
    GatedMatMul,
}

impl Operation {
    /// The name in records and tables.
    pub fn name(self) -> &'static str {
        match self {
            Operation::TokenEmbedding => "token_embedding",
            Operation::PositionEmbedding => "position_embedding",
            Operation::Identity => "identity",
            Operation::Add => "add",
            Operation::Sum => "sum",
            Operation::Scale { .. } => "scale",
            Operation::SoftCap { .. } => "soft_cap",
            Operation::RmsNorm { .. } => "rms_norm",
            Operation::LayerNorm { .. } => "layer_norm",
            Operation::MatMul => "mat_mul",
            Operation::Linear => "linear",
            Operation::Bias => "bias",
            Operation::Rope { .. } => "rope",
            Operation::CacheStore => "cache_store",
            Operation::AttnScores { .. } => "attn_scores",
            Operation::Softmax { .. } => "softmax",
            Operation::AttnContext { .. } => "attn_context",
            Operation::Activate(Activation::Silu) => "silu",
            Operation::Activate(Activation::GeluTanh) => "gelu_tanh",
            Operation::Activate(Activation::GeluErf) => "gelu_erf",
            Operation::Activate(Activation::GeluQuick) => "gelu_quick",
            Operation::Multiply => "multiply",
            Operation::RowSoftmax => "row_softmax",
            Operation::TopK { .. } => "top_k",
            Operation::ExpertWeights { .. } => "expert_weights",
            Operation::ExpertMatMul { .. } => "expert_mat_mul",
            Operation::ExpertSum => "expert_sum",
            Operation::GatedMatMul => "gated_mat_mul",
        }
    }
}
