//! `audit` as programs see it: verdicts with their exit status, the culprit, its case on disk.

use crate::support;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::{TempDir, tempdir};

const TOKENS: &str = "609,1827,409,72,608,221";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn recorder(arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_actrace")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A trace of one run `run` of `model`, with its folder.
fn recorded(model: &Path, more: &[&str]) -> (TempDir, PathBuf) {
    let folder = tempdir().unwrap();
    let trace = folder.path().join("runs.actrace");
    let run = ["record", "--model", text(model), "--tokens", TOKENS, "--generate", "3", "--label", "run"];
    recorder(&[&run[..], more, &["--out", text(&trace)]].concat());
    (folder, trace)
}

fn audit(trace: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_actrace-query"));
    command.arg("audit").arg(trace).args(["--run", "run"]).args(arguments).output().unwrap()
}

/// The JSON answer and the exit status.
fn judged(trace: &Path, arguments: &[&str]) -> (Value, i32) {
    let output = audit(trace, &[arguments, &["--format", "json"]].concat());
    let answer = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&output.stderr)));
    (answer, output.status.code().unwrap())
}

/// A copy of the shipped tiny-qwen2 whose key bias of layer 2 is zero: left out, by a converter say.
fn without_a_bias() -> TempDir {
    let folder = tempdir().unwrap();
    let shipped = support::model("tiny-qwen2.safetensors");
    std::fs::copy(shipped.join("config.json"), folder.path().join("config.json")).unwrap();
    let mut bytes = std::fs::read(shipped.join("model.safetensors")).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let place = &header["model.layers.2.self_attn.k_proj.bias"]["data_offsets"];
    let at = |end: usize| 8 + length + place[end].as_u64().unwrap() as usize;
    bytes[at(0)..at(1)].fill(0);
    std::fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
    folder
}

#[test]
fn an_unbroken_run_is_right_by_every_part() {
    let (model, original) = (support::model("tiny-qwen2.q4_k_m"), support::model("tiny-qwen2.safetensors"));
    let (_folder, trace) = recorded(&model, &[]);
    let (model, original) = (text(&model), text(&original));
    for arguments in [&["--model", model][..], &["--model", model, "--original", original], &["--original", original]] {
        let (answer, status) = judged(&trace, arguments);
        assert_eq!((answer["verdict"].as_str(), status), (Some("right"), 0), "{arguments:?}: {answer}");
        assert!(answer["culprit"].is_null());
        assert_eq!(answer["operations"].as_array().unwrap().len(), 142);
    }
}

#[test]
fn a_broken_file_is_named_by_the_original_and_not_blamed_on_the_kernel() {
    let broken = without_a_bias();
    let original = support::model("tiny-qwen2.safetensors");
    let (_folder, trace) = recorded(broken.path(), &[]);
    let (by_its_own, status) = judged(&trace, &["--model", text(broken.path())]);
    assert_eq!((by_its_own["verdict"].as_str(), status), (Some("right"), 0));
    for arguments in
        [&["--model", text(broken.path()), "--original", text(&original)][..], &["--original", text(&original)]]
    {
        let (answer, status) = judged(&trace, arguments);
        assert_eq!((answer["verdict"].as_str(), status), (Some("wrong"), 1), "{arguments:?}");
        let culprit = &answer["culprit"];
        assert_eq!((culprit["layer"].as_u64(), culprit["point"].as_str()), (Some(2), Some("k")), "{culprit}");
        if arguments.len() > 2 {
            assert_eq!(culprit["class"], "file");
        }
    }
    let refused = audit(&trace, &["--model", text(&original)]);
    assert_eq!(refused.status.code(), Some(2));
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(error.contains("this is not the model that `run` used"), "{error}");
}

#[test]
fn a_replay_stands_in_for_the_model() {
    let model = support::model("tiny-gpt2.q8_0");
    let (folder, trace) = recorded(&model, &[]);
    let replay = folder.path().join("replay.actrace");
    let run = ["replay", text(&trace), "--run", "run", "--model", text(&model), "--label", "again"];
    recorder(&[&run[..], &["--out", text(&replay)]].concat());
    let (answer, status) = judged(&trace, &[text(&replay), "--replay", "again"]);
    assert_eq!((answer["verdict"].as_str(), status), (Some("right"), 0), "{answer}");
    let output = audit(&trace, &[text(&replay), "--replay", "run"]);
    assert_eq!(output.status.code(), Some(3), "a run is no replay of itself");
}

#[test]
fn what_was_not_recorded_is_undecided() {
    let model = support::model("tiny-qwen2.q8_0");
    let (_folder, trace) = recorded(&model, &["--points", "resid_mid", "--layers", "1..3"]);
    let (answer, status) = judged(&trace, &["--model", text(&model)]);
    assert_eq!((answer["verdict"].as_str(), status), (Some("undecided"), 3), "{answer}");
    assert_eq!(answer["operations"][0]["verdict"], "undecided: input not recorded");
}

#[test]
fn the_page_ends_with_the_verdict_and_rows_are_rows() {
    let model = support::model("tiny-gpt2.f16");
    let (_folder, trace) = recorded(&model, &["--points", "attn_norm,q,resid_post", "--layers", "0..2"]);
    let output = audit(&trace, &["--model", text(&model)]);
    let page = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = page.lines().collect();
    insta::assert_snapshot!(lines[lines.len() - 2..].join("\n"), @r"
    judged together: q with q_matmul from attn_norm (layers 0, 1)
    verdict: right - 3 operations right, 3 not judged
    ");
    let csv = String::from_utf8(audit(&trace, &["--model", text(&model), "--format", "csv"]).stdout).unwrap();
    insta::assert_snapshot!(csv.lines().next().unwrap(), @"site,layer,point,occurrence,operation,inputs,through,tokens,rel_l2,bound,over_bound,slope,largest_z,channel,worst_position,alternative,alternative_rel_l2,class,verdict,detects,note");
    assert_eq!(csv.lines().count(), 1 + 6);
}

/// The files of a case are numpy's: their headers say shape and type, and the recorded row is the trace's.
#[test]
fn the_case_of_a_culprit_is_written_once() {
    let broken = without_a_bias();
    let original = support::model("tiny-qwen2.safetensors");
    let (folder, trace) = recorded(broken.path(), &[]);
    let case = folder.path().join("case");
    let arguments = ["--model", text(broken.path()), "--original", text(&original), "--save-case", text(&case)];
    assert_eq!(audit(&trace, &arguments).status.code(), Some(1));
    let shape = |name: &str| {
        let bytes = std::fs::read(case.join(name)).unwrap();
        let header = String::from_utf8_lossy(&bytes[10..128]).into_owned();
        assert!(bytes.starts_with(b"\x93NUMPY\x01\x00") && header.contains("'descr': '<f4'"), "{name}");
        header.split("'shape': ").nth(1).unwrap().split(", }").next().unwrap().to_owned()
    };
    let shapes = ["input0.npy", "weight0.npy", "original0.npy", "expected.npy", "recorded.npy"].map(shape);
    assert_eq!(shapes, ["(128,)", "(1, 128,)", "(1, 128,)", "(128,)", "(128,)"]);
    assert!(std::fs::read_to_string(case.join("case.py")).unwrap().starts_with("# layer 2, k: operation bias"));
    let again = audit(&trace, &arguments);
    assert_eq!(again.status.code(), Some(2), "nothing is overwritten");
}
