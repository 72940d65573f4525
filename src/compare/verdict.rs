//! What a comparison comes to: equal, within tolerance, diverged and where, undecided, or not comparable.

use super::baseline::Baseline;
use super::culprit::{Divergence, Places};
use super::inheritance::{Inheritance, estimate};
use super::likeness::{Relation, rounding_text, unlike, unlike_numbers};
use super::pairing::Pairing;
use super::site::{SiteComparison, compare_sites};
use super::tolerance::Tolerance;
use super::worst::Worst;
use crate::error::{Error, ErrorKind, Result};
use crate::open::RunRef;

/// What two runs are to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every compared row is bit-equal.
    Equal,
    /// Different, and not more than right runs of these kinds may be.
    WithinTolerance,
    /// More different than right runs may be.
    Diverged,
    /// What is at hand decides nothing; the reason says what would.
    Undecided,
    /// Nothing may be said.
    NotComparable,
}

impl Verdict {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Equal => "equal",
            Verdict::WithinTolerance => "within_tolerance",
            Verdict::Diverged => "diverged",
            Verdict::Undecided => "undecided",
            Verdict::NotComparable => "not_comparable",
        }
    }
}

/// What a verdict rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judge {
    /// Two deterministic runs of one arithmetic: the first bit that differs.
    Twins,
    /// A run that is known to be right.
    Baseline,
    /// Operations made again from their recorded inputs, and model files held against each other.
    Audit,
    /// A bound on f32 sums in another order, or one that the user gave.
    Tolerance,
    /// A bound on what rounding does to a whole run, below which faults may hide.
    Floor,
}

impl Judge {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Judge::Twins => "twins",
            Judge::Baseline => "baseline",
            Judge::Audit => "audit",
            Judge::Tolerance => "tolerance",
            Judge::Floor => "floor",
        }
    }
}

/// Two runs, compared.
#[derive(Debug)]
pub struct Comparison {
    /// The runs, lined up; `None` where they cannot be.
    pub pairing: Option<Pairing>,
    /// One comparison for each of the pairing's sites.
    pub sites: Vec<SiteComparison>,
    /// For each of them, what it inherited and what it added.
    pub inheritance: Vec<Inheritance>,
    /// How far apart right runs may be.
    pub tolerance: Tolerance,
    /// What the runs are to each other.
    pub relation: Relation,
    /// What the runs' identities differ in, of what changes the arithmetic.
    pub unlike: Vec<String>,
    /// Numbers of the model that the identities name with unlike values.
    pub unlike_numbers: Vec<String>,
    /// What reference and target round, in words.
    pub rounding: [String; 2],
    /// What it comes to.
    pub verdict: Verdict,
    /// Why, in words.
    pub reason: String,
    /// What the verdict rests on; `None` where nothing is compared.
    pub judged_by: Option<Judge>,
    /// The place of the fault; `None` where there is none, or where it cannot be told.
    pub first_divergence: Option<Divergence>,
    /// The first place in forward order that is further off than right runs may be.
    pub first_exceeding: Option<Divergence>,
    /// A third run that is known to be right, where one was given.
    pub baseline: Option<Baseline>,
}

