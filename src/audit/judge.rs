//! The audit as the judge of a comparison: the operations of the target made again, its file held against the reference's.

use super::{
    AtHand, Class, Culprit, Finding, Judgement, Verdict as Audited, audit_files, audit_kernels, audit_precision,
    together, verdict,
};
use crate::capture::place_name;
use crate::compare::{Comparison, Divergence, Inheritance, Judge, Relation, SitePair, Sums, Verdict, Worst};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::Graph;
use crate::model::TensorType;
use crate::model::quant::scale_elements;
use crate::open::RunRef;
use crate::replay::{Emulation, Recorded};

/// What was found of one run.
struct Audit {
    /// What is said of the operations: a file that is right makes no operation so.
    operations: Vec<Finding>,
    /// The same, with what is said of the file.
    findings: Vec<Finding>,
    verdict: Audited,
    culprit: Option<Culprit>,
}

impl Audit {
    fn of(operations: Vec<Finding>, files: Vec<Finding>) -> Self {
        let findings = together(operations.clone(), files);
        let (verdict, culprit) = verdict(&findings);
        Audit { operations, findings, verdict, culprit }
    }

    fn count(&self, wanted: fn(Judgement) -> bool) -> usize {
        self.operations.iter().filter(|finding| wanted(finding.judgement)).count()
    }

    /// Whether every place of `comparison` that differs was judged, and is right: what was not says nothing of the run.
    fn clears(&self, comparison: &Comparison) -> bool {
        let right = |site: &SitePair| {
            let place = (site.layer(), site.point.as_str(), site.occurrence);
            let is_here = |finding: &&Finding| (finding.layer, finding.point, finding.occurrence) == place;
            let found = self.operations.iter().find(is_here);
            found.is_some_and(|found| matches!(found.judgement, Judgement::Right | Judgement::Rounding(_)))
        };
        let sites = comparison.pairing.iter().flat_map(|pairing| &pairing.sites).zip(&comparison.sites);
        sites.into_iter().all(|(pair, site)| pair.missing.is_empty() && (!site.differs() || right(pair)))
    }

    fn is_right(&self) -> bool {
        matches!(self.verdict, Audited::Right | Audited::Rounding)
    }

    /// The first operation that is right by another rounding than declared.
    fn rounding(&self) -> Option<(&Finding, &'static str)> {
        self.findings.iter().find_map(|finding| match finding.judgement {
            Judgement::Rounding(name) => Some((finding, name)),
            _ => None,
        })
    }
}

