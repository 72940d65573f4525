//! Tensors of the new file: which weights each holds, and how their rows become its bytes.

use crate::error::{Error, Result};
use crate::model::family::{Holder, Presence};
use crate::model::gguf::type_of;
use crate::model::{Layout, Model, Role, RopeScaling, TensorType, Weight, WeightKey, quant};
use rayon::prelude::*;
use std::collections::BTreeSet;

/// A tensor of the new file.
#[derive(Debug)]
pub(super) struct Tensor<'a> {
    pub(super) name: String,
    pub(super) role: Role,
    /// Outermost axis first.
    pub(super) shape: Vec<usize>,
    pub(super) tensor_type: TensorType,
    source: Source<'a>,
}

#[derive(Debug)]
enum Source<'a> {
    /// Weights one below the other; of vectors, one behind the other.
    Weights(Vec<Part<'a>>),
    /// Values that the source has in other words.
    Values(Vec<f32>),
}

/// A weight in a tensor.
#[derive(Debug)]
struct Part<'a> {
    weight: &'a Weight,
    layout: Layout,
    /// Added to every element.
    offset: f32,
}

/// Buffers for one row, reused.
#[derive(Default)]
struct Scratch {
    values: Vec<f32>,
    ordered: Vec<f32>,
}

/// The tensors that hold all weights of `model`: in the order of a GGUF source's data, else in that of the family's
/// table.
///
/// # Errors
/// Unsupported where the family's files have no place for a weight, where they need one that the model has not, or where
/// rows are no whole blocks.
pub(super) fn plan<'a>(model: &'a Model, holders: Vec<Holder>, matrices: TensorType) -> Result<Vec<Tensor<'a>>> {
    let mut tensors = Vec::new();
    let mut placed = BTreeSet::new();
    for holder in holders {
        let Some(source) = source(model, &holder)? else { continue };
        placed.extend(holder.parts.iter().map(|(key, _)| *key));
        let Holder { name, role, shape, .. } = holder;
        let tensor_type = type_of(role, matrices);
        let tensor = Tensor { name, role, shape, tensor_type, source };
        tensor.check()?;
        tensors.push(tensor);
    }
    if model.hyper().tied_embeddings {
        placed.insert(WeightKey::outside(Role::Output));
    }
    if let Some(stray) = model.weights().find(|weight| !placed.contains(&weight.key)) {
        let name = model.architecture().gguf();
        return Err(
            Error::unsupported(format!("GGUF files of {name} have no place for this weight")).of(&stray.stored_name)
        );
    }
    // Stable: tensors of other formats keep the order of the table.
    if model.format() == crate::model::Format::Gguf {
        tensors.sort_by_key(Tensor::place);
    }
    Ok(tensors)
}

/// Where the values of a tensor come from; `None` for one that the model does without.
fn source<'a>(model: &'a Model, holder: &Holder) -> Result<Option<Source<'a>>> {
    let hyper = model.hyper();
    if let (Role::RopeFactors, Some(factors)) = (holder.role, rope_factors(model)) {
        return Ok(Some(Source::Values(factors)));
    }
    let mut parts = Vec::new();
    for (key, layout) in &holder.parts {
        match model.get(*key) {
            Some(weight) => {
                parts.push(Part { weight, layout: *layout, offset: hyper.offset_of(key.role) });
            }
            None if holder.presence == Presence::Optional => return Ok(None),
            None => {
                let name = model.architecture().gguf();
                return Err(Error::unsupported(format!(
                    "GGUF files of {name} need it as {key}, and the model has none"
                ))
                .of(&holder.name));
            }
        }
    }
    Ok(Some(Source::Weights(parts)))
}

/// Divisors of the rotary frequencies, where the model has a formula for them: GGUF files hold them as a tensor.
fn rope_factors(model: &Model) -> Option<Vec<f32>> {
    let rope = model.hyper().rope.filter(|rope| matches!(rope.scaling, RopeScaling::Llama3 { .. }))?;
    let plain = crate::model::RopeParameters { scaling: RopeScaling::None, ..rope };
    let frequencies = plain.frequencies(&[]).into_iter().zip(rope.frequencies(&[]));
    Some(frequencies.map(|(plain, scaled)| (plain / scaled) as f32).collect())
}

