//! `compare`: metrics as numpy computes them, verdicts with their exit status, and planted faults that must be named.

use crate::asking::{ask, ask_as, refusal};
use crate::support;
use crate::synthetic::{self, Run, write};
use actrace::record::{PlanV1, RunV1};
use actrace::sql::output::Format;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::tempdir;

pub fn compare(trace: &Path, reference: &str, target: &str, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_actrace-query"))
        .arg("compare")
        .arg(trace)
        .args(["--reference", reference, "--target", target])
        .args(more)
        .output()
        .unwrap()
}

/// The JSON answer and the exit status.
pub fn judged(trace: &Path, reference: &str, target: &str, more: &[&str]) -> (Value, i32) {
    let output = compare(trace, reference, target, &[&["--format", "json"], more].concat());
    let answer = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&output.stderr)));
    (answer, output.status.code().unwrap())
}

fn floats(bits: &Value) -> Vec<f32> {
    bits.as_array().unwrap().iter().map(|bits| f32::from_bits(bits.as_u64().unwrap() as u32)).collect()
}

/// numpy sums pairwise and this crate in a row, both in f64 over 257 values: their sums differ by some 1e-14 of the sum
/// of magnitudes. Differences of nearly equal sums (rel_diff, nmse, pearson, ratios of std with a mean of 100) keep
/// fewer digits: 1e-14 * (mean^2 / variance = 1e4).
const ROUNDING: f64 = 1e-10;

#[test]
fn metrics_are_those_of_numpy() {
    let text = std::fs::read_to_string(support::fixture("metrics/metrics.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    for case in &cases {
        let folder = tempdir().unwrap();
        let path = folder.path().join("pair.actrace");
        let (reference, target) = (floats(&case["reference"]), floats(&case["target"]));
        let of = |values: Vec<f32>| move |_: i32, _: &str, _: u32| values.clone();
        let (r, t) = (of(reference), of(target));
        let run = |label, values| Run { label, tokens: vec![1], sites: vec![(0, "q")], tensors: true, values };
        write(&path, &[run("r", &r), run("t", &t)], true);
        let answer = ask_as("SELECT * FROM compare('r', 't')", &[path], Format::Json).0.unwrap();
        let row = &serde_json::from_str::<Vec<Value>>(&answer).unwrap()[0];
        for (name, expected) in case["metrics"].as_object().unwrap() {
            let (expected, found) = (expected.as_f64().unwrap(), row[name].as_f64().unwrap());
            let scale = expected.abs().max(if name == "rel_diff" { 1.0 } else { 0.0 });
            assert!((found - expected).abs() <= ROUNDING * scale, "{name}: {found} is not numpy's {expected}");
        }
    }
}

/// Two runs of 40 positions at two points; the second reads the first.
pub fn pair_of_runs(path: &Path, target: &dyn Fn(i32, &str, u32) -> Vec<f32>) {
    let sites = vec![(0, "ffn_norm"), (0, "ffn_up"), (1, "ffn_up")];
    let run = |label, values| Run { label, tokens: (0..40).collect(), sites: sites.clone(), tensors: true, values };
    write(path, &[run("r", &smooth), run("t", target)], true);
}

pub fn smooth(layer: i32, point: &str, position: u32) -> Vec<f32> {
    let start = layer as f32 + point.len() as f32 + position as f32 * 0.37;
    (0..64).map(|i| (start + i as f32).sin()).collect()
}

#[test]
fn verdicts_have_their_exit_status() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("runs.actrace");
    let close = |layer: i32, point: &str, position: u32| -> Vec<f32> {
        smooth(layer, point, position).iter().map(|x| x * (1.0 + 2e-7)).collect()
    };
    pair_of_runs(&path, &close);
    let (answer, status) = judged(&path, "r", "r", &[]);
    assert_eq!((answer["verdict"].as_str(), status, answer["first_divergence"].is_null()), (Some("equal"), 0, true));
    let (answer, status) = judged(&path, "r", "t", &[]);
    assert_eq!((answer["verdict"].as_str(), status), (Some("within_tolerance"), 0));
    let (answer, status) = judged(&path, "r", "t", &["--rtol", "1e-9"]);
    assert_eq!((answer["verdict"].as_str(), status), (Some("diverged"), 1));
    assert_eq!(answer["first_divergence"]["point"], "ffn_norm");
}

