//! Copies of a GGUF file with one weight broken in place, in whatever type it is stored.

use super::plant::Damage;
use super::quantise::{F16, FORMATS, Format, Q4_K, Q6_K, Q8_0};
use super::safetensors::Tensor;
use actrace::model::{Model, Weight, WeightKey};
use std::path::Path;

/// What is done to a weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Breakage {
    /// Its values, before they are quantised again.
    Values(Damage),
    /// A vector of zeros: left out.
    LeftOut,
    /// A vector times 2: added twice.
    Twice,
    /// One element of a vector times 1.02.
    OneElement,
    /// An element, or the scale of a block, is this.
    Scalar(f32),
    /// Rows `0` and `1` of the given numbers are exchanged.
    ExchangedRows(usize, usize),
}

/// Writes a copy of `model`'s file to `path` with `breakage` of `key`.
pub fn write(model: &Model, path: &Path, key: WeightKey, breakage: Breakage) {
    let mut bytes = std::fs::read(model.path()).unwrap();
    patch(&mut bytes, model.weight(key).unwrap(), breakage);
    std::fs::write(path, bytes).unwrap();
}

/// Writes a copy in which the weights `one` and `other`, of one shape, are exchanged.
pub fn write_exchanged(model: &Model, path: &Path, one: WeightKey, other: WeightKey) {
    let mut bytes = std::fs::read(model.path()).unwrap();
    let (one, other) = (model.weight(one).unwrap(), model.weight(other).unwrap());
    let (first, second) = (values(one), values(other));
    encode(&mut bytes, one, &second);
    encode(&mut bytes, other, &first);
    std::fs::write(path, bytes).unwrap();
}

fn patch(bytes: &mut [u8], weight: &Weight, breakage: Breakage) {
    let mut tensor = values(weight);
    match breakage {
        Breakage::Values(damage) => encode(bytes, weight, &damage.of(&tensor)),
        Breakage::LeftOut => {
            tensor.values.fill(0.0);
            encode(bytes, weight, &tensor);
        }
        Breakage::Twice => {
            tensor.values.iter_mut().for_each(|value| *value *= 2.0);
            encode(bytes, weight, &tensor);
        }
        Breakage::OneElement => {
            tensor.values[17] *= 1.02;
            encode(bytes, weight, &tensor);
        }
        Breakage::Scalar(value) => scalar(bytes, weight, value),
        Breakage::ExchangedRows(one, other) => {
            let columns = weight.columns;
            for column in 0..columns {
                tensor.values.swap(one * columns + column, other * columns + column);
            }
            encode(bytes, weight, &tensor);
        }
    }
}

/// The canonical values.
fn values(weight: &Weight) -> Tensor {
    let mut values = vec![0.0; weight.rows * weight.columns];
    let rows = values.chunks_exact_mut(weight.columns).enumerate();
    rows.for_each(|(row, out)| weight.dequantize_row(row, out).unwrap());
    Tensor { shape: vec![weight.rows, weight.columns], values }
}

/// Where a row begins in the file.
fn place(weight: &Weight, row: usize) -> std::ops::Range<usize> {
    let stored = weight.row_bytes(row).unwrap();
    let start = weight.offset as usize + (stored.as_ptr() as usize - weight.data.as_ptr() as usize);
    start..start + stored.len()
}

fn encode(bytes: &mut [u8], weight: &Weight, tensor: &Tensor) {
    let name = weight.tensor_type.name();
    for row in 0..weight.rows {
        let stored: Vec<u8> = match name {
            "f32" => tensor.row(row).iter().flat_map(|value| value.to_le_bytes()).collect(),
            _ => {
                let format = format(name);
                let blocks = tensor.row(row).chunks_exact(format.block_elements);
                blocks.flat_map(|block| (format.quantise)(block).0).collect()
            }
        };
        bytes[place(weight, row)].copy_from_slice(&stored);
    }
}

fn format(name: &str) -> &'static Format {
    let known = FORMATS.iter().chain([&F16, &Q8_0, &Q4_K, &Q6_K]);
    known.into_iter().find(|format| format.name == name).unwrap_or_else(|| panic!("no quantiser of {name}"))
}

/// The first element of row 3 (of a vector: element 3), or the scale of the block that it is in.
fn scalar(bytes: &mut [u8], weight: &Weight, value: f32) {
    let row = 3.min(weight.rows - 1);
    let place = place(weight, row).start;
    let half = half::f16::from_f32(value).to_le_bytes();
    match weight.tensor_type.name() {
        "f32" => bytes[place + 12..place + 16].copy_from_slice(&value.to_le_bytes()),
        "q6_k" => bytes[place + 208..place + 210].copy_from_slice(&half),
        _ => bytes[place..place + 2].copy_from_slice(&half),
    }
}
