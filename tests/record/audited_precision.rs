//! Part C of the audit: a run against weights of another precision, its own file not at hand.

use crate::audited_files::{self, without_biases};
use crate::running::{ids, json, open, prompt};
use crate::support::plant::{Copy, Damage, Stored, stored, tiny_qwen2};
use crate::support::quantise::{F16, FORMATS, Format, Q4_K, Q6_K, Q8_0};
use crate::support::{apr, fixture};
use crate::traces::trace_of;
use actrace::audit::{Class, Finding, Judgement, Verdict, audit_precision, verdict};
use actrace::backend::{CpuBackend, Semantics};
use actrace::graph::Graph;
use actrace::model::Model;
use actrace::open::RunRef;
use actrace::replay::{Emulation, Recorded};

fn recorded(model: &Model, semantics: Semantics, tokens: &[u32], decoded: usize) -> RunRef {
    trace_of(model, semantics, CpuBackend::new(semantics, 2).unwrap(), tokens, decoded + 1)
}

fn audited(run: RunRef, original: &Model) -> Vec<Finding> {
    let graph = Graph::of(original).unwrap();
    let emulation = Emulation::of(&run.view().identity, "recorded").unwrap();
    let recorded = Recorded::read(run, &graph).unwrap();
    audit_precision(original, &graph, &recorded, &emulation, &|| ()).unwrap()
}