#[test]
fn the_rows_of_a_comparison_come_in_every_format() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("runs.actrace");
    let doubled = |layer: i32, point: &str, position: u32| -> Vec<f32> {
        let factor = if (layer, point) == (1, "ffn_up") { 2.0 } else { 1.0 };
        smooth(layer, point, position).iter().map(|x| x * factor).collect()
    };
    pair_of_runs(&path, &doubled);
    let output = compare(&path, "r", "t", &["--format", "csv"]);
    assert_eq!(output.status.code(), Some(1), "the status is the verdict's");
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("diverged: layer 1 ffn_up"));
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split(',').collect()).collect();
    let header: Vec<&str> = text.lines().next().unwrap().split(',').collect();
    let column = |name: &str| header.iter().position(|column| *column == name).unwrap();
    let beyond: Vec<&str> = rows.iter().map(|row| row[column("beyond_tolerance")]).collect();
    assert_eq!(beyond, ["false", "false", "true"]);
    // Twice the values: an error as large as the reference, and twice its spread.
    let number = |name: &str| rows[2][column(name)].parse::<f64>().unwrap();
    assert_eq!((number("rel_l2"), number("ratio_std")), (1.0, 2.0));
    assert_eq!(compare(&path, "r", "t", &["--format", "parquet"]).stdout[..4], *b"PAR1");
}

#[test]
fn one_bad_row_among_many_is_seen_and_named() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("runs.actrace");
    let stale = |layer: i32, point: &str, position: u32| -> Vec<f32> {
        // Off by 4e-5 of one row: 6e-6 of the whole tensor, which alone would pass for rounding.
        let factor = if (layer, point, position) == (0, "ffn_up", 17) { 1.0 + 4e-5 } else { 1.0 };
        smooth(layer, point, position).iter().map(|x| x * factor).collect()
    };
    pair_of_runs(&path, &stale);
    let (answer, status) = judged(&path, "r", "t", &[]);
    assert_eq!((answer["verdict"].as_str(), status), (Some("diverged"), 1), "{}", answer["reason"]);
    let first = &answer["first_divergence"];
    assert_eq!((&first["layer"], &first["point"], &first["position"]), (&0.into(), &"ffn_up".into(), &17.into()));
}

#[test]
fn a_value_that_is_finite_on_one_side_only_is_a_divergence_without_a_number() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("runs.actrace");
    let broken = |layer: i32, point: &str, position: u32| -> Vec<f32> {
        let mut values = smooth(layer, point, position);
        if (layer, point, position) == (1, "ffn_up", 3) {
            values[5] = f32::NAN;
        }
        values
    };
    pair_of_runs(&path, &broken);
    let (answer, status) = judged(&path, "r", "t", &[]);
    assert_eq!((answer["verdict"].as_str(), status), (Some("diverged"), 1));
    assert_eq!(
        (&answer["first_divergence"]["position"], &answer["first_divergence"]["rel_l2"]),
        (&3.into(), &Value::Null)
    );
    let sql = "SELECT position, disagreeing, rel_l2, cosine FROM compare('r', 't') WHERE NOT bit_equal";
    assert_eq!(ask(sql, &[path]), "position,disagreeing,rel_l2,cosine\n3,1,,\n");
}

#[test]
fn other_prompts_are_not_compared_and_the_first_other_token_is_said() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("runs.actrace");
    let run = |label, tokens| Run { label, tokens, sites: vec![(0, "q")], tensors: true, values: &smooth };
    write(&path, &[run("r", vec![1, 2, 3]), run("t", vec![1, 9, 3])], true);
    let (answer, status) = judged(&path, "r", "t", &[]);
    assert_eq!((answer["verdict"].as_str(), status), (Some("not_comparable"), 3));
    let reason = answer["reason"].as_str().unwrap();
    assert!(reason.contains("first at position 1 (token 2 against 9)"), "{reason}");
    assert!(answer["sites"].as_array().unwrap().is_empty(), "no number for what cannot be compared");
    let refused = refusal("SELECT rel_l2 FROM compare('r', 't')", &[path]);
    assert_eq!(refused.kind(), actrace::ErrorKind::NotComparable, "{refused}");
}

#[test]
fn a_token_after_other_tokens_is_another_token() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("runs.actrace");
    let run = |label, tokens| Run { label, tokens, sites: vec![(0, "q")], tensors: true, values: &smooth };
    let mut writer = synthetic::writer(&path);
    // Equal again at position 2, where the runs have seen other tokens at position 1.
    for run in [run("r", vec![1, 2, 3]), run("t", vec![1, 9, 3])] {
        let mut under_way = synthetic::UnderWay::begin_after(&[1], &mut writer, &run);
        under_way.statistics();
        under_way.commit();
        under_way.end();
    }
    writer.seal().unwrap();
    let (answer, _) = judged(&path, "r", "t", &[]);
    assert_eq!(answer["sites"][0]["rows"], 1, "position 0 alone");
    assert_eq!(answer["left_out"][0]["rows"], 4, "{answer}");
    assert_eq!(ask("SELECT position FROM compare('r', 't')", &[path]), "position\n0\n");
}

