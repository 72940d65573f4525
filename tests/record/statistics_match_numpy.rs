//! Statistics of single rows against numpy's, nonfinite values, subnormals and large means included.

use crate::running::json;
use actrace::stats::RowStatistics;
use serde_json::Value;

/// numpy summed in 64-bit mantissas; here f64 sums of at most 2000 terms over eight lanes: 250 roundings a lane bound
/// the error of a sum by 250 * 2^-53 of the sum of absolutes, 3e-14. Squares of distances from a rounded mean, and the
/// root of their sum, stay within a few times that.
const TOLERANCE: f64 = 1e-13;

/// Equal up to rounding of numbers that are of the size `scale`.
fn assert_close(actual: Option<f64>, expected: &Value, scale: f64, what: &str) {
    match (actual, expected.as_f64()) {
        (Some(actual), Some(expected)) => {
            assert!((actual - expected).abs() <= TOLERANCE * scale, "{what}: {actual}, numpy {expected}");
        }
        (actual, expected) => assert_eq!(actual, expected, "{what}"),
    }
}

/// An element of a row as itself: serde_json may read an f64 one unit off, and no f32 is that near to another.
fn exact((value, index): (f64, u32)) -> (f32, u32) {
    (value as f32, index)
}

#[test]
fn every_statistic_of_every_kind_of_row() {
    let rows = json("statistics/rows.json");
    for (name, expected) in rows.as_object().unwrap() {
        let bits: Vec<u32> = serde_json::from_value(expected["bits"].clone()).unwrap();
        let row: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
        let found = RowStatistics::of(&row);
        for (key, count) in [
            ("count", found.count),
            ("nan", found.nan),
            ("pos_inf", found.pos_inf),
            ("neg_inf", found.neg_inf),
            ("zero", found.zero),
            ("subnormal", found.subnormal),
        ] {
            assert_eq!(u64::from(count), expected[key].as_u64().unwrap(), "{name}: {key}");
        }
        for (key, place) in [
            ("min", found.extremes.map(|extremes| extremes.min)),
            ("max", found.extremes.map(|extremes| extremes.max)),
            ("absmax", found.extremes.map(|extremes| extremes.absmax)),
        ] {
            let numpy: Option<(f64, u32)> = serde_json::from_value(expected[key].clone()).unwrap();
            assert_eq!(place.map(exact), numpy.map(exact), "{name}: {key}");
        }
        let exact = |value: f64| value as f32;
        assert_eq!(found.abs_smallest.map(exact), expected["abs_smallest"].as_f64().map(exact), "{name}: abs_smallest");
        let moments = found.moments;
        let rms = expected["rms"].as_f64().unwrap_or(0.0);
        assert_close((moments.count > 0).then_some(moments.mean), &expected["mean"], rms, &format!("{name}: mean"));
        assert_close(moments.std(), &expected["std"], rms, &format!("{name}: std"));
        assert_close(moments.rms(), &expected["rms"], rms, &format!("{name}: rms"));
        let l2 = expected["l2"].as_f64().unwrap_or(0.0);
        assert_close(moments.l2(), &expected["l2"], l2, &format!("{name}: l2"));
        let l1 = expected["l1"].as_f64().unwrap();
        assert_close(Some(found.l1), &expected["l1"], l1, &format!("{name}: l1"));
    }
}
