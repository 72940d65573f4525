//! Runs of other engines are audited like own ones: what llama.cpp and transformers dumped, on its own inputs.

use crate::command::Ground;
use crate::faults::{run_of, run_with};
use crate::imports::{import, whole};
use crate::running::{open, prompt};
use crate::support::safetensors::read;
use crate::support::{fixture, model};
use actrace::audit::{AtHand, Finding, Judgement, Verdict, audit_kernels, judge, verdict};
use actrace::backend::Semantics;
use actrace::compare;
use actrace::graph::Graph;
use actrace::open::{RunRef, TraceSet};
use actrace::replay::{Emulation, Recorded};

/// The imported reference as a run that says that it rounds as `semantics`, in the ground's trace.
fn imported(ground: &Ground, name: &str, engine: &str, file: &str, semantics: &str) -> RunRef {
    let dump = whole(ground, &read(&fixture(&format!("reference/{name}.{engine}.safetensors"))));
    let path = model(&format!("{name}.{file}"));
    let nodes = fixture(&format!("reference/{name}.nodes.toml"));
    let maps = match engine {
        "hf-f32" => vec!["--map", "hf"],
        _ => vec!["--map", "llama.cpp", "--map", nodes.to_str().unwrap()],
    };
    let facts = ["--semantics", semantics, "--compute-type", "f32", "--kv-type", "f32", "--device", "cpu"];
    let imported = import(ground, &dump, "run", &[&maps[..], &["--model", path.to_str().unwrap()], &facts].concat());
    assert_eq!(imported.status, 0, "{}", imported.stderr);
    TraceSet::open(&[ground.path("runs.actrace")]).unwrap().resolve("run").unwrap()
}

/// The findings of an imported reference.
fn audited(name: &str, engine: &str, file: &str, semantics: &str) -> Vec<Finding> {
    let ground = Ground::new();
    let run = imported(&ground, name, engine, file, semantics);
    let model = open(&format!("{name}.{file}"));
    let graph = Graph::of(&model).unwrap();
    let emulation = Emulation::of(&run.view().identity, "recorded").unwrap();
    let recorded = Recorded::read(run, &graph).unwrap();
    audit_kernels(&model, &graph, &recorded, &emulation, &|| ()).unwrap()
}

/// llama.cpp reads GELU from a table of f16 values; every other operation of it is what its name says.
#[test]
fn the_f16_gelu_table_of_llama_cpp_is_named_and_nothing_else() {
    for file in ["f16", "q8_0", "q4_k_m"] {
        let findings = audited("tiny-gpt2", &format!("llama-{file}"), file, "ggml");
        assert_eq!(verdict(&findings), (Verdict::Rounding, None), "{file}");
        for finding in findings {
            let expected = match finding.point {
                "ffn_act" => Judgement::Rounding("f16 GELU table"),
                _ => Judgement::Right,
            };
            assert_eq!(finding.judgement, expected, "{file}: {:?} {}", finding.layer, finding.point);
        }
    }
}

#[test]
fn other_references_are_right() {
    for file in ["f16", "q8_0", "q4_k_m"] {
        let findings = audited("tiny-qwen2", &format!("llama-{file}"), file, "ggml");
        assert_eq!(verdict(&findings), (Verdict::Right, None), "{file}");
    }
    for name in ["tiny-qwen2", "tiny-gpt2"] {
        let findings = audited(name, "hf-f32", "safetensors", "dequantize-f32");
        assert_eq!(verdict(&findings), (Verdict::Right, None), "{name}");
        let chain = findings.iter().find(|finding| finding.point == "attn_ctx").unwrap();
        assert!(chain.through.contains(&"layers.0.v_cache".to_owned()), "what was not dumped is made again: {chain:?}");
    }
}

/// A run that claims another rounding than it had is told which it had.
#[test]
fn a_wrong_claim_about_rounding_is_corrected() {
    let findings = audited("tiny-qwen2", "llama-q8_0", "q8_0", "dequantize-f32");
    let products = findings.iter().filter(|finding| finding.operation == "mat_mul");
    for finding in products {
        assert_eq!(finding.judgement, Judgement::Rounding("ggml"), "{:?} {}", finding.layer, finding.point);
    }
    assert_eq!(verdict(&findings), (Verdict::Rounding, None));
}

/// llama.cpp and this program are right engines: neither is further from the original than twice what the other is, and
/// where an audit decides, its rounding is named and no place.
#[test]
fn a_right_engine_is_a_right_baseline() {
    for (name, file) in
        ["tiny-qwen2", "tiny-gpt2"].iter().flat_map(|name| ["f16", "q8_0", "q4_k_m"].map(|file| (*name, file)))
    {
        let ground = Ground::new();
        let theirs = imported(&ground, name, &format!("llama-{file}"), file, "ggml");
        let reference = run_with(&open(&format!("{name}.safetensors")), Semantics::DequantizeF32, &prompt());
        let ours = run_of(&open(&format!("{name}.{file}")), &prompt());
        for (target, baseline) in [(&theirs, &ours), (&ours, &theirs)] {
            let compared = compare::Comparison::new(reference.clone(), target.clone(), None, false).unwrap();
            let compared = compared.with_baseline(baseline).unwrap();
            let largest = compared.baseline.as_ref().unwrap().largest().unwrap();
            println!("{name} {file}: largest ratio {largest:.3}, {}", compared.verdict.name());
            // What the dump leaves out it cannot clear.
            let clears = std::ptr::eq(baseline, &ours);
            let expected = if clears { compare::Verdict::WithinTolerance } else { compare::Verdict::Undecided };
            assert_eq!((&compared.first_divergence, compared.verdict), (&None, expected), "{}", compared.reason);
            assert!(largest < 2.0, "{name} {file}: {largest}");
        }
        let mut compared = compare::Comparison::new(ours.clone(), theirs.clone(), None, false).unwrap();
        let at_hand = |run: &RunRef| AtHand::of(&run.view().identity, None);
        judge(&mut compared, &at_hand(&theirs), &at_hand(&ours), &|| ()).unwrap();
        assert_eq!(
            (compared.first_divergence, compared.verdict),
            (None, compare::Verdict::WithinTolerance),
            "{}",
            compared.reason
        );
    }
}
