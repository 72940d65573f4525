//! Where error comes in, and which of three runs it belongs to: faults of known size are planted, and the answers have
//! exactly that size.

use crate::asking::answer;
use crate::synthetic::{Run, UnderWay, write, writer};
use std::path::PathBuf;
use tempfile::{TempDir, tempdir};

type Values = Box<dyn Fn(i32, &str, u32) -> Vec<f32>>;

const TOKENS: [u32; 2] = [5, 6];

fn trace(sites: &[(i32, &str)], tensors: bool, runs: &[(&str, Values)]) -> (TempDir, PathBuf) {
    let folder = tempdir().unwrap();
    let path = folder.path().join("runs.actrace");
    let runs: Vec<Run<'_>> = runs
        .iter()
        .map(|(label, values)| Run { label, tokens: TOKENS.to_vec(), sites: sites.to_vec(), tensors, values })
        .collect();
    write(&path, &runs, true);
    (folder, path)
}

/// (3, 4) times `size`, and beside it an error at a right angle: its norm is `error` times that of the row.
fn row(size: f32, error: f32) -> Vec<f32> {
    vec![size * (3.0 + 4.0 * error), size * (4.0 - 3.0 * error)]
}

const STREAM: [(i32, &str); 6] =
    [(-1, "embed"), (0, "resid_mid"), (0, "resid_post"), (1, "resid_mid"), (1, "resid_post"), (-1, "logits")];

/// Size of the stream's rows and relative error there.
const GROWTH: [(f32, f32); 6] = [(1.0, 0.125), (2.0, 0.125), (1.0, 0.25), (1.0, 0.3125), (4.0, 0.3125), (8.0, 0.15625)];

fn grown(target: bool) -> Values {
    Box::new(move |layer, point, position| {
        let at = STREAM.iter().position(|site| *site == (layer, point)).unwrap();
        let (size, error) = GROWTH[at];
        row(size * (position + 1) as f32, if target { error } else { 0.0 })
    })
}

#[test]
fn error_that_a_block_brings_in_is_told_from_what_it_passes_on() {
    let (_folder, path) = trace(&STREAM, true, &[("r", grown(false)), ("t", grown(true))]);
    // embed: nothing before it. Twice as large with the same relative error: inherited. Half as large, with the same absolute
    // error: inherited, amplified. Then 0.3125^2 = 0.25^2 + 0.1875^2. The last two pass on and lose.
    let expected = "\
        ordinal,layer,point,from_layer,from_point,rows,undecided,disagreeing,rel_l2_in,rel_l2_out,gain,inherited,\
        introduced_estimate,amplification\n\
        0,,embed,,,2,0,0,,0.125,,0,0.125,\n\
        1,0,resid_mid,,embed,2,0,0,0.125,0.125,1,0.125,0,1\n\
        2,0,resid_post,0,resid_mid,2,0,0,0.125,0.25,2,0.25,0,2\n\
        3,1,resid_mid,0,resid_post,2,0,0,0.25,0.3125,1,0.25,0.1875,1.25\n\
        4,1,resid_post,1,resid_mid,2,0,0,0.3125,0.3125,1,0.3125,0,1\n\
        5,,logits,1,resid_post,2,0,0,0.3125,0.15625,1,0.3125,0,0.5\n";
    assert_eq!(answer("growth", &[path], &[]), expected);
}

#[test]
fn growth_has_no_number_where_values_were_not_kept_or_do_not_agree() {
    let (_folder, path) = trace(&STREAM, false, &[("r", grown(false)), ("t", grown(true))]);
    let found = answer("growth", &[path], &[]);
    assert!(found.contains("\n3,1,resid_mid,0,resid_post,2,2,0,,,"), "{found}");
    let nan = |values: Values| -> Values {
        Box::new(move |layer, point, position| match (layer, point, position) {
            (0, "resid_post", 1) => vec![f32::NAN, 4.0],
            _ => values(layer, point, position),
        })
    };
    let (_folder, path) = trace(&STREAM, true, &[("r", grown(false)), ("t", nan(grown(true)))]);
    let found = answer("growth", &[path], &[]);
    let lines: Vec<&str> = found.lines().collect();
    // The point itself and the one that reads it; what stands before and after has its numbers.
    assert!(lines[3].starts_with("2,0,resid_post,0,resid_mid,2,0,1,,,") && lines[3].ends_with(",,"), "{found}");
    assert!(lines[4].starts_with("3,1,resid_mid,0,resid_post,2,0,1,,,") && lines[4].ends_with(",,"), "{found}");
    assert!(lines[2].ends_with(",0,1") && lines[5].ends_with(",0,1"), "{found}");
}

#[test]
fn what_should_be_nothing_has_an_error_without_bounds() {
    let values = |label: &'static str| -> Values {
        Box::new(move |_, point, _| match (label, point) {
            ("r", "resid_mid") => vec![0.0, 0.0],
            ("t", "resid_post") => row(1.0, 0.25),
            _ => row(1.0, 0.0),
        })
    };
    let (_folder, path) = trace(&STREAM[..3], true, &[("r", values("r")), ("t", values("t"))]);
    let found = answer("growth", &[path], &[]);
    let expected = "\n0,,embed,,,2,0,0,,0,,0,0,\n1,0,resid_mid,,embed,2,0,0,0,Infinity,1,0,Infinity,\n\
                    2,0,resid_post,0,resid_mid,2,0,0,Infinity,0.25,1,Infinity,0,\n";
    assert!(found.ends_with(expected), "{found}");
}

