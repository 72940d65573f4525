//! Single channels, and which experts a router chose: what was planted is found where it was planted, and nowhere else.

use crate::asking::answer;
use crate::support::families;
use crate::synthetic::{Run, write};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::{TempDir, tempdir};

type Values<'a> = &'a dyn Fn(i32, &str, u32) -> Vec<f32>;

const LAYERS: [(i32, &str); 3] = [(0, "resid_post"), (1, "resid_post"), (2, "resid_post")];

/// Rows of six channels of about 1; channel 4 is 100 times as large from layer 1 on, at the first token.
fn massive(layer: i32, _point: &str, position: u32) -> Vec<f32> {
    let mut row = [1.0, -1.25, 0.75, 1.0, -0.5, 1.0];
    if layer >= 1 && position == 0 {
        row[4] = -100.0;
    }
    row.to_vec()
}

/// The same, with that channel an eighth too small in layer 2.
fn too_small(layer: i32, point: &str, position: u32) -> Vec<f32> {
    let mut row = massive(layer, point, position);
    if layer == 2 {
        row[4] *= 0.875;
    }
    row
}

fn two(sites: &[(i32, &str)], tensors: bool, reference: Values<'_>, target: Values<'_>) -> (TempDir, PathBuf) {
    let folder = tempdir().unwrap();
    let path = folder.path().join("two.actrace");
    let run = |label, values| Run { label, tokens: vec![5, 6, 7], sites: sites.to_vec(), tensors, values };
    write(&path, &[run("a", reference), run("b", target)], true);
    (folder, path)
}

#[test]
fn a_massive_channel_is_found_in_the_layers_that_have_it() {
    let (_folder, path) = two(&LAYERS, true, &massive, &too_small);
    // Largest magnitudes of the channels: 1, 1.25, 0.75, 1, 100, 1, of which 1 is the median. In layer 0 channel 1 leads.
    let expected = "label,layer,rows,of,channel,absmax,median,to_median,outlier,layers\n\
                    a,0,3,3,1,1.25,1,1.25,false,0\na,1,3,3,4,100,1,100,true,2\na,2,3,3,4,100,1,100,true,2\n";
    assert_eq!(answer("outlier-channels", std::slice::from_ref(&path), &[("run", "a")]), expected);
    let none = answer("outlier-channels", &[path], &[("run", "a"), ("above", "101")]);
    assert!(none.lines().skip(1).all(|line| line.ends_with(",false,0")), "{none}");
    // Without values nobody knows, and the answer says of how many rows.
    let (_folder, path) = two(&LAYERS, false, &massive, &too_small);
    let unknown = answer("outlier-channels", &[path], &[("run", "a")]);
    assert!(unknown.ends_with("\na,0,0,3,,,,,,\na,1,0,3,,,,,,\na,2,0,3,,,,,,\n"), "{unknown}");
}

#[test]
fn a_channel_is_followed_over_layers_beside_another_run() {
    let (_folder, path) = two(&LAYERS, true, &massive, &too_small);
    let asked = [("channel", "4"), ("run", "b"), ("reference", "a"), ("position", "0")];
    let expected = "label,layer,occurrence,position,token_id,value,absmax,reference_value,ratio\n\
                    b,0,0,0,5,-0.5,1.25,-0.5,1\nb,1,0,0,5,-100,100,-100,1\nb,2,0,0,5,-87.5,87.5,-100,0.875\n";
    assert_eq!(answer("channel", std::slice::from_ref(&path), &asked), expected);
    // One run alone, and a channel that rows of six do not have.
    let alone = answer("channel", std::slice::from_ref(&path), &[("channel", "6"), ("run", "a")]);
    assert_eq!(alone.lines().count(), 10);
    assert!(alone.lines().skip(1).all(|line| line.ends_with(",,") && line.contains(",,")), "{alone}");
}

const EXPERTS: [(i32, &str); 4] = [(0, "moe_topk"), (0, "moe_down"), (1, "moe_topk"), (1, "moe_down")];

fn routed(_layer: i32, point: &str, position: u32) -> Vec<f32> {
    if point == "moe_topk" { vec![0.0, 3.0] } else { vec![1.0 + position as f32, 2.0] }
}

/// In layer 1 another expert for the second token, whose output is another then.
fn rerouted(layer: i32, point: &str, position: u32) -> Vec<f32> {
    match (layer, point, position) {
        (1, "moe_topk", 1) => vec![2.0, 3.0],
        (1, "moe_down", 1) => vec![-500.0, 7.0],
        _ => routed(layer, point, position),
    }
}

