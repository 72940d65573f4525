//! Every family, format and type of weights on a card against the processor. On a host without a card each test prints
//! `skipped: no CUDA`.

use crate::cards_agree_with_the_processor::{TOLERANCE, agree, blocks, both, card, made, random, same_bits, weight};
use crate::quantised_models_are_their_values as quantised;
use crate::running::{capture, ids, json, open, place, prompt};
use crate::support::{apr, families, fixture, rel_l2};
use actrace::backend::cuda::{ComputeType, FORMATS};
use actrace::forward::Forward;
use actrace::graph::Operation;
use actrace::model::synth::{Shape, Synthetic};
use actrace::model::{Model, Replace, Role, TensorType, quant};
use actrace::stats::RowStatistics;
use std::collections::BTreeMap;

/// Every family from safetensors. Its prompt is many rows and its continuation few, and windows are shorter than both.
#[test]
fn every_family_agrees_from_safetensors() {
    every_family_agrees(".safetensors", families::names(), families::folder);
}

/// Every family from GGUF.
#[test]
fn every_family_agrees_from_gguf() {
    every_family_agrees(".gguf", families::gguf_names(), families::gguf);
}

fn every_family_agrees(suffix: &str, names: Vec<String>, open: fn(&str) -> Model) {
    if card(ComputeType::F32).is_none() {
        return;
    }
    let prompt = json("families/prompt.json");
    let mut beyond = Vec::new();
    for name in names {
        let continuation = ids(&prompt["greedy_continuation_hf_f32"][&name]);
        let tokens = ids(&prompt["token_ids"]);
        let file = format!("{name}{suffix}");
        assert_eq!(both(&file, &open(&name), &tokens, continuation.len(), &mut beyond), continuation, "{file}");
    }
    assert!(beyond.is_empty(), "{} points beyond {TOLERANCE:e}: {beyond:#?}", beyond.len());
}

/// The .apr files that the `apr` tool made of tiny-qwen2.
#[test]
fn apr_files_agree() {
    if card(ComputeType::F32).is_none() {
        return;
    }
    let mut beyond = Vec::new();
    for file in ["tiny-qwen2.q4_k_m", "tiny-qwen2.bf16"] {
        let model = Model::open(&apr::rebuilt(file).0).unwrap();
        both(&format!("{file}.apr"), &model, &prompt(), 8, &mut beyond);
    }
    assert!(beyond.is_empty(), "{} points beyond {TOLERANCE:e}: {beyond:#?}", beyond.len());
}

/// Whole models in the types that no shipped file has, and in F32.
#[test]
fn every_block_type_agrees() {
    if card(ComputeType::F32).is_none() {
        return;
    }
    let mut beyond = Vec::new();
    quantised::each(|format, model, values| {
        both(format.name, model, &prompt(), 8, &mut beyond);
        if format.name == "q4_0" {
            both("f32", values, &prompt(), 8, &mut beyond);
        }
    });
    assert!(beyond.is_empty(), "{} points beyond {TOLERANCE:e}: {beyond:#?}", beyond.len());
}

/// Q4_K models so wide that several warps share a row out, with heads of several sizes, logits that no tile divides, and
/// products that take norms, RoPE, stores and activations along; prompts of few rows and of many.
#[test]
fn wide_models_agree() {
    if card(ComputeType::F32).is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wide.gguf");
    let mut beyond = Vec::new();
    for (preset, settings) in [
        ("qwen2.5-7b", ["hidden=2560", "heads=16", "kv-heads=2", "head-dim=80", "ffn=1280"]),
        ("qwen2.5-7b", ["hidden=1280", "heads=10", "kv-heads=2", "head-dim=128", "ffn=2560"]),
        ("tinyllama-1.1b", ["hidden=4096", "heads=8", "kv-heads=4", "head-dim=256", "ffn=768"]),
        ("gpt2", ["hidden=1280", "heads=20", "kv-heads=20", "head-dim=64", "ffn=1280"]),
    ] {
        let common = ["layers=2", "vocabulary=2045", "context=32"];
        let settings: Vec<String> = settings.iter().chain(&common).map(|setting| (*setting).to_owned()).collect();
        let shape = Shape::new(preset, &settings).unwrap();
        Synthetic::new(shape, TensorType::Q4K, 5).unwrap().write(&path, Replace::Yes, |_| Ok(())).unwrap();
        let model = Model::open(&path).unwrap();
        for tokens in [1, 2, 4, 12] {
            let name = format!("{preset} with {}, {tokens} tokens", settings.join(" "));
            both(&name, &model, &prompt()[..tokens], 4, &mut beyond);
        }
    }
    assert!(beyond.is_empty(), "{} points beyond {TOLERANCE:e}: {beyond:#?}", beyond.len());
}

