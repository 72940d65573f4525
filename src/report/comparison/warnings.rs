//! What looks wrong by itself, as lines and as objects.

use super::place;
use crate::compare::{Assessment, Warning};
use serde_json::{Value, json};

/// Warnings of one run that the page shows.
const SHOWN: usize = 8;

/// A line for each warning, the first few of each run.
pub(super) fn text(assessment: &Assessment) -> String {
    let both = few("both", &assessment.warnings);
    both + &few("reference", &assessment.reference_warnings) + &few("target", &assessment.target_warnings)
}

fn few(whose: &str, warnings: &[Warning]) -> String {
    let lines = warnings.iter().take(SHOWN).map(|warning| format!("warning: {whose}: {}\n", line(warning)));
    let more = warnings.len().saturating_sub(SHOWN);
    let rest =
        if more == 0 { String::new() } else { format!("warning: {whose}: and {more} more, with --format json\n") };
    lines.collect::<String>() + &rest
}

fn line(warning: &Warning) -> String {
    let place = warning.point.as_ref().map_or_else(String::new, |point| place(warning.layer, point, 0) + " ");
    let position = warning.position.map_or_else(String::new, |position| format!("from position {position} on "));
    format!("{}: {}{}{}", warning.suspicion.name(), place, position, warning.text)
}

/// An object for each warning.
pub(super) fn json(warnings: &[Warning]) -> Value {
    let object = |warning: &Warning| {
        json!({
            "kind": warning.suspicion.name(),
            "layer": warning.layer,
            "point": warning.point,
            "position": warning.position,
            "text": warning.text,
        })
    };
    Value::Array(warnings.iter().map(object).collect())
}
