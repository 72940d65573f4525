//! How far two right runs may be apart, from what the runs say of themselves.

use super::likeness::{Relation, unlike, weights_of_other_type};
use super::site::SiteComparison;
use crate::open::RunView;

/// f32 arithmetic in another order: measured to 1.4e-6 between two engines on small models, and given room.
const F32: f64 = 1e-5;

/// The same f32 arithmetic on another device: measured to 4e-5 over a whole tensor where attention scores reach 5000, whose
/// f32 unit of 5e-4 softmax makes a relative error; to 3e-6 elsewhere.
const DEVICE: f64 = 1e-4;

/// A tolerance and where it comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Tolerance {
    /// Largest `rel_l2` that is no divergence.
    pub value: f64,
    /// Why, in words.
    pub reason: String,
    /// Whether it is a rounding floor: below it a fault may hide, and only an audit can decide.
    pub floor: bool,
}

/// Twice the largest relative error of a whole tensor that a right run of the type was measured to have, at most 1: an
/// error as large as the reference is no rounding. docs/decisions/tolerance.md has the measurements.
const ROUNDING: [(&str, f64); 3] = [("f32", F32), ("f16", 1e-1), ("bf16", 7e-1)];

impl Tolerance {
    /// The tolerance that a user gave: absolute, whatever the runs are.
    pub fn given(value: f64) -> Self {
        Tolerance { value, reason: "given by --rtol".to_owned(), floor: false }
    }

    /// The error of a place that this tolerance is for: of the whole tensor where it is a rounding floor, which was
    /// measured so; else of the tensor or of its worst row, whichever is larger.
    pub fn distance(&self, site: &SiteComparison) -> f64 {
        if self.floor { site.whole() } else { site.whole().max(site.worst_row) }
    }

    /// The tolerance between two runs.
    pub fn between(reference: &RunView, target: &RunView) -> Self {
        let f32s = |reason: &str| Tolerance { value: F32, reason: reason.to_owned(), floor: false };
        let unlike = unlike(reference, target);
        match Relation::of(reference, target) {
            Relation::Twins => {
                return f32s(
                    "one engine, kernel path, instruction set, weight type and semantics: deterministic, so f32's",
                );
            }
            Relation::Replay => {
                return f32s("one run is a replay of the other: every operation had the same inputs, so f32's");
            }
            Relation::Unlike if unlike.is_empty() => {
                return f32s("the runs say the same of their arithmetic, so f32's");
            }
            Relation::Unlike => {}
        }
        let value = weights(reference, target);
        let (r, t) = (&reference.identity, &target.identity);
        let either = |r: &str, t: &str| if r == t { 0.0 } else { rounding(r).max(rounding(t)) };
        let value = value.max(either(&r.kv_type, &t.kv_type)).max(either(&r.compute_type, &t.compute_type));
        let value = if r.device_kind == t.device_kind { value } else { value.max(DEVICE) };
        Tolerance { value, reason: format!("the runs differ in {}", unlike.join(", ")), floor: value > F32 }
    }
}

/// What the types of weights and the semantics let two right runs differ by.
fn weights(reference: &RunView, target: &RunView) -> f64 {
    let (r, t) = (&reference.identity, &target.identity);
    let matrices = weights_of_other_type(reference, target, |weight| weight.shape.len() > 1);
    if r.weight_type != t.weight_type {
        rounding(&r.weight_type).max(rounding(&t.weight_type))
    } else if !matrices.is_empty() {
        matrices.iter().map(|(_, r, t)| rounding(r).max(rounding(t))).fold(F32, f64::max)
    } else if [r, t].iter().any(|run| run.semantics == "ggml") {
        // Rounding an activation flips between engines and semantics, whatever the file.
        rounding(&r.weight_type)
    } else {
        F32
    }
}

fn rounding(name: &str) -> f64 {
    ROUNDING.iter().find(|(known, _)| *known == name).map_or(1.0, |(_, value)| *value)
}