impl Comparison {
    /// Compares two runs. `rtol` replaces the tolerance that follows from them; `strict` refuses runs of which
    /// anything has to be left out.
    ///
    /// # Errors
    /// Those of reading; runs that cannot be compared are a verdict.
    pub fn new(reference: RunRef, target: RunRef, rtol: Option<f64>, strict: bool) -> Result<Self> {
        let (r, t) = (reference.view(), target.view());
        let mut comparison = Comparison {
            pairing: None,
            sites: Vec::new(),
            inheritance: Vec::new(),
            tolerance: rtol.map_or_else(|| Tolerance::between(r, t), Tolerance::given),
            relation: Relation::of(r, t),
            unlike: unlike(r, t),
            unlike_numbers: unlike_numbers(&r.identity, &t.identity),
            rounding: [&r.identity, &t.identity].map(|run| rounding_text(run)),
            verdict: Verdict::Equal,
            reason: String::new(),
            judged_by: None,
            first_divergence: None,
            first_exceeding: None,
            baseline: None,
        };
        match Pairing::new(reference.clone(), target.clone()) {
            Ok(pairing) => comparison.pairing = Some(pairing),
            Err(error) if error.kind() == ErrorKind::NotComparable => return Ok(comparison.refused(&error)),
            Err(error) => return Err(error),
        }
        let Some(pairing) = &comparison.pairing else { return Ok(comparison) };
        if strict && let Some(left_out) = pairing.left_out.first() {
            let message = format!("--strict, and {} rows are left out: {}", left_out.rows, left_out.reason);
            return Ok(comparison.refused(&Error::new(ErrorKind::NotComparable, message)));
        }
        comparison.sites = compare_sites(pairing)?;
        comparison.inheritance = estimate(&pairing.sites, &comparison.sites);
        comparison.judge()?;
        Ok(comparison)
    }

    fn refused(mut self, error: &Error) -> Self {
        (self.verdict, self.reason) = (Verdict::NotComparable, error.to_string());
        self
    }

    /// Whether the verdict says where the fault is, or that there is none by a bound that hides none.
    pub fn is_decided(&self) -> bool {
        match self.verdict {
            Verdict::Equal | Verdict::NotComparable => true,
            Verdict::WithinTolerance => !matches!(self.judged_by, Some(Judge::Floor | Judge::Baseline)),
            Verdict::Diverged => self.first_divergence.is_some(),
            Verdict::Undecided => false,
        }
    }

