//! Model files: one [`Model`] from GGUF or safetensors, its weights by role, mapped and never copied whole.

mod weight;
pub use weight::{Layout, Role, Weight, WeightKey};

/// Type of stored elements or blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TensorType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// Upper half of a binary32.
    Bf16,
    /// 32 x i8 with an f16 scale.
    Q8_0,
    /// ggml's 4-bit super-block of 256.
    Q4K,
    /// ggml's 5-bit super-block of 256.
    Q5K,
    /// ggml's 6-bit super-block of 256.
    Q6K,
}

/// A stretch of a mapped file, or bytes in memory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bytes {
    owner: std::sync::Arc<[u8]>,
}

/// An open model.
#[derive(Debug)]
pub struct Model {}