impl Tensor<'_> {
    /// Refuses rows that are no whole blocks, and parts that do not fill the shape.
    fn check(&self) -> Result<()> {
        let columns = self.columns();
        if self.tensor_type.row_bytes(columns).is_err() {
            let block = self.tensor_type.block_elements();
            let name = self.tensor_type.name();
            return Err(Error::unsupported(format!(
                "its rows have {columns} elements, which {name}'s blocks of {block} do not divide: choose f16, bf16 or f32"
            ))
            .of(&self.name));
        }
        let elements = |tensor: &[usize]| tensor.iter().fold(1usize, |product, axis| product.saturating_mul(*axis));
        let held = match &self.source {
            Source::Values(values) => values.len(),
            Source::Weights(parts) => {
                parts.iter().map(|part| part.weight.rows.saturating_mul(part.weight.columns)).sum()
            }
        };
        match held == elements(&self.shape) {
            true => Ok(()),
            false => {
                Err(Error::internal(format!("{held} elements do not fill the shape {:?}", self.shape)).of(&self.name))
            }
        }
    }

    /// Where the source has it.
    fn place(&self) -> (usize, u64) {
        match &self.source {
            Source::Weights(parts) => parts.first().map_or((0, 0), |part| (part.weight.file, part.weight.offset)),
            Source::Values(_) => (usize::MAX, 0),
        }
    }

    /// Elements of a row. A vector is as many rows as it has parts.
    fn columns(&self) -> usize {
        match &self.source {
            Source::Weights(parts) => parts.first().map_or(0, |part| part.weight.columns),
            Source::Values(values) => values.len(),
        }
    }

    /// Bytes of a row.
    pub(super) fn row_bytes(&self) -> Result<usize> {
        self.tensor_type.row_bytes(self.columns())
    }

    /// Makes the bytes of the rows from `first` on, as many as fill `out`, on all threads of the pool.
    ///
    /// # Errors
    /// Unsupported, with the row, for a value that the type cannot hold.
    pub(super) fn fill(&self, first: usize, out: &mut [u8]) -> Result<()> {
        let rows = out.par_chunks_mut(self.row_bytes()?.max(1)).enumerate();
        rows.try_for_each_init(Scratch::default, |scratch, (row, out)| {
            self.row(first + row, scratch, out).map_err(|error| self.in_row(first + row, error))
        })
    }

    fn in_row(&self, row: usize, error: Error) -> Error {
        match self.shape.len() {
            1 => error,
            _ => Error::new(error.kind(), format!("row {row}")).because(error),
        }
    }

    fn row(&self, row: usize, scratch: &mut Scratch, out: &mut [u8]) -> Result<()> {
        let parts = match &self.source {
            Source::Values(values) => return quant::encode(self.tensor_type, values, out),
            Source::Weights(parts) => parts,
        };
        let mut rest = row;
        for part in parts {
            match rest.checked_sub(part.weight.rows) {
                Some(further) => rest = further,
                None => return part.row(rest, self.tensor_type, scratch, out),
            }
        }
        Err(Error::internal(format!("row {row} is beyond the last")))
    }
}

impl Part<'_> {
    /// Row `row` of the weight as the file stores it.
    fn row(&self, row: usize, tensor_type: TensorType, scratch: &mut Scratch, out: &mut [u8]) -> Result<()> {
        let pairs = matches!(self.layout, Layout::HeadPairs { .. });
        let vector = !self.weight.key.role.is_matrix();
        let canonical = if pairs && !vector { self.canonical(row)? } else { row };
        let stays = self.weight.tensor_type == tensor_type && self.offset == 0.0 && !(pairs && vector);
        if let Some(bytes) = self.weight.row_bytes(canonical).filter(|bytes| stays && bytes.len() == out.len()) {
            out.copy_from_slice(bytes);
            return Ok(());
        }
        let Scratch { values, ordered } = scratch;
        values.resize(self.weight.columns, 0.0);
        self.weight.dequantize_row(canonical, values)?;
        if self.offset != 0.0 {
            values.iter_mut().for_each(|value| *value += self.offset);
        }
        if !(pairs && vector) {
            return quant::encode(tensor_type, values, out);
        }
        ordered.clear();
        for element in 0..values.len() {
            let value = values.get(self.canonical(element)?).copied();
            ordered.push(value.ok_or_else(|| Error::internal(format!("element {element} is nowhere")))?);
        }
        quant::encode(tensor_type, ordered, out)
    }

    fn canonical(&self, stored: usize) -> Result<usize> {
        self.layout.canonical(stored).ok_or_else(|| Error::internal(format!("row {stored} is no row of the weight")))
    }
}
