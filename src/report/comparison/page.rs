//! Comparisons as a page: who, each layer and point, the answer, what looks wrong, the rules, the verdict last.

use super::judgement::{self, divergence_text};
use super::{answer, label, rules, sites, warnings};
use crate::compare::{Assessment, Comparison};
use crate::open::RunRef;
use crate::record::RunV1;

/// Every comparison after the other, and a table of all where there are several.
pub fn comparisons_text(assessments: &[Assessment]) -> String {
    let pages: Vec<String> = assessments.iter().map(page).collect();
    let mut text = pages.join("\n");
    if assessments.len() > 1 {
        text += &format!("\n{}", summary(assessments));
    }
    // Texts from files keep no control character that a terminal would obey.
    text.replace(|c: char| c.is_control() && c != '\n', "\u{FFFD}")
}

/// One comparison.
pub(super) fn page(assessment: &Assessment) -> String {
    let comparison = &assessment.comparison;
    let (reference, target) = (run_text(&assessment.reference), run_text(&assessment.target));
    let mut text = format!("reference {reference}\ntarget    {target}\n");
    if !comparison.sites.is_empty() {
        text += &sites::text(comparison);
    }
    text += &compared(assessment);
    text += &assessment.answer.as_ref().map_or_else(String::new, answer::text);
    text += &warnings::text(assessment);
    text += &assessment.rulings.as_ref().map_or_else(String::new, |rulings| rules::text(assessment, rulings));
    if !comparison.unlike.is_empty() {
        text += &format!("unlike: {}\n", comparison.unlike.join(", "));
    }
    if comparison.tolerance.floor {
        let [reference, target] = &comparison.rounding;
        text += &format!("rounding: reference {reference}; target {target}\n");
    }
    text += &format!("tolerance: {:.1e} ({})\n", comparison.tolerance.value, comparison.tolerance.reason);
    text += &judgement::text(comparison);
    text += &format!("verdict: {} - {}\n", comparison.verdict.name(), comparison.reason);
    match &assessment.rulings {
        Some(rulings) => {
            text + &format!("by the rules: {} - {}\n", assessment.standing().name(), rules::reason(assessment, rulings))
        }
        None => text,
    }
}

fn run_text(run: &RunRef) -> String {
    let RunV1 { architecture, model_format, weight_type, semantics, device_kind, .. } = &*run.view().identity;
    format!("{} ({architecture} {model_format} {weight_type}, {semantics}, {device_kind})", label(run))
}

/// What the comparison rests on, and what it leaves out.
fn compared(assessment: &Assessment) -> String {
    let comparison = &assessment.comparison;
    let mut text = String::new();
    if assessment.rests_on_statistics() {
        text += &format!("evidence: statistics only - {}\n", evidence(comparison));
    } else if !comparison.sites.is_empty() {
        text += &format!("evidence: {}\n", evidence(comparison));
    }
    let Some(pairing) = &comparison.pairing else { return text };
    for left_out in &pairing.left_out {
        text += &format!("left out: {} rows, {}\n", left_out.rows, left_out.reason);
    }
    if let Some((position, reference, target)) = pairing.first_differing_token {
        text += &format!("first differing token: position {position}, {reference} against {target}\n");
    }
    text
}

fn evidence(comparison: &Comparison) -> String {
    let (mut equal, mut values, mut statistics) = (0, 0, 0);
    for site in &comparison.sites {
        equal += site.equal_rows;
        values += site.tensor_rows;
        statistics += site.undecided_rows;
    }
    let differ = match statistics {
        0 => String::new(),
        _ => format!(", {statistics} differ by at least what their norms say (no values were kept)"),
    };
    format!("{equal} rows equal in every bit, {values} compared value by value{differ}")
}

/// A line for each target.
fn summary(assessments: &[Assessment]) -> String {
    let mut text = String::from("status     verdict           KL of the last row  flips  target, first divergence\n");
    for assessment in assessments {
        let comparison = &assessment.comparison;
        let answer = assessment.answer.as_ref().filter(|answer| !answer.rows.is_empty());
        let last = answer.and_then(|answer| answer.last());
        let first =
            comparison.first_divergence.as_ref().map_or_else(String::new, |at| format!(": {}", divergence_text(at)));
        text += &format!(
            "{:9}  {:16}  {:>18}  {:>5}  {}{first}\n",
            assessment.standing().name(),
            comparison.verdict.name(),
            last.map_or_else(|| "-".to_owned(), |row| format!("{:.2e}", row.kl_divergence)),
            answer.map_or_else(|| "-".to_owned(), |answer| answer.flips().count().to_string()),
            label(&assessment.target),
        );
    }
    text
}
