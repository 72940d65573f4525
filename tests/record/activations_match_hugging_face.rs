//! Every capture point of small models against Hugging Face transformers in f32.
//!
//! Tolerance 1e-5: sums of up to 1024 f32 products in two orders differ by about sqrt(1024) * 2^-24 = 2e-6,
//! and the residual stream of six layers adds such errors.

use crate::running::{capture, forward, ids, json, open, prompt, site};
use crate::support::safetensors::{Tensor, read};
use crate::support::{fixture, rel_l2};
use actrace::backend::Semantics;
use actrace::graph::{Graph, SiteId};
use actrace::model::Model;
use std::ops::Range;

const TOLERANCE: f64 = 1e-5;

/// Where a tensor of a reference file is in the graph: one site, or several side by side.
fn sites(graph: &Graph, name: &str) -> Vec<SiteId> {
    let (layer, point) = match name.split_once('.') {
        Some((layer, point)) => (Some(layer.parse().unwrap()), point),
        None => (None, name),
    };
    let points = if point == "qkv" { vec!["q", "k", "v"] } else { vec![point] };
    points.into_iter().map(|point| site(graph, layer, point).id).collect()
}

/// The part of a reference that a site holds: columns of the last axis, or keys up to the query's.
fn part(reference: &Tensor, columns: Range<usize>) -> Vec<f32> {
    let width = *reference.shape.last().unwrap();
    reference.values.chunks_exact(width).flat_map(|row| row[columns.clone()].to_vec()).collect()
}

/// `[head, query, key]` with zeros above the diagonal as ragged rows `[heads, visible keys]`.
fn visible(reference: &Tensor) -> Vec<f32> {
    let [heads, queries, keys] = reference.shape[..] else { panic!("shape {:?}", reference.shape) };
    let row = |head: usize, query: usize| &reference.values[(head * queries + query) * keys..][..=query];
    (0..queries).flat_map(|query| (0..heads).flat_map(move |head| row(head, query).to_vec())).collect()
}

fn check(model: &Model, reference: &str, tokens: &[u32], continuation: &[u32]) {
    let mut forward = forward(model, Semantics::DequantizeF32);
    let (capture, generation) = capture(&mut forward, tokens, continuation.len());
    let mut worst = (0f64, String::new());
    for (name, reference) in read(&fixture(reference)) {
        let sites = sites(forward.graph(), &name);
        let parts = sites.len();
        for (index, id) in sites.into_iter().enumerate() {
            let expected = if name.ends_with("attn_probs") {
                visible(&reference)
            } else {
                let width = reference.shape.last().unwrap() / parts;
                part(&reference, index * width..(index + 1) * width)
            };
            let error = rel_l2(&expected, &capture.values(0, id));
            assert!(error <= TOLERANCE, "{name}: {error:e}");
            if error > worst.0 {
                worst = (error, name.clone());
            }
        }
    }
    println!("{reference}: worst {:e} at {}", worst.0, worst.1);
    assert_eq!(generation.tokens, continuation);
}

#[test]
fn safetensors_and_the_greedy_continuation() {
    let expected = json("reference/prompt.json");
    for name in ["tiny-qwen2", "tiny-gpt2"] {
        let continuation = ids(&expected["greedy_continuation_hf_f32"][name]);
        let reference = format!("reference/{name}.hf-f32.safetensors");
        check(&open(&format!("{name}.safetensors")), &reference, &prompt(), &continuation);
    }
}

#[test]
fn the_other_forms_of_the_llama_family() {
    let expected = json("llama/prompt.json");
    let tokens = ids(&expected["token_ids"]);
    for name in ["plain", "plain.f32.gguf", "biased", "biased.f32.gguf", "qwen2-untied"] {
        let stem = name.split('.').next().unwrap();
        let continuation = ids(&expected["greedy_continuation_hf_f32"][stem]);
        let model = Model::open(&fixture(&format!("llama/{name}"))).unwrap();
        check(&model, &format!("llama/{stem}.hf-f32.safetensors"), &tokens, &continuation);
    }
}

/// Against Hugging Face on weights that the Python package gguf converted to f32, for the first four tokens.
#[test]
fn dequantised_gguf_weights() {
    let first = &prompt()[..4];
    for name in ["tiny-qwen2.q8_0", "tiny-qwen2.q4_k_m", "tiny-gpt2.q8_0", "tiny-gpt2.q4_k_m"] {
        check(&open(name), &format!("dequantized/{name}.safetensors"), first, &[]);
    }
}

/// The dequantised weights of f16 files are those of the safetensors, but for some hundred below 2^-14.
#[test]
fn half_precision_gguf_weights() {
    for name in ["tiny-qwen2", "tiny-gpt2"] {
        let reference = format!("reference/{name}.hf-f32.safetensors");
        check(&open(&format!("{name}.f16")), &reference, &prompt(), &[]);
    }
}
