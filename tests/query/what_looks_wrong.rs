//! What looks wrong in a run by itself is said with its place, from statistics alone.

use crate::comparing::{judged, smooth};
use crate::synthetic::{self, Run, UnderWay, identity, write};
use actrace::compare::{Suspicion, Warning};
use actrace::open::{RunRef, TraceSet};
use actrace::record::{LossV1, RunV1};
use std::path::Path;
use tempfile::tempdir;

const SITES: [(i32, &str); 6] =
    [(0, "q"), (0, "q_rope"), (0, "attn_probs"), (1, "q"), (1, "attn_probs"), (-1, "logits")];

/// Three layers' worth of ordinary rows; one key alone has the whole probability, and position 0 is not rotated.
fn right(layer: i32, point: &str, position: u32) -> Vec<f32> {
    match point {
        "attn_probs" if position == 0 => vec![1.0; 4],
        // A query that one key takes whole, in every head and layer.
        "attn_probs" if position == 1 => [1.0, 0.0].repeat(4),
        "q_rope" if position == 0 => smooth(layer, "q", 0),
        _ => smooth(layer, point, position),
    }
}

fn run<'a>(label: &'a str, values: &'a dyn Fn(i32, &str, u32) -> Vec<f32>) -> Run<'a> {
    Run { label, tokens: vec![1, 2, 3], sites: SITES.to_vec(), tensors: false, values }
}

fn only_run(path: &Path) -> RunRef {
    TraceSet::open(&[path.to_path_buf()]).unwrap().runs().next().unwrap()
}

/// What is said of a run whose values are `values`.
fn said(values: &dyn Fn(i32, &str, u32) -> Vec<f32>) -> Vec<String> {
    let folder = tempdir().unwrap();
    let path = folder.path().join("run.actrace");
    write(&path, &[run("r", values)], true);
    let run = only_run(&path);
    let warnings = Warning::of(&run).unwrap();
    assert_eq!(run.trace().bytes_read().0, 0, "no payload is read");
    warnings.iter().map(text).collect()
}

fn text(warning: &Warning) -> String {
    let (kind, point) = (warning.suspicion.name(), warning.point.as_deref().unwrap_or("-"));
    format!("{kind} {:?} {point} {:?}: {}", warning.layer, warning.position, warning.text)
}

