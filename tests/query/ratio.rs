//! The story of ship-007: a ratio of two columns with different populations. `ratio-by-layer` compares equal
//! positions and equal tokens only, and says so when nothing is left.

use crate::asking::{SITES, run, values};
use crate::synthetic::write;
use actrace::open::TraceSet;
use actrace::sql::{DEFAULT_MEMORY, Session, named::Catalogue};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type};
use std::path::PathBuf;
use tempfile::tempdir;

fn ratios(paths: &[PathBuf], parameters: &[(&str, &str)]) -> Vec<RecordBatch> {
    let session = Session::new(TraceSet::open(paths).unwrap(), DEFAULT_MEMORY).unwrap();
    let query = Catalogue::shipped().find("ratio-by-layer").unwrap();
    let given: Vec<_> = parameters.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let values = query.values(&given, session.set()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    let batches =
        runtime.block_on(async { session.query(&query.sql, &values).await.unwrap().collect().await.unwrap() });
    assert_eq!(session.set().traces()[0].bytes_read().0, 0, "a ratio of statistics reads no payload");
    batches
}

fn column(batches: &[RecordBatch], name: &str) -> ArrayRef {
    let schema = batches[0].schema();
    let batch = arrow::compute::concat_batches(&schema, batches).unwrap();
    batch.column_by_name(name).unwrap().clone()
}

fn floats(batches: &[RecordBatch], name: &str) -> Vec<f64> {
    column(batches, name).as_primitive::<Float64Type>().values().to_vec()
}

fn verdicts(batches: &[RecordBatch]) -> Vec<String> {
    let array = arrow::compute::cast(&column(batches, "verdict"), &arrow::datatypes::DataType::Utf8).unwrap();
    array.as_string::<i32>().iter().map(|text| text.unwrap().to_owned()).collect()
}

fn std(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
}

#[test]
fn only_rows_with_the_same_tokens_before_them_are_compared() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("two.actrace");
    let far = |layer: i32, point: &str, position: u32| -> Vec<f32> {
        let factor = if position < 3 { 3.0 } else { 1e6 };
        values(layer, point, position).iter().map(|x| x * factor).collect()
    };
    // Equal up to position 2; at position 4 the token is equal again, but what stands before it is not.
    write(&path, &[run("reference", &[1, 2, 3, 4, 5], &values), run("target", &[1, 2, 3, 9, 5], &far)], true);
    let answer = ratios(&[path], &[]);
    assert_eq!(column(&answer, "rows").as_primitive::<Int64Type>().values().to_vec(), [3; 4]);
    let (reference, ratio) = (floats(&answer, "reference"), floats(&answer, "ratio"));
    for (site, (layer, point)) in SITES.iter().enumerate() {
        let all: Vec<f64> = (0..3).flat_map(|p| values(*layer, point, p)).map(f64::from).collect();
        // Sums of at most 18 values, each rounded a few times.
        let near = |a: f64, b: f64| (a - b).abs() <= 64.0 * f64::EPSILON * b.abs();
        assert!(near(reference[site], std(&all)), "{layer} {point}: {} {}", reference[site], std(&all));
        assert!(near(ratio[site], 3.0), "{layer} {point}: {}", ratio[site]);
    }
    assert_eq!(verdicts(&answer), ["watch"; 4]);
}

#[test]
fn bands_are_those_of_the_story() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("two.actrace");
    let scaled = |layer: i32, point: &str, position: u32| -> Vec<f32> {
        let factor = match (layer, point) {
            (0, _) => 10.5,
            (1, _) => 0.05,
            (_, "logits") => 0.0,
            _ => 1.9,
        };
        values(layer, point, position).iter().map(|x| x * factor).collect()
    };
    write(&path, &[run("good", &[1, 2], &values), run("bad", &[1, 2], &scaled)], true);
    let answer = ratios(std::slice::from_ref(&path), &[("statistic", "absmax")]);
    assert_eq!(verdicts(&answer), ["fine", "alarm", "alarm", "alarm"]);
    let swapped = ratios(&[path], &[("reference", "bad"), ("target", "good"), ("statistic", "rms")]);
    assert_eq!(verdicts(&swapped), ["fine", "alarm", "alarm", "alarm"]);
    assert!(column(&swapped, "ratio").is_null(3), "nothing divides by zero");
}

#[test]
fn a_nonfinite_value_on_one_side_only_is_an_alarm_whatever_the_ratio() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("two.actrace");
    let broken = |layer: i32, point: &str, position: u32| -> Vec<f32> {
        let mut row = values(layer, point, position);
        if layer == 1 && position == 1 {
            row[3] = f32::NAN;
        }
        row
    };
    write(&path, &[run("good", &[1, 2], &values), run("bad", &[1, 2], &broken)], true);
    assert_eq!(verdicts(&ratios(&[path], &[])), ["fine", "fine", "alarm", "fine"]);
}

#[test]
fn nonfinite_in_different_ways_is_an_alarm_and_alike_without_a_number_is_no_verdict() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("two.actrace");
    let with = |value: f32| {
        move |layer: i32, point: &str, position: u32| -> Vec<f32> {
            let mut row = values(layer, point, position);
            match layer {
                0 => row[3] = value,
                1 => row.fill(f32::NAN),
                _ => {}
            }
            row
        }
    };
    let (nan, infinite) = (with(f32::NAN), with(f32::INFINITY));
    write(&path, &[run("nan", &[1, 2], &nan), run("infinite", &[1, 2], &infinite)], true);
    let answer = ratios(&[path], &[]);
    let verdict = column(&answer, "verdict");
    let verdict = arrow::compute::cast(&verdict, &arrow::datatypes::DataType::Utf8).unwrap();
    let told: Vec<Option<&str>> = verdict.as_string::<i32>().iter().collect();
    assert_eq!(told, [Some("fine"), Some("alarm"), None, Some("fine")]);
}

#[test]
fn nothing_in_common_is_an_empty_answer() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("two.actrace");
    write(&path, &[run("a", &[1, 2], &values), run("b", &[3, 2], &values)], true);
    let answer = ratios(&[path], &[]);
    assert_eq!(answer.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
}
