//! The step of a quantised element: how far the values that its block can hold lie apart where it lies.
//!
//! Rounding to the nearest such value is off by half a step at most, so an error in steps says what an error in numbers
//! cannot: whether the quantiser explains it. Most types are a grid, `scale * q` and perhaps a minimum, whose step is
//! the scale. Those with a table have a step for each of its entries.

use super::codebook::{E2M1_DOUBLED, NON_LINEAR};
use super::{Iq4Nl, Iq4Xs, Mxfp4, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0, blocks, scale_mins};
use crate::error::{Error, Result};
use crate::model::TensorType;

/// Consecutive elements that share a scale; `None` for plain elements, which have no step.
pub fn scale_elements(tensor_type: TensorType) -> Option<usize> {
    match tensor_type {
        TensorType::F32 | TensorType::F16 | TensorType::Bf16 | TensorType::F8E4M3 => None,
        TensorType::Q2K | TensorType::Q3K | TensorType::Q6K => Some(16),
        TensorType::Q4_0 | TensorType::Q4_1 | TensorType::Q5_0 | TensorType::Q5_1 | TensorType::Q8_0 => Some(32),
        TensorType::Q4K | TensorType::Q5K | TensorType::Iq4Nl | TensorType::Iq4Xs | TensorType::Mxfp4 => Some(32),
    }
}

/// The scale, with its sign, of each [`scale_elements`] elements of whole blocks.
///
/// # Errors
/// Internal where `out` has another length, or the type no scales.
pub fn scales(tensor_type: TensorType, packed: &[u8], out: &mut [f32]) -> Result<()> {
    let elements = scale_elements(tensor_type).and_then(|shared| out.len().checked_mul(shared));
    if elements.is_none_or(|elements| tensor_type.row_bytes(elements).ok() != Some(packed.len())) {
        return Err(Error::internal(format!(
            "{} bytes of {} do not hold {} scales",
            packed.len(),
            tensor_type.name(),
            out.len()
        )));
    }
    match tensor_type {
        TensorType::F32 | TensorType::F16 | TensorType::Bf16 | TensorType::F8E4M3 => {}
        TensorType::Q4_0 => blocks(packed, out, |block, out: &mut [f32; 1]| *out = [Q4_0::parse(block).d]),
        TensorType::Q4_1 => blocks(packed, out, |block, out: &mut [f32; 1]| *out = [Q4_1::parse(block).d]),
        TensorType::Q5_0 => blocks(packed, out, |block, out: &mut [f32; 1]| *out = [Q5_0::parse(block).d]),
        TensorType::Q5_1 => blocks(packed, out, |block, out: &mut [f32; 1]| *out = [Q5_1::parse(block).d]),
        TensorType::Q8_0 => blocks(packed, out, |block, out: &mut [f32; 1]| *out = [Q8_0::parse(block).scale]),
        TensorType::Iq4Nl => blocks(packed, out, |block, out: &mut [f32; 1]| *out = [Iq4Nl::parse(block).d]),
        TensorType::Mxfp4 => blocks(packed, out, |block, out: &mut [f32; 1]| *out = [Mxfp4::parse(block).d]),
        TensorType::Q2K => blocks(packed, out, |block, out: &mut [f32; 16]| {
            let block = Q2K::parse(block);
            *out = block.scales.map(|scales| block.d * f32::from(scales & 15));
        }),
        TensorType::Q3K => blocks(packed, out, |block, out: &mut [f32; 16]| {
            let block = Q3K::parse(block);
            *out = block.scales().map(|scale| block.d * f32::from(scale));
        }),
        TensorType::Q4K => blocks(packed, out, |block, out: &mut [f32; 8]| {
            let block = Q4K::parse(block);
            *out = scale_mins(block.scales).map(|pair| block.d * f32::from(pair.scale));
        }),
        TensorType::Q5K => blocks(packed, out, |block, out: &mut [f32; 8]| {
            let block = Q5K::parse(block);
            *out = scale_mins(block.scales).map(|pair| block.d * f32::from(pair.scale));
        }),
        TensorType::Q6K => blocks(packed, out, |block, out: &mut [f32; 16]| {
            let block = Q6K::parse(block);
            *out = block.scales.map(|scale| block.d * f32::from(scale.cast_signed()));
        }),
        TensorType::Iq4Xs => blocks(packed, out, |block, out: &mut [f32; 8]| {
            let block = Iq4Xs::parse(block);
            *out = block.scales().map(|scale| block.d * f32::from(scale));
        }),
    }
    Ok(())
}

/// The step of the element `value` under `scale`: the larger of its distances to the values beside it that the block
/// can hold. 0 under a scale of 0, where the block holds one value only.
pub fn step(tensor_type: TensorType, scale: f32, value: f32) -> f32 {
    let gaps = match tensor_type {
        TensorType::Iq4Nl | TensorType::Iq4Xs => gap(&NON_LINEAR, value / scale),
        TensorType::Mxfp4 => gap(&E2M1_ASCENDING, value / scale),
        _ => 1.0,
    };
    if scale == 0.0 { 0.0 } else { scale.abs() * gaps }
}

/// The distinct values of [`E2M1_DOUBLED`], which has a zero of either sign, in order.
const E2M1_ASCENDING: [i8; 15] = {
    let mut ascending = [0; 15];
    let mut i = 0;
    while i < 8 {
        ascending[7 - i] = -E2M1_DOUBLED[i];
        ascending[7 + i] = E2M1_DOUBLED[i];
        i += 1;
    }
    ascending
};