/// Lets an audit of the target decide `comparison`, as far as the model files let it: operations by the target's own file,
/// that file by the reference's, or operations by the reference's where the target's is gone. Where the runs diverge and
/// the target is right, the reference is audited too. `done` is called after each operation.
///
/// # Errors
/// Those of reading traces and weights.
pub fn judge(
    comparison: &mut Comparison,
    target_model: &AtHand,
    reference_model: &AtHand,
    done: &(dyn Fn() + Sync),
) -> Result<()> {
    let Some(pairing) = &comparison.pairing else { return Ok(()) };
    let (reference, target) = (pairing.reference.clone(), pairing.target.clone());
    let diverged = comparison.verdict == Verdict::Diverged;
    let weights = Weights::of(&reference, &target, target_model, reference_model);
    let audit = match audit_target(&target, &weights, done) {
        Ok(audit) => audit,
        // Models of other families or depths: what is compared is not one model.
        Err(error) if [ErrorKind::NotComparable, ErrorKind::Unsupported].contains(&error.kind()) => {
            comparison.reason += &format!("; no audit: {error}");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let Some(audit) = audit else {
        comparison.reason += &format!("; an audit needs {}", weights.needs().join(", and "));
        return Ok(());
    };
    measured(comparison, &audit.findings);
    if comparison.relation == Relation::Twins && comparison.first_divergence.is_some() {
        name_class(comparison, &audit);
        return Ok(());
    }
    match &audit.culprit {
        Some(culprit) => blame(comparison, culprit, &audit, "")?,
        None if !audit.is_right() => comparison.reason += "; the audit could judge no operation",
        None if diverged => second(comparison, &audit, &weights, &reference, done)?,
        None => clear(comparison, &audit, &weights),
    }
    Ok(())
}

/// What there is to judge by.
struct Weights<'a> {
    target: &'a AtHand,
    reference: &'a AtHand,
    /// Whether both runs used one file with one set of numbers.
    same: bool,
    /// Whether the reference's weights are plain numbers, from which rounding can be estimated.
    plain: bool,
}

impl<'a> Weights<'a> {
    fn of(reference: &RunRef, target: &RunRef, target_model: &'a AtHand, reference_model: &'a AtHand) -> Self {
        let (r, t) = (&reference.view().identity, &target.view().identity);
        let same = r.model_hash == t.model_hash && r.model_hash != [0; 32] && r.hyper_parameters == t.hyper_parameters;
        let plain = TensorType::named(&r.weight_type).is_some_and(|kind| scale_elements(kind).is_none());
        Weights { target: target_model, reference: reference_model, same, plain }
    }

    /// Whether the target's file was held against the reference's, or needs not be.
    fn are_judged(&self) -> bool {
        self.same || self.reference.model().is_some()
    }

    /// What is not at hand.
    fn needs(&self) -> Vec<String> {
        let absent = [self.target, self.reference].map(|model| model.absence().map(str::to_owned));
        let mut absent: Vec<String> = absent.into_iter().flatten().collect();
        absent.dedup();
        if absent.is_empty() { vec!["tensors of the target (record with --tensors all)".to_owned()] } else { absent }
    }
}

/// Every part for which there is material; `None` where there is none.
fn audit_target(run: &RunRef, weights: &Weights<'_>, done: &(dyn Fn() + Sync)) -> Result<Option<Audit>> {
    let identity = &run.view().identity;
    let emulation = Emulation::of(identity, "recorded")?;
    match (weights.target.model(), weights.reference.model()) {
        (Some(model), original) => {
            let graph = Graph::of(model)?;
            let recorded = Recorded::read(run.clone(), &graph)?;
            let kernels = audit_kernels(model, &graph, &recorded, &emulation, done)?;
            let files = match original.filter(|_| !weights.same) {
                Some(original) => audit_files(model, &graph, original, &Graph::of(original)?, done)?,
                None => Vec::new(),
            };
            Ok(Some(Audit::of(kernels, files)))
        }
        (None, Some(original)) if weights.plain => {
            let graph = Graph::of(original)?;
            let recorded = Recorded::read(run.clone(), &graph)?;
            let operations = audit_precision(original, &graph, &recorded, &emulation, done)?;
            Ok(Some(Audit::of(operations, Vec::new())))
        }
        (None, _) => Ok(None),
    }
}

/// The errors that operations made themselves were measured.
fn measured(comparison: &mut Comparison, findings: &[Finding]) {
    let Some(pairing) = &comparison.pairing else { return };
    for (pair, own) in pairing.sites.iter().zip(&mut comparison.inheritance) {
        let place = (pair.layer(), pair.point.as_str(), pair.occurrence);
        let finding = findings.iter().find(|finding| (finding.layer, finding.point, finding.occurrence) == place);
        if let Some(local) = finding.filter(|finding| finding.bound.is_some() && !finding.inputs.is_empty()) {
            *own = Inheritance { introduced: local.rel_l2, measured: true, ..*own };
        }
    }
}

/// Twins name the place; the audit says what kind of fault it is.
fn name_class(comparison: &mut Comparison, audit: &Audit) {
    let Some(culprit) = &mut comparison.first_divergence else { return };
    let place = (culprit.layer, culprit.point.as_str(), culprit.occurrence);
    let mut findings = audit.findings.iter();
    let found = findings.find(|finding| (finding.layer, finding.point, finding.occurrence) == place);
    culprit.class = found.and_then(Finding::class).map(Class::name);
    let text = match (culprit.class, found.map(|finding| finding.judgement)) {
        (Some(class), _) => format!("the audit says: {class}"),
        (None, Some(Judgement::Right | Judgement::Rounding(_))) => {
            "the audit finds the target right there by its own file: look at the reference, or at the file".to_owned()
        }
        (None, _) => "the audit could not judge the operation there".to_owned(),
    };
    comparison.reason += &format!("; {text}");
}

/// The audit's culprit is the comparison's.
fn blame(comparison: &mut Comparison, culprit: &Culprit, audit: &Audit, side: &str) -> Result<()> {
    let place = (culprit.layer, culprit.point, culprit.occurrence);
    let finding = audit.findings.iter().find(|finding| (finding.layer, finding.point, finding.occurrence) == place);
    let note = finding.map(|finding| finding.note.clone()).unwrap_or_default();
    let Some(pairing) = &comparison.pairing else { return Ok(()) };
    let here = |site: &SitePair| (site.layer(), site.point.as_str(), site.occurrence) == place;
    let site = pairing.sites.iter().position(here);
    let worst = match site.and_then(|site| pairing.sites.get(site)) {
        Some(pair) => Worst::of(pairing, pair, culprit.position)?,
        None => None,
    };
    // An operation is right on the weights of a wrong file: what shows is the error against the reference.
    let error = match culprit.class {
        Class::File => site.and_then(|site| comparison.sites.get(site)?.known()).and_then(Sums::rel_l2),
        _ => culprit.rel_l2,
    };
    // Where a chain was judged as one, any of it may be wrong.
    let unseen = finding.map(|finding| finding.through.clone()).unwrap_or_default();
    let between = unjudged(audit, finding);
    let found = Divergence {
        site,
        layer: culprit.layer,
        point: culprit.point.to_owned(),
        occurrence: culprit.occurrence,
        position: culprit.position,
        first_position: site.and_then(|site| comparison.sites.get(site)?.first_differing),
        rel_l2: error.filter(|error| error.is_finite()),
        worst,
        unseen: unseen.into_iter().chain(between).collect(),
        class: Some(culprit.class.name()),
        note: if side.is_empty() { note.clone() } else { format!("in the reference; {note}") },
    };
    let note = if note.is_empty() { String::new() } else { format!(": {note}") };
    comparison.reason = format!("{}{} is wrong, class {}{note}", found.place(), side, culprit.class.name());
    comparison.verdict = Verdict::Diverged;
    comparison.judged_by = Some(Judge::Audit);
    comparison.first_divergence = Some(found);
    Ok(())
}

/// Points before a finding that could not be judged: what is wrong there would not be known.
fn unjudged(audit: &Audit, finding: Option<&Finding>) -> Vec<String> {
    let Some(finding) = finding else { return Vec::new() };
    let before = audit.operations.iter().filter(|other| other.site < finding.site);
    let open = before.filter(|other| matches!(other.judgement, Judgement::Undecided(_)));
    open.map(|other| place_name(other.layer, other.point)).collect()
}

/// The runs diverge and the target is right: by another rounding, or the reference is wrong, or it cannot be told.
fn second(
    comparison: &mut Comparison,
    audit: &Audit,
    weights: &Weights<'_>,
    reference: &RunRef,
    done: &(dyn Fn() + Sync),
) -> Result<()> {
    let given = Weights { target: weights.reference, reference: weights.target, same: true, plain: false };
    let other = audit_target(reference, &given, done)?;
    if let Some(other) = &other
        && let Some(culprit) = &other.culprit
    {
        return blame(comparison, culprit, other, " of the reference");
    }
    comparison.judged_by = Some(Judge::Audit);
    let right = right_text(audit);
    let rounding = audit.rounding().or_else(|| other.as_ref()?.rounding());
    let explains = !comparison.tolerance.floor && weights.are_judged() && audit.clears(comparison);
    if let Some((finding, name)) = rounding.filter(|_| explains) {
        let layer = finding.layer.map_or_else(String::new, |layer| format!("layer {layer} "));
        comparison.reason = format!(
            "the audit finds no operation wrong: {layer}{} is right by another rounding, {name} ({right})",
            finding.point
        );
        comparison.verdict = Verdict::WithinTolerance;
        comparison.first_divergence = None;
    } else if weights.are_judged() && other.as_ref().is_some_and(Audit::is_right) {
        comparison.reason = format!(
            "the audit finds no operation of either run wrong, though they are apart: {right}; {}",
            comparison.reason
        );
        (comparison.verdict, comparison.first_divergence) = (Verdict::Undecided, None);
    } else {
        let needs = weights.needs().join(", and ");
        comparison.reason += &format!("; by its own file the target is right ({right}), so to decide takes {needs}");
        // A place that was named without an audit has right inputs: the file is wrong there, or the reference.
        if comparison.first_divergence.is_none() {
            comparison.verdict = Verdict::Undecided;
        }
    }
    Ok(())
}

/// The target is right, and the runs are no further apart than right runs may be.
fn clear(comparison: &mut Comparison, audit: &Audit, weights: &Weights<'_>) {
    let right = right_text(audit);
    if !weights.are_judged() {
        comparison.reason += &format!(
            "; by its own file the target is right ({right}); whether the file is takes {}",
            weights.needs().join(", and ")
        );
        return;
    }
    let file = match (weights.same, weights.target.model()) {
        (true, _) => "both runs used one file",
        (false, Some(_)) => "its file is a rounding of the reference's",
        (false, None) => "as far as rounding to its types lets one see",
    };
    let text = format!("the audit finds no operation of the target wrong ({right}), and {file}");
    let open = matches!(comparison.verdict, Verdict::NotComparable | Verdict::Undecided);
    if comparison.verdict == Verdict::Equal || open && !audit.clears(comparison) {
        comparison.reason += &format!("; {text}");
        return;
    }
    comparison.reason = text;
    comparison.verdict = Verdict::WithinTolerance;
    comparison.judged_by = Some(Judge::Audit);
}

fn right_text(audit: &Audit) -> String {
    let right = audit.count(|judgement| matches!(judgement, Judgement::Right | Judgement::Rounding(_)));
    let rounding = audit.count(|judgement| matches!(judgement, Judgement::Rounding(_)));
    let open = audit.count(|judgement| matches!(judgement, Judgement::Undecided(_)));
    let mut text = format!("{right} operations right");
    if rounding > 0 {
        text += &format!(", {rounding} of them by another rounding than declared");
    }
    if open > 0 {
        text += &format!(", {open} not judged");
    }
    text
}

/// Refuses an audit of what holds nothing to audit by.
///
/// # Errors
/// Usage, where the target's operations cannot be made again.
pub fn check_auditable(target: &AtHand, reference: &AtHand) -> Result<()> {
    match (target.absence(), reference.absence()) {
        (Some(target), Some(reference)) => {
            Err(Error::usage(format!("--audit has nothing to audit by: {target}; {reference}")))
        }
        _ => Ok(()),
    }
}
