//! The .apr files that the apr tool made of the shipped models run as those models do, and what some of its writers get
//! wrong is refused, and can be put right.

use crate::command::Ground;
use crate::running::{capture, forward, open, place, prompt};
use crate::support::{apr, model};
use actrace::backend::Semantics;
use actrace::model::{Fact, Format, Model, Overrides, Source, TensorType};
use actrace::open::Trace;
use std::path::{Path, PathBuf};

fn apr(kind: &str) -> PathBuf {
    apr::rebuilt(&format!("tiny-qwen2.{kind}")).0
}

/// Every point of every step has the same bits in both runs.
fn assert_equal_runs(original: &Model, copy: &Model, semantics: Semantics) {
    let mut first = forward(original, semantics);
    let (expected, tokens) = capture(&mut first, &prompt(), 8);
    let (found, same_tokens) = capture(&mut forward(copy, semantics), &prompt(), 8);
    assert_eq!(tokens.tokens, same_tokens.tokens);
    assert_eq!(expected.rows.len(), found.rows.len());
    for (step, id) in expected.rows.keys() {
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        let same = bits(expected.values(*step, *id)) == bits(found.values(*step, *id));
        assert!(same, "{} step {step} {}", semantics.name(), place(&first.graph().sites[*id as usize]));
    }
    println!("{} points of {} steps equal, {}", expected.rows.len(), expected.reports.len(), semantics.name());
}

#[test]
fn q4_k_m_runs_as_its_gguf_file() {
    let (original, copy) = (open("tiny-qwen2.q4_k_m"), Model::open(&apr("q4_k_m")).unwrap());
    assert_eq!((copy.format(), copy.weight_type()), (Format::Apr, TensorType::Q4K));
    assert_eq!((copy.hyper(), copy.files().len()), (original.hyper(), 1));
    assert_equal_runs(&original, &copy, Semantics::Ggml);
    assert_equal_runs(&original, &copy, Semantics::DequantizeF32);
}

/// The safetensors model has bf16 values too, so nothing was rounded on the way.
#[test]
fn bf16_runs_as_its_safetensors() {
    let (original, copy) = (open("tiny-qwen2.safetensors"), Model::open(&apr("bf16")).unwrap());
    assert_eq!((original.weight_type(), copy.weight_type()), (TensorType::Bf16, TensorType::Bf16));
    assert_eq!(copy.hyper(), original.hyper());
    assert_equal_runs(&original, &copy, Semantics::DequantizeF32);
    assert_equal_runs(&original, &copy, Semantics::Ggml);
}

/// Of the same length each, so that nothing but the two checksums has to follow.
fn patched(from: &Path, to: &Path, data: usize, changes: &[(&str, &str)]) {
    let mut bytes = std::fs::read(from).unwrap();
    for (old, new) in changes {
        assert_eq!(old.len(), new.len());
        let place = bytes[..data].windows(old.len()).position(|window| window == old.as_bytes());
        let place = place.unwrap_or_else(|| panic!("no {old}"));
        bytes[place..place + new.len()].copy_from_slice(new.as_bytes());
    }
    let end = bytes.len() - 4;
    let checksum = crc32fast::hash(&bytes[..end]).to_le_bytes();
    bytes[end..].copy_from_slice(&checksum);
    std::fs::write(to, bytes).unwrap();
}

