//! Named queries that answer one question each: a fault is planted in a trace, and the answer names it.

use crate::asking::{SITES, answer, run, values};
use crate::synthetic::{Run, write};
use std::path::PathBuf;
use tempfile::{TempDir, tempdir};

type Values<'a> = &'a dyn Fn(i32, &str, u32) -> Vec<f32>;

/// A trace of a run `a` with [`values`] and a run `b` with `other`, over the same tokens.
fn two(other: Values<'_>, tensors: bool) -> (TempDir, PathBuf) {
    let folder = tempdir().unwrap();
    let path = folder.path().join("two.actrace");
    let tokens = [5, 6, 7];
    let kept = |run: Run<'static>| Run { tensors, ..run };
    let target = Run { label: "b", tokens: tokens.to_vec(), sites: SITES.to_vec(), tensors, values: other };
    write(&path, &[kept(run("a", &tokens, &values)), target], true);
    (folder, path)
}

/// One element of one row of ffn_act in layer 1 is off.
fn off(layer: i32, point: &str, position: u32) -> Vec<f32> {
    let mut row = values(layer, point, position);
    if (layer, point, position) == (1, "ffn_act", 2) {
        row[3] += 0.5;
    }
    row
}

#[test]
fn the_first_point_beyond_a_limit() {
    let (_folder, path) = two(&off, true);
    // The rows of layer 1 are 10..9.25, 11..10.25, 12..11.25: the error 0.5 over their norm.
    let norm = (0..3).flat_map(|p| values(1, "ffn_act", p)).map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let found = answer("first-exceeding", std::slice::from_ref(&path), &[]);
    let lines: Vec<&str> = found.lines().collect();
    assert_eq!((lines.len(), lines[0]), (2, "ordinal,layer,point,rows,undecided,disagreeing,rel_l2"), "{found}");
    let fields: Vec<&str> = lines[1].split(',').collect();
    assert_eq!(fields[1..6], ["1", "ffn_act", "3", "0", "0"]);
    assert!((fields[6].parse::<f64>().unwrap() - 0.5 / norm).abs() < 1e-12);
    assert_eq!(answer("first-exceeding", std::slice::from_ref(&path), &[("above", "0.1")]).lines().count(), 1);
    // Without tensors the rows differ, and nobody knows by how much.
    let (_folder, path) = two(&off, false);
    let found = answer("first-exceeding", std::slice::from_ref(&path), &[]);
    assert!(found.contains(",1,ffn_act,3,1,0,\n"), "{found}");
}

#[test]
fn the_worst_position_of_a_point_and_its_element() {
    let (_folder, path) = two(&off, true);
    let found = answer("worst-positions", std::slice::from_ref(&path), &[]);
    let row = found.lines().nth(1).unwrap();
    assert!(row.starts_with("1,ffn_act,3,0,2,7,0,") && row.ends_with(",3,11.25,11.75"), "{found}");
    assert_eq!(found.lines().count(), 2);
}

#[test]
fn the_elements_that_differ_most() {
    let other = |layer: i32, point: &str, position: u32| {
        let mut row = values(layer, point, position);
        match (layer, point, position) {
            (1, "ffn_act", 2) => row.iter_mut().zip([-0.25, 0.0, 0.0, 0.5]).for_each(|(x, error)| *x += error),
            (0, "ffn_act", 1) => row[2] += 0.375,
            (0, "ffn_act", 2) => row[1] = f32::NAN,
            _ => {}
        }
        row
    };
    let (_folder, path) = two(&other, true);
    let path = std::slice::from_ref(&path);
    let lines = [
        "layer,point,occurrence,position,token_id,index,reference_value,target_value,difference",
        "0,ffn_act,0,2,7,1,1.75,NaN,",
        "1,ffn_act,0,2,7,3,11.25,11.75,0.5",
        "0,ffn_act,0,1,6,2,0.5,0.875,0.375",
        "1,ffn_act,0,2,7,0,12,11.75,-0.25",
    ];
    let shown = |numbers: &[usize]| numbers.iter().map(|at| format!("{}\n", lines[*at])).collect::<String>();
    assert_eq!(answer("top-differences", path, &[]), shown(&[0, 1, 2, 3, 4]));
    assert_eq!(answer("top-differences", path, &[("limit", "2")]), shown(&[0, 1, 2]));
    assert_eq!(answer("top-differences", path, &[("layer", "1"), ("point", "ffn_act")]), shown(&[0, 2, 4]));
    assert_eq!(answer("top-differences", path, &[("point", "embed")]), shown(&[0]));
}

