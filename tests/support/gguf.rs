//! Rebuilds llama.cpp's GGUF files from the safetensors, byte for byte.
//!
//! The tree holds each file's header, the scales of its K-quants and its blake3
//! (`tests/fixtures/gguf`); all other bytes follow from the weights. The rounding is that of ggml's
//! reference quantisers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use half::f16;
use serde::Deserialize;

use super::safetensors::{self, Tensor};

#[derive(Deserialize)]
struct Recipe {
    bytes: usize,
    blake3: String,
    tensors: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    transposed: bool,
    #[serde(rename = "type")]
    kind: String,
    offset: usize,
}

/// Path of the rebuilt file `MODEL.TYPE.gguf`; built once and kept beside the test binaries.
pub fn rebuilt(name: &str) -> PathBuf {
    let mut recipes: BTreeMap<String, Recipe> = serde_json::from_slice(&unpacked("recipes", "json")).unwrap();
    let recipe = recipes.remove(name).unwrap_or_else(|| panic!("no recipe for {name}"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("models");
    let path = folder.join(format!("{name}.gguf"));
    if std::fs::read(&path).is_ok_and(|bytes| digest(&bytes) == recipe.blake3) {
        return path;
    }
    let bytes = build(name, &recipe);
    assert_eq!(digest(&bytes), recipe.blake3, "{name} differs from llama.cpp's file");
    std::fs::create_dir_all(&folder).unwrap();
    super::write_once(&path, &bytes);
    path
}

fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// The bytes of the file.
fn build(name: &str, recipe: &Recipe) -> Vec<u8> {
    let weights = safetensors::read(&super::model(&of_safetensors(name)).join("model.safetensors"));
    let mut file = unpacked(name, "header");
    let has_scales = recipe.tensors.iter().any(|t| t.kind.ends_with("_K"));
    let scales = if has_scales { unpacked(name, "scales") } else { Vec::new() };
    let mut scales = scales.as_slice();
    for entry in &recipe.tensors {
        let weight = &weights[&entry.name];
        let values = if entry.transposed { transpose(weight) } else { weight.values.clone() };
        file.resize(entry.offset, 0);
        match entry.kind.as_str() {
            "F32" => file.extend(values.iter().flat_map(|x| x.to_le_bytes())),
            "F16" => file.extend(values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes())),
            "Q8_0" => values.as_chunks().0.iter().for_each(|b| q8_0(b, &mut file)),
            "Q4_K" => values.as_chunks().0.iter().for_each(|b| q4_k(b, take(&mut scales), &mut file)),
            "Q6_K" => values.as_chunks().0.iter().for_each(|b| q6_k(b, take(&mut scales), &mut file)),
            other => panic!("type {other}"),
        }
    }
    assert!(scales.is_empty());
    file.resize(recipe.bytes, 0);
    file
}

fn of_safetensors(name: &str) -> String {
    let (model, _) = name.split_once('.').unwrap();
    format!("{model}.safetensors")
}

fn unpacked(name: &str, part: &str) -> Vec<u8> {
    std::fs::read(super::fixture(&format!("gguf/{name}.{part}"))).unwrap()
}

fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> &'a [u8; N] {
    let (first, rest) = bytes.split_first_chunk().unwrap();
    *bytes = rest;
    first
}

fn transpose(weight: &Tensor) -> Vec<f32> {
    let [rows, columns] = weight.shape[..] else { panic!("shape {:?}", weight.shape) };
    let at = |column: usize, row: usize| weight.values[row * columns + column];
    (0..columns).flat_map(|column| (0..rows).map(move |row| at(column, row))).collect()
}

/// 32 values: d as f16, then 32 quants of 8 bits; half steps round away from zero.
fn q8_0(x: &[f32; 32], file: &mut Vec<u8>) {
    let absmax = x.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    let d = absmax / 127.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    file.extend(f16::from_f32(d).to_le_bytes());
    file.extend(x.iter().map(|v| (v * inverse).round() as i8 as u8));
}

/// 256 values in 8 groups: d and dmin as f16, 8 scales and 8 mins of 6 bits packed in 12 bytes, then
/// the 4-bit quants, two groups to 32 bytes.
fn q4_k(x: &[f32; 256], scales: &[u8; 16], file: &mut Vec<u8>) {
    let d = f16::from_le_bytes([scales[0], scales[1]]).to_f32();
    let dmin = f16::from_le_bytes([scales[2], scales[3]]).to_f32();
    let packed = &scales[4..];
    let quant = |i: usize| {
        let group = i / 32;
        let (scale, min) = if group < 4 {
            (packed[group] & 63, packed[group + 4] & 63)
        } else {
            let (both, scale, min) = (packed[group + 4], packed[group - 4], packed[group]);
            ((both & 15) | (scale >> 6 << 4), (both >> 4) | (min >> 6 << 4))
        };
        let (step, offset) = (d * f32::from(scale), dmin * f32::from(min));
        ((x[i] + offset) / step).round_ties_even().clamp(0.0, 15.0) as u8
    };
    file.extend(scales);
    for pair in 0..4 {
        file.extend((pair * 64..pair * 64 + 32).map(|i| quant(i) | quant(i + 32) << 4));
    }
}

/// 256 values in 16 groups: low 4 bits, high 2 bits, 16 scales of 8 bits, d as f16.
fn q6_k(x: &[f32; 256], scales: &[u8; 18], file: &mut Vec<u8>) {
    let d = f16::from_le_bytes([scales[16], scales[17]]).to_f32();
    let quant = |i: usize| {
        let step = d * f32::from(scales[i / 16] as i8);
        ((x[i] / step).round_ties_even().clamp(-32.0, 31.0) + 32.0) as u8
    };
    for half in [0, 128] {
        file.extend((half..half + 64).map(|i| (quant(i) & 15) | (quant(i + 64) & 15) << 4));
    }
    for half in [0, 128] {
        let high = |i: usize, quarter: usize| quant(i + 32 * quarter) >> 4 << (2 * quarter);
        file.extend((half..half + 32).map(|i| high(i, 0) | high(i, 1) | high(i, 2) | high(i, 3)));
    }
    file.extend(scales);
}