/// The larger distance of the entry nearest to `code` from its neighbours in an ascending table.
fn gap(table: &[i8], code: f32) -> f32 {
    // Codes are whole but for the rounding of the product that they come from.
    let at = table.partition_point(|entry| f32::from(*entry) < code - 0.5).min(table.len() - 1);
    let distance = |pair: &[i8]| f32::from(pair[1]) - f32::from(pair[0]);
    let first = at.saturating_sub(1);
    table[first..table.len().min(at + 2)].windows(2).map(distance).fold(0.0, f32::max)
}

/// The step of every element of whole blocks.
///
/// # Errors
/// Internal where the lengths do not agree, or the type has no steps.
pub fn steps(tensor_type: TensorType, packed: &[u8], out: &mut [f32]) -> Result<()> {
    super::dequantize(tensor_type, packed, out)?;
    let shared = scale_elements(tensor_type)
        .ok_or_else(|| Error::internal(format!("elements of {} have no step", tensor_type.name())))?;
    let mut under = vec![0.0; out.len() / shared];
    scales(tensor_type, packed, &mut under)?;
    for (group, scale) in out.chunks_mut(shared).zip(under) {
        for value in group {
            *value = step(tensor_type, scale, *value);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    macro_rules! fixture {
        ($tensor_type:expr, $name:literal) => {
            (
                $tensor_type,
                include_bytes!(concat!("../../../tests/fixtures/quant/", $name, ".blocks")).as_slice(),
                include_bytes!(concat!("../../../tests/fixtures/quant/", $name, ".steps")).as_slice(),
            )
        };
    }

    /// The fixture has, for each element, the larger distance to the values beside it among all that the `gguf` package
    /// makes of the block when the element's code runs through all codes, and the largest magnitude among them. A value
    /// is off by three roundings of its f32 products and sums at most, 1.5 units of 2^-23 of that magnitude; a distance
    /// by those of two values.
    #[test]
    fn steps_are_the_distances_between_values_of_the_gguf_package() {
        let fixtures = [
            fixture!(TensorType::Q4_0, "q4_0"),
            fixture!(TensorType::Q4_1, "q4_1"),
            fixture!(TensorType::Q5_0, "q5_0"),
            fixture!(TensorType::Q5_1, "q5_1"),
            fixture!(TensorType::Q8_0, "q8_0"),
            fixture!(TensorType::Q2K, "q2_k"),
            fixture!(TensorType::Q3K, "q3_k"),
            fixture!(TensorType::Q4K, "q4_k"),
            fixture!(TensorType::Q5K, "q5_k"),
            fixture!(TensorType::Q6K, "q6_k"),
            fixture!(TensorType::Iq4Nl, "iq4_nl"),
            fixture!(TensorType::Iq4Xs, "iq4_xs"),
            fixture!(TensorType::Mxfp4, "mxfp4"),
        ];
        let quantised = TensorType::ALL.into_iter().filter(|kind| scale_elements(*kind).is_some());
        assert_eq!(fixtures.len(), quantised.count());
        for (tensor_type, packed, expected) in fixtures {
            let expected: Vec<f32> = expected.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            let pairs = expected.as_chunks::<2>().0;
            let mut found = vec![f32::NAN; pairs.len()];
            let blocks = pairs.len() / tensor_type.block_elements();
            steps(tensor_type, &packed[..blocks * tensor_type.block_bytes()], &mut found).unwrap();
            for (i, (found, [gap, magnitude])) in found.iter().zip(pairs).enumerate() {
                let tolerance = 3.0 * f64::from(f32::EPSILON) * f64::from(*magnitude);
                let error = (f64::from(*found) - f64::from(*gap)).abs();
                assert!(error <= tolerance, "{} element {i}: {found}, not {gap}", tensor_type.name());
            }
        }
    }

    proptest! {
        #[test]
        fn every_block_of_every_type_has_steps(bytes in prop::collection::vec(any::<u8>(), 256)) {
            for tensor_type in TensorType::ALL {
                let mut out = vec![0.0; tensor_type.block_elements()];
                let found = steps(tensor_type, &bytes[..tensor_type.block_bytes()], &mut out);
                prop_assert_eq!(found.is_ok(), scale_elements(tensor_type).is_some());
            }
        }
    }

    #[test]
    fn an_entry_of_a_table_steps_to_its_farther_neighbour() {
        assert_eq!(step(TensorType::Iq4Nl, 2.0, 2.0 * 89.0), 2.0 * 24.0);
        assert_eq!(step(TensorType::Iq4Nl, 1.0, 113.0), 24.0);
        assert_eq!(step(TensorType::Iq4Nl, -1.0, 127.0), 23.0);
        assert_eq!(step(TensorType::Mxfp4, 0.5, 0.0), 0.5);
        assert_eq!(step(TensorType::Mxfp4, 0.5, -4.0 * 0.5), 1.0);
        assert_eq!(step(TensorType::Mxfp4, 0.5, f32::INFINITY), 2.0, "beyond the table is its end");
        assert_eq!(step(TensorType::Q8_0, 0.0, 0.0), 0.0);
        assert_eq!(step(TensorType::Iq4Nl, 0.0, 0.0), 0.0);
    }

    #[test]
    fn lengths_that_do_not_agree_and_plain_types_are_refused() {
        assert!(scales(TensorType::Q4K, &[0; 144], &mut [0.0; 7]).is_err());
        assert!(scales(TensorType::F16, &[0; 2], &mut [0.0; 1]).is_err());
        assert!(steps(TensorType::F32, &[0; 4], &mut [0.0; 1]).is_err());
    }
}
