//! Contracts over runs, as text, as JSON and as JUnit.

use super::junit::{self, Case, Complaint, Suite};
use crate::contract::{Checked, Counterexamples, Counts, Judged, Outcome, Severity};
use crate::error::Result;
use crate::sql::output::{Detail, cell, objects};
use serde_json::{Value, json};

/// The page: each contract with its obligations, run by run, what breaks them, and what they come to at the end.
///
/// # Errors
/// Environment, where a counterexample has a value without a text.
pub fn contracts_text(checked: &[Checked]) -> Result<String> {
    let mut text = String::new();
    for contract in checked {
        text += &format!("{}: {}\n", contract.id, contract.says);
        for judged in &contract.judged {
            text += &judged_text(judged)?;
        }
        text.push('\n');
    }
    let Counts { held, broken, warnings, unmeasured, not_applicable, errors } = Counts::of(checked);
    let beside = |count, name| if count > 0 { format!(", {}", counted(count, name)) } else { String::new() };
    let (warned, failed) = (beside(warnings, "warning"), beside(errors, "error"));
    Ok(text
        + &format!(
            "{held} held, {broken} broken{warned}, {unmeasured} unmeasured, {not_applicable} not applicable{failed}\n"
        ))
}

/// `1 warning`, `2 warnings`.
fn counted(count: u64, name: &str) -> String {
    format!("{count} {name}{}", if count == 1 { "" } else { "s" })
}

fn judged_text(judged: &Judged) -> Result<String> {
    let runs = runs_text(judged);
    let name = match (&judged.outcome, judged.severity) {
        (Outcome::Broken(_), Severity::Warning) => "warning",
        (Outcome::NotApplicable(_), _) => "not applicable",
        (outcome, _) => outcome.name(),
    };
    let mut text = format!("  {name:14}  {}{runs}", judged.id);
    match &judged.outcome {
        Outcome::Held => {}
        Outcome::NotApplicable(reason) => text += &format!(" ({})", line(reason)),
        Outcome::Error(error) => text += &format!("\n      {}", line(error)),
        Outcome::Unmeasured(reasons) => {
            reasons.iter().for_each(|reason| text += &format!("\n      {}", line(reason)));
        }
        Outcome::Broken(found) => {
            text += &format!("\n      {}", line(&judged.says));
            for example in examples(found)? {
                text += &format!("\n      {}", line(&example));
            }
            let more = found.count.saturating_sub(found.shown.num_rows() as u64);
            if more > 0 {
                text += &format!("\n      and {more} more");
            }
            if let Some(cut) = &found.cut {
                text += &format!("\n      not counted further: {}", line(cut));
            }
        }
    }
    Ok(text + "\n")
}

fn runs_text(judged: &Judged) -> String {
    let labels: Vec<String> = judged.runs.iter().map(|(label, _)| line(label)).collect();
    if labels.is_empty() { String::new() } else { format!(": {}", labels.join(" against ")) }
}

/// Text of a file in one line, without what a terminal would obey.
fn line(text: &str) -> String {
    text.replace(char::is_control, "\u{FFFD}")
}

/// The counterexamples that are shown, a line each: `layer 3, point ffn_act, rel_l2 0.2`. What has no value is left out.
fn examples(found: &Counterexamples) -> Result<Vec<String>> {
    let schema = found.shown.schema();
    let example = |row: usize| {
        let mut parts = Vec::new();
        for (field, column) in schema.fields().iter().zip(found.shown.columns()) {
            if let Some(value) = cell(column, row, Detail::Short)? {
                parts.push(format!("{} {value}", field.name()));
            }
        }
        Ok(parts.join(", "))
    };
    (0..found.shown.num_rows()).map(example).collect()
}

