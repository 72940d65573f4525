//! Every function over tensors against numpy and scipy: over lists of f32, of f64, and over references.

use crate::asking::ask_as;
use crate::support;
use crate::synthetic::{Run, write};
use actrace::sql::output::Format;
use serde_json::Value;
use tempfile::tempdir;

/// numpy sums pairwise and this crate in a row, both in f64 over at most 30 values: some 1e-15 of the sum of magnitudes.
/// What is made of differences of such sums (skew, slope, rel_diff) keeps 1e-15 of the sums themselves,
/// which are up to 1e3 times it here; exp and log of two libraries agree to 1e-15.
const ROUNDING: f64 = 1e-11;

/// A difference of sums of this size is rounding of them: rel_diff and skew of what is all but symmetric.
const NOTHING: f64 = 1e-14;

fn floats(bits: &Value) -> Vec<f32> {
    bits.as_array().unwrap().iter().map(|bits| f32::from_bits(bits.as_u64().unwrap() as u32)).collect()
}

/// Equal up to rounding, and where `cancels` up to that of a sum of magnitude 1 whose terms cancel.
fn near(found: &Value, expected: &Value, cancels: bool) -> bool {
    match (found, expected) {
        (Value::Number(found), Value::Number(expected)) => {
            let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
            let rounding = if cancels || expected.abs() > NOTHING { NOTHING } else { 0.0 };
            (found - expected).abs() <= (ROUNDING * expected.abs()).max(rounding)
        }
        (Value::Array(found), Value::Array(expected)) => {
            found.len() == expected.len()
                && found.iter().zip(expected).all(|(found, expected)| near(found, expected, cancels))
        }
        (Value::Object(found), Value::Object(expected)) => {
            found.len() == expected.len() && expected.iter().all(|(name, value)| near(&found[name], value, cancels))
        }
        (found, expected) => found == expected,
    }
}

#[test]
fn functions_are_those_of_numpy_and_scipy() {
    let text = std::fs::read_to_string(support::fixture("metrics/functions.json")).unwrap();
    let fixture: Value = serde_json::from_str(&text).unwrap();
    let expressions: Vec<&str> =
        fixture["expressions"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let cases = fixture["cases"].as_array().unwrap();
    let folder = tempdir().unwrap();
    let path = [folder.path().join("cases.actrace")];
    let (a, b) = (
        |layer: i32, _: &str, _: u32| floats(&cases[layer as usize]["a"]),
        |layer: i32, _: &str, _: u32| floats(&cases[layer as usize]["b"]),
    );
    let sites = || (0..cases.len() as i32).map(|layer| (layer, "q")).collect();
    let run = |label, values| Run { label, tokens: vec![1], sites: sites(), tensors: true, values };
    write(&path[0], &[run("a", &a), run("b", &b)], true);
    let columns: Vec<String> = expressions.iter().enumerate().map(|(n, sql)| format!("{sql} AS v{n}")).collect();
    for tensor in ["{}.data", "{}.tensor", "arrow_cast({}.data, 'List(Float64)')"] {
        let (a, b) = (tensor.replace("{}", "a"), tensor.replace("{}", "b"));
        let sql = format!(
            "WITH pairs AS (SELECT layer, {a} AS a, {b} AS b FROM activations a JOIN activations b USING (layer)
                 WHERE a.label = 'a' AND b.label = 'b')
             SELECT {} FROM pairs ORDER BY layer",
            columns.join(", ")
        );
        let answer = ask_as(&sql, &path, Format::Json).0.unwrap();
        let rows: Vec<Value> = serde_json::from_str(&answer).unwrap();
        assert_eq!(rows.len(), cases.len());
        let mut wrong = Vec::new();
        for (case, row) in cases.iter().zip(&rows) {
            for (n, sql) in expressions.iter().enumerate() {
                let (found, expected) = (&row[format!("v{n}")], &case["values"][n]);
                if !near(found, expected, sql.starts_with("kl_divergence")) {
                    wrong.push(format!("{}: {sql} of {tensor} is {found}, numpy has {expected}", case["name"]));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
