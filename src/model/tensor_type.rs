//! Types of stored elements and blocks.

use crate::error::{Error, Result};

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

impl TensorType {
    /// Every supported type.
    pub const ALL: [TensorType; 7] = [
        TensorType::F32,
        TensorType::F16,
        TensorType::Bf16,
        TensorType::Q8_0,
        TensorType::Q4K,
        TensorType::Q5K,
        TensorType::Q6K,
    ];

    /// The name in records and tables.
    pub fn name(self) -> &'static str {
        match self {
            TensorType::F32 => "f32",
            TensorType::F16 => "f16",
            TensorType::Bf16 => "bf16",
            TensorType::Q8_0 => "q8_0",
            TensorType::Q4K => "q4_k",
            TensorType::Q5K => "q5_k",
            TensorType::Q6K => "q6_k",
        }
    }

    /// Elements of a block; 1 for plain elements.
    pub fn block_elements(self) -> usize {
        match self {
            TensorType::F32 | TensorType::F16 | TensorType::Bf16 => 1,
            TensorType::Q8_0 => 32,
            TensorType::Q4K | TensorType::Q5K | TensorType::Q6K => 256,
        }
    }

    /// Bytes of a block, or of an element where there are no blocks.
    pub fn block_bytes(self) -> usize {
        match self {
            TensorType::F32 => 4,
            TensorType::F16 | TensorType::Bf16 => 2,
            TensorType::Q8_0 => 34,
            TensorType::Q4K => 144,
            TensorType::Q5K => 176,
            TensorType::Q6K => 210,
        }
    }

    /// Bytes of a row of `elements`.
    ///
    /// # Errors
    /// Malformed where a row is no whole number of blocks, or too long for this machine.
    pub fn row_bytes(self, elements: usize) -> Result<usize> {
        let block = self.block_elements();
        if !elements.is_multiple_of(block) {
            return Err(Error::malformed(format!(
                "a row of {elements} elements is no whole number of {} blocks of {block}",
                self.name()
            )));
        }
        (elements / block)
            .checked_mul(self.block_bytes())
            .ok_or_else(|| Error::malformed(format!("a row of {elements} elements is too long for memory")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_whole_blocks() {
        assert_eq!(TensorType::Q4K.row_bytes(512).unwrap(), 288);
        assert_eq!(TensorType::Bf16.row_bytes(3).unwrap(), 6);
        assert!(TensorType::Q8_0.row_bytes(33).is_err());
        assert!(TensorType::F32.row_bytes(usize::MAX).is_err());
    }
}
