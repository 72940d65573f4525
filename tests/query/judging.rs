//! What `compare` judges by, as its users see it: twins, a baseline, an audit of the model files that are at hand.

use crate::support::broken::{self, Breakage};
use crate::support::model;
use crate::support::plant::Damage;
use actrace::model::{Model, Role, WeightKey};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::{TempDir, tempdir};

const TOKENS: &str = "609,1827,409,72,608,221,1834,335,12,99";

/// A trace of the safetensors, of a q8_0 file and of a copy of it with a fault; and that copy.
struct Ground {
    folder: TempDir,
    trace: PathBuf,
    broken: PathBuf,
}

impl Ground {
    fn new() -> Self {
        let folder = tempdir().unwrap();
        let (trace, broken) = (folder.path().join("runs.actrace"), folder.path().join("broken.gguf"));
        let right = model("tiny-qwen2.q8_0");
        let key = WeightKey::in_layer(2, Role::FfnUp);
        broken::write(&Model::open(&right).unwrap(), &broken, key, Breakage::Values(Damage::Row));
        let ground = Ground { folder, trace, broken };
        ground.record(&model("tiny-qwen2.safetensors"), "f32", &[]);
        ground.record(&right, "right", &[]);
        ground.record(&right, "other", &["--semantics", "dequantize-f32"]);
        ground.record(&ground.broken, "broken", &[]);
        ground
    }

    fn record(&self, model: &Path, label: &str, more: &[&str]) {
        self.record_ids(model, label, TOKENS, more);
    }

    fn record_ids(&self, model: &Path, label: &str, ids: &str, more: &[&str]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_actrace"));
        command.args(["record", "--tokens", ids, "--generate", "3", "--label", label]).args(more);
        let output = command.arg("--model").arg(model).arg("--out").arg(&self.trace).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn compare(&self, target: &str, more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_actrace-query"));
        command.arg("compare").arg(&self.trace).args(["--reference", "f32", "--target", target]);
        command.args(more).output().unwrap()
    }

    /// The JSON answer and the exit status.
    fn judged(&self, target: &str, more: &[&str]) -> (Value, i32) {
        let output = self.compare(target, &[&["--format", "json"], more].concat());
        let answer = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&output.stderr)));
        (answer, output.status.code().unwrap())
    }
}

fn place(answer: &Value) -> (Option<u64>, Option<&str>) {
    let first = &answer["first_divergence"];
    (first["layer"].as_u64(), first["point"].as_str())
}

const FAULT: (Option<u64>, Option<&str>) = (Some(2), Some("ffn_up"));

#[test]
fn the_audit_judges_where_rounding_hides_the_fault() {
    let ground = Ground::new();
    let (alone, status) = ground.judged("broken", &["--no-audit"]);
    assert_eq!(
        (alone["verdict"].as_str(), alone["judged_by"].as_str(), status),
        (Some("within_tolerance"), Some("floor"), 0)
    );
    assert!(alone["reason"].as_str().unwrap().contains("only an audit can decide"), "{alone}");
    let (answer, status) = ground.judged("broken", &[]);
    assert_eq!(
        (answer["verdict"].as_str(), answer["judged_by"].as_str(), status),
        (Some("diverged"), Some("audit"), 1)
    );
    assert_eq!(
        (place(&answer), answer["first_divergence"]["class"].as_str()),
        (FAULT, Some("file")),
        "{}",
        answer["reason"]
    );
    let sites = || answer["sites"].as_array().unwrap().iter();
    let site = sites().find(|site| site["point"] == "ffn_out").unwrap();
    assert_eq!(site["introduced_is"], "measured");
    // The operation is right by its own file: the error is that against the reference.
    let fault = sites().find(|site| site["layer"] == 2 && site["point"] == "ffn_up").unwrap();
    assert!(fault["rel_l2"].as_f64().unwrap() > 0.0);
    assert_eq!(answer["first_divergence"]["rel_l2"], fault["rel_l2"]);
    assert!(sites().next().unwrap()["inherited"].as_f64().unwrap().is_sign_positive());
    let (answer, status) = ground.judged("right", &[]);
    assert_eq!((answer["verdict"].as_str(), status), (Some("within_tolerance"), 0), "{}", answer["reason"]);
    assert_eq!((answer["judged_by"].as_str(), place(&answer)), (Some("audit"), (None, None)));
}