#[test]
fn another_choice_of_experts_is_shown_and_its_rows_are_compared_nowhere() {
    let (_folder, path) = two(&EXPERTS, true, &routed, &rerouted);
    let path = std::slice::from_ref(&path);
    let found = answer("other-experts", path, &[("limit", "1")]);
    let expected = "layer,of,others,position,token_id,same,reference,target,only_reference,only_target\n\
                    1,3,1,1,6,false,\"[0,3]\",\"[2,3]\",[0],[2]\n";
    assert_eq!(found, expected);
    assert_eq!(answer("other-experts", path, &[]).matches(",true,").count(), 5);
    let ratio = answer("ratio-by-layer", path, &[]);
    assert!(ratio.contains(",1,moe_down,3,2,") && ratio.contains(",0,moe_down,3,3,"), "{ratio}");
    assert!(!ratio.contains("alarm"), "{ratio}");
    let bits = answer("bit-equality", path, &[]);
    assert!(bits.contains("\n3,1,moe_down,3,2,2,0,\n") && bits.contains("\n2,1,moe_topk,3,3,2,1,1\n"), "{bits}");
    let beside = answer("channel", path, &[("point", "moe_down"), ("run", "b"), ("reference", "a")]);
    assert!(beside.lines().skip(1).all(|line| line.ends_with(",,")), "inside experts there is no ratio: {beside}");
    let names = answer("channel", path, &[("point", "moe_topk"), ("run", "b"), ("reference", "a")]);
    assert!(names.lines().skip(1).all(|line| line.ends_with(",,")), "numbers of experts have no ratio: {names}");
    for point in ["moe_topk", "moe_down"] {
        let mixed = answer("outlier-channels", path, &[("point", point)]);
        assert_eq!(mixed.lines().count(), 1, "rows of other experts have no channels in common: {mixed}");
    }
    assert!(!answer("statistics", path, &[]).contains("moe_topk"), "numbers of experts have no mean");
    // Whether sets are equal is known without their values; which they are is not.
    let (_folder, path) = two(&EXPERTS, false, &routed, &rerouted);
    let found = answer("other-experts", &[path], &[("limit", "1")]);
    assert!(found.ends_with("\n1,3,1,1,6,false,,,,\n"), "{found}");
}

fn record(model: &Path, label: &str, out: &Path) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_actrace"));
    command.args(["record", "--tokens", "5,6,7,8,9,10", "--label", label, "--model"]).arg(model);
    let output = command.arg("--out").arg(out).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The numbers of the `count` most probable experts, from a row of router probabilities.
fn most_probable(row: &Value, count: usize) -> Vec<u64> {
    let probabilities: Vec<f64> = row.as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).collect();
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|a, b| probabilities[*b].total_cmp(&probabilities[*a]));
    order.truncate(count);
    order.into_iter().map(|id| id as u64).collect::<BTreeSet<_>>().into_iter().collect()
}

fn rows(arguments: &[&str], path: &Path) -> Vec<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_actrace-query"));
    let output = command.args(arguments).arg(path).args(["--format", "json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_experts_of_a_model_are_the_most_probable_ones() {
    let folder = tempdir().unwrap();
    let (trace, other) = (folder.path().join("runs.actrace"), folder.path().join("other"));
    std::fs::create_dir(&other).unwrap();
    let model = families::folder("qwen2_moe");
    families::turn_router(model.path(), &other);
    record(model.path(), "right", &trace);
    record(&other, "turned", &trace);
    let sql = "SELECT label, layer, position, data FROM activations WHERE point = 'moe_probs'";
    let probabilities = rows(&["sql", sql], &trace);
    let chosen = |label: &str, layer: &Value, position: &Value, count: usize| {
        let found = |row: &&Value| row["label"] == label && row["layer"] == *layer && row["position"] == *position;
        most_probable(&probabilities.iter().find(found).unwrap()["data"], count)
    };
    let experts = rows(&["run", "experts"], &trace);
    // Two runs of two layers and six tokens.
    assert_eq!(experts.len(), 24);
    for row in &experts {
        let numbers = row["experts"].as_array().unwrap();
        let expected = chosen(row["label"].as_str().unwrap(), &row["layer"], &row["position"], numbers.len());
        assert_eq!(row["experts"], serde_json::json!(expected), "{row}");
    }
    let pairs = rows(&["run", "other-experts"], &trace);
    assert_eq!(pairs.len(), 12);
    for row in &pairs {
        let of =
            |label: &str| chosen(label, &row["layer"], &row["position"], row["reference"].as_array().unwrap().len());
        assert_eq!((&row["reference"], &row["target"]), (&of("right").into(), &of("turned").into()), "{row}");
        assert_eq!(row["same"], of("right") == of("turned"), "{row}");
    }
    let others = |layer: i32| pairs.iter().find(|row| row["layer"] == layer).unwrap()["others"].as_u64().unwrap();
    assert_eq!(others(0), 0, "the router of the first layer stays as it is");
    assert!(others(1) > 0, "a router that is turned upside down chooses others");
}
