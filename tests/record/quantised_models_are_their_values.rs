//! Whole runs of models in every block type that no file of another program in the tree has.
//!
//! The shipped model is quantised by the test's own quantisers, which also say what values the blocks stand for; a
//! second file holds these in F32.

use crate::running::{capture, forward, place, prompt, site};
use crate::support::quantise::{FORMATS, Format};
use crate::support::safetensors::{Tensor, read};
use crate::support::{model, rel_l2};
use actrace::backend::Semantics;
use actrace::model::Model;
use std::collections::BTreeMap;
use std::path::Path;

/// A tensor of a GGUF file: ggml's number of its type, and its bytes.
struct Stored<'a> {
    name: &'a str,
    shape: &'a [usize],
    number: u32,
    data: Vec<u8>,
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// A GGUF file of version 3 with the metadata of tiny-qwen2.
fn file(tensors: &[Stored<'_>]) -> Vec<u8> {
    let counts = [
        ("block_count", 6u32),
        ("context_length", 2048),
        ("embedding_length", 256),
        ("feed_forward_length", 768),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
    ];
    let floats = [("attention.layer_norm_rms_epsilon", 1e-6f32), ("rope.freq_base", 10_000.0)];
    let pairs = 1 + counts.len() + floats.len();
    let mut out = [b"GGUF".as_slice(), &3u32.to_le_bytes(), &(tensors.len() as u64).to_le_bytes()].concat();
    out.extend((pairs as u64).to_le_bytes());
    out.extend([text("general.architecture"), 8u32.to_le_bytes().to_vec(), text("qwen2")].concat());
    for (key, value) in counts {
        out.extend([&text(&format!("qwen2.{key}"))[..], &4u32.to_le_bytes(), &value.to_le_bytes()].concat());
    }
    for (key, value) in floats {
        out.extend([&text(&format!("qwen2.{key}"))[..], &6u32.to_le_bytes(), &value.to_le_bytes()].concat());
    }
    let mut data = Vec::new();
    for tensor in tensors {
        data.resize(data.len().next_multiple_of(32), 0);
        out.extend(text(tensor.name));
        out.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().rev().for_each(|axis| out.extend((*axis as u64).to_le_bytes()));
        out.extend(tensor.number.to_le_bytes());
        out.extend((data.len() as u64).to_le_bytes());
        data.extend(&tensor.data);
    }
    out.resize(out.len().next_multiple_of(32), 0);
    out.extend(data);
    out
}

/// Names of Hugging Face as those of GGUF.
fn renamed(name: &str) -> String {
    let parts = [
        ("model.embed_tokens.", "token_embd."),
        ("model.norm.", "output_norm."),
        ("model.layers.", "blk."),
        ("input_layernorm.", "attn_norm."),
        ("post_attention_layernorm.", "ffn_norm."),
        ("self_attn.o_proj.", "attn_output."),
        ("self_attn.", "attn_"),
        ("mlp.", "ffn_"),
        ("_proj.", "."),
    ];
    parts.iter().fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
}

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
        blocks.push(Stored { name, shape, number, data });
        floats.push(Stored { name, shape, number: 0, data: plain(&stand_for) });
    }
    std::fs::write(quantised, file(&blocks)).unwrap();
    std::fs::write(plain_path, file(&floats)).unwrap();
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