    /// What the errors rest on, in words: values, or statistics alone.
    pub fn evidence(&self) -> &'static str {
        let rows = |count: fn(&SiteComparison) -> u64| self.sites.iter().map(count).sum::<u64>();
        match (rows(|site| site.tensor_rows), rows(|site| site.undecided_rows)) {
            (_, 0) => "values",
            (0, _) => "statistics alone: errors are lower bounds",
            _ => "values, and statistics alone where none were kept: errors there are lower bounds",
        }
    }

    fn judge(&mut self) -> Result<()> {
        let Some(pairing) = &self.pairing else { return Ok(()) };
        let places = Places { pairing, sites: &self.sites, tolerance: &self.tolerance, relation: self.relation };
        let exceeding = places.first_exceeding();
        let culprit = places.culprit();
        let differing = places.first_differing().and_then(|at| places.divergence(at));
        let found = [exceeding, culprit].map(|at| at.and_then(|at| places.divergence(at)));
        let [exceeding, culprit] = [with_worst(pairing, found[0].clone())?, with_worst(pairing, found[1].clone())?];
        let culprit = culprit.map(|culprit| whole_layer(pairing, culprit));
        self.judged_by = Some(match (self.relation, self.tolerance.floor) {
            (Relation::Twins, _) => Judge::Twins,
            (_, true) => Judge::Floor,
            (_, false) => Judge::Tolerance,
        });
        (self.verdict, self.reason) = self.conclusion(exceeding.as_ref(), culprit.as_ref(), differing.as_ref());
        (self.first_exceeding, self.first_divergence) = (exceeding, culprit);
        Ok(())
    }

    /// Verdict and reason, from the first places that exceed the tolerance, are at fault, and differ at all.
    fn conclusion(
        &self,
        exceeding: Option<&Divergence>,
        culprit: Option<&Divergence>,
        differing: Option<&Divergence>,
    ) -> (Verdict, String) {
        let rows = |count: fn(&SiteComparison) -> u64| self.sites.iter().map(count).sum::<u64>();
        let (different, undecided) =
            (rows(|site| site.tensor_rows + site.undecided_rows), rows(|site| site.undecided_rows));
        let limit = format!("{:.1e} ({})", self.tolerance.value, self.tolerance.reason);
        match (exceeding, culprit) {
            (Some(exceeding), Some(culprit)) => (Verdict::Diverged, self.divergence_reason(exceeding, culprit, &limit)),
            (Some(exceeding), None) => (
                Verdict::Diverged,
                format!(
                    "{}; its inputs differ too, so the fault is there or before: only an audit can tell, or a baseline",
                    self.excess(exceeding, &limit)
                ),
            ),
            (None, _) if different == 0 => (Verdict::Equal, "every compared row is bit-equal".to_owned()),
            (None, _) if undecided > 0 => (
                Verdict::NotComparable,
                format!(
                    "{undecided} rows differ{}, and no values were kept to say by how much: record with --tensors all",
                    differing.map_or_else(String::new, |first| format!(", first in {}", first.place()))
                ),
            ),
            (None, _) if self.tolerance.floor => (
                Verdict::WithinTolerance,
                format!(
                    "no point exceeds the rounding floor {limit}; a fault may hide below it, and only an audit can decide"
                ),
            ),
            (None, _) => (
                Verdict::WithinTolerance,
                format!(
                    "no point exceeds {limit}{}",
                    match (self.relation, differing) {
                        (Relation::Twins, Some(first)) =>
                            format!("; the first that differs at all is {}", first.place()),
                        _ => String::new(),
                    }
                ),
            ),
        }
    }

    fn divergence_reason(&self, exceeding: &Divergence, culprit: &Divergence, limit: &str) -> String {
        let mut text = self.excess(culprit, limit);
        if exceeding.site != culprit.site {
            text =
                format!("{} differs, and nothing before it does; {}", culprit.place(), self.excess(exceeding, limit));
        }
        if !culprit.note.is_empty() {
            text += &format!("; {}", culprit.note);
        }
        if !culprit.unseen.is_empty() {
            text += &format!("; the fault may also be in what is not compared before it: {}", few(&culprit.unseen));
        }
        if !self.unlike_numbers.is_empty() {
            text += &format!("; numbers of the model differ: {}", few(&self.unlike_numbers));
        }
        text
    }

    /// How far off a place is, and what is allowed.
    fn excess(&self, divergence: &Divergence, limit: &str) -> String {
        let place = divergence.place();
        let site = divergence.site.and_then(|site| self.sites.get(site));
        let pair = divergence.site.and_then(|site| self.pairing.as_ref()?.sites.get(site));
        match divergence.rel_l2 {
            Some(rel_l2) => format!("{place} is {rel_l2:.2e} off, above {limit}"),
            None if pair.is_some_and(|pair| !pair.missing.is_empty()) => format!("{place} is missing in one run"),
            None if pair.is_some_and(|pair| !pair.uneven.is_empty()) => format!("{place} has rows of another width"),
            None if site.is_some_and(|site| site.sums.disagreeing > 0) => {
                format!("{place} has nonfinite values in one run only")
            }
            None if site.is_some() => format!("{place} has a row of zeros in one run only"),
            None => format!("{place} is in one run only"),
        }
    }

    /// The same comparison, judged by `baseline`: a run that is known to be right, at the target's precision. A twin of the
    /// target is compared with it directly; of another one, the errors against the reference are.
    ///
    /// # Errors
    /// NotComparable, where the baseline has no rows in common with the others; otherwise those of reading.
    pub fn with_baseline(mut self, baseline: &RunRef) -> Result<Self> {
        let Some(pairing) = &self.pairing else { return Ok(self) };
        let measured = Baseline::measure(baseline.clone(), pairing, &self.sites)?;
        if self.relation != Relation::Twins {
            let direct = Comparison::new(baseline.clone(), pairing.target.clone(), None, false)?;
            if direct.verdict == Verdict::NotComparable {
                return Err(Error::new(ErrorKind::NotComparable, format!("by the baseline: {}", direct.reason)));
            }
            self.judge_by(&measured, direct);
        }
        self.baseline = Some(measured);
        Ok(self)
    }

    /// Takes the verdict of the comparison with the baseline, or that of the noise ratio.
    fn judge_by(&mut self, baseline: &Baseline, direct: Comparison) {
        let label = &baseline.run.view().identity.label;
        self.judged_by = Some(Judge::Baseline);
        if !direct.tolerance.floor || direct.first_divergence.is_some() {
            if direct.relation == Relation::Twins {
                self.judged_by = Some(Judge::Twins);
            }
            let here = |found: Divergence| Divergence { site: self.site_of(&found), ..found };
            let (culprit, exceeding) = (direct.first_divergence.map(here), direct.first_exceeding.map(here));
            (self.first_divergence, self.first_exceeding) = (culprit, exceeding);
            self.verdict = if direct.verdict == Verdict::Equal { Verdict::WithinTolerance } else { direct.verdict };
            self.reason = format!("against the baseline `{label}`: {}", direct.reason);
            return;
        }
        self.first_divergence = None;
        let (beyond, judged) = baseline.first_beyond();
        let exceeding = beyond.and_then(|(at, ratio)| Some((self.at(at)?, ratio)));
        (self.verdict, self.reason) = match &exceeding {
            Some((place, ratio)) => (
                Verdict::Diverged,
                format!(
                    "{} is {ratio:.1} times as far from the reference as the baseline `{label}`, above {}; the fault is \
                     there or before: only an audit can tell",
                    place.place(),
                    baseline.limit.unwrap_or_default()
                ),
            ),
            None if judged => (
                Verdict::WithinTolerance,
                format!(
                    "no point is further from the reference than {} times the baseline `{label}` is (at most {:.1}); a \
                     fault may hide below that, and only an audit can decide",
                    baseline.limit.unwrap_or_default(),
                    baseline.largest().unwrap_or_default()
                ),
            ),
            None => (
                Verdict::Undecided,
                format!(
                    "the baseline `{label}` cannot decide: {}",
                    if baseline.undecided.is_empty() { "it has no error to measure by" } else { &baseline.undecided }
                ),
            ),
        };
        self.first_exceeding = exceeding.map(|(place, _)| place).or(self.first_exceeding.take());
    }

    fn at(&self, site: usize) -> Option<Divergence> {
        let pairing = self.pairing.as_ref()?;
        Places { pairing, sites: &self.sites, tolerance: &self.tolerance, relation: self.relation }.divergence(site)
    }

    /// The number of a place in this comparison.
    fn site_of(&self, place: &Divergence) -> Option<usize> {
        self.pairing.as_ref()?.sites.iter().position(|site| {
            (site.layer(), site.point.as_str(), site.occurrence)
                == (place.layer, place.point.as_str(), place.occurrence)
        })
    }
}

