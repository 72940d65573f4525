//! Whole runs of models in every block type that no file of another program in the tree has.
//!
//! The shipped model is quantised by the test's own quantisers, which also say what values the blocks stand for; a
//! second file holds these in F32.

use crate::running::{capture, forward, place, prompt, site};
use crate::support::plant::{Stored, TINY_QWEN2, file, renamed};
use crate::support::quantise::{FORMATS, Format};
use crate::support::safetensors::{Tensor, read};
use crate::support::{model, rel_l2};
use actrace::backend::Semantics;
use actrace::model::Model;
use std::collections::BTreeMap;
use std::path::Path;

fn plain(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// tiny-qwen2 with its matrices in blocks of each type, and in F32 with the blocks' values.
pub fn each(mut show: impl FnMut(&Format, &Model, &Model)) {
    let weights: BTreeMap<String, Tensor> = read(&model("tiny-qwen2.safetensors").join("model.safetensors"))
        .into_iter()
        .map(|(name, tensor)| (renamed(&name), tensor))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let (quantised, floats) = (folder.path().join("blocks.gguf"), folder.path().join("values.gguf"));
    for format in &FORMATS {
        write(&weights, format, &quantised, &floats);
        show(format, &Model::open(&quantised).unwrap(), &Model::open(&floats).unwrap());
    }
}

/// Writes the model with its matrices in blocks to `quantised`, and in F32 with the blocks' values to `plain_path`.
fn write(weights: &BTreeMap<String, Tensor>, format: &Format, quantised: &Path, plain_path: &Path) {
    let (mut blocks, mut floats) = (Vec::new(), Vec::new());
    for (name, Tensor { shape, values }) in weights {
        let (mut number, mut data, mut stand_for) = (0, plain(values), values.clone());
        if shape.len() == 2 {
            number = format.number;
            (data, stand_for) = (Vec::new(), Vec::new());
            for block in values.chunks_exact(format.block_elements) {
                let (bytes, values) = (format.quantise)(block);
                data.extend(bytes);
                stand_for.extend(values);
            }
        }
        blocks.push(Stored { name: name.clone(), shape: shape.clone(), number, data });
        floats.push(Stored { name: name.clone(), shape: shape.clone(), number: 0, data: plain(&stand_for) });
    }
    std::fs::write(quantised, file(&blocks, &TINY_QWEN2)).unwrap();
    std::fs::write(plain_path, file(&floats, &TINY_QWEN2)).unwrap();
}

/// dequantize-f32 converts blocks to f32 and runs the kernels of F32 on them, so every point of both runs has the same
/// bits: in prefill, where rows share a conversion, and in decoding.
///
/// In ggml semantics the first product has the same input in both, but rounded to 8 bits with a step of at most a 127th
/// of the largest of 256 values. Uniform rounding errors have a norm of step / sqrt(12); a largest value of up to 4
/// standard deviations makes that 4 / 127 / 3.46 = 0.9 per cent of the input, and the product's error alike. Twice that
/// is allowed; nothing at all would be f32 again.
#[test]
fn a_quantised_model_runs_as_its_values_in_f32_do() {
    each(|format, model, values| {
        assert_eq!(model.weight_type().name(), format.name);
        let mut forward_values = forward(values, Semantics::DequantizeF32);
        let (expected, tokens) = capture(&mut forward_values, &prompt(), 3);
        let (found, same_tokens) = capture(&mut forward(model, Semantics::DequantizeF32), &prompt(), 3);
        assert_eq!(tokens.tokens, same_tokens.tokens, "{}", format.name);
        assert_eq!(expected.rows.len(), found.rows.len());
        for (step, id) in expected.rows.keys() {
            let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            let same = bits(expected.values(*step, *id)) == bits(found.values(*step, *id));
            let site = &forward_values.graph().sites[*id as usize];
            assert!(same, "{} step {step} {}", format.name, place(site));
        }
        let (rounded, _) = capture(&mut forward(model, Semantics::Ggml), &prompt(), 0);
        let first = site(forward_values.graph(), Some(0), "q_matmul").id;
        let error = rel_l2(&expected.values(0, first), &rounded.values(0, first));
        println!("{}: {} points, ggml's first product off by {error:e}", format.name, expected.rows.len());
        assert!(error > 0.0 && error < 0.018, "{}: {error:e}", format.name);
    });
}
