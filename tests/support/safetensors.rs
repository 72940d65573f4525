//! A small reader of safetensors files: everything as f32, in memory.

use std::collections::BTreeMap;
use std::path::Path;

use half::{bf16, f16};
use serde_json::Value;

/// A tensor in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

impl Tensor {
    /// Row `index` of a tensor seen as rows of its last axis.
    pub fn row(&self, index: usize) -> &[f32] {
        let width = *self.shape.last().unwrap();
        &self.values[index * width..(index + 1) * width]
    }

    /// The first `count` entries of the first axis.
    pub fn head(&self, count: usize) -> &[f32] {
        let each: usize = self.shape[1..].iter().product();
        &self.values[..count * each]
    }
}

/// Every tensor of a file by name.
///
/// A file that `trim.py` made leaves out sums of two of its tensors; its metadata lists them under
/// `sums` as `[node, left, right]`, and they are added back here (one f32 addition an element, as
/// the engine did it). A bias is the right side of width one row, under `bias:NODE`.
pub fn read(path: &Path) -> BTreeMap<String, Tensor> {
    let raw = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (length, rest) = raw.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(usize::try_from(u64::from_le_bytes(*length)).unwrap());
    let header: BTreeMap<String, Value> = serde_json::from_slice(header).unwrap();
    let mut tensors = BTreeMap::new();
    for (name, info) in &header {
        if name != "__metadata__" {
            tensors.insert(name.clone(), tensor(info, data));
        }
    }
    if let Some(sums) = header.get("__metadata__").and_then(|m| m["sums"].as_str()) {
        add_sums(&mut tensors, sums);
    }
    tensors
}

/// Writes tensors as a file of F32.
pub fn write(path: &Path, tensors: &BTreeMap<String, Tensor>) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, Tensor { shape, values }) in tensors {
        let start = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let info = serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, data.len()] });
        header.insert(name.clone(), info);
    }
    let header = serde_json::to_vec(&header).unwrap();
    std::fs::write(path, [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()).unwrap();
}

fn tensor(info: &Value, data: &[u8]) -> Tensor {
    let sizes = |key: &str| -> Vec<usize> { serde_json::from_value(info[key].clone()).unwrap() };
    let (shape, offsets) = (sizes("shape"), sizes("data_offsets"));
    let bytes = &data[offsets[0]..offsets[1]];
    let values: Vec<f32> = match info["dtype"].as_str().unwrap() {
        "F32" => each(bytes, f32::from_le_bytes),
        "F16" => each(bytes, |b| f16::from_le_bytes(b).to_f32()),
        "BF16" => each(bytes, |b| bf16::from_le_bytes(b).to_f32()),
        other => panic!("dtype {other}"),
    };
    assert_eq!(values.len(), shape.iter().product::<usize>());
    Tensor { shape, values }
}

fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    let (chunks, rest) = bytes.as_chunks::<N>();
    assert!(rest.is_empty());
    chunks.iter().map(|&chunk| value(chunk)).collect()
}

fn add_sums(tensors: &mut BTreeMap<String, Tensor>, sums: &str) {
    let sums: Vec<[String; 3]> = serde_json::from_str(sums).unwrap();
    for [node, left, right] in sums {
        let (left, right) = (&tensors[&left], &tensors[&right]);
        assert_eq!(left.shape.last(), right.shape.last(), "{node}");
        let values = left.values.iter().zip(right.values.iter().cycle());
        let sum = Tensor { shape: left.shape.clone(), values: values.map(|(l, r)| l + r).collect() };
        tensors.insert(node, sum);
    }
    tensors.retain(|name, _| !name.starts_with("bias:"));
}
