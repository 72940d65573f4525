//! Named queries that answer one question each: a fault is planted in a trace, and the answer names it.

use crate::asking::{SITES, answer, run, values};
use crate::synthetic::{Run, UnderWay, write, writer};
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
    assert_eq!((lines.len(), lines[0]), (2, "ordinal,layer,point,occurrence,rows,undecided,disagreeing,rel_l2"));
    let fields: Vec<&str> = lines[1].split(',').collect();
    assert_eq!(fields[1..7], ["1", "ffn_act", "0", "3", "0", "0"]);
    assert!((fields[7].parse::<f64>().unwrap() - 0.5 / norm).abs() < 1e-12);
    assert_eq!(answer("first-exceeding", std::slice::from_ref(&path), &[("above", "0.1")]).lines().count(), 1);
    // Without tensors the rows differ, and nobody knows by how much.
    let (_folder, path) = two(&off, false);
    let found = answer("first-exceeding", std::slice::from_ref(&path), &[]);
    assert!(found.contains(",1,ffn_act,0,3,1,0,\n"), "{found}");
}

#[test]
fn the_worst_position_of_a_point_and_its_element() {
    let (_folder, path) = two(&off, true);
    let found = answer("worst-positions", std::slice::from_ref(&path), &[]);
    let row = found.lines().nth(1).unwrap();
    assert!(row.starts_with("1,ffn_act,0,3,0,2,7,0,") && row.ends_with(",3,11.25,11.75"), "{found}");
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
        "undecided,layer,point,occurrence,position,token_id,index,reference_value,target_value,difference",
        "0,0,ffn_act,0,2,7,1,1.75,NaN,",
        "0,1,ffn_act,0,2,7,3,11.25,11.75,0.5",
        "0,0,ffn_act,0,1,6,2,0.5,0.875,0.375",
        "0,1,ffn_act,0,2,7,0,12,11.75,-0.25",
    ];
    let shown = |numbers: &[usize]| numbers.iter().map(|at| format!("{}\n", lines[*at])).collect::<String>();
    assert_eq!(answer("top-differences", path, &[]), shown(&[0, 1, 2, 3, 4]));
    assert_eq!(answer("top-differences", path, &[("limit", "2")]), shown(&[0, 1, 2]));
    assert_eq!(answer("top-differences", path, &[("layer", "1"), ("point", "ffn_act")]), shown(&[0, 2, 4]));
    assert_eq!(answer("top-differences", path, &[("point", "embed")]), shown(&[0]));
    // Without values nobody knows which elements differ, but which rows do.
    let (_folder, path) = two(&other, false);
    let path = std::slice::from_ref(&path);
    assert_eq!(answer("top-differences", path, &[]), format!("{}\n3,,,,,,,,,\n", lines[0]));
    assert_eq!(answer("top-differences", path, &[("layer", "1")]), format!("{}\n1,,,,,,,,,\n", lines[0]));
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

#[test]
fn a_layer_of_zeros_stands_out() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("zeros.actrace");
    let sites: Vec<(i32, &str)> =
        (0..4).map(|layer| (layer, "ffn_act")).chain((0..3).map(|l| (l, "ffn_out"))).collect();
    let values = |layer: i32, point: &str, _: u32| {
        vec![
            match (layer, point) {
                (2, "ffn_act") | (0 | 2, "ffn_out") => 0.0,
                (3, "ffn_act") => 8.0,
                _ => 1.0,
            };
            4
        ]
    };
    let run = Run { label: "a", tokens: vec![5], sites, tensors: false, values: &values };
    write(&path, &[run], true);
    let found = answer("spikes", &[path], &[("statistic", "rms"), ("above", "8")]);
    let rows: Vec<Vec<&str>> = found.lines().skip(1).map(|line| line.split(',').collect()).collect();
    let mut told: Vec<(&str, &str, &str, &str)> = rows.iter().map(|row| (row[1], row[2], row[5], row[6])).collect();
    // Layer 2 of ffn_act is zero between others, layer 3 comes after it; in ffn_out layer 1 alone is not zero.
    told.sort_unstable();
    let expected = [
        ("1", "ffn_out", "1", "0"),
        ("2", "ffn_act", "0", "1"),
        ("2", "ffn_out", "0", "1"),
        ("3", "ffn_act", "8", "0"),
    ];
    assert_eq!(told, expected, "{found}");
}

