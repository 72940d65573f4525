//! Factors beside a tensor whose elements are stored without them.

use super::quant;
use super::stored::StoredTensor;
use crate::error::{Error, Result};
use std::sync::Arc;

/// The factors of a stored matrix, one for each block of its rows and columns: a value is its element times its factor, in
/// f32. Cheap to clone.
#[derive(Debug, Clone, PartialEq)]
pub struct Scales {
    /// Row by row of blocks.
    factors: Arc<Vec<f32>>,
    /// Rows and columns of a block. The last of a row or column may be cut short.
    block: [usize; 2],
    /// Blocks side by side.
    across: usize,
}

impl Scales {
    /// The factors that `tensor` holds for a matrix of shape `[rows, columns]`, with blocks of `block`.
    ///
    /// # Errors
    /// Malformed where the tensor has another number of blocks.
    pub(super) fn read(tensor: &StoredTensor, [rows, columns]: [usize; 2], block: [usize; 2]) -> Result<Self> {
        let needed = [blocks(rows, block[0])?, blocks(columns, block[1])?];
        let single = tensor.shape.is_empty() || tensor.shape == [1];
        if tensor.shape != needed && !(single && needed == [1, 1]) {
            return Err(Error::malformed(format!(
                "its shape is {:?}, and {rows} x {columns} elements in blocks of {} x {} need {needed:?}",
                tensor.shape, block[0], block[1]
            )));
        }
        let mut factors = vec![0.0; tensor.shape.iter().product()];
        quant::dequantize(tensor.tensor_type, &tensor.data, &mut factors)?;
        Ok(Scales { factors: Arc::new(factors), block, across: needed[1] })
    }

    /// Multiplies the values of stored row `row`; `None` where the matrix has no such row.
    pub(super) fn scale(&self, row: usize, values: &mut [f32]) -> Option<()> {
        let first = row.checked_div(self.block[0])?.checked_mul(self.across)?;
        let factors = self.factors.get(first..first.checked_add(self.across)?)?;
        for (values, factor) in values.chunks_mut(self.block[1]).zip(factors) {
            values.iter_mut().for_each(|value| *value *= factor);
        }
        Some(())
    }
}

fn blocks(length: usize, block: usize) -> Result<usize> {
    if block == 0 {
        return Err(Error::malformed("blocks of 0 elements hold nothing"));
    }
    Ok(length.div_ceil(block))
}

#[cfg(test)]
mod tests {
    use super::super::{Bytes, TensorType};
    use super::*;

    fn scales(shape: &[usize], of: [usize; 2], block: [usize; 2]) -> Result<Scales> {
        let data: Vec<u8> = (1..=shape.iter().product()).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let (shape, data) = (shape.to_vec(), Bytes::from(data));
        let tensor = StoredTensor { tensor_type: TensorType::F32, shape, file: 0, offset: 0, data, scales: None };
        Scales::read(&tensor, of, block)
    }

    fn rows(scales: &Scales, [rows, columns]: [usize; 2]) -> Vec<Vec<f32>> {
        let row = |row| {
            let mut values = vec![1.0; columns];
            scales.scale(row, &mut values).map(|()| values)
        };
        (0..rows).map(|i| row(i).unwrap()).collect()
    }

    /// Row `i`, column `j` has the factor `[i / 2, j / 3]`; the last blocks are cut short on both axes.
    #[test]
    fn each_element_has_the_factor_of_its_block() {
        let scales = scales(&[2, 3], [3, 7], [2, 3]).unwrap();
        let upper = [1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 3.0];
        let lower = [4.0, 4.0, 4.0, 5.0, 5.0, 5.0, 6.0];
        assert_eq!(rows(&scales, [3, 7]), [upper, upper, lower]);
        assert!(scales.scale(4, &mut [1.0; 7]).is_none());
    }

    #[test]
    fn one_factor_may_have_any_shape_of_one_element() {
        for shape in [&[][..], &[1], &[1, 1]] {
            assert_eq!(rows(&scales(shape, [2, 2], [2, 2]).unwrap(), [2, 2]), [[1.0; 2]; 2]);
        }
    }

    #[test]
    fn another_number_of_blocks_is_refused() {
        for (shape, block) in
            [(&[3, 2][..], [2, 3]), (&[6], [2, 3]), (&[1], [2, 3]), (&[2, 3], [0, 3]), (&[2, 3], [2, 0])]
        {
            assert!(scales(shape, [3, 7], block).is_err(), "{shape:?} {block:?}");
        }
    }
}
