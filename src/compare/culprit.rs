//! Where two runs part, and where the fault is: the same place only where everything behind it is known to be right.

use super::likeness::Relation;
use super::pairing::{Pairing, SitePair};
use super::site::SiteComparison;
use super::tolerance::Tolerance;
use super::worst::Worst;
use crate::error::Result;
use crate::open::RunRef;

/// A place is blamed with this many times the error of its inputs, where those are noise.
const INHERITED: f64 = 10.0;

/// Errors of inputs up to this share of an f32 tolerance are noise that right runs have: the tolerance is some five times
/// what was measured between them.
const NOISE: f64 = 1.0 / 3.0;

/// A place where two runs differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Divergence {
    /// Index into the pairing's sites; `None` for a place that only one run has.
    pub site: Option<usize>,
    /// Layer, `None` outside the layers.
    pub layer: Option<u32>,
    /// Capture point.
    pub point: String,
    /// Which of several.
    pub occurrence: u32,
    /// Worst position there.
    pub position: Option<u32>,
    /// First position there at which any bit differs.
    pub first_position: Option<u32>,
    /// Relative error; `None` where values are missing or nonfinite on one side, a lower bound where they were not kept.
    pub rel_l2: Option<f64>,
    /// The element that is furthest off, the worst head and channel; `None` where values were not kept.
    pub worst: Option<Worst>,
    /// Points before it that are not compared: the fault may be in one of them.
    pub unseen: Vec<String>,
    /// What kind of fault it is, where an audit told.
    pub class: Option<&'static str>,
    /// What else is known of it; empty where nothing is.
    pub note: String,
}

impl Divergence {
    /// The place in words: `layer 3 ffn_glu at position 7`.
    pub fn place(&self) -> String {
        let layer = self.layer.map_or_else(String::new, |layer| format!("layer {layer} "));
        let position = self.position.map_or_else(String::new, |position| format!(" at position {position}"));
        format!("{layer}{}{position}", self.point)
    }
}

/// Two runs' places, compared, with what right runs may differ by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places<'a> {
    pub(super) pairing: &'a Pairing,
    pub(super) sites: &'a [SiteComparison],
    pub(super) tolerance: &'a Tolerance,
    pub(super) relation: Relation,
}

