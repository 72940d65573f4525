//! How far two right runs may be apart, from what the runs say of themselves.

use super::site::SiteComparison;
use crate::record::RunV1;

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
    pub fn between(reference: &RunV1, target: &RunV1) -> Self {
        let unlike = unlike(reference, target);
        if unlike.is_empty() {
            return Tolerance {
                value: F32,
                reason: "one engine, kernel path, instruction set, weight type and semantics: deterministic, so f32's"
                    .to_owned(),
                floor: false,
            };
        }
        if replays(reference, target) || replays(target, reference) {
            let reason = "one run is a replay of the other: every operation had the same inputs, so f32's".to_owned();
            return Tolerance { value: F32, reason, floor: false };
        }
        let value = if reference.weight_type != target.weight_type {
            rounding(&reference.weight_type).max(rounding(&target.weight_type))
        } else if [reference, target].iter().any(|run| run.semantics == "ggml") {
            // Rounding an activation flips between engines and semantics, whatever the file.
            rounding(&reference.weight_type)
        } else {
            F32
        };
        let value = if reference.kv_type == target.kv_type {
            value
        } else {
            value.max(rounding(&reference.kv_type)).max(rounding(&target.kv_type))
        };
        let value = if reference.compute_type == target.compute_type {
            value
        } else {
            value.max(rounding(&reference.compute_type)).max(rounding(&target.compute_type))
        };
        let value = if reference.device_kind == target.device_kind { value } else { value.max(DEVICE) };
        Tolerance { value, reason: format!("the runs differ in {}", unlike.join(", ")), floor: value > F32 }
    }
}

/// Whether `run` is `original` made again from its own inputs, with the same file and rounding.
fn replays(run: &RunV1, original: &RunV1) -> bool {
    let same = run.model_hash == original.model_hash && run.semantics == original.semantics;
    run.kind == "replay" && same && run.parents.iter().any(|parent| parent.run_id == original.run_id)
}

fn rounding(name: &str) -> f64 {
    ROUNDING.iter().find(|(known, _)| *known == name).map_or(1.0, |(_, value)| *value)
}

/// What the runs' identities differ in, of what changes the arithmetic.
pub fn unlike(reference: &RunV1, target: &RunV1) -> Vec<String> {
    let fields = [
        ("engine", &reference.engine, &target.engine),
        ("device", &reference.device_kind, &target.device_kind),
        ("kernel path", &reference.kernel_path, &target.kernel_path),
        ("instruction set", &reference.instruction_set, &target.instruction_set),
        ("semantics", &reference.semantics, &target.semantics),
        ("weight type", &reference.weight_type, &target.weight_type),
        ("compute type", &reference.compute_type, &target.compute_type),
        ("cache type", &reference.kv_type, &target.kv_type),
        ("attention", &reference.attention, &target.attention),
    ];
    fields
        .into_iter()
        .filter(|(_, reference, target)| reference != target)
        .map(|(name, reference, target)| format!("{name} ({} against {})", said(reference), said(target)))
        .collect()
}

/// What a run says of itself; an import need not know.
fn said(text: &str) -> &str {
    if text.is_empty() { "unknown" } else { text }
}
