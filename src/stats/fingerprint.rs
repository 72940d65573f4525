//! Fingerprints: 64 bits that depend on every value of a tensor and on its place, and add up in any order.
//!
//! Processors and cards sum in different orders and come to the same number, so that equality of two
//! tensors can be asked without moving either. It guards against accidents, not against forgery.

/// Step of the per-column mask, the golden ratio in 32 bits.
const MASK_STEP: u32 = 0x9E37_79B1;
/// Step and start of the per-column factor.
const FACTOR_STEP: u32 = 0x85EB_CA77;
const FACTOR_START: u32 = 0xC2B2_AE3D;

/// Fingerprint of one row: the sum, modulo 2^64, of `(bits ^ mask(c)) * factor(c)` over the columns `c`.
///
/// `mask(c) = c * 0x9E3779B1` and `factor(c) = (c * 0x85EBCA77 + 0xC2B2AE3D) | 1`, both modulo 2^32; the
/// product is 32 x 32 -> 64 bits. The factor is odd, so a change of a single element always shows. The
/// bit patterns are taken: `-0.0` differs from `0.0`, and one NaN from another.
pub fn row_fingerprint(row: &[f32]) -> u64 {
    fingerprint(row.iter().map(|value| value.to_bits()))
}

/// [`row_fingerprint`] of bits, to be compiled into its caller and for its caller's instruction set.
#[inline(always)]
pub(super) fn fingerprint(row: impl Iterator<Item = u32>) -> u64 {
    let mut sum = 0u64;
    let (mut mask, mut factor) = (0u32, FACTOR_START);
    for bits in row {
        let mixed = u64::from(bits ^ mask).wrapping_mul(u64::from(factor | 1));
        sum = sum.wrapping_add(mixed);
        mask = mask.wrapping_add(MASK_STEP);
        factor = factor.wrapping_add(FACTOR_STEP);
    }
    sum
}

/// Fingerprint of a tensor: the sum, modulo 2^64, of each row's fingerprint mixed with its position.
///
/// The mix is the finaliser of splitmix64 over both, so exchanged rows show.
pub fn tensor_fingerprint(rows: impl IntoIterator<Item = (u64, u64)>) -> u64 {
    rows.into_iter().fold(0, |sum, (position, row)| sum.wrapping_add(mix(position, row)))
}

/// Fingerprint of a token prefix from that of the prefix before its last token; the empty prefix is 0.
pub fn prefix_fingerprint(before: u64, token: u32) -> u64 {
    mix(before, u64::from(token))
}

fn mix(position: u64, row: u64) -> u64 {
    let mut z = row.wrapping_add(position.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_formula_column_by_column() {
        let row = [1.5f32, -0.0, f32::NAN, 3.0e-39, 7.25];
        let by_column: u64 = (0u32..)
            .zip(row)
            .map(|(c, value)| {
                let mask = c.wrapping_mul(0x9E37_79B1);
                let factor = c.wrapping_mul(0x85EB_CA77).wrapping_add(0xC2B2_AE3D) | 1;
                u64::from(value.to_bits() ^ mask).wrapping_mul(u64::from(factor))
            })
            .fold(0, u64::wrapping_add);
        assert_eq!(row_fingerprint(&row), by_column);
    }

    #[test]
    fn every_single_change_shows() {
        let row: Vec<f32> = (0..300).map(|i| (i as f32).sin()).collect();
        let clean = row_fingerprint(&row);
        for column in [0, 1, 7, 150, 299] {
            for bit in 0..32 {
                let mut changed = row.clone();
                changed[column] = f32::from_bits(row[column].to_bits() ^ (1 << bit));
                assert_ne!(row_fingerprint(&changed), clean, "column {column}, bit {bit}");
            }
        }
    }

    #[test]
    fn exchanged_columns_and_rows_show() {
        assert_ne!(row_fingerprint(&[1.0, 2.0]), row_fingerprint(&[2.0, 1.0]));
        assert_ne!(tensor_fingerprint([(0, 5), (1, 9)]), tensor_fingerprint([(0, 9), (1, 5)]));
        assert_eq!(tensor_fingerprint([(0, 5), (1, 9)]), tensor_fingerprint([(1, 9), (0, 5)]));
    }
}