impl Places<'_> {
    /// The error of a place; infinite where rows are missing on one side or have another width.
    fn distance(&self, at: usize) -> f64 {
        match (self.pairing.sites.get(at), self.sites.get(at)) {
            (Some(pair), _) if !pair.missing.is_empty() || self.pairing.is_uneven(pair) => f64::INFINITY,
            (_, Some(site)) => self.tolerance.distance(site),
            _ => 0.0,
        }
    }

    fn numbers(&self) -> std::ops::Range<usize> {
        0..self.sites.len()
    }

    /// The first place in forward order that is further off than right runs may be.
    pub(super) fn first_exceeding(&self) -> Option<usize> {
        self.numbers().find(|at| self.distance(*at) > self.tolerance.value)
    }

    /// The first place whose values or rows differ at all.
    pub(super) fn first_differing(&self) -> Option<usize> {
        let differs = |at: &usize| {
            let site = self.sites.get(*at).is_some_and(SiteComparison::differs);
            site || self.pairing.sites.get(*at).is_some_and(|pair| self.pairing.is_uneven(pair))
        };
        self.numbers().find(differs)
    }

    /// The place of the fault; `None` where it may as well be before the first place that exceeds the tolerance.
    pub(super) fn culprit(&self) -> Option<usize> {
        let exceeding = self.first_exceeding()?;
        match self.relation {
            // What is missing was not shown to be wrong: values that differ are.
            Relation::Twins => self.first_differing().or(Some(exceeding)),
            Relation::Replay => Some(exceeding),
            Relation::Unlike => Some(exceeding).filter(|at| self.is_introduced(*at)),
        }
    }

    /// Whether the error of a place of unlike runs cannot come from its inputs: they are equal, or no more than noise, or
    /// it is no number at all while they are within the tolerance.
    fn is_introduced(&self, at: usize) -> bool {
        let (Some(pair), Some(site)) = (self.pairing.sites.get(at), self.sites.get(at)) else { return false };
        let broken = site.whole().is_infinite() && pair.missing.is_empty();
        let distance = self.distance(at);
        let small = |number: &usize| {
            let (Some(input), Some(site)) = (self.pairing.sites.get(*number), self.sites.get(*number)) else {
                return false;
            };
            let noise = self.inherited(&pair.operation, site, *number);
            let below = noise <= NOISE * self.tolerance.value && distance > INHERITED * noise;
            input.missing.is_empty() && (broken || !site.differs() || !self.tolerance.floor && below)
        };
        // A place that is no number is the first that exceeds the tolerance: its inputs are within it.
        pair.has_all_inputs() && pair.inputs.iter().all(small)
    }

    /// What an input's error may become: softmax makes a relative error of an absolute one.
    fn inherited(&self, operation: &str, input: &SiteComparison, at: usize) -> f64 {
        let distance = self.distance(at);
        if operation.ends_with("softmax") { distance.max(2.0 * input.sums.error_max) } else { distance }
    }

    /// The place as a finding.
    pub(super) fn divergence(&self, at: usize) -> Option<Divergence> {
        let (pair, site) = (self.pairing.sites.get(at)?, self.sites.get(at)?);
        let rows_gone = pair.missing.first().or(pair.uneven.first()).copied();
        let distance = self.distance(at);
        let mut notes = Vec::new();
        if let Some(other) = &pair.other_operation {
            notes.push(format!("{other} (reference: {})", pair.operation));
        }
        if self.pairing.is_uneven(pair) {
            notes.push("rows of other width than in the reference".to_owned());
        }
        Some(Divergence {
            site: Some(at),
            layer: pair.layer(),
            point: pair.point.clone(),
            occurrence: pair.occurrence,
            position: site.worst_position.or(rows_gone),
            first_position: site.first_differing.or(rows_gone),
            rel_l2: Some(distance).filter(|distance| distance.is_finite()),
            worst: None,
            unseen: self.unseen(pair, site),
            class: None,
            note: notes.join("; "),
        })
    }

    /// Points behind a place that are not compared, or not at the position where it differs first. None where the operation
    /// is another one: that explains it.
    fn unseen(&self, pair: &SitePair, site: &SiteComparison) -> Vec<String> {
        if pair.other_operation.is_some() {
            return Vec::new();
        }
        let lost = |input: &&SitePair| site.first_differing.is_some_and(|position| input.missing.contains(&position));
        let inputs = pair.inputs.iter().filter_map(|at| self.pairing.sites.get(*at));
        let lost = inputs.filter(lost).map(SitePair::name);
        pair.unseen.iter().cloned().chain(lost).collect()
    }
}

/// The place with what is furthest off there.
pub(super) fn with_worst(pairing: &Pairing, found: Option<Divergence>) -> Result<Option<Divergence>> {
    let Some(found) = found else { return Ok(None) };
    let Some(site) = found.site.and_then(|site| pairing.sites.get(site)) else { return Ok(Some(found)) };
    Ok(Some(Divergence { worst: Worst::of(pairing, site, found.position)?, ..found }))
}

/// Layers of the model of a run that was recorded; an import holds what was dumped, which may be a part.
fn layers(run: &RunRef) -> Option<i32> {
    let identity = &run.view().identity;
    let said = identity.hyper_parameters.iter().filter(|_| identity.kind != "import").find(|pair| pair.key == "layers");
    said?.value.parse().ok()
}

/// Where one run has more layers, what differs first behind the last common one does so for the lack of the next.
pub(super) fn whole_layer(pairing: &Pairing, culprit: Divergence) -> Divergence {
    let (Some(r), Some(t)) = (layers(&pairing.reference), layers(&pairing.target)) else { return culprit };
    if r == t || culprit.layer.is_some() || r.min(t) <= 0 || culprit.point == "tok_embed" || culprit.point == "embed" {
        return culprit;
    }
    let deeper = &if r > t { &pairing.reference } else { &pairing.target }.view().plan.sites;
    let first = deeper
        .iter()
        .filter(|site| site.layer == r.min(t) && !site.operation.is_empty())
        .min_by_key(|site| site.ordinal);
    let Some(first) = first else { return culprit };
    Divergence {
        site: None,
        layer: u32::try_from(first.layer).ok(),
        point: first.point.clone(),
        occurrence: 0,
        rel_l2: None,
        worst: None,
        note: format!("{r} layers in the reference, {t} in the target: {} differs for it", culprit.point),
        ..culprit
    }
}
