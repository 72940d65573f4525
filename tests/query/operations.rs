//! `operations` puts beside each row what its operation read; `plan`, `hyper_parameters` and `losses` are the records.

use crate::asking::ask;
use crate::contracts::recording::{Wanted, edited, right};
use crate::support::families;
use actrace::backend::Semantics::DequantizeF32;
use actrace::record::LossV1;
use std::path::PathBuf;
use tempfile::{TempDir, tempdir};

/// A run of a model with experts, of which the values of `points` are kept.
fn run(points: &str) -> (TempDir, [PathBuf; 1]) {
    let folder = tempdir().unwrap();
    let path = folder.path().join("run.actrace");
    let wanted = Wanted { points: "all", tensors: points, weights: false };
    let lossy = edited(&right("run", &families::folder("qwen2_moe"), DequantizeF32, &wanted), |records| {
        records.losses.push(LossV1 { what: "rows".to_owned(), rows: 3, why: "a hole".to_owned() });
    });
    std::fs::write(&path, lossy).unwrap();
    (folder, [path])
}

#[test]
fn inputs_are_the_rows_of_the_points_that_are_named() {
    let (_folder, path) = run("all");
    // Every input of every row that reads its own position, against the row of activations with that reference.
    let sql = "WITH read AS (SELECT layer, point, position, step, unnest(input_points) AS named, unnest(inputs) AS input
                             FROM operations WHERE point NOT IN ('attn_scores', 'attn_ctx')),
               -- Equal content is stored once, so a reference may be of several rows.
               found AS (SELECT DISTINCT point, position, step, tensor FROM activations)
               SELECT count(*) AS rows, count(f.point) AS found FROM read r
               LEFT JOIN found f ON f.tensor = r.input AND f.point = r.named AND f.position = r.position AND f.step = r.step";
    let answer = ask(sql, &path);
    let (rows, found) = answer.lines().nth(1).unwrap().split_once(',').unwrap();
    assert_eq!(rows, found);
    assert!(rows.parse::<u64>().unwrap() > 500, "{rows}");
}

#[test]
fn an_input_whose_values_were_not_kept_is_null() {
    let (_folder, path) = run("resid_mid,attn_out");
    let sql = "SELECT input_points, tensor IS NULL AS made, inputs[1] IS NULL AS one, inputs[2] IS NULL AS two
               FROM operations WHERE point IN ('resid_mid', 'resid_post') AND layer = 1 AND position = 8 ORDER BY ordinal";
    let expected = "input_points,made,one,two\n\"[\"\"resid_post\"\",\"\"attn_out\"\"]\",false,true,false\n\
                    \"[\"\"resid_mid\"\",\"\"ffn_out\"\"]\",true,false,true\n";
    assert_eq!(ask(sql, &path), expected);
}

#[test]
fn plan_hyper_parameters_and_losses_are_the_records() {
    let (_folder, path) = run("none");
    let plan = "SELECT operation, input_points, weights, axes, width, heads, status, tensor FROM plan \
                WHERE layer = 0 AND point IN ('attn_norm', 'attn_scores', 'q_norm', 'moe_out') ORDER BY ordinal";
    let hyper =
        "SELECT key, value, number, source FROM hyper_parameters WHERE key IN ('activation', 'experts', 'gated')";
    insta::assert_snapshot!(
        [plan, hyper, "SELECT label, what, rows, why FROM losses"].map(|sql| ask(sql, &path)).join("\n")
    );
}
