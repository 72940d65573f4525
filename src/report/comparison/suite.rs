//! Comparisons as JUnit suites: one for each target. Its first case is the verdict; then a case for each rule where there
//! are rules, else for each layer and point.

use super::judgement::{divergence_text, worst_text};
use super::{label, measured_place, page, place, rules, sites};
use crate::compare::{
    Assessment, Comparison, Judge, Level, Outcome, Ruling, SiteComparison, SitePair, Standing, stands_out,
};
use crate::error::Result;
use crate::report::junit::{self, Case, Complaint, Suite, junit};

/// Every comparison as a suite. A failure is a failure, also for a place that only inherits it; what cannot be decided is
/// an error, so that no CI system takes it for success; a warning is said in the output and fails nothing.
///
/// # Errors
/// Internal, where the XML cannot be written.
pub fn comparisons_junit(assessments: &[Assessment]) -> Result<String> {
    junit("actrace compare", &assessments.iter().map(suite).collect::<Vec<_>>())
}

fn suite(assessment: &Assessment) -> Suite {
    let comparison = &assessment.comparison;
    let name = format!("{} against {}", label(&assessment.target), label(&assessment.reference));
    let mut cases = vec![Case { class: name.clone(), name: "verdict".to_owned(), outcome: verdict(assessment) }];
    match &assessment.rulings {
        Some(rulings) => cases.extend(rulings.rulings.iter().map(|ruling| rule_case(assessment, ruling, &name))),
        None => {
            cases.extend(sites::pairs(comparison).map(|(at, pair, site)| place_case(comparison, at, pair, site, &name)))
        }
    }
    let properties = [
        ("reference", assessment.reference.id()),
        ("target", assessment.target.id()),
        ("status", assessment.standing().name().to_owned()),
        ("verdict", comparison.verdict.name().to_owned()),
        ("tolerance", format!("{:?}", comparison.tolerance.value)),
    ];
    let properties = properties.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Suite { name, properties, cases, output: page::page(assessment) }
}

fn verdict(assessment: &Assessment) -> junit::Outcome {
    let comparison = &assessment.comparison;
    let by_rules = assessment.rulings.as_ref().map(|rulings| rules::reason(assessment, rulings));
    let message = by_rules.unwrap_or_else(|| format!("{}: {}", comparison.verdict.name(), comparison.reason));
    let first = comparison.first_divergence.as_ref();
    let text = first.map_or_else(String::new, |first| {
        format!("first divergence: {}\n{}", divergence_text(first), worst_text(first))
    });
    match assessment.standing() {
        Standing::Passed => junit::Outcome::Passed,
        Standing::Undecided => junit::Outcome::Error(Complaint { message, text }),
        Standing::Failed => junit::Outcome::Failed(Complaint { message, text }),
    }
}

fn place_case(comparison: &Comparison, at: usize, pair: &SitePair, site: &SiteComparison, name: &str) -> Case {
    let layer = pair.layer();
    let class = layer.map_or_else(|| name.to_owned(), |layer| format!("{name}.layers.{layer}"));
    let culprit = comparison.first_divergence.as_ref().is_some_and(|first| first.site == Some(at));
    let beyond = stands_out(comparison, at);
    let outcome = match () {
        () if beyond || culprit => junit::Outcome::Failed(Complaint {
            message: place_message(comparison, pair, site, culprit),
            text: format!("{}: {} rows compared", place(layer, &pair.point, pair.occurrence), pair.rows.len()),
        }),
        () if site.undecided_rows > 0 => junit::Outcome::Skipped(format!(
            "{} rows differ, and no values were kept to say by how much",
            site.undecided_rows
        )),
        () => junit::Outcome::Passed,
    };
    Case { class, name: place(None, &pair.point, pair.occurrence), outcome }
}

fn place_message(comparison: &Comparison, pair: &SitePair, site: &SiteComparison, culprit: bool) -> String {
    let role = if culprit { "first divergence: " } else { "" };
    if !pair.missing.is_empty() {
        return format!("{role}{} rows are missing in one run", pair.missing.len());
    }
    let uneven = comparison.pairing.as_ref().is_some_and(|pairing| pairing.is_uneven(pair));
    if uneven {
        return format!("{role}{} rows are of another width", pair.uneven.len());
    }
    let distance = comparison.tolerance.distance(site);
    if distance <= comparison.tolerance.value {
        let judge = comparison.judged_by.map_or("nothing", Judge::name);
        return format!("{role}judged by {judge}: {}", comparison.reason);
    }
    let position = site.worst_position.map_or_else(String::new, |position| format!(", worst at position {position}"));
    if distance.is_infinite() {
        return format!("{role}nonfinite values or a row of zeros in one run only{position}");
    }
    format!("{role}rel_l2 {distance:.3e} above {:.1e}{position}", comparison.tolerance.value)
}

fn rule_case(assessment: &Assessment, ruling: &Ruling, name: &str) -> Case {
    let rule = &ruling.rule;
    let worst = ruling.worst.as_ref();
    let value = worst.map_or_else(|| "nothing known".to_owned(), |worst| rules::value_text(&worst.finding));
    let place = worst.map_or_else(String::new, |worst| format!(" in {}", measured_place(assessment, worst)));
    let required = rules::required_text(ruling).map_or_else(String::new, |required| format!("; required: {required}"));
    let message = format!("{} {value}{place}, limit {:?}{required}", rule.metric.name, rule.limit);
    let beyond = ruling.exceeding.iter().chain(&ruling.unknown);
    let line = |place| format!("{}: {}\n", measured_place(assessment, place), rules::value_text(&place.finding));
    let text = beyond.map(line).collect();
    let outcome = match ruling.outcome {
        Outcome::Holds | Outcome::Exceeded(Level::Pass | Level::Warn) => junit::Outcome::Passed,
        Outcome::Exceeded(Level::Fail) => junit::Outcome::Failed(Complaint { message, text }),
        Outcome::Undecided if rule.level != Level::Fail => junit::Outcome::Skipped(message),
        Outcome::Undecided => junit::Outcome::Error(Complaint { message, text }),
        Outcome::Unused if rule.optional => junit::Outcome::Skipped(rules::unused_text(ruling)),
        Outcome::Unused => {
            junit::Outcome::Error(Complaint { message: rules::unused_text(ruling), text: String::new() })
        }
    };
    Case { class: format!("{name}.rules"), name: format!("line {}: {}", rule.line, rule.text()), outcome }
}
