//! Comparisons as an object, with everything that is known.

use super::judgement::{baseline_json, divergence_json};
use super::{answer, rules, sites, warnings, worst};
use crate::compare::{Assessment, Judge};
use crate::open::RunRef;
use serde_json::{Value, json};

/// One comparison as its object, with at least `verdict`, `reason`, `status` and `first_divergence`; several as an object
/// with the worst `status` and all of them in `targets`.
pub fn comparisons_json(assessments: &[Assessment]) -> Value {
    match assessments {
        [one] => object(one),
        several => json!({
            "status": worst(several).name(),
            "reference": several.first().map(|one| run_json(&one.reference)),
            "targets": several.iter().map(object).collect::<Vec<_>>(),
        }),
    }
}

fn object(assessment: &Assessment) -> Value {
    let comparison = &assessment.comparison;
    let left_out = comparison.pairing.iter().flat_map(|pairing| &pairing.left_out);
    let left_out: Vec<Value> =
        left_out.map(|left_out| json!({ "rows": left_out.rows, "reason": left_out.reason })).collect();
    let differing = comparison.pairing.as_ref().and_then(|pairing| pairing.first_differing_token);
    let tolerance = &comparison.tolerance;
    json!({
        "reference": run_json(&assessment.reference),
        "target": run_json(&assessment.target),
        "status": assessment.standing().name(),
        "verdict": comparison.verdict.name(),
        "reason": comparison.reason,
        "judged_by": comparison.judged_by.map(Judge::name),
        "evidence": comparison.evidence(),
        "first_divergence": comparison.first_divergence.as_ref().map(divergence_json),
        "first_exceeding": comparison.first_exceeding.as_ref().map(divergence_json),
        "baseline": comparison.baseline.as_ref().map(baseline_json),
        "rounding": { "reference": comparison.rounding[0], "target": comparison.rounding[1] },
        "unlike_numbers": comparison.unlike_numbers,
        "tolerance": { "rel_l2": tolerance.value, "reason": tolerance.reason, "floor": tolerance.floor },
        "statistics_only": assessment.rests_on_statistics(),
        "unlike": comparison.unlike,
        "left_out": left_out,
        "first_differing_token": differing.map(|(position, reference, target)| {
            json!({ "position": position, "reference": reference, "target": target })
        }),
        "answer": assessment.answer.as_ref().map(answer::json),
        "warnings": {
            "both": warnings::json(&assessment.warnings),
            "reference": warnings::json(&assessment.reference_warnings),
            "target": warnings::json(&assessment.target_warnings),
        },
        "rules": assessment.rulings.as_ref().map(|rulings| rules::json(assessment, rulings)),
        "sites": sites::json(comparison),
    })
}

pub(super) fn run_json(run: &RunRef) -> Value {
    let identity = &run.view().identity;
    json!({
        "label": identity.label,
        "run": run.id(),
        "architecture": identity.architecture,
        "format": identity.model_format,
        "weight_type": identity.weight_type,
        "semantics": identity.semantics,
        "device": identity.device_kind,
    })
}
