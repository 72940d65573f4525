//! What every named query answers over small traces, as people read it. The values are halves and quarters, so that figures
//! come out the same on every machine.

use crate::support::package;
use crate::synthetic::{Run, UnderWay, writer};
use actrace::sql::named::Catalogue;
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

/// Writes runs of a prefill over [`TOKENS`] and one decoded token.
fn write(path: &Path, runs: &[(&str, &dyn Fn(i32, &str, u32) -> Vec<f32>)]) {
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

/// Queries, and what they are told. `weights` has a test of its own.
const ASKED: [(&str, &[&str]); 20] = [
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
    ("worst-positions", &[]),
];

#[test]
fn every_named_query_answers_what_it_is_asked() {
    let folder = tempdir().unwrap();
    write(&folder.path().join("two.actrace"), &[("a", &right), ("b", &wrong)]);
    write(&folder.path().join("third.actrace"), &[("c", &rounded)]);
    let catalogue = Catalogue::shipped();
    for (name, parameters) in ASKED {
        let question = catalogue.find(name).unwrap().question;
        let mut command = Command::new(env!("CARGO_BIN_EXE_actrace-query"));
        command.current_dir(folder.path()).args(["run", name, "two.actrace"]);
        // Only one question is about three runs.
        if name == "odd-run" {
            command.arg("third.actrace");
        }
        command.args(parameters.iter().flat_map(|parameter| ["-p", parameter]));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let answer = String::from_utf8(output.stdout).unwrap();
        insta::with_settings!({ description => question, omit_expression => true }, {
            insta::assert_snapshot!(name, answer);
        });
    }
}

#[test]
fn none_is_left_out_here_or_where_users_look() {
    let asked = ASKED.iter().map(|(name, _)| *name).chain(["weights"]).collect::<std::collections::BTreeSet<_>>();
    let queries = Catalogue::shipped().all().unwrap();
    assert_eq!(queries.iter().map(|query| query.name.as_str()).collect::<std::collections::BTreeSet<_>>(), asked);
    for page in ["README.md", "docs/questions.md"] {
        let text = std::fs::read_to_string(package().join(page)).unwrap();
        for query in &queries {
            assert!(text.contains(&format!("`{}`", query.name)), "{page} lacks the query {}", query.name);
        }
    }
}