#[test]
fn points_of_one_run_only_are_left_out_and_counted() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("runs.actrace");
    let run = |label, sites| Run { label, tokens: vec![1, 2], sites, tensors: true, values: &smooth };
    // The artefact of ship-007: one run captured before the bias, the other after it.
    write(&path, &[run("r", vec![(0, "q"), (0, "ffn_up")]), run("t", vec![(0, "q_matmul"), (0, "ffn_up")])], true);
    let (answer, status) = judged(&path, "r", "t", &[]);
    assert_eq!((answer["verdict"].as_str(), status), (Some("equal"), 0));
    let left_out: Vec<(&str, u64)> = answer["left_out"]
        .as_array()
        .unwrap()
        .iter()
        .map(|left| (left["reason"].as_str().unwrap(), left["rows"].as_u64().unwrap()))
        .collect();
    assert_eq!(left_out, [("point only in the reference", 2), ("point only in the target", 2)]);
    assert_eq!(judged(&path, "r", "t", &["--strict"]).1, 3);
}

#[test]
fn statistics_alone_prove_a_difference_and_not_its_size() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("runs.actrace");
    let swapped = |layer: i32, point: &str, position: u32| -> Vec<f32> {
        let mut values = smooth(layer, point, position);
        values.swap(0, 1);
        values
    };
    let run = |label, values| Run { label, tokens: vec![1], sites: vec![(0, "q")], tensors: false, values };
    write(&path, &[run("r", &smooth), run("t", &swapped)], true);
    let (answer, status) = judged(&path, "r", "t", &[]);
    assert_eq!((answer["verdict"].as_str(), status), (Some("not_comparable"), 3), "exchanged columns, equal norms");
    assert!(answer["sites"][0]["rel_l2"].is_null());
    let sql = "SELECT evidence, bit_equal, rel_l2 FROM compare('r', 't')";
    assert_eq!(ask(sql, &[path]), "evidence,bit_equal,rel_l2\nstatistics,false,\n");
}

/// Without values, statistics prove what is nonfinite in one run only; and of rows that differ no number is made up from
/// those that are equal.
#[test]
fn statistics_alone_prove_what_is_nonfinite_and_equal_rows_do_not_stand_for_all() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("runs.actrace");
    let nan = |layer: i32, point: &str, position: u32| -> Vec<f32> {
        let mut values = smooth(layer, point, position);
        values[5] = if position == 1 { f32::NAN } else { values[5] };
        values
    };
    let swapped = |layer: i32, point: &str, position: u32| -> Vec<f32> {
        let mut values = smooth(layer, point, position);
        values.swap(0, if position == 1 { 1 } else { 0 });
        values
    };
    let run = |label, values| Run { label, tokens: vec![1, 2], sites: vec![(0, "q")], tensors: false, values };
    write(&path, &[run("r", &smooth), run("nan", &nan), run("swapped", &swapped)], true);
    let (answer, status) = judged(&path, "r", "nan", &[]);
    assert_eq!((answer["verdict"].as_str(), status), (Some("diverged"), 1), "{}", answer["reason"]);
    let reason = answer["reason"].as_str().unwrap();
    assert!(reason.contains("layer 0 q at position 1 has nonfinite values in one run only"), "{reason}");
    let (answer, _) = judged(&path, "r", "swapped", &[]);
    let site = &answer["sites"][0];
    assert_eq!((&site["equal_rows"], &site["statistics_rows"]), (&1.into(), &1.into()));
    for name in ["rel_l2", "cosine", "max_abs_diff", "ulp_max", "disagreeing", "introduced"] {
        assert!(site[name].is_null(), "{name}: {}", site[name]);
    }
    let csv = String::from_utf8(compare(&path, "r", "swapped", &["--format", "csv"]).stdout).unwrap();
    let column = |name: &str| csv.lines().next().unwrap().split(',').position(|column| column == name).unwrap();
    let row: Vec<&str> = csv.lines().nth(1).unwrap().split(',').collect();
    assert_eq!(["rel_l2", "max_abs_diff", "cosine"].map(|name| row[column(name)]), [""; 3]);
}

