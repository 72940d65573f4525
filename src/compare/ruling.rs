//! What rules come to on one comparison: the worst value of each, where it is, and the limit that would just pass.

use super::comparison::Comparison;
use super::criterion::Source;
use super::pairing::{Pairing, RowPair, SitePair};
use super::row::{Detail, RowComparer, RowComparison};
use super::rules::{Level, Over, Rule, Rules};
use super::site::SiteComparison;
use super::verdict::Verdict;
use crate::error::Result;
use rayon::prelude::*;

/// What a rule comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is beyond its limit.
    Holds,
    /// Something is, and comes to the rule's level.
    Exceeded(Level),
    /// Nothing known is beyond it, and something is not known.
    Undecided,
    /// It decides for no place.
    Unused,
}

impl Outcome {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Holds => "pass",
            Outcome::Exceeded(Level::Pass) => "excepted",
            Outcome::Exceeded(level) => level.name(),
            Outcome::Undecided => "undecided",
            Outcome::Unused => "unused",
        }
    }
}

/// A place, and what a rule's metric is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Index into the comparison's sites.
    pub site: usize,
    /// Position of the worst row, for a rule over rows.
    pub position: Option<u32>,
    /// What was measured.
    pub finding: Finding,
}

/// What a metric is at a place.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// A number.
    Value(f64),
    /// Every bit is equal, and there is no number for that: any limit lets it through.
    Equal,
    /// No limit lets this through.
    Broken(&'static str),
    /// It cannot be told.
    Unknown(&'static str),
}

/// What one rule comes to.
#[derive(Debug, Clone)]
pub struct Ruling {
    /// The rule.
    pub rule: Rule,
    /// What it comes to.
    pub outcome: Outcome,
    /// Places for which it decides.
    pub places: usize,
    /// Places that it fits and an earlier rule decides for.
    pub taken: usize,
    /// The worst place; `None` where nothing is known of any.
    pub worst: Option<Measured>,
    /// The strictest limit that all places would pass; `None` where no limit is known to.
    pub required: Option<f64>,
    /// Places beyond the limit.
    pub exceeding: Vec<Measured>,
    /// Places of which it cannot be told.
    pub unknown: Vec<Measured>,
}

/// What all rules come to.
#[derive(Debug, Clone)]
pub struct Rulings {
    /// One for each rule, in the order of the file.
    pub rulings: Vec<Ruling>,
    /// Places that no rule fits, as indices into the comparison's sites.
    pub uncovered: Vec<usize>,
    /// Those of them that are further off than right runs may be, or miss rows.
    pub uncovered_exceeding: Vec<usize>,
    /// Those of them of which no values were kept, and that differ.
    pub uncovered_unknown: Vec<usize>,
    /// Those of them that differ, where the verdict without rules is that it cannot be told.
    pub uncovered_undecided: Vec<usize>,
}

impl Rulings {
    /// Applies `rules`: at each place, the first that fits decides for its metric and for what it is of.
    ///
    /// # Errors
    /// Those of reading.
    pub fn of(rules: &Rules, comparison: &Comparison) -> Result<Self> {
        let places = comparison.pairing.as_ref().map_or(&[][..], |pairing| &pairing.sites);
        let uneven = |site: &SitePair| comparison.pairing.as_ref().is_some_and(|pairing| pairing.is_uneven(site));
        let has_rows = |site: &SitePair| !site.rows.is_empty() || !site.missing.is_empty() || uneven(site);
        let mut decided: Vec<Vec<usize>> = vec![Vec::new(); rules.rules.len()];
        let mut taken = vec![0; rules.rules.len()];
        let mut uncovered = Vec::new();
        for (at, site) in places.iter().enumerate().filter(|(_, site)| has_rows(site)) {
            let mut first: Vec<(&'static str, Over)> = Vec::new();
            for (number, rule) in rules.rules.iter().enumerate().filter(|(_, rule)| rule.fits(site)) {
                if rule.metric.is_of_logits() && site.point != "logits" {
                    continue;
                }
                let subject = (rule.metric.name, rule.over);
                if first.contains(&subject) {
                    taken[number] += 1;
                } else {
                    first.push(subject);
                    decided[number].push(at);
                }
            }
            if first.is_empty() {
                uncovered.push(at);
            }
        }
        let numbered = rules.rules.iter().zip(decided).zip(taken);
        let rulings =
            numbered.map(|((rule, places), taken)| ruling(rule, comparison, &places, taken)).collect::<Result<_>>()?;
        let among = |is: &dyn Fn(usize) -> bool| uncovered.iter().copied().filter(|at| is(*at)).collect();
        let uncovered_exceeding = among(&|at| stands_out(comparison, at));
        let undecided = |at: usize| comparison.sites.get(at).is_some_and(|site| site.undecided_rows > 0);
        let uncovered_unknown = among(&undecided);
        let open = matches!(comparison.verdict, Verdict::Undecided | Verdict::NotComparable);
        let differs = |at: usize| {
            let lacks = places.get(at).is_some_and(|site| !site.missing.is_empty() || uneven(site));
            lacks || comparison.sites.get(at).is_some_and(SiteComparison::differs)
        };
        let uncovered_undecided = among(&|at| open && differs(at));
        Ok(Rulings { rulings, uncovered, uncovered_exceeding, uncovered_unknown, uncovered_undecided })
    }

    /// Whether anything fails.
    pub fn fails(&self) -> bool {
        let failed = |ruling: &Ruling| ruling.outcome == Outcome::Exceeded(Level::Fail);
        self.rulings.iter().any(failed) || !self.uncovered_exceeding.is_empty()
    }

    /// Whether a rule that has to cannot be decided: a check that nothing came under has checked nothing.
    pub fn is_undecided(&self) -> bool {
        let open = |ruling: &Ruling| match ruling.outcome {
            Outcome::Undecided => ruling.rule.level == Level::Fail,
            Outcome::Unused => !ruling.rule.optional,
            Outcome::Holds | Outcome::Exceeded(_) => false,
        };
        let uncovered = [&self.uncovered_unknown, &self.uncovered_undecided];
        self.rulings.iter().any(open) || uncovered.iter().any(|places| !places.is_empty())
    }
}

/// Whether the verdict of a comparison, without rules, speaks against a place.
pub fn stands_out(comparison: &Comparison, at: usize) -> bool {
    let pairing = comparison.pairing.as_ref();
    let lacks = |pairing: &Pairing, site: &SitePair| !site.missing.is_empty() || pairing.is_uneven(site);
    let missing = pairing.is_some_and(|pairing| pairing.sites.get(at).is_some_and(|site| lacks(pairing, site)));
    let far = |site: &SiteComparison| comparison.tolerance.distance(site) > comparison.tolerance.value;
    comparison.verdict == Verdict::Diverged && (missing || comparison.sites.get(at).is_some_and(far))
}

fn ruling(rule: &Rule, comparison: &Comparison, places: &[usize], taken: usize) -> Result<Ruling> {
    let passes = rule.metric.passes;
    let (mut worst, mut required): (Option<Measured>, Option<f64>) = (None, None);
    let (mut exceeding, mut unknown) = (Vec::new(), Vec::new());
    for place in places.par_iter().map(|at| measure(rule, comparison, *at)).collect::<Result<Vec<_>>>()? {
        if let Finding::Value(value) = place.finding {
            let demand = passes.required(value);
            required = Some(required.map_or(demand, |known| passes.for_both(known, demand)));
        }
        if exceeds(rule, &place.finding) {
            exceeding.push(place.clone());
        }
        match place.finding {
            Finding::Unknown(_) => unknown.push(place),
            _ if worst.as_ref().is_none_or(|worst| is_worse(rule, &place.finding, &worst.finding)) => {
                worst = Some(place)
            }
            _ => {}
        }
    }
    let broken = exceeding.iter().any(|place| matches!(place.finding, Finding::Broken(_)));
    let outcome = match () {
        () if places.is_empty() => Outcome::Unused,
        () if !exceeding.is_empty() => Outcome::Exceeded(rule.level),
        () if !unknown.is_empty() => Outcome::Undecided,
        () => Outcome::Holds,
    };
    let required = required.filter(|value| !broken && unknown.is_empty() && value.is_finite());
    Ok(Ruling { rule: rule.clone(), outcome, places: places.len(), taken, worst, required, exceeding, unknown })
}

fn is_worse(rule: &Rule, one: &Finding, other: &Finding) -> bool {
    let passes = rule.metric.passes;
    match (one, other) {
        (Finding::Broken(_), other) => !matches!(other, Finding::Broken(_)),
        (Finding::Value(_), Finding::Equal) => true,
        (Finding::Value(one), Finding::Value(other)) => !passes.allows(passes.required(*other), passes.required(*one)),
        _ => false,
    }
}

/// What a rule's metric is at a place.
fn measure(rule: &Rule, comparison: &Comparison, at: usize) -> Result<Measured> {
    let unknown = |reason| Ok(Measured { site: at, position: None, finding: Finding::Unknown(reason) });
    let (Some(pairing), Some(compared)) = (&comparison.pairing, comparison.sites.get(at)) else {
        return unknown("it was not compared");
    };
    let Some(site) = pairing.sites.get(at) else { return unknown("it was not compared") };
    if let Some(position) = site.missing.first() {
        let finding = Finding::Broken("rows are missing in one run");
        return Ok(Measured { site: at, position: Some(*position), finding });
    }
    if let Some(position) = site.uneven.first().filter(|_| pairing.is_uneven(site)) {
        let finding = Finding::Broken("rows of another width");
        return Ok(Measured { site: at, position: Some(*position), finding });
    }
    match rule.over {
        Over::Tensor => Ok(Measured { site: at, position: None, finding: of_tensor(rule, site, compared) }),
        Over::Row => of_rows(rule, pairing, site, at),
    }
}

fn of_tensor(rule: &Rule, site: &SitePair, compared: &SiteComparison) -> Finding {
    let equal = compared.equal_rows == site.rows.len() as u64;
    match rule.metric.source {
        // Moments are of finite values: without the others they would be a number of what is left.
        Source::Moments(_) if site.rows.iter().any(RowPair::is_finite_elsewhere) => Finding::Broken(NONFINITE),
        Source::Moments(of) => finding(of(compared.reference, compared.target), equal, false),
        Source::Metric(_) if compared.undecided_rows > 0 => Finding::Unknown(NO_VALUES),
        Source::Metric(metric) => {
            let all = RowComparison::of_sums(compared.sums);
            finding(metric.number(&all), equal, compared.sums.disagreeing > 0)
        }
    }
}

fn of_rows(rule: &Rule, pairing: &Pairing, site: &SitePair, at: usize) -> Result<Measured> {
    let metric = rule.metric;
    let detail = Detail { quantiles: metric.is_quantile(), logits: metric.is_of_logits(), ..Detail::default() };
    let mut comparer = RowComparer::new(pairing, detail);
    let mut worst = Measured { site: at, position: None, finding: Finding::Equal };
    let mut unknown = None;
    for pair in &site.rows {
        let row = comparer.compare(site, pair)?;
        let place = Measured { site: at, position: Some(pair.position), finding: of_row(rule, pair, &row) };
        if matches!(place.finding, Finding::Unknown(_)) {
            unknown.get_or_insert(place);
        } else if is_worse(rule, &place.finding, &worst.finding) {
            worst = place;
        }
    }
    // What is known to be beyond the limit is so, whatever else is not known.
    Ok(unknown.filter(|_| !exceeds(rule, &worst.finding)).unwrap_or(worst))
}

fn exceeds(rule: &Rule, finding: &Finding) -> bool {
    let passes = rule.metric.passes;
    match finding {
        Finding::Value(value) => !passes.allows(rule.limit, passes.required(*value)),
        Finding::Broken(_) => true,
        Finding::Equal | Finding::Unknown(_) => false,
    }
}

fn of_row(rule: &Rule, pair: &RowPair, row: &RowComparison) -> Finding {
    let equal = pair.reference.fingerprint == pair.target.fingerprint;
    let broken = row.sums.is_some_and(|sums| sums.disagreeing > 0);
    match rule.metric.source {
        Source::Moments(_) if pair.is_finite_elsewhere() => Finding::Broken(NONFINITE),
        Source::Moments(of) => finding(of(pair.reference.moments, pair.target.moments), equal, false),
        Source::Metric(_) if row.sums.is_none() && !equal => Finding::Unknown(NO_VALUES),
        Source::Metric(metric) => finding(metric.number(row), equal, broken),
    }
}

const NO_VALUES: &str = "no values were kept";
const NONFINITE: &str = "nonfinite values in one run only";
const UNDEFINED: &str = "the metric is not defined there";

/// A metric's value; equal rows pass whatever is asked, also where there is no number for them.
fn finding(value: Option<f64>, equal: bool, broken: bool) -> Finding {
    match value.filter(|value| !value.is_nan()) {
        Some(value) => Finding::Value(value),
        None if broken => Finding::Broken(NONFINITE),
        None if equal => Finding::Equal,
        None => Finding::Unknown(UNDEFINED),
    }
}
