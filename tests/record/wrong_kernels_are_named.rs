//! A kernel that is wrong while the model is right is named by the audit: layer, point and class, each fault in a run
//! of its own; a run without a fault has no culprit.

use crate::planted::{FAULTS, Planted, RowFault};
use crate::planted_faults_show::expected;
use crate::running::{open, prompt};
use crate::traces::trace_of;
use actrace::audit::{Class, Culprit, Finding, Verdict, audit_kernels, verdict};
use actrace::backend::{Backend, CpuBackend, Semantics};
use actrace::graph::Graph;
use actrace::model::Model;
use actrace::replay::{Emulation, Recorded};

/// Tokens that a run decodes behind its prompt.
const DECODED: usize = 6;

fn audited<B: Backend>(model: &Model, semantics: Semantics, backend: B) -> Vec<Finding> {
    let run = trace_of(model, semantics, backend, &prompt(), DECODED + 1);
    let graph = Graph::of(model).unwrap();
    let emulation = Emulation::of(&run.view().identity, "recorded").unwrap();
    let recorded = Recorded::read(run, &graph).unwrap();
    audit_kernels(model, &graph, &recorded, &emulation, &|| ()).unwrap()
}

fn culprit<B: Backend>(model: &Model, semantics: Semantics, backend: B) -> Option<(String, Class)> {
    let (found, culprit) = verdict(&audited(model, semantics, backend));
    assert_eq!(found == Verdict::Wrong, culprit.is_some());
    culprit.map(|Culprit { layer, point, class, .. }| {
        (layer.map_or_else(|| point.to_owned(), |layer| format!("layers.{layer}.{point}")), class)
    })
}

fn backend(semantics: Semantics) -> CpuBackend {
    CpuBackend::new(semantics, 2).unwrap()
}

/// Products are within 1e-6 whatever the file's type, everything else is right too, and nothing is left out.
#[test]
fn runs_without_a_fault_are_right() {
    for name in ["tiny-qwen2.safetensors", "tiny-qwen2.f16", "tiny-qwen2.q8_0", "tiny-qwen2.q4_k_m", "tiny-gpt2.q4_k_m"]
    {
        let model = open(name);
        for semantics in [Semantics::Ggml, Semantics::DequantizeF32] {
            let findings = audited(&model, semantics, backend(semantics));
            assert_eq!(findings.len(), Graph::of(&model).unwrap().sites.len(), "{name}");
            assert_eq!(verdict(&findings), (Verdict::Right, None), "{name} {}", semantics.name());
            let judged = findings.iter().all(|finding| finding.tokens == prompt().len() + DECODED);
            assert!(judged, "{name}: every row of every operation is judged");
        }
    }
}

#[test]
fn faults_of_the_backend_are_named() {
    let model = open("tiny-qwen2.safetensors");
    let semantics = Semantics::DequantizeF32;
    for (fault, layer, point) in FAULTS {
        let found = culprit(&model, semantics, Planted::new(backend(semantics), fault, layer, point));
        assert_eq!(found, Some((expected(fault, layer, point), Class::Kernel)), "{fault:?}");
    }
}

#[test]
fn faults_of_rows_are_named_in_every_type_of_file() {
    for name in ["tiny-qwen2.f16", "tiny-qwen2.q8_0", "tiny-qwen2.q4_k_m"] {
        let model = open(name);
        for (fault, layer, point, class) in RowFault::ALL {
            let found = culprit(&model, Semantics::Ggml, fault.planted(backend(Semantics::Ggml), layer, point));
            assert_eq!(found, Some((format!("layers.{layer}.{point}"), class)), "{fault:?} in {name}");
        }
    }
}

/// A rounding that changes nothing explains nothing, however small the error: the cache was recorded as it is, so that of
/// f16 is no excuse.
#[test]
fn a_small_fault_of_one_row_is_no_other_rounding() {
    let model = open("tiny-qwen2.q8_0");
    let planted = RowFault::SlightlyOff.planted(backend(Semantics::Ggml), 2, "attn_ctx");
    let findings = audited(&model, Semantics::Ggml, planted);
    let wrong: Vec<&Finding> = findings.iter().filter(|finding| finding.class().is_some()).collect();
    assert_eq!(wrong.iter().map(|finding| (finding.layer, finding.point)).collect::<Vec<_>>(), [(Some(2), "attn_ctx")]);
    assert!(wrong[0].rel_l2.unwrap() < 1e-5 && wrong[0].over_bound.unwrap() > 1.0);
    assert_eq!(wrong[0].worst_position, Some(5));
}

/// What was left out and what is stale is said in words.
#[test]
fn a_finding_says_what_was_done_instead() {
    let model = open("tiny-qwen2.safetensors");
    let semantics = Semantics::DequantizeF32;
    let notes: Vec<String> = FAULTS
        .iter()
        .map(|(fault, layer, point)| {
            let findings = audited(&model, semantics, Planted::new(backend(semantics), *fault, *layer, point));
            findings.into_iter().find(|finding| finding.class().is_some()).unwrap().note
        })
        .collect();
    assert_eq!(notes[1], "the rows are those of its input k_matmul: the operation was left out");
    assert_eq!(notes[2], "the rows are those of ffn_up in layer 3: a stale buffer");
    assert_eq!((notes[0].as_str(), notes[3].as_str()), ("", ""));
}