fn with_worst(pairing: &Pairing, found: Option<Divergence>) -> Result<Option<Divergence>> {
    let Some(found) = found else { return Ok(None) };
    let Some(site) = found.site.and_then(|site| pairing.sites.get(site)) else { return Ok(Some(found)) };
    Ok(Some(Divergence { worst: Worst::of(pairing, site, found.position)?, ..found }))
}

/// Where one run has more layers, what differs first behind the last common one does so for the lack of the next.
fn whole_layer(pairing: &Pairing, culprit: Divergence) -> Divergence {
    let plan = |run: &RunRef| run.view().plan.sites.clone();
    let (reference, target) = (plan(&pairing.reference), plan(&pairing.target));
    let depth = |sites: &[crate::record::SiteV1]| sites.iter().map(|site| site.layer + 1).max().unwrap_or(0);
    let (r, t) = (depth(&reference), depth(&target));
    if r == t || culprit.layer.is_some() || r.min(t) == 0 || culprit.point == "tok_embed" || culprit.point == "embed" {
        return culprit;
    }
    let deeper = if r > t { &reference } else { &target };
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

/// The first names of a list, and how many more there are.
fn few(names: &[String]) -> String {
    const SHOWN: usize = 4;
    let more = names.len().saturating_sub(SHOWN);
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}