/// `right`, but for what `change` does to the row of a place.
fn changed(place: (i32, &'static str, u32), change: fn(&mut [f32])) -> Vec<String> {
    said(&move |layer, point, position| {
        let mut values = right(layer, point, position);
        if (layer, point, position) == place {
            change(&mut values);
        }
        values
    })
}

#[test]
fn nothing_is_said_of_what_is_equal_by_nature() {
    assert_eq!(said(&right), Vec::<String>::new());
}

#[test]
fn zeros_constants_and_subnormals_are_said_with_their_first_position() {
    assert_eq!(changed((1, "q", 2), |row| row.fill(0.0)), ["zero Some(1) q Some(2): 1 of 3 rows are all zero"]);
    assert_eq!(
        changed((0, "q_rope", 1), |row| row.fill(2.5)),
        ["constant Some(0) q_rope Some(1): 1 of 3 rows are one value throughout"]
    );
    // 16 of 192 values.
    assert_eq!(
        changed((-1, "logits", 1), |row| row[..16].fill(1e-40)),
        ["subnormal None logits Some(1): 8.3 % of the values are subnormal"]
    );
    assert_eq!(changed((-1, "logits", 1), |row| row[..8].fill(1e-40)), Vec::<String>::new());
}

/// The row of layer 1 is that of layer 0 at two positions, as a buffer is that was not written again.
#[test]
fn rows_of_another_layer_are_said() {
    let stale = |layer: i32, point: &str, position: u32| match (layer, point, position) {
        (1, "q", 1 | 2) => right(0, point, position),
        _ => right(layer, point, position),
    };
    let expected = "stale Some(1) q Some(1): 2 of 3 rows are those of layer 0, bit for bit: a buffer that was not \
                    written, or read too late";
    assert_eq!(said(&stale), [expected]);
}

/// In forward order, not in the order of positions: position 2 of `q` comes before position 0 of `logits`.
#[test]
fn the_place_where_a_nonfinite_value_comes_up_first_is_said() {
    let broken = |layer: i32, point: &str, position: u32| {
        let mut values = right(layer, point, position);
        match (layer, point, position) {
            (0, "q_rope", 2) => values[7] = f32::NEG_INFINITY,
            (-1, "logits", _) => values[0] = f32::NAN,
            _ => {}
        }
        values
    };
    let expected = "nonfinite Some(0) q_rope Some(2): NaN or infinities come up here first, in step 0; 4 rows of the run have some";
    assert_eq!(said(&broken), [expected]);
}

#[test]
fn runs_without_an_end_and_runs_that_lost_something_are_said() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("torn.actrace");
    write(&path, &[run("r", &right)], false);
    let said: Vec<String> = Warning::of(&only_run(&path)).unwrap().iter().map(text).collect();
    assert_eq!(said, ["incomplete None - None: no end was recorded: the run is under way or was killed"]);
    let path = folder.path().join("lost.actrace");
    let mut writer = synthetic::writer(&path);
    let lost = run("r", &right);
    let mut under_way = UnderWay::begin(&mut writer, &lost);
    under_way.statistics();
    under_way.commit();
    under_way.lose(&LossV1 { what: "rows".into(), rows: 17, why: "a full disk".into() });
    under_way.end();
    writer.seal().unwrap();
    let said: Vec<String> = Warning::of(&only_run(&path)).unwrap().iter().map(text).collect();
    assert_eq!(said, ["loss None - None: 17 rows were dropped: a full disk"]);
}

#[test]
fn identities_that_speak_against_a_comparison_are_said_where_both_are_known() {
    let (r, t) = (identity("r", &[1]), identity("t", &[1]));
    assert_eq!(Warning::between(&r, &t), []);
    let with = |hash: u8| RunV1 { tokenizer_hash: [hash; 32], vocabulary_hash: [hash; 32], ..r.clone() };
    assert_eq!(Warning::between(&r, &with(1)), [], "0 is not known");
    let elsewhere = RunV1 { tokenizer_hash: [2; 32], model_format: "gguf".into(), ..with(1) };
    assert_eq!(Warning::between(&with(1), &elsewhere), [], "one vocabulary has other bytes in another format");
    let other = RunV1 { architecture: "llama".into(), ..with(2) };
    let warnings = Warning::between(&with(1), &other);
    assert!(warnings.iter().all(|warning| warning.suspicion == Suspicion::Unlike));
    let words = ["qwen2 against llama", "tokenizers are unlike", "capture points"];
    assert_eq!(warnings.len(), words.len());
    for (warning, word) in warnings.iter().zip(words) {
        assert!(warning.text.contains(word), "{}", warning.text);
    }
}

/// Warnings are shown and decide nothing; what a file says of itself reaches no terminal as a command.
#[test]
fn a_comparison_shows_the_warnings_of_both_runs() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("runs.actrace");
    let zeros = |layer: i32, point: &str, position: u32| match point {
        "q_rope" => vec![0.0; 64],
        _ => right(layer, point, position),
    };
    write(&path, &[run("r", &zeros), run("t", &zeros)], true);
    let (answer, status) = judged(&path, "r", "t", &[]);
    assert_eq!((answer["verdict"].as_str(), status), (Some("equal"), 0));
    for whose in ["reference", "target"] {
        let warnings = answer["warnings"][whose].as_array().unwrap();
        assert_eq!((warnings.len(), warnings[0]["kind"].as_str()), (1, Some("zero")));
        assert_eq!((&warnings[0]["layer"], &warnings[0]["point"]), (&0.into(), &"q_rope".into()));
    }
}
