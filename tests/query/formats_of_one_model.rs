//! `compare` of one model in several files: the same weights are equal whatever the format, rounded ones are not.

use crate::support::{apr, model};
use std::path::Path;
use std::process::Command;
use tempfile::tempdir;

fn record(model: &Path, label: &str, out: &Path) {
    let output = Command::new(env!("CARGO_BIN_EXE_actrace"))
        .args(["record", "--tokens", "561,402,84,398,199", "--generate", "4", "--label", label, "--model"])
        .arg(model)
        .arg("--out")
        .arg(out)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The last line and the exit status.
fn verdict(trace: &Path, reference: &str, target: &str, more: &[&str]) -> (String, i32) {
    let output = Command::new(env!("CARGO_BIN_EXE_actrace-query"))
        .arg("compare")
        .arg(trace)
        .args(["--reference", reference, "--target", target])
        .args(more)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (text.lines().last().unwrap().to_owned(), output.status.code().unwrap())
}

#[test]
fn equal_weights_are_equal_in_every_format_and_rounded_ones_diverge() {
    let folder = tempdir().unwrap();
    let trace = folder.path().join("formats.actrace");
    record(&model("tiny-qwen2.q4_k_m"), "gguf", &trace);
    record(&apr::rebuilt("tiny-qwen2.q4_k_m").0, "apr", &trace);
    record(&model("tiny-qwen2.safetensors"), "safetensors", &trace);
    record(&apr::rebuilt("tiny-qwen2.bf16").0, "apr-bf16", &trace);
    for (reference, target) in [("gguf", "apr"), ("safetensors", "apr-bf16")] {
        let (verdict, status) = verdict(&trace, reference, target, &[]);
        assert_eq!((verdict.as_str(), status), ("verdict: equal - every compared row is bit-equal", 0));
    }
    let (verdict, status) = verdict(&trace, "safetensors", "gguf", &["--rtol", "1e-4"]);
    assert_eq!(status, 1, "{verdict}");
    assert!(verdict.starts_with("verdict: diverged - tok_embed"), "{verdict}");
}