/// Blocks of every type become the values that the library's own tables say (those are held against the `gguf`
/// package): the package's random blocks row by row, and ordinary ones through the conversion for large products.
#[test]
fn blocks_of_every_type_have_the_library_s_values_bit_for_bit() {
    for compute in [ComputeType::F32, ComputeType::F16, ComputeType::Bf16] {
        let Some(mut backend) = card(compute) else { return };
        for tensor_type in FORMATS {
            let name = tensor_type.name();
            let path = format!("quant/{name}.blocks");
            let packed = match tensor_type {
                TensorType::F32 => (0..256u32).flat_map(|i| (i * 16_777_259).to_le_bytes()).collect(),
                _ => std::fs::read(fixture(&path)).unwrap(),
            };
            let elements = packed.len() / tensor_type.block_bytes() * tensor_type.block_elements();
            let mut expected = vec![0f32; elements];
            quant::dequantize(tensor_type, &packed, &mut expected).unwrap();
            let table = weight(Role::TokenEmbedding, tensor_type, 1, elements, packed);
            let shown = made(&mut backend, Operation::TokenEmbedding, &[], &[table], elements, 1);
            same_bits(&expected, &shown, name);

            let (n, k, rows) = (7, 512, [0usize, 31, 100, 255, 511, 256]);
            let data = blocks(tensor_type, n * k, &mut random(tensor_type as u64 + 5));
            let mut w = vec![0f32; n * k];
            quant::dequantize(tensor_type, &data, &mut w).unwrap();
            let mut x = vec![0f32; rows.len() * k];
            rows.iter().enumerate().for_each(|(row, column)| x[row * k + column] = 1.0);
            let shown = made(
                &mut backend,
                Operation::MatMul,
                &[(&x, k)],
                &[weight(Role::Q, tensor_type, n, k, data)],
                n,
                rows.len(),
            );
            let rounded = |x: f32| match compute {
                ComputeType::F32 => x,
                ComputeType::F16 => half::f16::from_f32(x).to_f32(),
                ComputeType::Bf16 => half::bf16::from_f32(x).to_f32(),
            };
            let expected: Vec<f32> = (0..rows.len() * n).map(|i| rounded(w[i % n * k + rows[i / n]])).collect();
            assert_eq!(expected, shown, "{name} in {}", compute.name());
        }
    }
}

/// Several backends of one process at once: memory that one gives back is the others' to take, and what one does can
/// spoil a graph that another captures.
#[test]
fn backends_of_one_process_leave_each_other_alone() {
    let Some(backend) = card(ComputeType::F32) else { return };
    let model = open("tiny-qwen2.q8_0");
    let (first, generation) = capture(&mut Forward::new(&model, backend).unwrap(), &prompt(), 6);
    let expected: BTreeMap<_, _> = first.rows.keys().map(|key| (*key, first.values(key.0, key.1))).collect();
    let run = || {
        for _ in 0..4 {
            let mut forward = Forward::new(&model, card(ComputeType::F32).unwrap()).unwrap();
            let (shown, again) = capture(&mut forward, &prompt(), 6);
            assert_eq!(again.tokens, generation.tokens);
            for ((step, site), statistics) in &shown.statistics {
                let at = format!("{} of step {step}", place(&forward.graph().sites[*site as usize]));
                let error = rel_l2(&expected[&(*step, *site)], &shown.values(*step, *site));
                assert!(error <= TOLERANCE, "{error:e} at {at}");
                let rows = shown.rows[&(*step, *site)].iter().flat_map(|rows| (0..rows.len()).map(|row| rows.row(row)));
                rows.zip(statistics).for_each(|(row, shown)| agree(&RowStatistics::of(row), shown, &at));
            }
        }
    };
    std::thread::scope(|threads| (0..4).for_each(|_| drop(threads.spawn(run))));
}