/// The answer for programs: every contract with every obligation of every run, and the counts.
///
/// # Errors
/// As [`contracts_text`].
pub fn contracts_json(checked: &[Checked]) -> Result<Value> {
    let counts = Counts::of(checked);
    let contracts = checked.iter().map(|contract| {
        let judged = contract.judged.iter().map(judged_json).collect::<Result<Vec<_>>>()?;
        Ok(json!({ "contract": contract.id, "says": contract.says, "obligations": judged }))
    });
    Ok(json!({
        "held": counts.held,
        "broken": counts.broken,
        "warnings": counts.warnings,
        "unmeasured": counts.unmeasured,
        "not_applicable": counts.not_applicable,
        "errors": counts.errors,
        "contracts": contracts.collect::<Result<Vec<_>>>()?,
    }))
}

fn judged_json(judged: &Judged) -> Result<Value> {
    let runs: Vec<Value> = judged.runs.iter().map(|(label, run)| json!({ "label": label, "run": run })).collect();
    let mut object = json!({
        "obligation": judged.id,
        "says": judged.says,
        "severity": judged.severity.name(),
        "runs": runs,
        "outcome": judged.outcome.name(),
    });
    match &judged.outcome {
        Outcome::Held => {}
        Outcome::NotApplicable(reason) | Outcome::Error(reason) => object["reasons"] = json!([reason]),
        Outcome::Unmeasured(reasons) => object["reasons"] = json!(reasons),
        Outcome::Broken(found) => {
            object["count"] = json!(found.count);
            object["counterexamples"] = Value::Array(objects(&found.shown)?);
            if let Some(cut) = &found.cut {
                object["not_counted_further"] = json!(cut);
            }
        }
    }
    Ok(object)
}

/// The answer for CI: a suite for each contract, a case for each obligation of each run. A broken warning passes, and the
/// suite's output has it; what was not measured or is not applicable is skipped. With `strict` a broken warning is a
/// failure, and what was not measured an error, as what is damaged always is.
///
/// # Errors
/// As [`contracts_text`]; Internal, where the XML cannot be written.
pub fn contracts_junit(checked: &[Checked], strict: bool) -> Result<String> {
    let suite = |contract: &Checked| {
        let cases = contract.judged.iter().map(|judged| case(contract, judged, strict)).collect::<Result<Vec<_>>>()?;
        let warned =
            |judged: &&Judged| judged.severity == Severity::Warning && matches!(judged.outcome, Outcome::Broken(_));
        let warnings = contract.judged.iter().filter(warned).map(judged_text).collect::<Result<String>>()?;
        let properties = vec![("says".to_owned(), contract.says.clone())];
        Ok(Suite { name: contract.id.clone(), properties, cases, output: warnings })
    };
    junit::junit("actrace-query check", &checked.iter().map(suite).collect::<Result<Vec<_>>>()?)
}

fn case(contract: &Checked, judged: &Judged, strict: bool) -> Result<Case> {
    let error = |message: String| junit::Outcome::Error(Complaint { message, text: String::new() });
    let outcome = match &judged.outcome {
        Outcome::Held => junit::Outcome::Passed,
        Outcome::Broken(_) if judged.severity == Severity::Warning && !strict => junit::Outcome::Passed,
        Outcome::Broken(found) => junit::Outcome::Failed(Complaint {
            message: format!("{}: {}", counted(found.count, "counterexample"), judged.says),
            text: examples(found)?.into_iter().chain(found.cut.clone()).collect::<Vec<_>>().join("\n"),
        }),
        Outcome::Error(reason) => error(reason.clone()),
        Outcome::Unmeasured(reasons) if strict => error(format!("unmeasured: {}", reasons.join("; "))),
        Outcome::Unmeasured(reasons) => junit::Outcome::Skipped(format!("unmeasured: {}", reasons.join("; "))),
        Outcome::NotApplicable(reason) => junit::Outcome::Skipped(format!("not applicable: {reason}")),
    };
    let runs: Vec<String> = judged.runs.iter().map(|(label, run)| format!("{label} ({run})")).collect();
    let name = if runs.is_empty() { judged.id.clone() } else { format!("{}: {}", judged.id, runs.join(" against ")) };
    Ok(Case { class: contract.id.clone(), name, outcome })
}