/// The prompt, and then tokens of a linear congruential generator: no text, but no repetition.
fn tokens(count: usize) -> Vec<u32> {
    let next = |state: &u32| Some(state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    let others = std::iter::successors(Some(1u32), next).map(|state| (state >> 16) % 2048);
    prompt().into_iter().chain(others).take(count).collect()
}

fn assert_right(name: &str, findings: &[Finding]) {
    let wrong: Vec<_> = findings.iter().filter(|finding| finding.judgement != Judgement::Right).collect();
    assert!(wrong.is_empty(), "{name}: {wrong:?}");
    assert_eq!(verdict(findings), (Verdict::Right, None), "{name}");
    let over = |finding: &&Finding| finding.over_bound.unwrap_or(0.0);
    let worst = findings.iter().max_by(|a, b| over(a).total_cmp(&over(b))).unwrap();
    println!("{name}: {:.3} of what is allowed at {:?} {}: {}", over(&worst), worst.layer, worst.point, worst.note);
}

/// The smallest factor on one input that the finding says it sees.
fn seen_of_an_input(finding: &Finding) -> f64 {
    let said = finding.note.split(" of an output, ").nth(1).and_then(|rest| rest.split(' ').next());
    said.map_or(1.0, |factor| factor.parse().unwrap_or(f64::INFINITY))
}

#[test]
fn unbroken_runs_of_every_type_and_length_are_right() {
    for model in ["tiny-qwen2", "tiny-gpt2"] {
        let original = open(&format!("{model}.safetensors"));
        for kind in ["safetensors", "f16", "q8_0", "q4_k_m"] {
            let run = open(&format!("{model}.{kind}"));
            for (count, decoded) in [(1, 0), (12, 8), (480, 4)] {
                for semantics in [Semantics::Ggml, Semantics::DequantizeF32] {
                    let name = format!("{model} {kind} {} {count}+{decoded}", semantics.name());
                    assert_right(&name, &audited(recorded(&run, semantics, &tokens(count), decoded), &original));
                }
            }
        }
    }
}

#[test]
fn an_apr_file_is_right() {
    let original = open("tiny-qwen2.safetensors");
    for kind in ["bf16", "q4_k_m"] {
        let run = Model::open(&apr::rebuilt(&format!("tiny-qwen2.{kind}")).0).unwrap();
        assert_right(kind, &audited(recorded(&run, Semantics::Ggml, &tokens(12), 4), &original));
    }
}

#[test]
fn simple_quantisers_of_every_type_are_right() {
    let original = open("tiny-qwen2.safetensors");
    let weights = tiny_qwen2();
    let folder = tempfile::tempdir().unwrap();
    for format in FORMATS.iter().chain([&Q8_0, &Q4_K, &Q6_K]) {
        let path = folder.path().join(format!("{}.gguf", format.name));
        let known = || FORMATS.iter().chain([&Q8_0, &Q4_K, &Q6_K]).find(|known| known.name == format.name).unwrap();
        Copy::of(&weights, |_| known()).write(&path, &[], "");
        let run = Model::open(&path).unwrap();
        for count in [1, 12] {
            let name = format!("{} {count}", format.name);
            assert_right(&name, &audited(recorded(&run, Semantics::Ggml, &tokens(count), 2), &original));
        }
    }
}

/// Where each damage is planted, and what makes it the product's.
fn place(damage: Damage) -> (u32, &'static str, &'static str) {
    match damage {
        Damage::Column => (3, "attn_q", "q_matmul"),
        other => audited_files::place(other),
    }
}

fn formats() -> [(&'static str, &'static Format); 4] {
    [("f16", &F16), ("q8_0", &Q8_0), ("q4_k", &Q4_K), ("q6_k", &Q6_K)]
}

#[test]
fn planted_faults_above_the_stated_limit_are_named() {
    let original = open("tiny-qwen2.safetensors");
    let weights = tiny_qwen2();
    let folder = tempfile::tempdir().unwrap();
    let mut missed = Vec::new();
    for (kind, format) in formats() {
        let copy = Copy::of(&weights, |_| format);
        for (number, damage) in Damage::ALL.into_iter().enumerate() {
            let (layer, tensor, point) = place(damage);
            let name = format!("blk.{layer}.{tensor}.weight");
            let broken = stored(&name, &damage.of(&weights[&name]), format);
            let path = folder.path().join(format!("{kind}-{number}.gguf"));
            copy.write(&path, &[broken], "");
            let run = Model::open(&path).unwrap();
            for count in [1, 48] {
                let findings = audited(recorded(&run, Semantics::Ggml, &tokens(count), 2), &original);
                let at = |finding: &&Finding| finding.layer == Some(layer) && finding.point == point;
                let own = findings.iter().find(at).unwrap();
                let others: Vec<_> =
                    wrong(&findings).into_iter().filter(|(at, name, _)| (*at, *name) != (Some(layer), point)).collect();
                assert!(others.is_empty(), "{kind} {damage:?} {count}: {others:?}");
                let above = match damage {
                    Damage::Scale(factor) => own.detects.is_none_or(|limit| f64::from((factor - 1.0).abs()) > limit),
                    Damage::Column => seen_of_an_input(own) < 1.5,
                    _ => true,
                };
                if above && own.judgement != Judgement::Wrong(Class::File) {
                    missed.push(format!("{kind} {damage:?} {count}"));
                }
            }
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}

/// Places and classes of everything that was called wrong.
fn wrong(findings: &[Finding]) -> Vec<(Option<u32>, &'static str, Class)> {
    findings.iter().filter_map(|finding| Some((finding.layer, finding.point, finding.class()?))).collect()
}

#[test]
fn broken_vectors_and_numbers_are_named() {
    let original = open("tiny-qwen2.safetensors");
    let weights = tiny_qwen2();
    let folder = tempfile::tempdir().unwrap();
    let mut copy = Copy::of(&weights, |_| &Q8_0);
    let run = |copy: &Copy, name: &str, changed: &[Stored]| {
        let path = folder.path().join(name);
        copy.write(&path, changed, "");
        audited(recorded(&Model::open(&path).unwrap(), Semantics::Ggml, &tokens(12), 2), &original)
    };
    let mut bias = weights["blk.2.attn_k.bias"].clone();
    bias.values.iter_mut().for_each(|value| *value *= 2.0);
    let found = run(&copy, "bias.gguf", &[stored("blk.2.attn_k.bias", &bias, &Q8_0)]);
    assert_eq!(wrong(&found), [(Some(2), "k", Class::File)]);
    let embedding = stored("token_embd.weight", &Damage::Scale(1.05).of(&weights["token_embd.weight"]), &Q8_0);
    let found = run(&copy, "embedding.gguf", &[embedding]);
    assert_eq!(wrong(&found), [(None, "tok_embed", Class::File), (None, "logits", Class::File)]);
    copy.numbers.floats[0].1 = 1e-4;
    let found = wrong(&run(&copy, "epsilon.gguf", &[]));
    assert_eq!(found.first(), Some(&(Some(0), "attn_norm", Class::HyperParameter)));
    assert!(found.iter().all(|(_, point, class)| point.ends_with("norm") && *class == Class::HyperParameter));
    (copy.numbers.floats[0].1, copy.numbers.floats[1].1) = (1e-6, 1e6);
    let found = wrong(&run(&copy, "rope.gguf", &[]));
    assert_eq!(found.len(), 12, "{found:?}");
    assert!(found.iter().all(|(_, point, class)| point.ends_with("rope") && *class == Class::HyperParameter));
}

/// A bias that the run's file has not: its plan has another operation there.
#[test]
fn a_missing_bias_shows_in_the_plan() {
    let folder = tempfile::tempdir().unwrap();
    let original = Model::open(&fixture("llama/biased")).unwrap();
    let without = without_biases(folder.path());
    let tokens = &ids(&json("llama/prompt.json")["token_ids"])[..4];
    let found = audited(recorded(&without, Semantics::DequantizeF32, tokens, 2), &original);
    let expected = (0..original.hyper().layers)
        .flat_map(|layer| ["q", "k", "v", "attn_out"].map(|point| (Some(layer), point, Class::File)));
    assert_eq!(wrong(&found), expected.collect::<Vec<_>>());
}

#[test]
fn other_models_are_refused() {
    let run = recorded(&open("tiny-gpt2.q8_0"), Semantics::Ggml, &tokens(2), 0);
    let original = open("tiny-qwen2.safetensors");
    let graph = Graph::of(&original).unwrap();
    let emulation = Emulation::of(&run.view().identity, "recorded").unwrap();
    let audit = |recorded: Recorded| audit_precision(&original, &graph, &recorded, &emulation, &|| ());
    let refused = Recorded::read(run, &graph).and_then(audit).unwrap_err();
    assert_eq!(refused.kind(), actrace::ErrorKind::NotComparable);
}
