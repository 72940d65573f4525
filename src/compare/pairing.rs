//! Which rows of two runs may be compared: equal point, equal position, equal tokens up to it. The rest is counted,
//! with its reason. Rows of one slot are compared where both runs chose the same experts.

use super::rows::{Row, RunRows, SiteRows};
use crate::capture::{Scope, Status, place_name, vocabulary};
use crate::error::{Error, ErrorKind, Result};
use crate::open::RunRef;
use crate::record::SiteV1;
use std::collections::BTreeMap;

/// Why a row is left out whose counterpart was never to be captured.
const ONE_RUN_ONLY: &str = "position captured by one run only";

/// A place that two runs share: layer (-1 outside), point, occurrence.
type Place = (i32, String, u32);

/// Rows of one place that are compared.
#[derive(Debug, Clone, PartialEq)]
pub struct SitePair {
    /// Layer, -1 outside.
    pub layer: i32,
    /// Capture point.
    pub point: String,
    /// Which of several.
    pub occurrence: u32,
    /// Forward order, of the reference.
    pub ordinal: u32,
    /// The reference's operation; empty where its plan does not say.
    pub operation: String,
    /// The target's operation, where both plans say and it is another one.
    pub other_operation: Option<String>,
    /// Heads in a row of the reference, 0 where it has none.
    pub heads: u32,
    /// Places that the reference's operation reads, as indices into [`Pairing::sites`].
    pub inputs: Vec<usize>,
    /// Points that have a part in this one and are not compared: those that the reference's operation reads, and so on
    /// up to what is compared, in forward order. A fault that shows here first may be in any of them.
    pub unseen: Vec<String>,
    /// Rows by position.
    pub rows: Vec<RowPair>,
    /// Positions that one side should have and does not.
    pub missing: Vec<u32>,
    /// Positions at which the rows of both sides have other widths: other heads, another window.
    pub uneven: Vec<u32>,
}

impl SitePair {
    /// Layer, `None` outside the layers.
    pub fn layer(&self) -> Option<u32> {
        u32::try_from(self.layer).ok()
    }

    /// `layers.3.ffn_out`, or `logits`.
    pub fn name(&self) -> String {
        place_name(self.layer(), &self.point)
    }

    /// Whether all that the operation reads is known, and compared: a plan without operations says nothing of it.
    pub(super) fn has_all_inputs(&self) -> bool {
        self.unseen.is_empty() && !(self.inputs.is_empty() && self.operation.is_empty())
    }
}

/// Two rows of one place and one token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowPair {
    /// Position.
    pub position: u32,
    /// Token id there.
    pub token: u32,
    /// The reference's row.
    pub reference: Row,
    /// The target's row.
    pub target: Row,
}

impl RowPair {
    /// Whether the rows have other counts of finite values: without values the statistics alone prove it.
    pub(super) fn is_finite_elsewhere(&self) -> bool {
        self.reference.moments.count != self.target.moments.count
    }
}

/// Rows that were left out for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Why.
    pub reason: String,
    /// How many rows of either side.
    pub rows: u64,
}

/// Two runs, lined up.
#[derive(Debug)]
pub struct Pairing {
    /// The reference.
    pub reference: RunRef,
    /// The target.
    pub target: RunRef,
    /// Comparable places in forward order.
    pub sites: Vec<SitePair>,
    /// What is not compared.
    pub left_out: Vec<LeftOut>,
    /// First position at which the token ids differ: (position, reference's, target's).
    pub first_differing_token: Option<(u32, u32, u32)>,
}

impl Pairing {
    /// Lines two runs up.
    ///
    /// # Errors
    /// NotComparable, where the prompts differ or no row is left; otherwise those of reading.
    pub fn new(reference: RunRef, target: RunRef) -> Result<Self> {
        let (reference, target) = rayon::join(|| RunRows::read(reference), || RunRows::read(target));
        Self::of(&reference?, &target?)
    }

    /// Whether rows of other widths at a place are a difference: other engines' dumps may have padded rows, own ones not.
    pub fn is_uneven(&self, pair: &SitePair) -> bool {
        let imported = [&self.reference, &self.target].iter().any(|run| run.view().identity.kind == "import");
        !pair.uneven.is_empty() && !imported
    }

