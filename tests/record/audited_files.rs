//! Part B of the audit: a model file against the original weights. Every broken copy is named by its operation and class,
//! and no unbroken one is.

use crate::running::open;
use crate::support::plant::{Copy, Damage, Stored, stored, tiny_qwen2};
use crate::support::quantise::{F16, FORMATS, Format, Q4_K, Q6_K, Q8_0};
use crate::support::safetensors::{Tensor, read, write};
use crate::support::{apr, families, fixture};
use actrace::audit::{Class, Finding, Judgement, Verdict, audit_files, verdict};
use actrace::graph::Graph;
use actrace::model::{Model, Overrides};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn findings(run: &Model, original: &Model) -> Vec<Finding> {
    let graph = |model: &Model| Graph::of(model).unwrap();
    audit_files(run, &graph(run), original, &graph(original), &|| {}).unwrap()
}

/// Everything that was called wrong: layer, point, class, and what was said.
fn wrong(findings: &[Finding]) -> Vec<(Option<u32>, &'static str, Class, &str)> {
    let wrong = findings.iter().filter_map(|finding| Some((finding, finding.class()?)));
    wrong.map(|(finding, class)| (finding.layer, finding.point, class, finding.note.as_str())).collect()
}

fn assert_right(name: &str, run: &Model, original: &Model) {
    let findings = findings(run, original);
    assert_eq!(wrong(&findings), [], "{name}");
    assert_eq!(verdict(&findings).0, Verdict::Right, "{name}");
    assert!(findings.iter().all(|finding| finding.judgement == Judgement::Right), "{name}");
    let over = findings.iter().filter_map(|finding| finding.over_bound).fold(0.0, f64::max);
    let detects = findings.iter().filter_map(|finding| finding.detects).fold(0.0, f64::max);
    println!("{name}: {} operations, {over:.3} of what is allowed, sees {detects:.5}", findings.len());
}

/// As llama.cpp's q4_k_m: some matrices have more bits.
fn mixed(name: &str) -> &'static Format {
    match name {
        _ if name.contains("ffn_down") && name.contains("blk.3") => FORMATS.iter().find(|f| f.name == "q5_k").unwrap(),
        _ if name.contains("ffn_down") || name.contains("attn_v") || name.contains("token_embd") => &Q6_K,
        _ => &Q4_K,
    }
}

/// The format of each tensor.
type FormatOf = fn(&str) -> &'static Format;

