//! Several targets beside one reference, as a page, as an object and as JUnit; and runs that need not be named.

use crate::comparing::{compare, judged, smooth};
use crate::synthetic::{Run, write};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::{TempDir, tempdir};

type Values = Box<dyn Fn(i32, &str, u32) -> Vec<f32>>;

/// `smooth`, eight values a row, with layer 1 times `factor` at position 1.
fn scaled(factor: f32) -> Values {
    Box::new(move |layer, point, position| {
        let factor = if (layer, position) == (1, 1) { factor } else { 1.0 };
        smooth(layer, point, position)[..8].iter().map(|x| x * factor).collect()
    })
}

/// A reference, and targets that are equal, close, and off by a fifth; the last has a control character in its label.
fn runs(labels: &[(&str, f32)]) -> (TempDir, PathBuf) {
    let folder = tempdir().unwrap();
    let path = folder.path().join("runs.actrace");
    let values: Vec<Values> = labels.iter().map(|(_, factor)| scaled(*factor)).collect();
    let sites = vec![(0, "ffn_up"), (1, "ffn_up")];
    let run = |label, values| Run { label, tokens: vec![1, 2], sites: sites.clone(), tensors: true, values };
    let runs: Vec<Run<'_>> = labels.iter().zip(&values).map(|((label, _), values)| run(label, &**values)).collect();
    write(&path, &runs, true);
    (folder, path)
}

const FOUR: [(&str, f32); 4] = [("r", 1.0), ("same", 1.0), ("close", 1.000_001), ("off\u{1b}[2J", 1.2)];
const TARGETS: [&str; 6] = ["--target", "same", "--target", "close", "--target", "off\u{1b}[2J"];

fn asked(trace: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_actrace-query")).arg("compare").arg(trace).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn one_page_has_every_target_and_the_status_is_the_worst() {
    let (_folder, path) = runs(&FOUR);
    let output = asked(&path, &[&["--reference", "r"][..], &TARGETS].concat());
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!(text(&output));
    let output = asked(&path, &["--reference", "r", "--target", "same", "--target", "close"]);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn one_object_has_every_target() {
    let (_folder, path) = runs(&FOUR);
    let output = asked(&path, &[&["--reference", "r", "--format", "json"][..], &TARGETS].concat());
    let answer: Value = serde_json::from_str(&text(&output)).unwrap();
    assert_eq!((&answer["status"], &answer["reference"]["label"]), (&"failed".into(), &"r".into()));
    let verdicts: Vec<&str> =
        answer["targets"].as_array().unwrap().iter().map(|target| target["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["equal", "within_tolerance", "diverged"]);
    // A target alone is the object that it is among several.
    assert_eq!(judged(&path, "r", "close", &[]).0, answer["targets"][1]);
}

#[test]
fn rows_say_whose_they_are() {
    let (_folder, path) = runs(&FOUR);
    let output = asked(&path, &["--reference", "r", "--target", "same", "--target", "close", "--format", "csv"]);
    let targets: Vec<String> =
        text(&output).lines().skip(1).map(|line| line.split(',').next().unwrap().to_owned()).collect();
    assert_eq!(targets, ["same", "same", "close", "close"]);
}

#[test]
fn an_object_has_everything() {
    let (folder, path) = runs(&FOUR[..3]);
    let rules = folder.path().join("rules.toml");
    std::fs::write(&rules, "[[rule]]\npattern = \"*\"\nmetric = \"rel_l2\"\nlimit = 1e-7\nlevel = \"warn\"\n").unwrap();
    let (answer, status) = judged(&path, "r", "close", &["--rules", rules.to_str().unwrap()]);
    assert_eq!(status, 0);
    insta::assert_snapshot!(serde_json::to_string_pretty(&answer).unwrap());
}

#[test]
fn junit_has_a_case_for_each_place_or_for_each_rule() {
    let (folder, path) = runs(&FOUR);
    let places = asked(&path, &[&["--reference", "r", "--format", "junit"][..], &TARGETS].concat());
    assert_eq!(places.status.code(), Some(1));
    insta::assert_snapshot!("junit_of_places", text(&places));
    let rules = folder.path().join("rules.toml");
    let rule = |pattern: &str, limit: &str, level: &str| {
        format!("[[rule]]\npattern = \"{pattern}\"\nmetric = \"rel_l2\"\nlimit = {limit}\nlevel = \"{level}\"\n")
    };
    let file = [
        rule("layers.0.*", "1e-5", "fail"),
        rule("layers.1.*", "1e-9", "warn"),
        rule("*", "1e-5", "fail"),
        rule("layers.1.ffn_up", "1e-5", "fail").replace("rel_l2", "rel_linf"),
        rule("logits", "0", "fail").replace("level", "optional = true\nlevel"),
    ];
    std::fs::write(&rules, file.concat()).unwrap();
    let rules = rules.to_str().unwrap();
    let ruled = asked(&path, &["--reference", "r", "--target", "close", "--rules", rules, "--format", "junit"]);
    assert_eq!(ruled.status.code(), Some(3), "the third rule decides for no place");
    insta::assert_snapshot!("junit_of_rules", text(&ruled));
}

#[test]
fn runs_that_cannot_be_compared_are_errors_of_a_suite() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("runs.actrace");
    let run = |label, tokens| Run { label, tokens, sites: vec![(0, "q")], tensors: true, values: &smooth };
    write(&path, &[run("r", vec![1, 2]), run("t", vec![9, 2])], true);
    let output = compare(&path, "r", "t", &["--format", "junit"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(
        text(&output)
            .contains("<testsuite name=\"t against r\" tests=\"1\" skipped=\"0\" errors=\"1\" failures=\"0\">")
    );
}

#[test]
fn two_runs_need_no_names_and_three_do() {
    let (_folder, path) = runs(&FOUR[..2]);
    let output = asked(&path, &["--format", "json"]);
    let answer: Value = serde_json::from_str(&text(&output)).unwrap();
    assert_eq!((&answer["reference"]["label"], &answer["target"]["label"]), (&"r".into(), &"same".into()));
    let (_folder, path) = runs(&FOUR[..3]);
    for (arguments, said) in [
        (&[][..], "which runs? give --reference and --target; there are r ("),
        (&["--reference", "r"], "--target"),
        (&["--reference", "r", "--target", "same", "--target", "same"], "--target names the run same twice"),
        (&["--reference", "r", "--target", "same", "--target", "close", "--model", "m"], "--model is the file of one"),
    ] {
        let output = asked(&path, arguments);
        let stderr = String::from_utf8(output.stderr.clone()).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{arguments:?}");
        assert!(stderr.contains(said), "{stderr}");
    }
}

/// Between twins the culprit need not exceed anything: its case does not say that it does.
#[test]
fn the_case_of_a_culprit_below_the_tolerance_says_who_judged() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("runs.actrace");
    let grown = |layer: i32, point: &str, position: u32| -> Vec<f32> {
        let factor = if layer == 0 { 1.0 + 2e-7 } else { 2.0 };
        smooth(layer, point, position).iter().map(|x| x * factor).collect()
    };
    let sites = vec![(0, "ffn_up"), (1, "ffn_up")];
    let run = |label, values| Run { label, tokens: vec![1, 2], sites: sites.clone(), tensors: true, values };
    write(&path, &[run("r", &smooth), run("t", &grown)], true);
    let xml = text(&asked(&path, &["--reference", "r", "--target", "t", "--format", "junit"]));
    assert!(xml.contains("first divergence: judged by twins: layer 0 ffn_up"), "{xml}");
}
