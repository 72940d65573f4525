//! What looks wrong in a run by itself, from its statistics alone: no payload is read. A warning is no verdict: a model may
//! be made so.

use super::buffer::{Buffers, Shared};
use crate::error::Result;
use crate::open::RunRef;
use crate::record::{ArchivedStatsV1, RunV1, SiteV1};
use std::collections::BTreeMap;

/// Share of a point's values that may be subnormal: right runs have them where a softmax or an activation underflows,
/// measured to 0.33 % of a point (attn_probs of tiny-gpt2); a tensor read in the wrong type or scaled to nothing has far more.
const SUBNORMAL: f64 = 0.05;

/// Index sets: they are equal or constant by nature.
const SETS: &str = "moe_topk";

/// Weights of chosen experts: one alone has all of it.
const SHARES: [&str; 2] = ["moe_weights", "attn_probs"];

/// What looks wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Suspicion {
    /// The run has no end, or a bad one.
    Incomplete,
    /// Something was dropped or failed.
    Loss,
    /// NaN or infinities.
    Nonfinite,
    /// Rows of zeros.
    Zero,
    /// Rows of one value.
    Constant,
    /// Rows that another layer holds too, bit for bit.
    Stale,
    /// Too many subnormals.
    Subnormal,
    /// The runs were not made to be compared.
    Unlike,
}

impl Suspicion {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Suspicion::Incomplete => "incomplete",
            Suspicion::Loss => "loss",
            Suspicion::Nonfinite => "nonfinite",
            Suspicion::Zero => "zero",
            Suspicion::Constant => "constant",
            Suspicion::Stale => "stale",
            Suspicion::Subnormal => "subnormal",
            Suspicion::Unlike => "unlike",
        }
    }
}

/// One thing that looks wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// What it is.
    pub suspicion: Suspicion,
    /// Layer; `None` outside the layers, or where it is no place's.
    pub layer: Option<u32>,
    /// Capture point; `None` where it is no place's.
    pub point: Option<String>,
    /// First position; `None` where it is no row's.
    pub position: Option<u32>,
    /// What was seen, in words.
    pub text: String,
}

impl Warning {
    fn of_run(suspicion: Suspicion, text: String) -> Self {
        Warning { suspicion, layer: None, point: None, position: None, text }
    }

    fn at(site: &SiteV1, position: u32, suspicion: Suspicion, text: String) -> Self {
        let (layer, point) = (u32::try_from(site.layer).ok(), Some(site.point.clone()));
        Warning { suspicion, layer, point, position: Some(position), text }
    }

    /// Everything that looks wrong in `run`, by kind and in forward order.
    ///
    /// # Errors
    /// Those of reading.
    pub fn of(run: &RunRef) -> Result<Vec<Warning>> {
        let view = run.view();
        let mut warnings = ended(run)?;
        let mut sites: BTreeMap<u32, SiteTotals> = BTreeMap::new();
        let mut buffers = Buffers::new(&view.plan.sites);
        let mut nonfinite = Nonfinite::default();
        for (step, frame) in view.steps.iter().flat_map(|step| step.stats.iter().map(move |frame| (step.step, frame))) {
            let stats = run.trace().stats(frame)?;
            let record = stats.record();
            for at in 0..record.site.len() {
                let row = Row::of(record, at);
                let Some(site) = view.plan.sites.get(row.site as usize) else { continue };
                sites.entry(row.site).or_default().add(site, &row);
                nonfinite.add(step, site, &row);
                if site.point != SETS && !row.is_plain() {
                    buffers.add(site, row.position, row.fingerprint, row.count);
                }
            }
        }
        warnings.extend(nonfinite.warning(&view.plan.sites));
        let shared = buffers.shared();
        let named = |number: u32| view.plan.sites.get(number as usize);
        let mut places: Vec<(&SiteV1, SiteTotals)> = sites
            .into_iter()
            .filter_map(|(number, totals)| {
                Some((named(number)?, SiteTotals { stale: shared.get(&number).copied(), ..totals }))
            })
            .collect();
        places.sort_by_key(|(site, _)| (site.ordinal, site.occurrence));
        if places.is_empty() && view.end.is_some() {
            warnings.push(Warning::of_run(Suspicion::Incomplete, "the run recorded no row".to_owned()));
        }
        warnings.extend(places.iter().flat_map(|(site, totals)| totals.warnings(site)));
        warnings.sort_by_key(|warning| warning.suspicion);
        Ok(warnings)
    }