#[test]
fn what_a_difference_means_for_the_answer() {
    // The second largest logit of position 1 becomes the largest.
    let other = |layer: i32, point: &str, position: u32| {
        let mut row = values(layer, point, position);
        if (point, position) == ("logits", 1) {
            row[1] += 1.0;
        }
        row
    };
    let (_folder, path) = two(&other, true);
    let found = answer("logits", std::slice::from_ref(&path), &[]);
    let rows: Vec<Vec<&str>> = found.lines().skip(1).map(|line| line.split(',').collect()).collect();
    assert_eq!(
        rows.iter().map(|row| (row[0], row[2], row[3])).collect::<Vec<_>>(),
        [("0", "true", "0"), ("1", "false", "1"), ("2", "true", "0")]
    );
    assert_eq!((rows[1][4], rows[1][5]), ("0.25", "0.75"));
    assert!(rows[0][6] == "0" && rows[1][6].parse::<f64>().unwrap() > 0.1, "{found}");
    let drift = answer("drift", std::slice::from_ref(&path), &[]);
    let step: Vec<&str> = drift.lines().nth(1).unwrap().split(',').collect();
    assert_eq!((step[0], step[1], step[5], step[7]), ("0", "12", "0", "true"), "the last row is equal: {drift}");
    assert!(step[4].parse::<f64>().unwrap() > 0.01);
}

#[test]
fn a_buffer_that_was_not_written() {
    let stale = |layer: i32, point: &str, position: u32| values(layer.min(0), point, position);
    let (_folder, path) = two(&stale, true);
    assert_eq!(
        answer("stale-buffers", std::slice::from_ref(&path), &[]),
        "label,point,layer,same_as,rows,of\nb,ffn_act,1,0,3,3\n"
    );
    assert_eq!(answer("stale-buffers", std::slice::from_ref(&path), &[("run", "a")]).lines().count(), 1);
    // Zeros are equal everywhere.
    let zeros = |layer: i32, point: &str, position: u32| match layer {
        -1 => values(layer, point, position),
        _ => vec![0.0; 4],
    };
    let (_folder, path) = two(&zeros, true);
    assert_eq!(answer("stale-buffers", std::slice::from_ref(&path), &[]).lines().count(), 1);
}

#[test]
fn a_point_without_a_finite_value_has_no_statistic() {
    let lost = |layer: i32, point: &str, position: u32| match layer {
        0 => vec![f32::NAN; 4],
        _ => values(layer, point, position),
    };
    let (_folder, path) = two(&lost, true);
    let path = std::slice::from_ref(&path);
    let statistics = answer("statistics", path, &[("run", "b")]);
    assert!(statistics.contains("\nb,1,0,ffn_act,3,12,12,,,,\n"), "{statistics}");
    let ratio = answer("ratio-by-layer", path, &[]);
    assert!(ratio.lines().any(|line| line.starts_with("1,0,ffn_act,3,") && line.ends_with(",,,alarm")), "{ratio}");
}

#[test]
fn a_layer_is_set_against_layers_of_the_same_rows_only() {
    // Layer 0 is not captured: what stands before layer 1 is not known, and the layers 1, 2 and 4 make the median.
    let folder = tempdir().unwrap();
    let path = folder.path().join("some.actrace");
    let sites = [(1, "ffn_act"), (2, "ffn_act"), (4, "ffn_act")];
    let values = |layer: i32, _: &str, _: u32| vec![if layer == 2 { 8.0 } else { 1.0 }; 4];
    let run = Run { label: "a", tokens: vec![5], sites: sites.to_vec(), tensors: false, values: &values };
    write(&path, &[run], true);
    let expected = "label,layer,point,occurrence,rows,value,before,median,to_before,to_median\n\
                    a,2,ffn_act,0,1,8,1,1,8,8\n";
    assert_eq!(answer("spikes", &[path], &[("statistic", "rms")]), expected, "layer 3 is missing before layer 4");
}

#[test]
fn a_layer_that_stands_out() {
    let spike = |layer: i32, point: &str, position: u32| {
        let factor = if layer == 1 { 9.0 } else { 1.0 };
        values(0, point, position).iter().map(|x| x * factor).collect()
    };
    let (_folder, path) = two(&spike, true);
    let found = answer("spikes", std::slice::from_ref(&path), &[("run", "b"), ("statistic", "rms")]);
    let rows: Vec<Vec<&str>> = found.lines().skip(1).map(|line| line.split(',').collect()).collect();
    let one = rows.iter().find(|row| row[1] == "1").unwrap();
    assert_eq!((one[2], one[8].parse::<f64>().unwrap().round()), ("ffn_act", 9.0), "{found}");
    assert_eq!(answer("spikes", std::slice::from_ref(&path), &[("run", "a"), ("above", "20")]).lines().count(), 1);
}