/// The copies that faults are planted in.
fn copies(weights: &BTreeMap<String, Tensor>) -> [(&'static str, Copy, FormatOf); 4] {
    let kinds: [(&str, FormatOf); 4] =
        [("f16", |_| &F16), ("q8_0", |_| &Q8_0), ("q4_k_m", mixed), ("q4_0", |_| &FORMATS[0])];
    kinds.map(|(name, format)| (name, Copy::of(weights, format), format))
}

struct Ground {
    folder: tempfile::TempDir,
    original: Model,
    weights: BTreeMap<String, Tensor>,
}

impl Ground {
    fn new() -> Self {
        let original = open("tiny-qwen2.safetensors");
        Ground { folder: tempfile::tempdir().unwrap(), original, weights: tiny_qwen2() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("copy.gguf")
    }

    fn open(&self, copy: &Copy, changed: &[Stored], without: &str) -> Model {
        // A mapped file is not written again: each copy is a new one.
        let path = self.path();
        let _ = std::fs::remove_file(&path);
        copy.write(&path, changed, without);
        Model::open(&path).unwrap()
    }

    /// The one operation that is wrong in a copy.
    fn only(&self, name: &str, model: &Model) -> (Option<u32>, &'static str, Class, String) {
        let findings = findings(model, &self.original);
        let wrong = wrong(&findings);
        let [(layer, point, class, note)] = wrong[..] else { panic!("{name}: {wrong:?}") };
        (layer, point, class, note.to_owned())
    }
}

#[test]
fn unbroken_files_of_every_type_are_right() {
    let ground = Ground::new();
    for name in ["f16", "q8_0", "q4_k_m", "safetensors"] {
        assert_right(name, &open(&format!("tiny-qwen2.{name}")), &ground.original);
    }
    for kind in ["bf16", "q4_k_m"] {
        let model = Model::open(&apr::rebuilt(&format!("tiny-qwen2.{kind}")).0).unwrap();
        assert_right(&format!("{kind}.apr"), &model, &ground.original);
    }
    let gpt2 = open("tiny-gpt2.safetensors");
    for name in ["f16", "q8_0", "q4_k_m"] {
        assert_right(&format!("gpt2 {name}"), &open(&format!("tiny-gpt2.{name}")), &gpt2);
    }
    for format in FORMATS.iter().chain([&F16, &Q8_0, &Q4_K, &Q6_K]) {
        let copy = Copy::of(&ground.weights, |_| {
            FORMATS.iter().chain([&F16, &Q8_0, &Q4_K, &Q6_K]).find(|f| f.name == format.name).unwrap()
        });
        assert_right(format.name, &ground.open(&copy, &[], ""), &ground.original);
    }
}

/// Other names, other orders of rows, norms with an offset, divisors of frequencies in the place of numbers.
#[test]
fn the_same_model_in_two_formats_is_right() {
    for name in families::gguf_names() {
        assert_right(&name, &families::gguf(&name), &families::folder(&name));
        assert_right(&name, &families::folder(&name), &families::gguf(&name));
    }
}

/// Where each damage is planted: a tensor of some layer, and the point that its product makes.
pub fn place(damage: Damage) -> (u32, &'static str, &'static str) {
    match damage {
        Damage::Transposed => (2, "attn_output", "attn_out"),
        Damage::ExchangedHeads => (4, "attn_q", "q_matmul"),
        Damage::PermutedRows => (5, "attn_k", "k_matmul"),
        Damage::Row => (0, "ffn_up", "ffn_up"),
        Damage::Column => (3, "ffn_down", "ffn_out"),
        Damage::Block => (1, "attn_v", "v_matmul"),
        Damage::ZeroRow => (2, "ffn_gate", "ffn_gate"),
        Damage::NegatedRow => (4, "ffn_down", "ffn_out"),
        Damage::ExchangedBlocks => (5, "ffn_up", "ffn_up"),
        Damage::Scale(_) => (3, "ffn_gate", "ffn_gate"),
    }
}

#[test]
fn every_damage_of_a_matrix_is_named() {
    let ground = Ground::new();
    for (kind, copy, format) in copies(&ground.weights) {
        for damage in Damage::ALL {
            let (layer, tensor, point) = place(damage);
            let name = format!("blk.{layer}.{tensor}.weight");
            let broken = stored(&name, &damage.of(&ground.weights[&name]), format(&name));
            let model = ground.open(&copy, &[broken], "");
            let (found, at, class, note) = ground.only(&format!("{kind} {damage:?}"), &model);
            assert_eq!((found, at, class), (Some(layer), point, Class::File), "{kind} {damage:?}");
            println!("{kind} {damage:?}: {note}");
        }
    }
}

/// The same on llama.cpp's own blocks: rows exchanged, a scale that is no number, a byte of the codes.
#[test]
fn damaged_blocks_are_named() {
    let ground = Ground::new();
    let nan = 0x7e00u16.to_le_bytes();
    for (kind, copy, format) in copies(&ground.weights) {
        for (layer, tensor, point) in
            [(0, "attn_q", "q_matmul"), (3, "ffn_down", "ffn_out"), (5, "ffn_down", "ffn_out")]
        {
            let name = format!("blk.{layer}.{tensor}.weight");
            let clean = copy.tensors.iter().find(|tensor| tensor.name == name).unwrap();
            let scale = if format(&name).name == "q6_k" { 208 } else { 0 };
            let mut broken = clean.clone();
            broken.data[scale..scale + 2].copy_from_slice(&nan);
            let found = ground.only(kind, &ground.open(&copy, &[broken], ""));
            assert_eq!((found.0, found.1, found.2), (Some(layer), point, Class::File), "{kind} {name}");
            assert!(found.3.contains("not finite at [0, 0]"), "{}", found.3);
            let mut broken = clean.clone();
            let row = broken.data.len() / clean.shape[0];
            broken.data[..2 * row].rotate_left(row);
            let found = ground.only(kind, &ground.open(&copy, &[broken], ""));
            assert_eq!((found.0, found.1, found.2), (Some(layer), point, Class::File), "{kind} {name}");
        }
    }
}

#[test]
fn vectors_are_named() {
    let ground = Ground::new();
    for (kind, copy, format) in copies(&ground.weights) {
        for (layer, tensor, point) in [(0, "attn_q", "q"), (2, "attn_k", "k"), (5, "attn_v", "v")] {
            let name = format!("blk.{layer}.{tensor}.bias");
            let mut doubled = ground.weights[&name].clone();
            doubled.values.iter_mut().for_each(|value| *value *= 2.0);
            let found = ground.only(kind, &ground.open(&copy, &[stored(&name, &doubled, format(&name))], ""));
            assert_eq!((found.0, found.1, found.2), (Some(layer), point, Class::File), "{kind} {name}");
        }
        let mut norm = ground.weights["blk.4.ffn_norm.weight"].clone();
        norm.values[17] *= 1.02;
        let norm = stored("blk.4.ffn_norm.weight", &norm, &F16);
        let found = ground.only(kind, &ground.open(&copy, &[norm], ""));
        assert_eq!((found.0, found.1, found.2), (Some(4), "ffn_norm", Class::File), "{kind}");
        assert!(found.3.contains("[0, 17]"), "{}", found.3);
    }
}

/// A copy of the llama with biases, without them.
pub fn without_biases(folder: &Path) -> Model {
    let original = fixture("llama/biased");
    let config = std::fs::read_to_string(original.join("config.json")).unwrap();
    let silent = config.replace("\"attention_bias\": true", "\"attention_bias\": false");
    assert_ne!(config, silent);
    std::fs::write(folder.join("config.json"), silent).unwrap();
    let weights = read(&original.join("model.safetensors"));
    let kept = weights.into_iter().filter(|(name, _)| !name.ends_with("_proj.bias")).collect();
    write(&folder.join("model.safetensors"), &kept);
    Model::open(folder).unwrap()
}

#[test]
fn weights_that_one_file_alone_has_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (original, without) = (Model::open(&fixture("llama/biased")).unwrap(), without_biases(folder.path()));
    let layers = original.hyper().layers;
    for (run, original, says) in
        [(&without, &original, "the run's file has no layers."), (&original, &without, "the original has no layers.")]
    {
        let found = findings(run, original);
        let found = wrong(&found);
        let expected =
            (0..layers).flat_map(|layer| ["q", "k", "v", "attn_out"].map(|point| (Some(layer), point, Class::File)));
        let places: Vec<_> = found.iter().map(|(layer, point, class, _)| (*layer, *point, *class)).collect();
        assert_eq!(places, expected.collect::<Vec<_>>());
        assert!(found.iter().all(|(_, _, _, note)| note.starts_with(says) && note.ends_with("_bias")), "{found:?}");
    }
}

/// A tied head: two operations read one tensor.
#[test]
fn every_reader_of_a_weight_is_named() {
    let ground = Ground::new();
    let [_, (_, copy, format), ..] = copies(&ground.weights);
    let embedding = Damage::Row.of(&ground.weights["token_embd.weight"]);
    let embedding = stored("token_embd.weight", &embedding, format("token_embd.weight"));
    let found = findings(&ground.open(&copy, &[embedding], ""), &ground.original);
    let found: Vec<_> = wrong(&found).into_iter().map(|(layer, point, class, _)| (layer, point, class)).collect();
    assert_eq!(found, [(None, "tok_embed", Class::File), (None, "logits", Class::File)]);
}

#[test]
fn numbers_are_named_with_both_values() {
    let ground = Ground::new();
    let [_, (_, mut copy, _), ..] = copies(&ground.weights);
    copy.numbers.floats = [("attention.layer_norm_rms_epsilon", 1e-5), ("rope.freq_base", 10_000.0)];
    let found = findings(&ground.open(&copy, &[], ""), &ground.original);
    let found = wrong(&found);
    assert_eq!(found.len(), 13, "two norms a layer and the last: {found:?}");
    let note = "epsilon 0.00001 (original: 0.000001)";
    assert!(found.iter().all(|(_, point, class, said)| {
        point.ends_with("norm") && *class == Class::HyperParameter && *said == note
    }));
    copy.numbers.floats = [("attention.layer_norm_rms_epsilon", 1e-6), ("rope.freq_base", 1_000_000.0)];
    let found = findings(&ground.open(&copy, &[], ""), &ground.original);
    let found = wrong(&found);
    assert_eq!(found.len(), 12, "{found:?}");
    let (layer, point, class, note) = found[0];
    assert_eq!((layer, point, class), (Some(0), "q_rope", Class::HyperParameter));
    assert_eq!(note, "RoPE base 1000000, scaling none (original: base 10000, scaling none)");
    copy.numbers.counts[4].1 = 2;
    copy.numbers.counts[5].1 = 1;
    copy.numbers.floats[1].1 = 10_000.0;
    let found = findings(&ground.open(&copy, &[], ""), &ground.original);
    let found = wrong(&found);
    assert!(
        found.iter().any(|(_, point, class, note)| {
            *point == "attn_scores" && *class == Class::HyperParameter && note.contains("heads 2 (original: 4)")
        }),
        "{found:?}"
    );
}

#[test]
fn an_activation_of_another_kind_is_a_number() {
    let original = open("tiny-gpt2.safetensors");
    let overrides = Overrides::parse(["activation=gelu"]).unwrap();
    let run = Model::open_with(&crate::support::model("tiny-gpt2.f16"), &overrides).unwrap();
    let found = findings(&run, &original);
    let found = wrong(&found);
    assert_eq!(found.len(), 4, "{found:?}");
    assert_eq!(found[0], (Some(0), "ffn_act", Class::HyperParameter, "activation gelu_erf (original: gelu_tanh)"));
}

#[test]
fn other_models_are_refused() {
    let (qwen2, gpt2) = (open("tiny-qwen2.safetensors"), open("tiny-gpt2.safetensors"));
    let graph = |model: &Model| Graph::of(model).unwrap();
    let refused = audit_files(&qwen2, &graph(&qwen2), &gpt2, &graph(&gpt2), &|| {}).unwrap_err();
    assert_eq!(refused.kind(), actrace::ErrorKind::NotComparable);
    assert!(refused.to_string().contains("architecture qwen2, the original gpt2"), "{refused}");
}
