//! How an engine rounds: what the yardstick can emulate.

use crate::model::Activation;
use half::{bf16, f16};

/// How operations round between their inputs and their f32 result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Arithmetic {
    /// What a product rounds.
    pub products: ProductRounding,
    /// What the cache of keys and values rounds to.
    pub cache: CacheType,
    /// Which formula the activation function follows.
    pub activation: ActivationFormula,
}

/// What a product with a weight rounds before it adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProductRounding {
    /// Nothing: f64 throughout.
    #[default]
    None,
    /// Activations to the type that ggml pairs with the weight's (`vec_dot_type` in ggml-cpu.c).
    Paired,
    /// The same, with the blocks of 8 bits that ggml's repacked kernels make: the scale is `absmax / 127` in every type.
    Repacked,
    /// Activations to f16.
    F16,
    /// Activations to bf16.
    Bf16,
    /// Activations and weights to f16.
    F16Operands,
    /// Activations and weights to bf16.
    Bf16Operands,
}

/// Type of cached keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheType {
    /// As they are made.
    #[default]
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
}

/// Which formula an activation function follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ActivationFormula {
    /// The one that the graph names.
    #[default]
    Named,
    /// Another one.
    Other(Activation),
    /// GELU (tanh) of the input rounded to f16, rounded to f16: ggml's table (`ggml_table_gelu_f16`); outside of
    /// -10 to 10 it is 0 and the input.
    GeluTable,
}

impl CacheType {
    /// The name in records.
    pub fn name(self) -> &'static str {
        match self {
            CacheType::F32 => "f32",
            CacheType::F16 => "f16",
            CacheType::Bf16 => "bf16",
        }
    }

    pub(super) fn round(self, x: f32) -> f32 {
        match self {
            CacheType::F32 => x,
            CacheType::F16 => f16::from_f32(x).to_f32(),
            CacheType::Bf16 => bf16::from_f32(x).to_f32(),
        }
    }
}
