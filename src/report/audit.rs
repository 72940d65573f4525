//! An audit of a run, as text and as JSON.

use super::number;
use crate::audit::{Culprit, Finding, Judgement, Verdict, verdict};
use crate::capture::place_name;
use crate::open::RunRef;
use serde_json::{Value, json};

/// The audit as a page: each operation, then what stands out, the verdict last. `basis` says what it rests on.
pub fn audit_text(run: &RunRef, basis: &str, findings: &[Finding]) -> String {
    let label = run.view().identity.label.replace(char::is_control, "\u{FFFD}");
    let mut text = format!("run {label} ({}), {basis}\n", run.id());
    text += "layer  point             tokens     rel_l2      bound       over      slope        z  channel  position  verdict\n";
    findings.iter().for_each(|finding| text += &line(finding));
    text += &chains(findings);
    for finding in findings.iter().filter(|finding| finding.class().is_some() && !finding.note.is_empty()) {
        text += &format!("{}: {}\n", place(finding), finding.note);
    }
    let (verdict, culprit) = verdict(findings);
    if let Some(culprit) = &culprit {
        text += &format!("culprit: {}\n", culprit_text(culprit));
    }
    text + &format!("verdict: {} - {}\n", verdict.name(), reason(verdict, findings))
}

fn line(finding: &Finding) -> String {
    let small = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2e}"));
    let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let point = match finding.occurrence {
        0 => finding.point.to_owned(),
        occurrence => format!("{}#{occurrence}", finding.point),
    };
    let class = finding.class().map_or_else(String::new, |class| format!(" ({})", class.name()));
    let explained = match (finding.judgement, finding.alternative) {
        (Judgement::Wrong(_), Some((name, rel_l2))) => format!(", nearest: {name} {rel_l2:.1e}"),
        _ => String::new(),
    };
    format!(
        "{:>5}  {point:16} {:>7} {:>10} {:>10} {:>10} {:>10} {:>8} {:>8} {:>9}  {}{class}{explained}\n",
        text(finding.layer.map(|layer| layer.to_string())),
        finding.tokens,
        small(finding.rel_l2),
        small(finding.bound),
        small(finding.over_bound),
        small(finding.slope),
        text(finding.largest_z.map(|(z, _)| format!("{z:.1}"))),
        text(finding.largest_z.map(|(_, channel)| channel.to_string())),
        text(finding.worst_position.map(|position| position.to_string())),
        finding.judgement.text(),
    )
}

/// Which operations were judged together with others before them, because what lies between was not recorded: a line for
/// each chain, with the layers that have it.
fn chains(findings: &[Finding]) -> String {
    let mut lines: Vec<(String, Vec<String>)> = Vec::new();
    for finding in findings.iter().filter(|finding| !finding.through.is_empty() && finding.rel_l2.is_some()) {
        let prefix = place_name(finding.layer, "");
        let names = |names: &[String]| {
            let short: Vec<&str> = names.iter().map(|name| name.strip_prefix(&prefix).unwrap_or(name)).collect();
            if short.is_empty() { "the tokens".to_owned() } else { short.join(", ") }
        };
        let chain = format!("{} with {} from {}", finding.point, names(&finding.through), names(&finding.inputs));
        let layer = finding.layer.map_or_else(|| "-".to_owned(), |layer| layer.to_string());
        match lines.iter_mut().find(|(known, _)| *known == chain) {
            Some((_, layers)) => layers.push(layer),
            None => lines.push((chain, vec![layer])),
        }
    }
    lines
        .into_iter()
        .map(|(chain, layers)| format!("judged together: {chain} (layers {})\n", layers.join(", ")))
        .collect()
}

fn place(finding: &Finding) -> String {
    let layer = finding.layer.map_or_else(String::new, |layer| format!("layer {layer} "));
    format!("{layer}{}", finding.point)
}

fn culprit_text(culprit: &Culprit) -> String {
    let layer = culprit.layer.map_or_else(String::new, |layer| format!("layer {layer} "));
    let size = culprit.rel_l2.map_or_else(String::new, |rel_l2| format!(", rel_l2 {rel_l2:.2e}"));
    let position = culprit.position.map_or_else(String::new, |position| format!(", worst at position {position}"));
    let channel = culprit.channel.map_or_else(String::new, |channel| format!(", channel {channel}"));
    format!("{layer}{}, class {}{size}{position}{channel}", culprit.point, culprit.class.name())
}

/// What the verdict says of the operations, with their numbers.
fn reason(verdict: Verdict, findings: &[Finding]) -> String {
    let count = |wanted: fn(Judgement) -> bool| findings.iter().filter(|finding| wanted(finding.judgement)).count();
    let right = count(|judgement| judgement == Judgement::Right);
    let rounding = count(|judgement| matches!(judgement, Judgement::Rounding(_)));
    let wrong = count(|judgement| matches!(judgement, Judgement::Wrong(_)));
    let open = count(|judgement| matches!(judgement, Judgement::Undecided(_)));
    let mut parts = vec![format!("{right} operations right")];
    parts.extend((rounding > 0).then(|| format!("{rounding} right by another rounding than declared")));
    parts.extend((wrong > 0).then(|| format!("{wrong} wrong")));
    parts.extend((open > 0).then(|| format!("{open} not judged")));
    match verdict {
        Verdict::Undecided => "no operation has both its result and its inputs in the trace".to_owned(),
        _ => parts.join(", "),
    }
}

/// The audit as an object: at least `verdict`, `culprit` and `operations`.
pub fn audit_json(run: &RunRef, basis: &str, findings: &[Finding]) -> Value {
    let (verdict, culprit) = verdict(findings);
    json!({
        "run": { "label": run.view().identity.label, "run": run.id() },
        "basis": basis,
        "verdict": verdict.name(),
        "reason": reason(verdict, findings),
        "culprit": culprit.map(|culprit| json!({
            "layer": culprit.layer,
            "point": culprit.point,
            "occurrence": culprit.occurrence,
            "class": culprit.class.name(),
            "rel_l2": number(culprit.rel_l2),
            "position": culprit.position,
            "channel": culprit.channel,
        })),
        "operations": findings.iter().map(operation_json).collect::<Vec<_>>(),
    })
}

fn operation_json(finding: &Finding) -> Value {
    json!({
        "layer": finding.layer,
        "point": finding.point,
        "occurrence": finding.occurrence,
        "operation": finding.operation,
        "inputs": finding.inputs,
        "through": finding.through,
        "tokens": finding.tokens,
        "rel_l2": number(finding.rel_l2),
        "bound": number(finding.bound),
        "over_bound": number(finding.over_bound),
        "slope": number(finding.slope),
        "largest_z": number(finding.largest_z.map(|(z, _)| z)),
        "channel": finding.largest_z.map(|(_, channel)| channel),
        "worst_position": finding.worst_position,
        "alternative": finding.alternative.map(|(name, _)| name),
        "alternative_rel_l2": number(finding.alternative.map(|(_, rel_l2)| rel_l2)),
        "class": finding.class().map(|class| class.name()),
        "verdict": finding.judgement.text(),
        "detects": number(finding.detects),
        "note": finding.note,
    })
}
