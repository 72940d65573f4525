//! What a comparison comes to: equal, within tolerance, diverged and where first, or not comparable.

use super::pairing::Pairing;
use super::site::{SiteComparison, compare_sites};
use super::tolerance::{Tolerance, unlike};
use crate::error::{Error, ErrorKind, Result};
use crate::open::RunRef;

/// A divergence has this many times the error of its inputs: less is inherited.
const INHERITED: f64 = 10.0;

/// What two runs are to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every compared row is bit-equal.
    Equal,
    /// Different, and not more than right runs of these kinds may be.
    WithinTolerance,
    /// More different than right runs may be.
    Diverged,
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
            Verdict::NotComparable => "not_comparable",
        }
    }
}

/// The place where two runs part.
#[derive(Debug, Clone, PartialEq)]
pub struct Divergence {
    /// Index into the pairing's sites.
    pub site: usize,
    /// Layer, `None` outside the layers.
    pub layer: Option<u32>,
    /// Capture point.
    pub point: String,
    /// Worst position there.
    pub position: Option<u32>,
    /// Relative error; `None` where values are missing or nonfinite on one side.
    pub rel_l2: Option<f64>,
}

/// Two runs, compared.
#[derive(Debug)]
pub struct Comparison {
    /// The runs, lined up; `None` where they cannot be.
    pub pairing: Option<Pairing>,
    /// One comparison for each of the pairing's sites.
    pub sites: Vec<SiteComparison>,
    /// How far apart right runs may be.
    pub tolerance: Tolerance,
    /// What the runs' identities differ in, of what changes the arithmetic.
    pub unlike: Vec<String>,
    /// What it comes to.
    pub verdict: Verdict,
    /// Why, in words.
    pub reason: String,
    /// Where the runs part.
    pub first_divergence: Option<Divergence>,
}

impl Comparison {
    /// Compares two runs. `rtol` replaces the tolerance that follows from them; `strict` refuses runs of which
    /// anything has to be left out.
    ///
    /// # Errors
    /// Those of reading; runs that cannot be compared are a verdict.
    pub fn new(reference: RunRef, target: RunRef, rtol: Option<f64>, strict: bool) -> Result<Self> {
        let (r, t) = (&reference.view().identity, &target.view().identity);
        let tolerance = rtol.map_or_else(|| Tolerance::between(r, t), Tolerance::given);
        let unlike = unlike(r, t);
        let pairing = match Pairing::new(reference.clone(), target.clone()) {
            Ok(pairing) => pairing,
            Err(error) if error.kind() == ErrorKind::NotComparable => {
                return Ok(Self::refused(None, tolerance, unlike, &error));
            }
            Err(error) => return Err(error),
        };
        if strict && let Some(left_out) = pairing.left_out.first() {
            let error = Error::new(
                ErrorKind::NotComparable,
                format!("--strict, and {} rows are left out: {}", left_out.rows, left_out.reason),
            );
            return Ok(Self::refused(Some(pairing), tolerance, unlike, &error));
        }
        let sites = compare_sites(&pairing)?;
        let mut comparison = Comparison {
            pairing: Some(pairing),
            sites,
            tolerance,
            unlike,
            verdict: Verdict::Equal,
            reason: String::new(),
            first_divergence: None,
        };
        comparison.judge();
        Ok(comparison)
    }

    fn refused(pairing: Option<Pairing>, tolerance: Tolerance, unlike: Vec<String>, error: &Error) -> Self {
        Comparison {
            pairing,
            sites: Vec::new(),
            tolerance,
            unlike,
            verdict: Verdict::NotComparable,
            reason: error.to_string(),
            first_divergence: None,
        }
    }

    fn judge(&mut self) {
        self.first_divergence = self.find_divergence();
        let rows = |count: fn(&SiteComparison) -> u64| self.sites.iter().map(count).sum::<u64>();
        let (different, undecided) =
            (rows(|site| site.tensor_rows + site.undecided_rows), rows(|site| site.undecided_rows));
        let limit = format!("{:.1e} ({})", self.tolerance.value, self.tolerance.reason);
        (self.verdict, self.reason) = match &self.first_divergence {
            Some(divergence) => (Verdict::Diverged, self.divergence_reason(divergence, &limit)),
            None if different == 0 => (Verdict::Equal, "every compared row is bit-equal".to_owned()),
            None if undecided > 0 => (
                Verdict::NotComparable,
                format!(
                    "{undecided} rows differ, and no values were kept to say by how much: record with --tensors all"
                ),
            ),
            None if self.tolerance.floor => (
                Verdict::WithinTolerance,
                format!(
                    "no point exceeds the rounding floor {limit}; a fault may hide below it, and only an audit can decide"
                ),
            ),
            None => (Verdict::WithinTolerance, format!("no point exceeds {limit}")),
        };
    }

    fn divergence_reason(&self, divergence: &Divergence, limit: &str) -> String {
        let missing =
            self.pairing.as_ref().and_then(|p| p.sites.get(divergence.site)).is_some_and(|s| !s.missing.is_empty());
        match divergence.rel_l2 {
            Some(rel_l2) => format!("{} is {rel_l2:.2e} off, above {limit}", place_text(divergence)),
            None if missing => format!("{} is missing in one run", place_text(divergence)),
            None if self.sites.get(divergence.site).is_some_and(|site| site.sums.disagreeing > 0) => {
                format!("{} has nonfinite values in one run only", place_text(divergence))
            }
            None => format!("{} has a row of zeros in one run only", place_text(divergence)),
        }
    }

    /// The first point above its tolerance that is far above its inputs, else the first above its tolerance.
    fn find_divergence(&self) -> Option<Divergence> {
        let pairing = self.pairing.as_ref()?;
        let distance = |at: usize| {
            let missing = pairing.sites.get(at).is_some_and(|site| !site.missing.is_empty());
            if missing { f64::INFINITY } else { self.sites.get(at).map_or(0.0, |site| self.tolerance.distance(site)) }
        };
        let exceeds = |at: &usize| distance(*at) > self.tolerance.value;
        let inherited = |at: usize| pairing.sites[at].inputs.iter().map(|input| distance(*input)).fold(0.0, f64::max);
        let mut exceeding = (0..self.sites.len()).filter(exceeds);
        let introduced = exceeding.clone().find(|at| distance(*at) > INHERITED * inherited(*at));
        let at = introduced.or_else(|| exceeding.next())?;
        let (site, compared) = (&pairing.sites[at], &self.sites[at]);
        Some(Divergence {
            site: at,
            layer: u32::try_from(site.layer).ok(),
            point: site.point.clone(),
            position: site.missing.first().copied().or(compared.worst_position),
            rel_l2: Some(distance(at)).filter(|distance| distance.is_finite()),
        })
    }
}

/// A divergence in words: `layer 3 ffn_glu at position 7`.
fn place_text(divergence: &Divergence) -> String {
    let layer = divergence.layer.map_or_else(String::new, |layer| format!("layer {layer} "));
    let position = divergence.position.map_or_else(String::new, |position| format!(" at position {position}"));
    format!("{layer}{}{position}", divergence.point)
}