/// Without the file, what would be needed is said; another file in its place is not taken for it.
#[test]
fn an_audit_needs_the_files() {
    let ground = Ground::new();
    let kept = ground.folder.path().join("kept.gguf");
    std::fs::rename(&ground.broken, &kept).unwrap();
    let (answer, _) = ground.judged("broken", &["--model", kept.to_str().unwrap()]);
    assert_eq!(place(&answer), FAULT, "{}", answer["reason"]);
    std::fs::copy(model("tiny-qwen2.q8_0"), &ground.broken).unwrap();
    // The reference's file alone: what was run is judged by its weights.
    let (answer, _) = ground.judged("broken", &[]);
    assert_eq!((place(&answer), answer["judged_by"].as_str()), (FAULT, Some("audit")), "{}", answer["reason"]);
    let refused = ground.compare("broken", &["--model", ground.broken.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(2));
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(error.contains("is not the file that `broken` used"), "{error}");
}

#[test]
fn a_baseline_that_is_a_twin_names_the_place() {
    let ground = Ground::new();
    let (answer, status) = ground.judged("broken", &["--baseline", "right"]);
    assert_eq!(
        (answer["judged_by"].as_str(), place(&answer), status),
        (Some("twins"), FAULT, 1),
        "{}",
        answer["reason"]
    );
    assert_eq!(answer["first_exceeding"]["point"], "ffn_up");
    assert_eq!(answer["first_divergence"]["worst"]["channel"], 5, "the row that was broken");
    assert_eq!(answer["baseline"]["relation"], "twins");
    let ratios = answer["sites"]
        .as_array()
        .unwrap()
        .iter()
        .map(|site| (site["point"].as_str(), site["layer"].as_u64(), &site["noise_ratio"]));
    let at = |wanted| ratios.clone().find(|(point, layer, _)| (*layer, *point) == wanted).unwrap().2.as_f64().unwrap();
    // Before the fault target and baseline are equally far from the reference.
    assert_eq!(at((Some(1), Some("ffn_up"))), 1.0);
    assert!(at(FAULT) > 1.1, "{}", at(FAULT));
    let (answer, status) = ground.judged("right", &["--baseline", "right"]);
    assert_eq!(
        (answer["verdict"].as_str(), answer["judged_by"].as_str(), status),
        (Some("within_tolerance"), Some("twins"), 0)
    );
}

/// A baseline of other semantics has errors of its own: within their limit nothing is proven, and the text says so.
#[test]
fn another_baseline_is_a_limit_and_no_proof() {
    let ground = Ground::new();
    let (answer, status) = ground.judged("right", &["--baseline", "other", "--no-audit"]);
    assert_eq!(
        (answer["verdict"].as_str(), answer["judged_by"].as_str(), status),
        (Some("within_tolerance"), Some("baseline"), 0)
    );
    assert!(answer["reason"].as_str().unwrap().contains("a fault may hide below that"), "{}", answer["reason"]);
    let (answer, status) = ground.judged("right", &["--baseline", "f32", "--no-audit"]);
    assert_eq!((answer["verdict"].as_str(), status), (Some("undecided"), 3), "{}", answer["reason"]);
    assert!(answer["reason"].as_str().unwrap().contains("other types"), "{}", answer["reason"]);
    let page = String::from_utf8(ground.compare("broken", &["--baseline", "other"]).stdout).unwrap();
    let last: Vec<&str> = page.lines().rev().take(4).collect();
    assert!(last[3].starts_with("first divergence: layer 2 ffn_up, class file"), "{page}");
    assert_eq!(last[1], "judged by: audit");
}

/// What a baseline was not recorded at, it cannot clear; what it cannot be compared with, it does not judge.
#[test]
fn a_baseline_clears_no_place_that_it_lacks() {
    let ground = Ground::new();
    let right = model("tiny-qwen2.q8_0");
    ground.record(&right, "twin", &["--points", "tok_embed"]);
    ground.record(&right, "unlike", &["--points", "tok_embed", "--semantics", "dequantize-f32"]);
    ground.record_ids(&right, "elsewhere", "5,6,7", &[]);
    for baseline in ["twin", "unlike"] {
        let (answer, status) = ground.judged("broken", &["--baseline", baseline, "--no-audit"]);
        assert_eq!((answer["verdict"].as_str(), status), (Some("undecided"), 3), "{baseline}: {}", answer["reason"]);
        assert!(answer["reason"].as_str().unwrap().contains("says nothing of embed"), "{}", answer["reason"]);
    }
    let (answer, status) = ground.judged("broken", &["--baseline", "elsewhere", "--no-audit"]);
    assert_eq!((answer["verdict"].as_str(), status), (Some("undecided"), 3), "{}", answer["reason"]);
    assert!(answer["reason"].as_str().unwrap().contains("the prompts differ"), "{}", answer["reason"]);
    // Rows are left out: a baseline makes nothing of what was refused.
    for more in [&["--strict"][..], &["--strict", "--baseline", "right"]] {
        let (answer, status) = ground.judged("twin", more);
        assert_eq!((answer["verdict"].as_str(), status), (Some("not_comparable"), 3), "{}", answer["reason"]);
    }
}

/// One operation that is right says nothing of the places of which nothing was kept.
#[test]
fn an_audit_clears_no_place_that_it_did_not_judge() {
    let ground = Ground::new();
    ground.record(&model("tiny-qwen2.q8_0"), "partly", &["--tensors", "tok_embed"]);
    let (answer, status) = ground.judged("partly", &["--audit"]);
    assert_eq!((answer["verdict"].as_str(), status), (Some("not_comparable"), 3), "{}", answer["reason"]);
    assert!(answer["reason"].as_str().unwrap().contains("1 operations right"), "{}", answer["reason"]);
    assert_eq!(ground.judged("right", &["--audit"]).1, 0);
}

#[test]
fn a_tolerance_that_was_given_is_absolute_also_beside_an_audit() {
    let ground = Ground::new();
    let (answer, status) = ground.judged("broken", &["--rtol", "0.9", "--audit"]);
    assert_eq!(
        (answer["verdict"].as_str(), answer["judged_by"].as_str(), status),
        (Some("within_tolerance"), Some("tolerance"), 0),
        "{}",
        answer["reason"]
    );
    assert!(answer["reason"].as_str().unwrap().contains("layer 2 ffn_up"), "{}", answer["reason"]);
}

/// Rules stand in place of the tolerance: not of a baseline, and not of what could not be told where they say nothing.
#[test]
fn rules_pass_neither_what_a_baseline_found_nor_what_is_undecided() {
    let ground = Ground::new();
    let file = ground.folder.path().join("rules.toml");
    let ruled = |pattern: &str, target: &str, baseline: &str| {
        let rule = format!("[[rule]]\npattern = \"{pattern}\"\nmetric = \"rel_l2\"\nlimit = 9.0\nlevel = \"fail\"\n");
        std::fs::write(&file, rule).unwrap();
        let more = ["--rules", file.to_str().unwrap(), "--baseline", baseline, "--no-audit"];
        let (answer, status) = ground.judged(target, &more);
        (answer["rules"]["reason"].as_str().unwrap().to_owned(), status)
    };
    let (reason, status) = ruled("*", "broken", "right");
    assert_eq!(status, 1, "{reason}");
    assert!(reason.contains("whatever the rules"), "{reason}");
    let (reason, status) = ruled("tok_embed", "right", "f32");
    assert_eq!(status, 3, "{reason}");
    assert!(reason.contains("places without a rule differ, and the verdict of them is undecided"), "{reason}");
    let (reason, status) = ruled("*", "right", "f32");
    assert_eq!(status, 0, "a rule for each place decides: {reason}");
}