    /// What in two runs' identities speaks against comparing them, beside their arithmetic.
    pub fn between(reference: &RunV1, target: &RunV1) -> Vec<Warning> {
        let known = |hash: &[u8; 32]| *hash != [0; 32];
        let other = |r: &[u8; 32], t: &[u8; 32]| known(r) && known(t) && r != t;
        let facts = [
            (
                reference.architecture != target.architecture,
                format!(
                    "the models are of unlike families: {} against {}",
                    reference.architecture, target.architecture
                ),
            ),
            (
                // One vocabulary has other bytes in another format.
                reference.model_format == target.model_format
                    && other(&reference.tokenizer_hash, &target.tokenizer_hash),
                "the tokenizers are unlike: equal token ids may stand for other texts".to_owned(),
            ),
            (
                other(&reference.vocabulary_hash, &target.vocabulary_hash),
                "the capture points were defined by unlike versions: a point of one name may be another place"
                    .to_owned(),
            ),
        ];
        let unlike = facts.into_iter().filter(|(unlike, _)| *unlike);
        unlike.map(|(_, text)| Warning::of_run(Suspicion::Unlike, text)).collect()
    }
}

/// How the run ended, and what it lost.
fn ended(run: &RunRef) -> Result<Vec<Warning>> {
    let view = run.view();
    let mut warnings = Vec::new();
    let incomplete = match &view.end {
        None => Some("no end was recorded: the run is under way or was killed".to_owned()),
        Some(end) if end.status == 1 => Some(format!("the run was interrupted {}", because(&end.error))),
        Some(end) if end.status != 0 => Some(format!("the run failed {}", because(&end.error))),
        Some(_) => None,
    };
    warnings.extend(incomplete.map(|text| Warning::of_run(Suspicion::Incomplete, text.trim_end().to_owned())));
    for loss in run.trace().losses(view)? {
        let text = format!("{} {} were dropped: {}", loss.rows, loss.what, loss.why);
        warnings.push(Warning::of_run(Suspicion::Loss, text));
    }
    if view.end.is_some() {
        let coverage = run.trace().coverage(view)?;
        let rows = coverage.rows_expected.iter().zip(&coverage.rows_captured);
        for (number, (expected, captured)) in coverage.site.iter().zip(rows) {
            let Some(site) = view.plan.sites.get(*number as usize).filter(|_| captured < expected) else { continue };
            let text = format!("{} of {expected} rows were not captured", expected - captured);
            let layer = u32::try_from(site.layer).ok();
            let point = Some(site.point.clone());
            warnings.push(Warning { suspicion: Suspicion::Loss, layer, point, position: None, text });
        }
    }
    Ok(warnings)
}

fn because(error: &str) -> String {
    if error.is_empty() { String::new() } else { format!("({error})") }
}

/// What of a row's statistics is looked at.
#[derive(Debug, Clone, Copy)]
struct Row {
    site: u32,
    position: u32,
    count: u32,
    nonfinite: u32,
    zero: u32,
    subnormal: u32,
    min: f64,
    max: f64,
    absmax: f64,
    l1: f64,
    fingerprint: u64,
}

impl Row {
    fn of(record: &ArchivedStatsV1, at: usize) -> Self {
        let nonfinite = [&record.nan, &record.pos_inf, &record.neg_inf].map(|column| column[at].to_native());
        Row {
            site: record.site[at].to_native(),
            position: record.position[at].to_native(),
            count: record.count[at].to_native(),
            nonfinite: nonfinite.iter().fold(0, |sum, some| sum.saturating_add(*some)),
            zero: record.zero[at].to_native(),
            subnormal: record.subnormal[at].to_native(),
            min: record.min[at].to_native(),
            max: record.max[at].to_native(),
            absmax: record.absmax[at].to_native(),
            l1: record.l1[at].to_native(),
            fingerprint: record.fingerprint[at].to_native(),
        }
    }