    /// Lines the rows of two runs up.
    ///
    /// # Errors
    /// NotComparable, as [`Pairing::new`].
    pub fn of(reference: &RunRows, target: &RunRows) -> Result<Self> {
        check_prompts(reference, target)?;
        let mut left_out = LeftOuts::default();
        let places = places(target);
        let shared = shared_positions(reference, target);
        let mut sites = Vec::new();
        let mut numbers = BTreeMap::new();
        let mut seen = Vec::new();
        for site in in_order(reference) {
            let place = place(site);
            let other = places.get(&place).copied();
            seen.push(place);
            if let Some(pair) = pair(reference, target, site, other, &shared, &mut left_out) {
                let compared = |number: &u32| numbers.get(number).copied();
                let inputs = site.inputs.iter().filter_map(compared).collect();
                let unseen = unseen(&reference.run.view().plan.sites, site, &|number| numbers.contains_key(&number));
                // Rows of a place that has none in common say nothing of what is behind it.
                if !pair.rows.is_empty() {
                    numbers.insert(site.site, sites.len());
                }
                sites.push(SitePair { inputs, unseen, ..pair });
            }
        }
        for (place, site) in &places {
            if !seen.contains(place) {
                left_out.add("point only in the target", rows_of(target, site.site));
            }
        }
        if sites.iter().all(|site| site.rows.is_empty() && site.missing.is_empty()) {
            let reasons: Vec<String> =
                left_out.list().iter().map(|l| format!("{} ({} rows)", l.reason, l.rows)).collect();
            return Err(Error::new(
                ErrorKind::NotComparable,
                format!("no row of one run has its counterpart in the other: {}", reasons.join("; ")),
            ));
        }
        Ok(Pairing {
            first_differing_token: first_differing_token(reference, target),
            reference: reference.run.clone(),
            target: target.run.clone(),
            sites,
            left_out: left_out.list(),
        })
    }
}

/// Prompts of other tokens make other activations: there is nothing to compare.
fn check_prompts(reference: &RunRows, target: &RunRows) -> Result<()> {
    let prompt = |rows: &RunRows| rows.run.view().identity.prompt_tokens.clone();
    let (r, t) = (prompt(reference), prompt(target));
    if r == t {
        return Ok(());
    }
    let at = r.iter().zip(&t).position(|(r, t)| r != t).unwrap_or(r.len().min(t.len()));
    // One prompt is the beginning of the other, and its run went on as the other does: decode against prefill.
    let (shorter, longer) = if r.len() < t.len() { (reference, &t) } else { (target, &r) };
    let next = shorter.tokens.get(&(at as u32)).map(|token| token.id);
    if at == r.len().min(t.len()) && next.is_some() && next == longer.get(at).copied() {
        return Ok(());
    }
    let id = |prompt: &[u32]| prompt.get(at).map_or_else(|| "none".to_owned(), u32::to_string);
    Err(Error::new(
        ErrorKind::NotComparable,
        format!(
            "the prompts differ: {} and {} tokens, first at position {at} (token {} against {})",
            r.len(),
            t.len(),
            id(&r),
            id(&t)
        ),
    ))
}

fn place(site: &SiteV1) -> Place {
    (site.layer, site.point.clone(), site.occurrence)
}

/// Sites that a run planned to capture, or tried to.
fn places(rows: &RunRows) -> BTreeMap<Place, &SiteV1> {
    let captured = |site: &&SiteV1| site.status == Status::Captured as u8;
    rows.run.view().plan.sites.iter().filter(captured).map(|site| (place(site), site)).collect()
}

fn in_order(rows: &RunRows) -> Vec<&SiteV1> {
    let mut sites: Vec<&SiteV1> = places(rows).into_values().collect();
    sites.sort_by_key(|site| (site.ordinal, site.occurrence));
    sites
}

/// Points behind `site` up to those that are compared, in forward order.
fn unseen(plan: &[SiteV1], site: &SiteV1, compared: &dyn Fn(u32) -> bool) -> Vec<String> {
    let mut found = BTreeMap::new();
    let mut open: Vec<u32> = site.inputs.clone();
    while let Some(number) = open.pop() {
        let Some(input) = plan.get(number as usize).filter(|_| !compared(number)) else { continue };
        if found
            .insert((input.ordinal, input.occurrence), place_name(u32::try_from(input.layer).ok(), &input.point))
            .is_none()
        {
            open.extend(&input.inputs);
        }
    }
    let mut names: Vec<String> = found.into_values().collect();
    names.dedup();
    names
}

fn rows_of(rows: &RunRows, site: u32) -> u64 {
    rows.sites.get(&site).map_or(0, |rows| rows.len() as u64)
}

/// Positions where both runs evaluated the same tokens up to and with the position, and both captured something.
fn shared_positions(reference: &RunRows, target: &RunRows) -> BTreeMap<u32, u32> {
    let captured = |rows: &RunRows, at: &u32| rows.sites.values().any(|site| site.get(*at).is_some());
    let equal = |at: &u32| target.tokens.get(at) == reference.tokens.get(at);
    reference
        .tokens
        .iter()
        .filter(|(at, _)| equal(at) && captured(reference, at) && captured(target, at))
        .map(|(at, token)| (*at, token.id))
        .collect()
}

fn first_differing_token(reference: &RunRows, target: &RunRows) -> Option<(u32, u32, u32)> {
    let differing = |(at, r): (&u32, &super::rows::Token)| {
        target.tokens.get(at).filter(|t| t.id != r.id).map(|t| (*at, r.id, t.id))
    };
    reference.tokens.iter().find_map(differing)
}

