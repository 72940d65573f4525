//! What every named query answers over small traces, as people read it. The values are halves and quarters, so that figures
//! come out the same on every machine.

use crate::support::{fixture, package};
use crate::synthetic::{Run, UnderWay, writer};
use actrace::sql::named::{Catalogue, Query};
use std::path::Path;
use std::process::Command;
use tempfile::tempdir;

const TOKENS: [u32; 3] = [5, 6, 7];

/// Points of the runs: a stream of two layers with experts, and what goes wrong in it.
const SITES: [(i32, &str); 13] = [
    (-1, "embed"),
    (0, "v"),
    (0, "resid_mid"),
    (0, "moe_topk"),
    (0, "moe_down"),
    (0, "resid_post"),
    (1, "v"),
    (1, "resid_mid"),
    (1, "moe_topk"),
    (1, "moe_down"),
    (1, "resid_post"),
    (-1, "final_norm"),
    (-1, "logits"),
];

/// Points of run `a`: rows of four values, the second channel far above the others in the stream.
fn right(layer: i32, point: &str, position: u32) -> Vec<f32> {
    let scale = (layer + 2) as f32 * (position + 1) as f32;
    let row = |row: [f32; 4]| row.map(|x| x * scale).to_vec();
    match point {
        "moe_topk" => vec![0.0, 2.0],
        "resid_mid" | "resid_post" => row([0.5, 64.0, -1.0, 2.0]),
        "v" => row([1.0, -0.25, 0.5, 0.25]),
        _ => row([2.0, 1.5, -0.5, 1.0]),
    }
}

/// Run `b`: layer 1 reads layer 0's values of `v`, has a NaN after attention, and chooses another expert for one token; the
/// error of its output reaches the logits.
fn wrong(layer: i32, point: &str, position: u32) -> Vec<f32> {
    let mut row = right(layer, point, position);
    match (layer, point, position) {
        (1, "v", _) => row = right(0, point, position),
        (1, "resid_mid", 2) => row[0] = f32::NAN,
        (1, "moe_topk", 1) => row = vec![1.0, 2.0],
        (1, "moe_down", _) => row[3] *= 32.0,
        (1, "resid_post", _) => row[1] *= 0.875,
        (-1, "logits", 1..) => row[1] += 2.0,
        _ => {}
    }
    row
}

/// Run `c`: right but for its rounding.
fn rounded(layer: i32, point: &str, position: u32) -> Vec<f32> {
    let mut row = right(layer, point, position);
    if point != "moe_topk" {
        row[2] *= 1.0625;
    }
    row
}

type Values<'a> = &'a dyn Fn(i32, &str, u32) -> Vec<f32>;

/// Writes runs of a prefill over [`TOKENS`] and one decoded token.
fn write(path: &Path, runs: &[(&str, Values<'_>)]) {
    let mut writer = writer(path);
    for (label, values) in runs {
        let run = Run { label, tokens: TOKENS.to_vec(), sites: SITES.to_vec(), tensors: true, values };
        let mut under_way = UnderWay::begin(&mut writer, &run);
        for _ in 0..2 {
            under_way.statistics();
            under_way.commit();
        }
        under_way.end();
    }
    writer.seal().unwrap();
}

/// Queries, and what they are told.
const ASKED: [(&str, &[&str]); 21] = [
    ("bit-equality", &[]),
    ("channel", &["channel=1", "reference=a", "position=0"]),
    ("coverage", &["run=b"]),
    ("drift", &[]),
    ("experts", &["run=b"]),
    ("first-exceeding", &[]),
    ("growth", &[]),
    ("logits", &[]),
    ("nonfinite", &[]),
    ("odd-run", &[]),
    ("other-experts", &["limit=4"]),
    ("outlier-channels", &[]),
    ("provenance", &[]),
    ("ratio-by-layer", &[]),
    ("runs", &[]),
    ("spikes", &["above=1.5", "run=b"]),
    ("stale-buffers", &[]),
    ("statistics", &["run=b"]),
    ("top-differences", &["limit=6"]),
    ("weights", &["show=unequal"]),
    ("worst-positions", &[]),
];

/// The files that a query is asked about.
fn files(name: &str) -> &'static [&'static str] {
    match name {
        "odd-run" => &["two.actrace", "third.actrace"],
        "weights" => &["weights.actrace"],
        _ => &["two.actrace"],
    }
}

/// Weights of two formats of one small model.
fn record_weights(folder: &Path) {
    for (label, model) in [("safetensors", "llama/biased"), ("gguf", "llama/biased.f32.gguf")] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_actrace"));
        command.current_dir(folder).arg("weights").arg(fixture(model));
        let output = command.args(["--values", "--label", label, "--out", "weights.actrace"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn every_named_query_answers_what_it_is_asked() {
    let folder = tempdir().unwrap();
    write(&folder.path().join("two.actrace"), &[("a", &right), ("b", &wrong)]);
    write(&folder.path().join("third.actrace"), &[("c", &rounded)]);
    record_weights(folder.path());
    let catalogue = Catalogue::shipped();
    for (name, parameters) in ASKED {
        let query = catalogue.find(name).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_actrace-query"));
        command.current_dir(folder.path()).args(["run", name]).args(files(name));
        command.args(parameters.iter().flat_map(|parameter| ["-p", parameter]));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let answer = String::from_utf8(output.stdout).unwrap();
        for column in answer.lines().next().unwrap().split_whitespace() {
            assert!(query.columns.contains(column), "the header of {name} does not name the column {column}");
        }
        insta::with_settings!({ description => query.question, omit_expression => true }, {
            insta::assert_snapshot!(name, answer);
        });
    }
}

#[test]
fn none_is_left_out_here_or_where_users_look() {
    let asked = ASKED.iter().map(|(name, _)| *name).collect::<std::collections::BTreeSet<_>>();
    let queries = Catalogue::shipped().all().unwrap();
    assert_eq!(queries.iter().map(|query| query.name.as_str()).collect::<std::collections::BTreeSet<_>>(), asked);
    let page = |page: &str| std::fs::read_to_string(package().join(page)).unwrap();
    let (readme, questions) = (page("README.md"), page("docs/questions.md"));
    for Query { name, .. } in &queries {
        assert!(readme.contains(&format!("`{name}`")), "README.md lacks the query {name}");
        assert!(
            questions.contains(&format!("$ actrace-query run {name} ")),
            "docs/questions.md has no example of {name}"
        );
    }
    for number in 1..=19 {
        assert!(questions.contains(&format!("\nQ{number}. ")), "docs/questions.md lacks question {number}");
    }
}
