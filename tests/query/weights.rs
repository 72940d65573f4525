//! `weights` and `compare_weights`: what was stored, what it means, and which weights of two models differ.

use crate::asking::{ask, ask_as, one_run, refusal};
use crate::support::model;
use actrace::ErrorKind;
use actrace::model::Model;
use actrace::sql::output::Format;
use insta::assert_snapshot;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::tempdir;

fn record(model: &Path, label: &str, out: &Path, values: bool) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_actrace"));
    command.arg("weights").arg(model).args(["--label", label, "--out"]).arg(out);
    let output = if values { command.arg("--values") } else { &mut command }.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A file with the weights of tiny-qwen2 in two formats.
fn two(folder: &Path, reference: &str, target: &str, values: bool) -> PathBuf {
    let out = folder.join("weights.actrace");
    for kind in [reference, target] {
        record(&model(&format!("tiny-qwen2.{kind}")), kind, &out, values);
    }
    out
}

fn query(arguments: &[&str], file: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_actrace-query")).args(arguments).arg(file).output().unwrap()
}

#[test]
fn the_named_query_says_which_weights_differ_and_by_how_many_steps() {
    let folder = tempdir().unwrap();
    let out = two(folder.path(), "safetensors", "q4_k_m", true);
    let output = query(&["run", "weights"], &out);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    // Those outside the layers and of the first layer: f64 sums in a fixed order print the same on every machine.
    let shown: Vec<&str> =
        text.lines().filter(|line| !line.contains("layers.") || line.contains("layers.0.")).collect();
    assert_snapshot!(shown.join("\n"));
    let unequal =
        query(&["run", "weights", "-p", "show=unequal", "-p", "reference=q4_k_m", "-p", "target=safetensors"], &out);
    let text = String::from_utf8(unequal.stdout).unwrap();
    assert!(text.contains("layers.0.q ") && !text.contains("norm"), "{text}");
}

#[test]
fn without_values_the_answer_says_so_and_has_no_figure() {
    let folder = tempdir().unwrap();
    let out = two(folder.path(), "safetensors", "q8_0", false);
    let sql = "SELECT weight, state, first_difference, max_abs_diff, rel_l2, slope, max_over_step, compared \
               FROM compare_weights('safetensors', 'q8_0') WHERE weight IN ('final_norm', 'layers.0.q') ORDER BY ordinal";
    let expected = "weight,state,first_difference,max_abs_diff,rel_l2,slope,max_over_step,compared\n\
                    final_norm,equal,,0,0,0,,256\nlayers.0.q,\"different, values not kept\",,,,,,\n";
    assert_eq!(ask(sql, std::slice::from_ref(&out)), expected);
    let sql = "SELECT count(*) AS n, count(data) AS kept, count(scale_elements) AS scaled FROM weights";
    assert_eq!(ask(sql, &[out]), "n,kept,scaled\n150,0,0\n");
}

#[test]
fn the_table_has_what_is_stored_its_statistics_and_its_values() {
    let folder = tempdir().unwrap();
    let out = two(folder.path(), "safetensors", "q8_0", true);
    let sql = "SELECT label, layer, weight, role, stored_name, dtype, layout, shape, file, bytes, added, count, zero, min, \
               max, mean, std, absmax, absmax_index, scale_elements FROM weights \
               WHERE weight IN ('final_norm', 'layers.2.k', 'layers.2.k_bias') ORDER BY label DESC, weight";
    assert_snapshot!(ask_as(sql, std::slice::from_ref(&out), Format::Table).0.unwrap());
    let sql = "SELECT data FROM weights WHERE label = 'q8_0' AND weight = 'layers.2.k'";
    let answer = ask_as(sql, &[out], Format::Json).0.unwrap();
    let rows: Vec<Value> = serde_json::from_str(&answer).unwrap();
    let data = rows[0]["data"].as_array().unwrap();
    let opened = Model::open(&model("tiny-qwen2.q8_0")).unwrap();
    let weight = opened.weights().find(|weight| weight.key.to_string() == "layers.2.k").unwrap();
    let mut row = vec![0.0; weight.columns];
    weight.dequantize_row(1, &mut row).unwrap();
    assert_eq!(data.len(), weight.rows * weight.columns);
    let found: Vec<f32> = data[weight.columns..2 * weight.columns].iter().map(|x| x.as_f64().unwrap() as f32).collect();
    assert_eq!(found, row);
}

#[test]
fn a_model_with_fewer_layers_lacks_weights_and_nothing_else() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("weights.actrace");
    for layers in ["2", "1"] {
        let file = folder.path().join(format!("{layers}.gguf"));
        let set = |pair: &str| ["--set".to_owned(), pair.to_owned()];
        let sizes = ["hidden=64", "heads=2", "kv-heads=1", "ffn=32", "vocabulary=8"].into_iter().flat_map(set);
        let mut synth = Command::new(env!("CARGO_BIN_EXE_actrace"));
        synth.args(["synth", "--shape", "qwen2.5-0.5b", "--type", "q8_0"]).args(sizes);
        let made = synth.args(["--set", &format!("layers={layers}"), "--out"]).arg(&file).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        record(&file, layers, &out, false);
    }
    let sql = |reference: &str, target: &str| {
        format!(
            "SELECT layer, state, count(*) AS n FROM compare_weights('{reference}', '{target}') \
             WHERE state LIKE 'missing%' GROUP BY layer, state"
        )
    };
    let path = [out];
    let weights = ask("SELECT count(*) AS n FROM weights WHERE label = '2' AND layer = 1", &path);
    let count = weights.lines().nth(1).unwrap();
    assert_eq!(ask(&sql("2", "1"), &path), format!("layer,state,n\n1,missing in target,{count}\n"));
    assert_eq!(ask(&sql("1", "2"), &path), format!("layer,state,n\n1,missing in reference,{count}\n"));
}

#[test]
fn runs_without_weights_and_slips_are_refused() {
    let folder = tempdir().unwrap();
    let path = [one_run(folder.path())];
    let error = refusal("SELECT * FROM compare_weights('a', 'a')", &path);
    assert_eq!(error.kind(), ErrorKind::NotComparable, "{error}");
    assert!(error.to_string().contains("run `a` has no weights"), "{error}");
    let error = refusal("SELECT * FROM compare_weights('a')", &path);
    assert_eq!(error.to_string(), "compare_weights('reference', 'target') takes two runs, not 1");
    assert!(refusal("SELECT * FROM compare_weights('a', 'b')", &path).to_string().contains("no run has the label"));
    assert_eq!(ask("SELECT count(*) AS n FROM weights", &path), "n\n0\n");
    let output = query(&["run", "weights", "-p", "reference=a", "-p", "target=a"], &path[0]);
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
}
