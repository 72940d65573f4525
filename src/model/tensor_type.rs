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
    /// 8-bit float of 4 exponent and 3 mantissa bits without infinities (OCP E4M3); its factors lie in another tensor.
    F8E4M3,
    /// 32 nibbles with an f16 scale.
    Q4_0,
    /// 32 nibbles with an f16 scale and minimum.
    Q4_1,
    /// 32 numbers of 5 bits with an f16 scale.
    Q5_0,
    /// 32 numbers of 5 bits with an f16 scale and minimum.
    Q5_1,
    /// 32 x i8 with an f16 scale.
    Q8_0,
    /// ggml's 2-bit super-block of 256.
    Q2K,
    /// ggml's 3-bit super-block of 256.
    Q3K,
    /// ggml's 4-bit super-block of 256.
    Q4K,
    /// ggml's 5-bit super-block of 256.
    Q5K,
    /// ggml's 6-bit super-block of 256.
    Q6K,
    /// 32 nibbles that name values of a table, with an f16 scale.
    Iq4Nl,
    /// The same table in a super-block of 256.
    Iq4Xs,
    /// 32 numbers of E2M1 under a power of two (OCP Microscaling).
    Mxfp4,
}

impl TensorType {
    /// Every supported type.
    pub const ALL: [TensorType; 17] = [
        TensorType::F32,
        TensorType::F16,
        TensorType::Bf16,
        TensorType::F8E4M3,
        TensorType::Q4_0,
        TensorType::Q4_1,
        TensorType::Q5_0,
        TensorType::Q5_1,
        TensorType::Q8_0,
        TensorType::Q2K,
        TensorType::Q3K,
        TensorType::Q4K,
        TensorType::Q5K,
        TensorType::Q6K,
        TensorType::Iq4Nl,
        TensorType::Iq4Xs,
        TensorType::Mxfp4,
    ];

    /// The name in records and tables.
    pub fn name(self) -> &'static str {
        match self {
            TensorType::F32 => "f32",
            TensorType::F16 => "f16",
            TensorType::Bf16 => "bf16",
            TensorType::F8E4M3 => "f8_e4m3",
            TensorType::Q4_0 => "q4_0",
            TensorType::Q4_1 => "q4_1",
            TensorType::Q5_0 => "q5_0",
            TensorType::Q5_1 => "q5_1",
            TensorType::Q8_0 => "q8_0",
            TensorType::Q2K => "q2_k",
            TensorType::Q3K => "q3_k",
            TensorType::Q4K => "q4_k",
            TensorType::Q5K => "q5_k",
            TensorType::Q6K => "q6_k",
            TensorType::Iq4Nl => "iq4_nl",
            TensorType::Iq4Xs => "iq4_xs",
            TensorType::Mxfp4 => "mxfp4",
        }
    }

    /// The type that records and tables call `name`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Elements of a block; 1 for plain elements.
    pub fn block_elements(self) -> usize {
        match self {
            TensorType::F32 | TensorType::F16 | TensorType::Bf16 | TensorType::F8E4M3 => 1,
            TensorType::Q4_0 | TensorType::Q4_1 | TensorType::Q5_0 | TensorType::Q5_1 | TensorType::Q8_0 => 32,
            TensorType::Iq4Nl | TensorType::Mxfp4 => 32,
            TensorType::Q2K | TensorType::Q3K | TensorType::Q4K | TensorType::Q5K | TensorType::Q6K => 256,
            TensorType::Iq4Xs => 256,
        }
    }

    /// Bytes of a block, or of an element where there are no blocks.
    pub fn block_bytes(self) -> usize {
        match self {
            TensorType::F32 => 4,
            TensorType::F16 | TensorType::Bf16 => 2,
            TensorType::F8E4M3 => 1,
            TensorType::Q4_0 | TensorType::Iq4Nl => 18,
            TensorType::Q4_1 => 20,
            TensorType::Q5_0 => 22,
            TensorType::Q5_1 => 24,
            TensorType::Q8_0 => 34,
            TensorType::Q2K => 84,
            TensorType::Q3K => 110,
            TensorType::Q4K => 144,
            TensorType::Q5K => 176,
            TensorType::Q6K => 210,
            TensorType::Iq4Xs => 136,
            TensorType::Mxfp4 => 17,
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