#[test]
fn what_comes_in_and_goes_out_is_of_the_same_positions() {
    // The logits of the last position only, as an import has them; the first position is ten times as far off before them.
    let reference = |_: i32, _: &str, _: u32| row(1.0, 0.0);
    let target = |_: i32, _: &str, position: u32| row(1.0, if position == 0 { 2.5 } else { 0.25 });
    let folder = tempdir().unwrap();
    let path = folder.path().join("runs.actrace");
    let mut writer = writer(&path);
    let mut record = |label: &str, values: &dyn Fn(i32, &str, u32) -> Vec<f32>| {
        let sites = vec![(0, "resid_post"), (-1, "logits")];
        let run = Run { label, tokens: TOKENS.to_vec(), sites, tensors: true, values };
        let mut under_way = UnderWay::begin(&mut writer, &run);
        under_way.statistics_where(&|point, position| point != "logits" || position == 1);
        under_way.commit();
        under_way.end();
    };
    record("r", &reference);
    record("t", &target);
    writer.seal().unwrap();
    let found = answer("growth", &[path], &[]);
    assert!(found.ends_with("\n1,,logits,0,resid_post,1,0,0,0.25,0.25,1,0.25,0,1\n"), "{found}");
}

const POINTS: [(i32, &str); 5] = [(0, "q"), (0, "k"), (0, "v"), (0, "ffn_up"), (0, "ffn_out")];

/// Values of three runs: what each has in a point, as the error of [`row`].
fn three(errors: impl Fn(&str, &str) -> f32 + Copy + 'static) -> [(&'static str, Values); 3] {
    ["one", "two", "three"].map(|label| {
        let values: Values = Box::new(move |_, point, _| match errors(label, point) {
            error if error.is_nan() => vec![f32::NAN, 4.0],
            error => row(1.0, error),
        });
        (label, values)
    })
}

fn planted(label: &str, point: &str) -> f32 {
    match (label, point) {
        // `two` is 0.5 off, `three` has some rounding.
        ("two", "q") => 0.5,
        ("three", "q") => 0.0625,
        // All apart by about as much: nobody stands out.
        ("two", "k") => 0.25,
        ("three", "k") => -0.25,
        // `one` alone is nonfinite.
        ("one", "v") => f32::NAN,
        // `three` alone differs.
        ("three", "ffn_up") => 0.001,
        _ => 0.0,
    }
}

#[test]
fn the_odd_run_is_far_from_both_others_or_there_is_none() {
    let (_folder, path) = trace(&POINTS, true, &three(planted));
    let found = answer("odd-run", &[path], &[]);
    let rows: Vec<Vec<&str>> = found.lines().skip(1).map(|line| line.split(',').collect()).collect();
    let odd: Vec<(&str, &str)> = rows.iter().map(|row| (row[2], row[9])).collect();
    assert_eq!(odd, [("q", "two"), ("k", ""), ("v", "one"), ("ffn_up", "three"), ("ffn_out", "")], "{found}");
    // Of q: norms of 5, 5 sqrt(1 + 0.5^2) and 5 sqrt(1 + 0.0625^2); the last is the middle one. Errors are 5 times 0.5,
    // 0.4375 and 0.0625. In four roundings nothing is lost but last places.
    let middle = f64::sqrt(1.0 + 0.0625 * 0.0625);
    for (column, error) in [(6, 0.5), (7, 0.4375), (8, 0.0625)] {
        assert!((rows[0][column].parse::<f64>().unwrap() - error / middle).abs() < 1e-15, "{found}");
    }
    // One row with NaN at each position, against both others.
    assert_eq!(rows[2][4..9], ["0", "4", "", "0", ""], "{found}");
    assert_eq!(rows[4][3..9], ["2", "0", "0", "0", "0", "0"], "{found}");
}

#[test]
fn one_run_against_two_of_zeros_is_infinitely_far() {
    let runs = ["one", "two", "three"].map(|label| {
        let size = if label == "three" { 1.0 } else { 0.0 };
        let values: Values = Box::new(move |_, _, _| row(size, 0.0));
        (label, values)
    });
    let (_folder, path) = trace(&POINTS[..1], true, &runs);
    let found = answer("odd-run", &[path], &[]);
    assert!(found.ends_with("\n0,0,q,2,0,0,0,Infinity,Infinity,three\n"), "{found}");
}

#[test]
fn a_factor_decides_how_far_off_the_odd_one_is() {
    let (_folder, path) = trace(&POINTS, true, &three(planted));
    // 0.4375 is seven times 0.0625.
    let odd = |factor: &str| {
        let found = answer("odd-run", std::slice::from_ref(&path), &[("factor", factor)]);
        found.lines().nth(1).unwrap().rsplit(',').next().unwrap().to_owned()
    };
    assert_eq!((odd("6.9"), odd("7.1")), ("two".to_owned(), String::new()));
}

#[test]
fn without_values_only_two_that_are_equal_in_every_bit_make_the_third_odd() {
    let (_folder, path) = trace(&POINTS, false, &three(planted));
    let found = answer("odd-run", &[path], &[]);
    let rows: Vec<Vec<&str>> = found.lines().skip(1).map(|line| line.split(',').collect()).collect();
    let told: Vec<(&str, &str, &str)> = rows.iter().map(|row| (row[2], row[4], row[9])).collect();
    // Pairs that differ and have no values: three at two positions, or two at two positions.
    let expected = [("q", "6", ""), ("k", "6", ""), ("v", "4", "one"), ("ffn_up", "4", "three"), ("ffn_out", "0", "")];
    assert_eq!(told, expected, "{found}");
    assert_eq!(rows[3][6..9], ["0", "", ""], "one and two are equal: {found}");
}