/// The values at (layer, point, position).
type Values<'a> = &'a dyn Fn(i32, &str, u32) -> Vec<f32>;

/// Two runs that say `edit` of themselves and their plans.
fn pair_that_says(
    path: &Path,
    sites: [&[(i32, &'static str)]; 2],
    target: Values<'_>,
    edit: &dyn Fn(&mut RunV1, &mut PlanV1),
) {
    let mut writer = synthetic::writer(path);
    let both: [(&str, Values<'_>); 2] = [("r", &smooth), ("t", target)];
    for ((label, values), sites) in both.into_iter().zip(sites) {
        let run = Run { label, tokens: vec![1, 2], sites: sites.to_vec(), tensors: true, values };
        let (mut identity, mut plan) = (synthetic::identity(label, &run.tokens), synthetic::plan(&run));
        edit(&mut identity, &mut plan);
        let mut under_way = synthetic::UnderWay::begin_as(&identity, &plan, &mut writer, &run);
        under_way.statistics();
        under_way.commit();
        under_way.end();
    }
    writer.seal().unwrap();
}

fn doubled(layer: i32, point: &str, position: u32) -> Vec<f32> {
    let factor = if layer < 1 { 1.0 } else { 2.0 };
    smooth(layer, point, position).iter().map(|x| x * factor).collect()
}

#[test]
fn a_place_of_whose_inputs_nothing_is_known_is_not_blamed() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("runs.actrace");
    let sites = [(0, "ffn_up"), (1, "ffn_up")];
    let imported = |identity: &mut RunV1, _: &mut PlanV1| identity.kind = "import".into();
    pair_that_says(&path, [&sites; 2], &doubled, &imported);
    let (answer, status) = judged(&path, "r", "t", &[]);
    assert_eq!((answer["verdict"].as_str(), status), (Some("diverged"), 1), "{}", answer["reason"]);
    assert_eq!((&answer["first_exceeding"]["layer"], &answer["first_divergence"]), (&1.into(), &Value::Null));
}

/// A layer that was not captured is not one that the model lacks.
#[test]
fn no_layer_is_missed_that_one_run_only_did_not_capture() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("runs.actrace");
    let negated = |layer: i32, point: &str, position: u32| -> Vec<f32> {
        let sign = if layer < 0 { -1.0 } else { 1.0 };
        smooth(layer, point, position).iter().map(|x| x * sign).collect()
    };
    let named =
        |_: &mut RunV1, plan: &mut PlanV1| plan.sites.iter_mut().for_each(|site| site.operation = "mat_mul".into());
    let (whole, part) = ([(0, "ffn_up"), (1, "ffn_up"), (-1, "logits")], [(0, "ffn_up"), (-1, "logits")]);
    pair_that_says(&path, [&whole, &part], &negated, &named);
    let (answer, _) = judged(&path, "r", "t", &[]);
    let first = &answer["first_divergence"];
    assert_eq!((&first["layer"], &first["point"]), (&Value::Null, &"logits".into()), "{}", answer["reason"]);
}

/// A file may say any number of heads and of layers.
#[test]
fn a_plan_of_absurd_numbers_is_compared_like_any_other() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("runs.actrace");
    let absurd = |_: &mut RunV1, plan: &mut PlanV1| plan.sites.iter_mut().for_each(|site| site.heads = u32::MAX - 15);
    pair_that_says(&path, [&[(i32::MAX, "q")]; 2], &doubled, &absurd);
    let (answer, status) = judged(&path, "r", "t", &[]);
    let first = &answer["first_divergence"];
    assert_eq!((&first["point"], status), (&"q".into(), 1), "{}", answer["reason"]);
    assert_eq!((first["worst"]["head"].is_null(), first["worst"]["index"].is_u64()), (true, true), "{first}");
}

/// A copy of the shipped safetensors model in which `edit` changed the BF16 words of one tensor.
fn planted(folder: &Path, tensor: &str, edit: impl FnOnce(&mut [[u8; 2]])) -> PathBuf {
    let model = support::model("tiny-qwen2.safetensors");
    let copy = folder.join("broken");
    std::fs::create_dir(&copy).unwrap();
    std::fs::copy(model.join("config.json"), copy.join("config.json")).unwrap();
    let mut bytes = std::fs::read(model.join("model.safetensors")).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let index: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let offset = |at: usize| 8 + header + index[tensor]["data_offsets"][at].as_u64().unwrap() as usize;
    let (start, end) = (offset(0), offset(1));
    edit(bytes[start..end].as_chunks_mut::<2>().0);
    std::fs::write(copy.join("model.safetensors"), bytes).unwrap();
    copy
}

pub fn record(model: &Path, label: &str, out: &Path) {
    record_ids(model, "609,1827,409,72,608,221,1834,335", label, out);
}

pub fn record_ids(model: &Path, ids: &str, label: &str, out: &Path) {
    let output = Command::new(env!("CARGO_BIN_EXE_actrace"))
        .args(["record", "--tokens", ids, "--generate", "4", "--label", label])
        .arg("--model")
        .arg(model)
        .arg("--out")
        .arg(out)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The place that `compare` names for a fault in one tensor of the model.
fn named(tensor: &str, edit: impl FnOnce(&mut [[u8; 2]])) -> (Value, Value) {
    let folder = tempdir().unwrap();
    let out = folder.path().join("runs.actrace");
    record(&support::model("tiny-qwen2.safetensors"), "right", &out);
    record(&planted(folder.path(), tensor, edit), "broken", &out);
    let (answer, status) = judged(&out, "right", "broken", &[]);
    assert_eq!((answer["verdict"].as_str(), status), (Some("diverged"), 1), "{}", answer["reason"]);
    (answer["first_divergence"]["layer"].clone(), answer["first_divergence"]["point"].clone())
}

#[test]
fn faults_planted_in_a_model_are_named_by_layer_and_point() {
    let scale = |words: &mut [[u8; 2]]| {
        for word in words {
            let value = half::bf16::from_le_bytes(*word).to_f32() * 1.05;
            *word = half::bf16::from_f32(value).to_le_bytes();
        }
    };
    assert_eq!(named("model.layers.3.mlp.up_proj.weight", scale), (3.into(), "ffn_up".into()));
    let exchange_rows = |words: &mut [[u8; 2]]| {
        let (first, rest) = words.split_at_mut(256);
        first.swap_with_slice(&mut rest[..256]);
    };
    assert_eq!(named("model.layers.1.self_attn.o_proj.weight", exchange_rows), (1.into(), "attn_out".into()));
    let forget = |words: &mut [[u8; 2]]| words.fill([0, 0]);
    assert_eq!(named("model.layers.2.self_attn.k_proj.bias", forget), (2.into(), "k".into()));
}

/// Right runs of unlike types part by rounding, more so the longer the prompt: that is no divergence. A row of zeros is.
#[test]
fn a_rounding_floor_calls_no_right_run_diverged_and_no_zeros_rounding() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("runs.actrace");
    let ids: Vec<String> = (0..400u32).map(|i| (i * i * 31 % 2048).to_string()).collect();
    let forget = |words: &mut [[u8; 2]]| words.fill([0, 0]);
    let broken = planted(folder.path(), "model.layers.2.self_attn.v_proj.weight", forget);
    let models = [
        ("original", support::model("tiny-qwen2.safetensors")),
        ("q4_k", support::model("tiny-qwen2.q4_k_m")),
        ("q8_0", support::model("tiny-qwen2.q8_0")),
        ("broken", broken),
        ("gpt2", support::model("tiny-gpt2.safetensors")),
        ("gpt2-q4_k", support::model("tiny-gpt2.q4_k_m")),
    ];
    for (label, model) in &models {
        record_ids(model, &ids.join(","), label, &out);
    }
    for (reference, target) in [("original", "q4_k"), ("original", "q8_0"), ("gpt2", "gpt2-q4_k")] {
        let (answer, status) = judged(&out, reference, target, &[]);
        assert_eq!((answer["verdict"].as_str(), status), (Some("within_tolerance"), 0), "{}", answer["reason"]);
    }
    let (answer, status) = judged(&out, "q4_k", "broken", &[]);
    assert_eq!((answer["verdict"].as_str(), status), (Some("diverged"), 1));
    let first = &answer["first_divergence"];
    assert_eq!((&first["layer"], &first["point"]), (&2.into(), &"v_matmul".into()), "{}", answer["reason"]);
}

#[test]
fn the_demo_records_two_formats_and_compares_them() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_actrace-query")).arg("demo").current_dir(support::package()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        text.contains("verdict: within_tolerance - the audit finds no operation of the target wrong (142"),
        "{text}"
    );
    // The formats choose other tokens from position 12 on: 7 positions of 142 points on either side.
    assert!(text.contains("left out: 1988 rows, other tokens up to the position"), "{text}");
}