fn pair(
    reference: &RunRows,
    target: &RunRows,
    site: &SiteV1,
    other: Option<&SiteV1>,
    shared: &BTreeMap<u32, u32>,
    left_out: &mut LeftOuts,
) -> Option<SitePair> {
    let empty = SiteRows::default();
    let ours = reference.sites.get(&site.site).unwrap_or(&empty);
    let Some(other) = other else {
        left_out.add("point only in the reference", ours.len() as u64);
        return None;
    };
    let theirs = target.sites.get(&other.site).unwrap_or(&empty);
    let experts = by_slot(&site.point).then(|| Experts::of(reference, target, site.layer));
    let mut pair = unfilled(&reference.run.view().plan.sites, site, other);
    for (position, token) in shared {
        match (ours.get(*position), theirs.get(*position)) {
            (Some(_), Some(_)) if experts.as_ref().is_some_and(|experts| !experts.known()) => {
                left_out.add("experts not known: moe_topk was not captured", 1);
            }
            (Some(_), Some(_)) if experts.as_ref().is_some_and(|experts| !experts.same(*position)) => {
                left_out.add("other experts chosen", 1);
            }
            (Some(r), Some(t)) if r.count == t.count => {
                pair.rows.push(RowPair { position: *position, token: *token, reference: *r, target: *t });
            }
            (Some(_), Some(_)) => {
                left_out.add("rows of different width", 1);
                pair.uneven.push(*position);
            }
            (None, None) => {}
            // An import may hold the last row of one point and all rows of another.
            (Some(_), None) if target.is_whole(other.site) => left_out.add(ONE_RUN_ONLY, 1),
            (None, Some(_)) if reference.is_whole(site.site) => left_out.add(ONE_RUN_ONLY, 1),
            _ => pair.missing.push(*position),
        }
    }
    for (position, _) in ours.iter().chain(theirs.iter()).filter(|(at, _)| !shared.contains_key(at)) {
        left_out.add(unshared_reason(reference, target, *position), 1);
    }
    Some(pair)
}

/// A place of both runs, without its rows.
fn unfilled(plan: &[SiteV1], site: &SiteV1, other: &SiteV1) -> SitePair {
    let both_said = !site.operation.is_empty() && !other.operation.is_empty();
    SitePair {
        layer: site.layer,
        point: site.point.clone(),
        occurrence: site.occurrence,
        ordinal: site.ordinal,
        operation: site.operation.clone(),
        other_operation: (both_said && site.operation != other.operation).then(|| other.operation.clone()),
        heads: heads(plan, site),
        inputs: Vec::new(),
        unseen: Vec::new(),
        rows: Vec::new(),
        missing: Vec::new(),
        uneven: Vec::new(),
    }
}

/// Heads in a row; what attention yields has those of its probabilities, one behind the other.
fn heads(plan: &[SiteV1], site: &SiteV1) -> u32 {
    let probabilities = site.inputs.first().and_then(|input| plan.get(*input as usize));
    match probabilities.filter(|_| site.operation == "attn_context") {
        Some(probabilities) => probabilities.heads,
        None => site.heads,
    }
}

/// Whether the rows of a point belong to slots: what a slot is, the row of the chosen experts says.
fn by_slot(point: &str) -> bool {
    let known = vocabulary().iter().find(|known| known.name == point);
    known.is_some_and(|known| known.scope == Scope::Expert || known.name == "moe_weights")
}

/// The experts that a layer chose in both runs, by position; `None` where that was not captured.
struct Experts<'a> {
    reference: Option<&'a SiteRows>,
    target: Option<&'a SiteRows>,
}

impl<'a> Experts<'a> {
    fn of(reference: &'a RunRows, target: &'a RunRows, layer: i32) -> Self {
        let chosen = |rows: &'a RunRows| {
            let mut sites = rows.run.view().plan.sites.iter();
            let site = sites.find(|site| site.layer == layer && site.point == "moe_topk");
            site.and_then(|site| rows.sites.get(&site.site))
        };
        Experts { reference: chosen(reference), target: chosen(target) }
    }

    fn known(&self) -> bool {
        self.reference.is_some() && self.target.is_some()
    }

    /// Whether both runs chose the same: a set has one form, so its bits tell.
    fn same(&self, position: u32) -> bool {
        let chosen = |rows: Option<&SiteRows>| Some(rows?.get(position)?.fingerprint);
        chosen(self.reference).is_some_and(|ours| chosen(self.target) == Some(ours))
    }
}

fn unshared_reason(reference: &RunRows, target: &RunRows, position: u32) -> &'static str {
    match (reference.tokens.get(&position), target.tokens.get(&position)) {
        (Some(r), Some(t)) if r.prefix != t.prefix => "other tokens up to the position",
        (Some(_), None) => "position only in the reference",
        (None, Some(_)) => "position only in the target",
        _ => ONE_RUN_ONLY,
    }
}

#[derive(Default)]
struct LeftOuts(BTreeMap<&'static str, u64>);

impl LeftOuts {
    fn add(&mut self, reason: &'static str, rows: u64) {
        if rows > 0 {
            *self.0.entry(reason).or_default() += rows;
        }
    }

    fn list(&self) -> Vec<LeftOut> {
        self.0.iter().map(|(reason, rows)| LeftOut { reason: (*reason).to_owned(), rows: *rows }).collect()
    }
}