/// Layer 1 is nine times the others, but from zero to another number leads no factor.
#[test]
fn layers_of_zeros_come_before_large_factors() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("both.actrace");
    let values = |layer: i32, _: &str, _: u32| vec![[1.0, 9.0, 1.0, 1.0, 0.0][layer as usize]; 4];
    let sites = (0..5).map(|layer| (layer, "ffn_act")).collect();
    write(&path, &[Run { label: "a", tokens: vec![5], sites, tensors: false, values: &values }], true);
    let found = answer("spikes", &[path], &[("statistic", "rms")]);
    let layers: Vec<&str> = found.lines().skip(1).map(|line| line.split(',').nth(1).unwrap()).collect();
    assert_eq!(layers, ["4", "1", "2"], "{found}");
}

#[test]
fn a_reference_of_zeros_is_infinitely_far() {
    let zeros = |layer: i32, point: &str, position: u32| match layer {
        1 => vec![0.0; 4],
        _ => values(layer, point, position),
    };
    let (_folder, path) = two(&zeros, true);
    let path = std::slice::from_ref(&path);
    let turned = [("reference", "b"), ("target", "a")];
    assert!(answer("first-exceeding", path, &turned).ends_with("\n2,1,ffn_act,0,3,0,0,Infinity\n"));
    assert!(answer("first-exceeding", path, &[]).ends_with("\n2,1,ffn_act,0,3,0,0,1\n"));
}

#[test]
fn rows_that_one_run_lacks_are_counted() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("two.actrace");
    let fewer = Run { sites: SITES[..3].to_vec(), ..run("b", &[5, 6, 9], &values) };
    write(&path, &[run("a", &[5, 6, 7], &values), fewer], true);
    let path = std::slice::from_ref(&path);
    let expected = "ordinal,layer,point,of,rows,equal,different,first_different\n0,,embed,3,2,2,0,\n\
                    1,0,ffn_act,3,2,2,0,\n2,1,ffn_act,3,2,2,0,\n3,,logits,3,0,0,0,\n";
    assert_eq!(answer("bit-equality", path, &[]), expected);
    let ratio = answer("ratio-by-layer", path, &[("statistic", "absmax")]);
    assert!(ratio.ends_with("\n3,,logits,3,0,,,,\n"), "{ratio}");
    assert!(ratio.contains("\n2,1,ffn_act,3,2,11,11,1,fine\n"), "of the first two positions: {ratio}");
}

/// numpy.std of [1000, 1000.00006103515625] is 3.0517578125e-05 exactly: two steps of a row each.
#[test]
fn a_large_mean_does_not_swallow_the_spread_of_rows() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("two.actrace");
    let near = |_: i32, _: &str, position: u32| vec![f32::from_bits(1000f32.to_bits() + position); 4];
    let mut writer = writer(&path);
    for label in ["a", "b"] {
        let run = Run { label, tokens: vec![5], sites: vec![(0, "ffn_act")], tensors: false, values: &near };
        let mut under_way = UnderWay::begin(&mut writer, &run);
        for _ in 0..2 {
            under_way.statistics();
            under_way.commit();
        }
        under_way.end();
    }
    writer.seal().unwrap();
    let path = std::slice::from_ref(&path);
    // The mean of both is rounded at 1000 by 1e-13, which is 4e-9 of the spread, and its square less.
    let near = |text: &str| (text.parse::<f64>().unwrap() - 3.0517578125e-05).abs() < 1e-12;
    let statistics = answer("statistics", path, &[("run", "a")]);
    assert!(near(statistics.lines().nth(1).unwrap().split(',').nth(8).unwrap()), "{statistics}");
    let ratio = answer("ratio-by-layer", path, &[]);
    let fields: Vec<&str> = ratio.lines().nth(1).unwrap().split(',').collect();
    assert!(near(fields[5]) && near(fields[6]), "{ratio}");
    assert_eq!((fields[3], fields[4], fields[7], fields[8]), ("2", "2", "1", "fine"), "{ratio}");
}
