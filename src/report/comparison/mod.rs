//! Comparisons of runs with one reference: as a page, as an object, as a check of a CI system.

mod answer;
mod json;
mod judgement;
mod page;
mod rules;
mod sites;
#[cfg(feature = "query")]
mod suite;
mod warnings;

pub use json::comparisons_json;
pub use page::comparisons_text;
#[cfg(feature = "query")]
pub use suite::comparisons_junit;

use crate::compare::{Assessment, Measured, Standing};

/// The worst of several comparisons; passed, where there is none.
fn worst(assessments: &[Assessment]) -> Standing {
    assessments.iter().map(Assessment::standing).max().unwrap_or(Standing::Passed)
}

/// A place in words: `layer 3 ffn_glu#1`.
fn place(layer: Option<u32>, point: &str, occurrence: u32) -> String {
    let layer = layer.map_or_else(String::new, |layer| format!("layer {layer} "));
    let occurrence = if occurrence == 0 { String::new() } else { format!("#{occurrence}") };
    format!("{layer}{point}{occurrence}")
}

/// The place of what a rule measured, in words.
fn measured_place(assessment: &Assessment, measured: &Measured) -> String {
    let site = assessment.comparison.pairing.as_ref().and_then(|pairing| pairing.sites.get(measured.site));
    let place = site.map_or_else(String::new, |site| place(site.layer(), &site.point, site.occurrence));
    measured.position.map_or_else(|| place.clone(), |position| format!("{place} at position {position}"))
}

/// The name of a run without what a terminal would obey.
fn label(run: &crate::open::RunRef) -> String {
    run.view().identity.label.replace(char::is_control, "\u{FFFD}")
}
