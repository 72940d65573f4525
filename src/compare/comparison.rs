//! Two runs, compared: where they part, where the fault is, who says so.

use super::baseline::Baseline;
use super::culprit::{Divergence, Places, whole_layer, with_worst};
use super::inheritance::{Inheritance, estimate};
use super::likeness::{Relation, rounding_text, unlike, unlike_numbers};
use super::pairing::Pairing;
use super::site::{SiteComparison, compare_sites};
use super::tolerance::Tolerance;
use super::verdict::{Judge, Verdict};
use crate::error::{Error, ErrorKind, Result};
use crate::open::RunRef;

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

    /// The same comparison, judged by `baseline`: a run that is known to be right, at the target's precision. A twin of the
    /// target is compared with it directly; of another one, the errors against the reference are. A baseline that cannot be
    /// compared decides nothing, and one that lacks rows of the comparison clears nothing.
    ///
    /// # Errors
    /// Those of reading.
    pub fn with_baseline(mut self, baseline: &RunRef) -> Result<Self> {
        // What was refused, by `--strict` for one, stays so.
        let Some(pairing) = self.pairing.as_ref().filter(|_| !self.sites.is_empty()) else { return Ok(self) };
        let measured = match Baseline::measure(baseline.clone(), pairing, &self.sites) {
            Ok(measured) => measured,
            Err(error) if error.kind() == ErrorKind::NotComparable => {
                self.leave_undecided(format!("by the baseline: {error}"));
                return Ok(self);
            }
            Err(error) => return Err(error),
        };
        if self.relation != Relation::Twins {
            let direct = Comparison::new(baseline.clone(), pairing.target.clone(), None, false)?;
            if direct.verdict == Verdict::NotComparable {
                self.leave_undecided(format!("by the baseline: {}", direct.reason));
            } else {
                let gap = measured.first_gap(pairing, &self.sites, &direct);
                self.judge_by(&measured, direct);
                self.keep_open(&measured, gap);
            }
        }
        self.baseline = Some(measured);
        Ok(self)
    }

    fn leave_undecided(&mut self, reason: String) {
        (self.verdict, self.reason) = (Verdict::Undecided, reason);
        (self.judged_by, self.first_divergence) = (Some(Judge::Baseline), None);
    }

    /// A baseline that says nothing of a place, `gap`, clears no run; what it found elsewhere stands.
    fn keep_open(&mut self, baseline: &Baseline, gap: Option<usize>) {
        if self.verdict != Verdict::WithinTolerance {
            return;
        }
        let Some(pair) = gap.and_then(|at| self.pairing.as_ref()?.sites.get(at)) else { return };
        let label = &baseline.run.view().identity.label;
        let place = pair.name();
        self.leave_undecided(format!(
            "the baseline `{label}` says nothing of {place}: it lacks rows of it, or their values; record it as the target \
             was; where it can be compared: {}",
            self.reason
        ));
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
