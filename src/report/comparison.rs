//! A comparison of two runs, as text and as JSON.

use super::number;
use crate::compare::{Baseline, Comparison, Divergence, Judge, Relative, SiteComparison, SitePair};
use crate::open::RunRef;
use crate::record::RunV1;
use serde_json::{Value, json};

/// The comparison as a page: who, how far apart they may be, each layer and point, the verdict last.
pub fn comparison_text(reference: &RunRef, target: &RunRef, comparison: &Comparison) -> String {
    let mut text = format!("reference {}\ntarget    {}\n", run_text(reference), run_text(target));
    if !comparison.sites.is_empty() {
        text += &sites_text(comparison);
    }
    if let Some(pairing) = &comparison.pairing {
        for left_out in &pairing.left_out {
            text += &format!("left out: {} rows, {}\n", left_out.rows, left_out.reason);
        }
        if let Some((position, reference, target)) = pairing.first_differing_token {
            text += &format!("first differing token: position {position}, {reference} against {target}\n");
        }
    }
    if !comparison.unlike.is_empty() {
        text += &format!("unlike: {}\n", comparison.unlike.join(", "));
    }
    if comparison.tolerance.floor {
        let [reference, target] = &comparison.rounding;
        text += &format!("rounding: reference {reference}; target {target}\n");
    }
    text += &format!("tolerance: {:.1e} ({})\n", comparison.tolerance.value, comparison.tolerance.reason);
    text += &judgement_text(comparison);
    text + &format!("verdict: {} - {}\n", comparison.verdict.name(), comparison.reason)
}

fn run_text(run: &RunRef) -> String {
    let RunV1 { label, architecture, model_format, weight_type, semantics, device_kind, .. } = &*run.view().identity;
    let line = format!("{label} ({architecture} {model_format} {weight_type}, {semantics}, {device_kind})");
    line.replace(char::is_control, "\u{FFFD}")
}

fn sites_text(comparison: &Comparison) -> String {
    let mut text =
        String::from("layer  point             rows     rel_l2  worst_row  position     cosine  ratio_std  beyond\n");
    let pairs = comparison.pairing.iter().flat_map(|pairing| &pairing.sites);
    for (pair, site) in pairs.zip(&comparison.sites) {
        text += &site_text(pair, site, comparison);
    }
    text
}

fn site_text(pair: &SitePair, site: &SiteComparison, comparison: &Comparison) -> String {
    let layer = u32::try_from(pair.layer).map_or_else(|_| "-".to_owned(), |layer| layer.to_string());
    let point = match pair.occurrence {
        0 => pair.point.clone(),
        occurrence => format!("{}#{occurrence}", pair.point),
    };
    let number = |value: Option<f64>, digits: usize| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.digits$}"));
    let small = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2e}"));
    let beyond = match comparison.tolerance.distance(site) > comparison.tolerance.value || !pair.missing.is_empty() {
        _ if !pair.missing.is_empty() => "  missing",
        true => "  *",
        false => "",
    };
    let line = format!(
        "{layer:>5}  {point:16} {:>5} {:>10} {:>10} {:>9} {:>10} {:>10}{beyond}",
        pair.rows.len(),
        small(site.sums.rel_l2().filter(|_| site.sums.count > 0)),
        small(Some(site.worst_row)),
        site.worst_position.map_or_else(|| "-".to_owned(), |position| position.to_string()),
        number(site.sums.cosine(), 6),
        number(site.ratio_std(), 4),
    );
    line.trim_end().to_owned() + "\n"
}

/// What the errors rest on, where the runs part, where the fault is, and who judged.
fn judgement_text(comparison: &Comparison) -> String {
    let mut text = String::new();
    if comparison.evidence() != "values" {
        text += &format!("evidence: {}\n", comparison.evidence());
    }
    if let Some(baseline) = &comparison.baseline {
        let largest =
            baseline.largest().map_or_else(|| "no error to measure by".to_owned(), |ratio| format!("{ratio:.2}"));
        let label = baseline.run.view().identity.label.replace(char::is_control, "\u{FFFD}");
        text += &format!("baseline: {label}, largest noise ratio {largest}\n");
    }
    if let Some(exceeding) = &comparison.first_exceeding {
        text += &format!("first exceeding: {}\n", divergence_text(exceeding));
    }
    let first = comparison.first_divergence.as_ref().map_or_else(|| "none".to_owned(), divergence_text);
    text += &format!("first divergence: {first}\n");
    if let Some(worst) = comparison.first_divergence.as_ref().and_then(|divergence| divergence.worst) {
        let part = |name: &str, number: Option<u32>| {
            number.map_or_else(String::new, |number| format!(", worst {name} {number}"))
        };
        text += &format!(
            "worst there: position {}, element {}, {:e} against {:e}{}{}\n",
            worst.position,
            worst.index,
            worst.reference,
            worst.target,
            part("head", worst.head),
            part("channel", worst.channel),
        );
    }
    if let Some(judge) = comparison.judged_by {
        text += &format!("judged by: {}\n", judge.name());
    }
    text
}

