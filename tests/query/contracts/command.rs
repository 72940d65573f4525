//! `actrace-query check` as people and programs see it.

use super::recording::{ALL, Wanted, recorded, right};
use crate::planted::RowFault;
use crate::support::{families, package};
use actrace::backend::{CpuBackend, Semantics::DequantizeF32};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::tempdir;

fn check(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_actrace-query")).arg("check").args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A run whose stream gets attention twice.
fn added_twice(folder: &Path) -> PathBuf {
    let backend = RowFault::AddedTwice.planted(CpuBackend::new(DequantizeF32, 2).unwrap(), 1, "resid_mid");
    let path = folder.join("twice.actrace");
    std::fs::write(&path, recorded("twice", &families::folder("llama3"), DequantizeF32, backend, &ALL)).unwrap();
    path
}

#[test]
fn a_broken_contract_is_shown_with_counterexamples_in_every_format() {
    let folder = tempdir().unwrap();
    let trace = added_twice(folder.path());
    let shown = |more: &[&str]| {
        let output = check(&[&[trace.to_str().unwrap(), "--contract", "residual-algebra"], more].concat());
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        text(&output.stdout).to_owned()
    };
    insta::assert_snapshot!("page", shown(&[]));
    insta::assert_snapshot!("junit", shown(&["--format", "junit"]).replace(&run(&trace), "RUN"));
    let json: serde_json::Value = serde_json::from_str(&shown(&["--format", "json", "--show", "2"])).unwrap();
    assert_eq!((json["broken"].as_u64(), json["held"].as_u64()), (Some(1), Some(3)));
    let obligations = json["contracts"][0]["obligations"].as_array().unwrap();
    let broken = obligations.iter().find(|obligation| obligation["outcome"] == "broken").unwrap();
    // Ten tokens in the layer where the fault is.
    assert_eq!(broken["count"], 10);
    assert_eq!(broken["counterexamples"].as_array().unwrap().len(), 2);
    assert_eq!(broken["counterexamples"][1]["position"], 1);
    assert_eq!(broken["counterexamples"][1]["reads"], serde_json::json!(["resid_post", "attn_out"]));
}

fn run(trace: &Path) -> String {
    actrace::open::Trace::open(trace).unwrap().runs()[0].id()
}

#[test]
fn the_status_says_what_was_found_and_what_was_not_measured() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("few.actrace");
    let few = Wanted { points: "logits", tensors: "none", weights: false };
    std::fs::write(&path, right("few", &families::folder("llama3"), DequantizeF32, &few)).unwrap();
    let status = |more: &[&str]| check(&[&[path.to_str().unwrap()], more].concat()).status.code();
    assert_eq!(status(&["--contract", "trace-integrity"]), Some(0));
    assert_eq!(status(&["--contract", "attention-rows"]), Some(3), "nothing was measured");
    assert_eq!(status(&["--contract", "attention-rows", "--contract", "trace-integrity"]), Some(0));
    assert_eq!(status(&["--strict", "--contract", "attention-rows", "--contract", "trace-integrity"]), Some(3));
    assert_eq!(status(&["--contract", "attention-row"]), Some(2));
    assert_eq!(status(&["--contract", "attention-rows", "--contract", "attention-rows"]), Some(2), "named twice");
    let junit = |more: &[&str]| {
        let output =
            check(&[&[path.to_str().unwrap(), "--contract", "attention-rows", "--format", "junit"], more].concat());
        text(&output.stdout).matches("<error").count()
    };
    assert_eq!((junit(&[]), junit(&["--strict"])), (0, 4), "what --strict counts, CI sees");
}

const GOOD: &str = "id: mine\nsays: s\nobligations:\n  - id: o\n    says: s\n    severity: error\n    falsifier: |\n      \
                    SELECT label FROM runs WHERE run = $run AND false\n";

#[test]
fn a_bad_contract_is_refused_with_its_line() {
    let folder = tempdir().unwrap();
    let trace = folder.path().join("run.actrace");
    let few = Wanted { points: "logits", tensors: "none", weights: false };
    std::fs::write(&trace, right("run", &families::folder("llama3"), DequantizeF32, &few)).unwrap();
    let file = folder.path().join("mine.yaml");
    let said = |contract: String| {
        std::fs::write(&file, contract).unwrap();
        let output = check(&[trace.to_str().unwrap(), "--contract", file.to_str().unwrap()]);
        let stderr = text(&output.stderr).replace(folder.path().to_str().unwrap(), "");
        format!("{} {stderr}", output.status.code().unwrap())
    };
    assert_eq!(said(GOOD.to_owned()), "0 ");
    let changes = [
        ("severity: error", "severity: fatal"),
        ("says: s\nob", "said: s\nob"),
        ("SELECT label", "SELECT labl"),
        ("FROM runs", "FROM run"),
        ("$run", "$runs"),
        ("false", "point = 'ffn_gat'"),
        ("SELECT label FROM runs", "COPY runs TO 'x' STORED AS CSV --"),
        ("    falsifier", "    needs: {points: [ffn_gat]}\n    falsifier"),
        ("    falsifier", "    needs: {made_by: [rmsnorm]}\n    falsifier"),
        ("    falsifier", "    needs: {gaps: \"SELECT CAST(NULL AS VARCHAR)\"}\n    falsifier"),
        ("    falsifier", "    applies_to: {kind: [recorded]}\n    falsifier"),
        ("    falsifier", "    applies_to: {semantics: [gguf]}\n    falsifier"),
        ("AND false", "AND CAST(label AS BIGINT) > 0"),
        ("    falsifier", "    pairs: {sql: SELECT run FROM runs, otherwise: x}\n    falsifier"),
    ];
    insta::assert_snapshot!(changes.map(|(from, to)| said(GOOD.replacen(from, to, 1))).concat());
}

/// The example of contracts/README.md is a contract that a right run holds and a wrong one breaks.
#[test]
fn the_example_of_the_page_works() {
    let page = std::fs::read_to_string(package().join("contracts/README.md")).unwrap();
    let example = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let folder = tempdir().unwrap();
    let file = folder.path().join("embedding-is-the-stream.yaml");
    std::fs::write(&file, example).unwrap();
    let trace = folder.path().join("run.actrace");
    std::fs::write(&trace, right("run", &families::folder("llama3"), DequantizeF32, &ALL)).unwrap();
    let gemma = folder.path().join("gemma.actrace");
    std::fs::write(&gemma, right("gemma", &families::folder("gemma2"), DequantizeF32, &ALL)).unwrap();
    let status = |trace: &Path| check(&[trace.to_str().unwrap(), "--contract", file.to_str().unwrap()]).status.code();
    // Gemma scales its embedding.
    assert_eq!((status(&trace), status(&gemma)), (Some(0), Some(1)));
}
