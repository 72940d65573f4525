//! Runs of other engines are audited like own ones: what llama.cpp and transformers dumped, on its own inputs.

use crate::command::Ground;
use crate::imports::{import, whole};
use crate::support::safetensors::read;
use crate::support::{fixture, model};
use actrace::audit::{Finding, Judgement, Verdict, audit_kernels, verdict};
use actrace::graph::Graph;
use actrace::model::Model;
use actrace::open::TraceSet;
use actrace::replay::{Emulation, Recorded};

/// The findings of an imported reference, whose run says that it rounds as `semantics`.
fn audited(name: &str, engine: &str, file: &str, semantics: &str) -> Vec<Finding> {
    let ground = Ground::new();
    let dump = whole(&ground, &read(&fixture(&format!("reference/{name}.{engine}.safetensors"))));
    let path = model(&format!("{name}.{file}"));
    let nodes = fixture(&format!("reference/{name}.nodes.toml"));
    let maps = match engine {
        "hf-f32" => vec!["--map", "hf"],
        _ => vec!["--map", "llama.cpp", "--map", nodes.to_str().unwrap()],
    };
    let facts = ["--semantics", semantics, "--compute-type", "f32", "--kv-type", "f32", "--device", "cpu"];
    let imported = import(&ground, &dump, "run", &[&maps[..], &["--model", path.to_str().unwrap()], &facts].concat());
    assert_eq!(imported.status, 0, "{}", imported.stderr);
    let model = Model::open(&path).unwrap();
    let graph = Graph::of(&model).unwrap();
    let run = TraceSet::open(&[ground.path("runs.actrace")]).unwrap().resolve("run").unwrap();
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