    fn is_zero(&self) -> bool {
        self.count > 0 && self.zero == self.count
    }

    /// One value, more than once.
    fn is_constant(&self) -> bool {
        self.count > 1 && self.nonfinite == 0 && self.min == self.max && !self.is_zero()
    }

    /// Zeros and one magnitude, as probabilities have where one key takes all: equal rows prove nothing there. A sum of
    /// n equal f32 is exact in f64 up to n = 2^29.
    fn is_plain(&self) -> bool {
        let nonzero = self.count.saturating_sub(self.zero).saturating_sub(self.nonfinite);
        self.l1 == self.absmax * f64::from(nonzero)
    }
}

/// What the rows of one site add up to.
#[derive(Debug, Clone, Copy, Default)]
struct SiteTotals {
    rows: u64,
    values: u64,
    subnormal: u64,
    zero: Rows,
    constant: Rows,
    first_subnormal: Option<u32>,
    stale: Option<Shared>,
}

/// Rows that look alike, and the first of them.
#[derive(Debug, Clone, Copy, Default)]
struct Rows {
    count: u64,
    first: Option<u32>,
}

impl Rows {
    fn add(&mut self, position: u32) {
        self.count += 1;
        self.first.get_or_insert(position);
    }
}

impl SiteTotals {
    fn add(&mut self, site: &SiteV1, row: &Row) {
        self.rows += 1;
        self.values += u64::from(row.count);
        self.subnormal += u64::from(row.subnormal);
        if row.subnormal > 0 {
            self.first_subnormal.get_or_insert(row.position);
        }
        if row.is_zero() && site.point != SETS {
            self.zero.add(row.position);
        }
        if row.is_constant() && site.point != SETS && !SHARES.contains(&site.point.as_str()) {
            self.constant.add(row.position);
        }
    }

    fn warnings(&self, site: &SiteV1) -> Vec<Warning> {
        let said = |found: Rows, suspicion: Suspicion, what: &str| {
            let text = format!("{} of {} rows are {what}", found.count, self.rows);
            found.first.map(|first| Warning::at(site, first, suspicion, text))
        };
        let share = self.subnormal as f64 / self.values.max(1) as f64;
        let flood = self.first_subnormal.filter(|_| share > SUBNORMAL).map(|first| {
            let text = format!("{:.1} % of the values are subnormal", 100.0 * share);
            Warning::at(site, first, Suspicion::Subnormal, text)
        });
        let zero = said(self.zero, Suspicion::Zero, "all zero");
        let constant = said(self.constant, Suspicion::Constant, "one value throughout");
        let stale = self.stale.map(|stale| {
            let text = format!(
                "{} of {} rows are those of layer {}, bit for bit: a buffer that was not written, or read too late",
                stale.rows, self.rows, stale.source
            );
            Warning::at(site, stale.position, Suspicion::Stale, text)
        });
        zero.into_iter().chain(constant).chain(stale).chain(flood).collect()
    }
}

/// Where NaN and infinities come up first: of the earliest step, the first in forward order.
#[derive(Debug, Default)]
struct Nonfinite {
    rows: u64,
    /// Step, ordinal, occurrence, position; and the site.
    first: Option<((u32, u32, u32, u32), u32)>,
}

impl Nonfinite {
    fn add(&mut self, step: u32, site: &SiteV1, row: &Row) {
        if row.nonfinite == 0 {
            return;
        }
        self.rows += 1;
        let place = ((step, site.ordinal, site.occurrence, row.position), row.site);
        if self.first.is_none_or(|first| place < first) {
            self.first = Some(place);
        }
    }

    fn warning(&self, sites: &[SiteV1]) -> Option<Warning> {
        let ((step, .., position), number) = self.first?;
        let site = sites.get(number as usize)?;
        let text =
            format!("NaN or infinities come up here first, in step {step}; {} rows of the run have some", self.rows);
        Some(Warning::at(site, position, Suspicion::Nonfinite, text))
    }
}
