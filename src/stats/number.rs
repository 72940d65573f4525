//! f32 and f64 as statistics look at them: as numbers, and as bits whose order is that of the magnitudes.

use super::fingerprint::fingerprint;
use crate::tensor::Element;

/// An element that statistics can be taken of.
pub trait Number: Element + PartialOrd {
    /// An integer of its size.
    type Bits: Word;
    /// Zero.
    const ZERO: Self;
    /// Positive infinity.
    const INFINITY: Self;
    /// Negative infinity.
    const NEG_INFINITY: Self;
    /// A NaN.
    const NAN: Self;
    /// Magnitude of the infinities; that of a NaN is larger.
    const INFINITE: Self::Bits;
    /// Bits of negative infinity.
    const MINUS_INFINITE: Self::Bits;
    /// Magnitude of the smallest number that is no subnormal.
    const SMALLEST_NORMAL: Self::Bits;
    /// How many magnitudes are those of subnormals.
    const SUBNORMALS: Self::Bits;

    /// Neither NaN nor infinite.
    fn is_finite(self) -> bool;

    /// All bits.
    fn bits(self) -> Self::Bits;

    /// The bits without the sign.
    fn magnitude(self) -> Self::Bits;

    /// The positive number of a magnitude.
    fn of_magnitude(magnitude: Self::Bits) -> Self;

    /// Fingerprint of a row: of the bits of f32, and of both halves of f64, the lower first.
    fn fingerprint(row: &[Self]) -> u64;
}

/// Bits.
pub trait Word: Copy + Ord {
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// The largest.
    const MAX: Self;

    /// `self - other`, around the end.
    fn less(self, other: Self) -> Self;
}

macro_rules! number {
    ($number:ident, $word:ident, $row:ident => $words:expr) => {
        impl Word for $word {
            const ZERO: Self = 0;
            const ONE: Self = 1;
            const MAX: Self = $word::MAX;

            #[inline(always)]
            fn less(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
        }

        impl Number for $number {
            type Bits = $word;
            const ZERO: Self = 0.0;
            const INFINITY: Self = $number::INFINITY;
            const NEG_INFINITY: Self = $number::NEG_INFINITY;
            const NAN: Self = $number::NAN;
            const INFINITE: $word = $number::INFINITY.to_bits();
            const MINUS_INFINITE: $word = $number::NEG_INFINITY.to_bits();
            const SUBNORMALS: $word = $number::MIN_POSITIVE.to_bits() - 1;
            const SMALLEST_NORMAL: $word = $number::MIN_POSITIVE.to_bits();

            #[inline(always)]
            fn is_finite(self) -> bool {
                self.abs() < $number::INFINITY
            }

            #[inline(always)]
            fn bits(self) -> $word {
                self.to_bits()
            }

            #[inline(always)]
            fn magnitude(self) -> $word {
                self.to_bits() & ($word::MAX >> 1)
            }

            #[inline(always)]
            fn of_magnitude(magnitude: $word) -> Self {
                $number::from_bits(magnitude)
            }

            #[inline(always)]
            fn fingerprint($row: &[Self]) -> u64 {
                fingerprint($words)
            }
        }
    };
}

number!(f32, u32, row => row.iter().map(|value| value.to_bits()));
number!(f64, u64, row => row.iter().flat_map(|value| {
    let bits = value.to_bits();
    [bits as u32, (bits >> 32) as u32]
}));