fn divergence_text(divergence: &Divergence) -> String {
    let layer = divergence.layer.map_or_else(String::new, |layer| format!("layer {layer} "));
    let class = divergence.class.map_or_else(String::new, |class| format!(", class {class}"));
    let position = divergence.position.map_or_else(String::new, |position| format!(", position {position}"));
    let size = divergence.rel_l2.map_or_else(String::new, |rel_l2| format!(", rel_l2 {rel_l2:.2e}"));
    format!("{layer}{}{class}{position}{size}", divergence.point)
}

/// The comparison as an object: at least `verdict`, `reason` and `first_divergence`.
pub fn comparison_json(reference: &RunRef, target: &RunRef, comparison: &Comparison) -> Value {
    let pairs = comparison.pairing.iter().flat_map(|pairing| &pairing.sites);
    let sites: Vec<Value> = pairs
        .zip(&comparison.sites)
        .enumerate()
        .map(|(at, (pair, site))| site_json(pair, site, comparison, at))
        .collect();
    let left_out = comparison.pairing.iter().flat_map(|pairing| &pairing.left_out);
    let left_out: Vec<Value> =
        left_out.map(|left_out| json!({ "rows": left_out.rows, "reason": left_out.reason })).collect();
    let differing = comparison.pairing.as_ref().and_then(|pairing| pairing.first_differing_token);
    json!({
        "reference": run_json(reference),
        "target": run_json(target),
        "verdict": comparison.verdict.name(),
        "reason": comparison.reason,
        "judged_by": comparison.judged_by.map(Judge::name),
        "evidence": comparison.evidence(),
        "first_divergence": comparison.first_divergence.as_ref().map(divergence_json),
        "first_exceeding": comparison.first_exceeding.as_ref().map(divergence_json),
        "baseline": comparison.baseline.as_ref().map(baseline_json),
        "rounding": { "reference": comparison.rounding[0], "target": comparison.rounding[1] },
        "unlike_numbers": comparison.unlike_numbers,
        "tolerance": { "rel_l2": comparison.tolerance.value, "reason": comparison.tolerance.reason },
        "unlike": comparison.unlike,
        "left_out": left_out,
        "first_differing_token": differing.map(|(position, reference, target)| {
            json!({ "position": position, "reference": reference, "target": target })
        }),
        "sites": sites,
    })
}

fn run_json(run: &RunRef) -> Value {
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

fn divergence_json(divergence: &Divergence) -> Value {
    let single = |value: f32| number(Some(f64::from(value)));
    json!({
        "layer": divergence.layer,
        "point": divergence.point,
        "occurrence": divergence.occurrence,
        "position": divergence.position,
        "first_position": divergence.first_position,
        "rel_l2": divergence.rel_l2,
        "class": divergence.class,
        "note": divergence.note,
        "not_compared_before": divergence.unseen,
        "worst": divergence.worst.map(|worst| json!({
            "position": worst.position,
            "index": worst.index,
            "reference": single(worst.reference),
            "target": single(worst.target),
            "head": worst.head,
            "channel": worst.channel,
        })),
    })
}

fn baseline_json(baseline: &Baseline) -> Value {
    json!({
        "run": run_json(&baseline.run),
        "relation": baseline.relation.name(),
        "limit": baseline.limit,
        "largest_ratio": number(baseline.largest()),
        "undecided": Some(&baseline.undecided).filter(|why| !why.is_empty()),
    })
}

fn site_json(pair: &SitePair, site: &SiteComparison, comparison: &Comparison, at: usize) -> Value {
    let own = comparison.inheritance.get(at).copied().unwrap_or_default();
    let relative = comparison.baseline.as_ref().and_then(|baseline| *baseline.sites.get(at)?);
    json!({
        "layer": u32::try_from(pair.layer).ok(),
        "point": pair.point,
        "occurrence": pair.occurrence,
        "rows": pair.rows.len(),
        "missing": pair.missing.len(),
        "equal_rows": site.equal_rows,
        "rel_l2": number(site.sums.rel_l2()),
        "worst_row": number(Some(site.worst_row)),
        "worst_position": site.worst_position,
        "max_abs_diff": number(site.sums.max_abs_diff()),
        "cosine": number(site.sums.cosine()),
        "ratio_std": number(site.ratio_std()),
        "inherited": number(own.inherited),
        "introduced": number(own.introduced),
        "introduced_is": own.introduced.map(|_| if own.measured { "measured" } else { "estimate" }),
        "amplification": number(own.amplification(site)),
        "baseline_rel_l2": number(relative.map(|relative| relative.baseline)),
        "noise_ratio": number(relative.map(Relative::ratio)),
    })
}
