//! Where two runs part, where the fault is, and who judged.

use super::{label, place};
use crate::compare::{Baseline, Comparison, Divergence};
use crate::report::number;
use serde_json::{Value, json};

/// A line for each thing that was found.
pub(super) fn text(comparison: &Comparison) -> String {
    let mut text = String::new();
    if let Some(baseline) = &comparison.baseline {
        let largest =
            baseline.largest().map_or_else(|| "no error to measure by".to_owned(), |ratio| format!("{ratio:.2}"));
        text += &format!("baseline: {}, largest noise ratio {largest}\n", label(&baseline.run));
    }
    if let Some(exceeding) = &comparison.first_exceeding {
        text += &format!("first exceeding: {}\n", divergence_text(exceeding));
    }
    let first = comparison.first_divergence.as_ref().map_or_else(|| "none".to_owned(), divergence_text);
    text += &format!("first divergence: {first}\n");
    text += &comparison.first_divergence.as_ref().map_or_else(String::new, worst_text);
    if let Some(judge) = comparison.judged_by {
        text += &format!("judged by: {}\n", judge.name());
    }
    text
}

/// Where two runs part, in words.
pub(super) fn divergence_text(divergence: &Divergence) -> String {
    let place = place(divergence.layer, &divergence.point, divergence.occurrence);
    let class = divergence.class.map_or_else(String::new, |class| format!(", class {class}"));
    let position = divergence.position.map_or_else(String::new, |position| format!(", position {position}"));
    let size = divergence.rel_l2.map_or_else(String::new, |rel_l2| format!(", rel_l2 {rel_l2:.2e}"));
    format!("{place}{class}{position}{size}")
}

/// The element that is furthest off with both values, the worst head and channel.
pub(super) fn worst_text(divergence: &Divergence) -> String {
    let part =
        |name: &str, number: Option<u32>| number.map_or_else(String::new, |number| format!(", worst {name} {number}"));
    divergence.worst.map_or_else(String::new, |worst| {
        format!(
            "worst there: position {}, element {}, {:e} against {:e}{}{}\n",
            worst.position,
            worst.index,
            worst.reference,
            worst.target,
            part("head", worst.head),
            part("channel", worst.channel),
        )
    })
}

/// A place where two runs part as an object.
pub(super) fn divergence_json(divergence: &Divergence) -> Value {
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

/// A baseline as an object.
pub(super) fn baseline_json(baseline: &Baseline) -> Value {
    json!({
        "run": super::json::run_json(&baseline.run),
        "relation": baseline.relation.name(),
        "limit": baseline.limit,
        "largest_ratio": number(baseline.largest()),
        "undecided": Some(&baseline.undecided).filter(|why| !why.is_empty()),
    })
}
