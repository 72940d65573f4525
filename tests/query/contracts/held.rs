//! Right runs hold every contract that they can be held to.

use super::recording::{ALL, Wanted, checked, outcomes, right};
use crate::support::{apr, families, model};
use actrace::backend::Semantics::{DequantizeF32, Ggml};
use actrace::contract::{Outcome, shipped};
use actrace::model::Model;
use std::collections::BTreeMap;

/// Obligations by outcome, with the labels: what is not applicable to a run, or not measured, is seen.
fn table(outcomes: &BTreeMap<(String, String), Outcome>) -> String {
    let mut lines: BTreeMap<&str, BTreeMap<&str, Vec<&str>>> = BTreeMap::new();
    for ((obligation, runs), outcome) in outcomes {
        let runs = if runs.is_empty() { "-" } else { runs };
        lines.entry(obligation).or_default().entry(outcome.name()).or_default().push(runs);
    }
    let line = |(obligation, by_name): (&&str, &BTreeMap<&str, Vec<&str>>)| {
        let parts = by_name.iter().map(|(name, runs)| format!("  {name}: {}\n", runs.join(", ")));
        format!("{obligation}\n{}", parts.collect::<String>())
    };
    lines.iter().map(line).collect()
}

/// A gated and a plain FFN, both semantics, block types; norms behind attention and FFN, attention and FFN side by side,
/// windows, normed heads, routed and shared experts, layers with and without experts.
#[test]
fn right_runs_hold_what_they_can_be_held_to() {
    let shipped_models = [
        ("qwen2", "tiny-qwen2.safetensors", DequantizeF32),
        ("qwen2-q4", "tiny-qwen2.q4_k_m", Ggml),
        ("gpt2", "tiny-gpt2.safetensors", DequantizeF32),
        ("gpt2-q8", "tiny-gpt2.q8_0", Ggml),
    ];
    let mut files: Vec<Vec<u8>> = shipped_models
        .iter()
        .map(|(label, name, semantics)| right(label, &Model::open(&model(name)).unwrap(), *semantics, &ALL))
        .collect();
    let tiny = [
        "gemma2",
        "gemma3",
        "gpt_neox",
        "gpt_neox-sequential",
        "qwen2-window",
        "qwen2_moe",
        "qwen3_moe-mixed",
        "mixtral",
    ];
    files.extend(tiny.map(|name| right(name, &families::folder(name), DequantizeF32, &ALL)));
    files.push(right("gemma2-gguf", &families::gguf("gemma2"), Ggml, &ALL));
    let outcomes = outcomes(&checked(&files, &shipped().unwrap()));
    insta::assert_snapshot!(table(&outcomes));
}

/// Contracts about two runs: one repeated, one with another selection, one file in two formats.
#[test]
fn right_pairs_hold_what_they_can_be_held_to() {
    let gguf = Model::open(&model("tiny-qwen2.q4_k_m")).unwrap();
    let (path, _kept) = apr::rebuilt("tiny-qwen2.q4_k_m");
    let apr = Model::open(&path).unwrap();
    let few = Wanted { points: "logits,ffn_out", tensors: "none", weights: false };
    let files = [
        right("gguf", &gguf, Ggml, &ALL),
        right("again", &gguf, Ggml, &ALL),
        right("few", &gguf, Ggml, &few),
        right("apr", &apr, Ggml, &ALL),
    ];
    let contracts =
        ["determinism", "device-parity", "format-parity", "no-observer-effect"].map(super::recording::contract);
    insta::assert_snapshot!(table(&outcomes(&checked(&files, &contracts))));
}
