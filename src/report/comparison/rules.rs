//! What rules come to, as lines and as objects.

use super::{measured_place, place};
use crate::compare::{Assessment, Finding, Level, Measured, Outcome, Ruling, Rulings};
use crate::report::number;
use serde_json::{Value, json};

/// A line for each rule: what came of it, the worst value and its place, the limit that would just pass.
pub(super) fn text(assessment: &Assessment, rulings: &Rulings) -> String {
    let mut text = String::from("rule line  level  outcome    places  beyond  worst       place\n");
    for ruling in &rulings.rulings {
        text += &line(assessment, ruling);
    }
    if !rulings.uncovered.is_empty() {
        text += &format!(
            "{} places have no rule, of which {} are beyond the tolerance\n",
            rulings.uncovered.len(),
            rulings.uncovered_exceeding.len()
        );
    }
    text
}

fn line(assessment: &Assessment, ruling: &Ruling) -> String {
    let rule = &ruling.rule;
    let worst = ruling.worst.as_ref();
    let mut text = format!(
        "{:>9}  {:5}  {:9}  {:>6}  {:>6}  {:10}  {}",
        rule.line,
        rule.level.name(),
        ruling.outcome.name(),
        ruling.places,
        ruling.exceeding.len(),
        worst.map_or_else(|| "-".to_owned(), |worst| value_text(&worst.finding)),
        worst.map_or_else(|| "-".to_owned(), |worst| measured_place(assessment, worst)),
    );
    text += &format!("\n           {}", rule.text());
    text += &required_text(ruling).map_or_else(String::new, |required| format!("; required: {required}"));
    if let Some(unknown) = ruling.unknown.first() {
        let count = ruling.unknown.len();
        let first = measured_place(assessment, unknown);
        text += &format!("; not known of {count} places, the first {first}: {}", value_text(&unknown.finding));
    }
    if ruling.outcome == Outcome::Unused {
        text += &format!("; {}", unused_text(ruling));
    }
    if !rule.reason.is_empty() {
        text += &format!("; {}", rule.reason);
    }
    text + "\n"
}

/// Why a rule decides for no place.
pub(super) fn unused_text(ruling: &Ruling) -> String {
    match ruling.taken {
        0 => format!("`{}` fits nothing that these runs share", ruling.rule.places),
        taken => format!("earlier rules decide for all {taken} places that it fits"),
    }
}

/// The limit that would just pass, with every digit: it may be written into the file. `None` where nothing was measured.
pub(super) fn required_text(ruling: &Ruling) -> Option<String> {
    match (&ruling.required, ruling.exceeding.is_empty()) {
        (Some(required), _) => Some(format!("{required:?}")),
        (None, false) => Some("no limit passes".to_owned()),
        (None, true) => None,
    }
}

/// A measured value in words.
pub(super) fn value_text(finding: &Finding) -> String {
    match finding {
        Finding::Value(value) if value.fract() == 0.0 && value.abs() < 1e6 => format!("{value}"),
        Finding::Value(value) if value.abs() >= 1e-3 && value.abs() < 1e6 => format!("{value:.6}"),
        Finding::Value(value) => format!("{value:.3e}"),
        Finding::Equal => "equal".to_owned(),
        Finding::Broken(why) | Finding::Unknown(why) => (*why).to_owned(),
    }
}

/// What the rules together come to.
pub(super) fn reason(assessment: &Assessment, rulings: &Rulings) -> String {
    let lines = |wanted: &dyn Fn(&Ruling) -> bool| -> Vec<String> {
        rulings.rulings.iter().filter(|ruling| wanted(ruling)).map(|ruling| ruling.rule.line.to_string()).collect()
    };
    let failed = lines(&|ruling| ruling.outcome == Outcome::Exceeded(Level::Fail));
    let warned = lines(&|ruling| ruling.outcome == Outcome::Exceeded(Level::Warn));
    let undecided = lines(&|ruling| ruling.outcome == Outcome::Undecided);
    let unused = lines(&|ruling| ruling.outcome == Outcome::Unused && !ruling.rule.optional);
    let said = [("fail", failed), ("warn", warned), ("undecided", undecided), ("for no place", unused)];
    let mut parts: Vec<String> = said
        .into_iter()
        .filter(|(_, lines)| !lines.is_empty())
        .map(|(what, lines)| format!("{what}: line {}", lines.join(", line ")))
        .collect();
    if !rulings.uncovered_exceeding.is_empty() {
        parts.push(format!("{} places without a rule are beyond the tolerance", rulings.uncovered_exceeding.len()));
    }
    if !rulings.uncovered_unknown.is_empty() {
        parts
            .push(format!("{} places without a rule differ, and no values were kept", rulings.uncovered_unknown.len()));
    }
    if !rulings.uncovered_undecided.is_empty() {
        parts.push(format!(
            "{} places without a rule differ, and the verdict of them is {}",
            rulings.uncovered_undecided.len(),
            assessment.comparison.verdict.name()
        ));
    }
    if assessment.is_proven() {
        parts.push(format!("whatever the rules, the runs have {}", assessment.comparison.verdict.name()));
    }
    if parts.is_empty() { "every rule holds".to_owned() } else { parts.join("; ") }
}

/// An object for each rule, and the places without one.
pub(super) fn json(assessment: &Assessment, rulings: &Rulings) -> Value {
    let sites = |list: &[usize]| list.iter().map(|at| site_name(assessment, *at)).collect::<Vec<_>>();
    json!({
        "reason": reason(assessment, rulings),
        "rules": rulings.rulings.iter().map(|ruling| object(assessment, ruling)).collect::<Vec<_>>(),
        "uncovered": rulings.uncovered.len(),
        "uncovered_beyond": sites(&rulings.uncovered_exceeding),
        "uncovered_unknown": sites(&rulings.uncovered_unknown),
        "uncovered_undecided": sites(&rulings.uncovered_undecided),
    })
}

fn site_name(assessment: &Assessment, at: usize) -> String {
    let site = assessment.comparison.pairing.as_ref().and_then(|pairing| pairing.sites.get(at));
    site.map_or_else(String::new, |site| place(site.layer(), &site.point, site.occurrence))
}

fn object(assessment: &Assessment, ruling: &Ruling) -> Value {
    let rule = &ruling.rule;
    let list = |places: &[Measured]| places.iter().map(|place| measured_json(assessment, place)).collect::<Vec<_>>();
    json!({
        "line": rule.line,
        "rule": rule.text(),
        "places": rule.places,
        "metric": rule.metric.name,
        "limit": number(Some(rule.limit)),
        "level": rule.level.name(),
        "reason": rule.reason,
        "outcome": ruling.outcome.name(),
        "decided": ruling.places,
        "taken": ruling.taken,
        "worst": ruling.worst.as_ref().map(|worst| measured_json(assessment, worst)),
        "required": number(ruling.required),
        "exceeding": list(&ruling.exceeding),
        "unknown": list(&ruling.unknown),
    })
}

fn measured_json(assessment: &Assessment, measured: &Measured) -> Value {
    let site = assessment.comparison.pairing.as_ref().and_then(|pairing| pairing.sites.get(measured.site));
    let (value, why) = match measured.finding {
        Finding::Value(value) => (number(Some(value)), None),
        Finding::Equal => (Value::Null, Some("equal")),
        Finding::Broken(why) | Finding::Unknown(why) => (Value::Null, Some(why)),
    };
    json!({
        "layer": site.and_then(|site| site.layer()),
        "point": site.map(|site| &site.point),
        "occurrence": site.map(|site| site.occurrence),
        "position": measured.position,
        "value": value,
        "note": why,
    })
}