/// As seen in the field: one head, and another RoPE base than the source had.
#[test]
fn wrong_hyper_parameters_are_told_and_can_be_set() {
    let ground = Ground::new();
    let (good, data) = apr::rebuilt("tiny-qwen2.q4_k_m");
    let wrong = ground.path("wrong.apr");
    let changes = [
        ("\"num_heads\":4", "\"num_heads\":1"),
        ("\"model.num_heads\":4", "\"model.num_heads\":1"),
        ("\"rope_theta\":10000.0", "\"rope_theta\":1000000"),
        ("\"model.rope_theta\":10000.0", "\"model.rope_theta\":1000000"),
    ];
    patched(&good, &wrong, data, &changes);
    let args = |set: &[&'static str]| {
        let mut args = vec!["--model", wrong.to_str().unwrap(), "--tokens", "1,2", "--out", "{out}"];
        args.extend(set.iter().flat_map(|setting| ["--set", setting]));
        args.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let refused = |what: &str, set: &[&'static str]| {
        let args = args(set);
        ground.refused(what, &args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let lines = [
        refused("as it is", &[]),
        refused("no setting", &["heads"]),
        refused("twice", &["heads=4", "heads=4"]),
        refused("no count", &["heads=4", "rope_base=big"]),
        refused("a slip", &["heads=4", "rope_bas=10000"]),
        refused("unknown", &["heads=4", "temperature=1"]),
        refused("against a shape", &["heads=4", "ffn=512"]),
        refused("one of two", &["heads=2"]),
    ];
    insta::assert_snapshot!(lines.join("\n"), @r#"
    as it is: error: [dir]/wrong.apr: the metadata say that there are 2 key heads of 256, and layers.0.self_attn.k_proj.weight has 128 rows; some writers store wrong numbers: look up the model's own and add --set heads=N --set kv_heads=N (or --set head_dim=N)
    no setting: error: `heads` sets nothing: write key=value, like heads=4
    twice: error: heads is set twice
    no count: error: [dir]/wrong.apr: rope_base is set to `big`, and should be a number
    a slip: error: [dir]/wrong.apr: this model has no hyper-parameter `rope_bas`; did you mean `rope_base`?
    unknown: error: [dir]/wrong.apr: this model has no hyper-parameter `temperature`; it has layers, hidden, heads, kv_heads, head_dim, ffn, vocabulary, context, norm_epsilon, rotary_dim, rope_base, attn_scale, activation, gated, tied_embeddings
    against a shape: error: [dir]/wrong.apr: the metadata say that intermediate_size is 512, and the rows of layers.0.mlp.gate_proj.weight are 768; if the tensors are right, add --set ffn=768
    one of two: error: [dir]/wrong.apr: the metadata say that there are 2 key heads of 128, and layers.0.self_attn.k_proj.weight has 128 rows; some writers store wrong numbers: look up the model's own and add --set heads=N --set kv_heads=N (or --set head_dim=N)
    "#);

    let overrides = Overrides::parse(["heads=4", "rope_base=1e4"]).unwrap();
    let (original, put_right) = (Model::open(&good).unwrap(), Model::open_with(&wrong, &overrides).unwrap());
    assert_eq!(original.hyper(), put_right.hyper());
    let fact = |key: &str| put_right.facts().iter().find(|fact| fact.key == key).unwrap().clone();
    let set = |key, value: &str| Fact { key, value: value.to_owned(), source: Source::CommandLine };
    assert_eq!((fact("heads"), fact("rope_base")), (set("heads", "4"), set("rope_base", "10000")));
    assert_eq!(fact("hidden").source, Source::File);
}

#[test]
fn the_identity_of_a_run_says_what_was_set() {
    let ground = Ground::new();
    for (name, path) in
        [("apr", apr("q4_k_m")), ("gguf", model("tiny-qwen2.q4_k_m")), ("safetensors", model("tiny-qwen2.safetensors"))]
    {
        let path = path.to_str().unwrap();
        let args = ["--model", path, "--tokens", "1,2", "--set", "context=16", "--label", name, "--out", "{out}"];
        let finished = ground.record(&args);
        assert_eq!(finished.status, 0, "{}", finished.stderr);
        let trace = Trace::open(&ground.path("out")).unwrap();
        let identity = &trace.runs().last().unwrap().identity;
        assert_eq!((identity.label.as_str(), identity.model_format.as_str()), (name, name));
        let semantics = if name == "safetensors" { "dequantize-f32" } else { "ggml" };
        assert_eq!(identity.semantics, semantics);
        let pair = identity.hyper_parameters.iter().find(|pair| pair.key == "context").unwrap();
        assert_eq!((pair.value.as_str(), pair.source.as_str()), ("16", "override"));
        let pair = identity.hyper_parameters.iter().find(|pair| pair.key == "hidden").unwrap();
        assert_eq!(pair.source, "file");
    }
}
