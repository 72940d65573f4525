//! Why a comparison comes to what it comes to, in words.

use super::comparison::Comparison;
use super::culprit::Divergence;
use super::likeness::Relation;
use super::pairing::RowPair;
use super::site::SiteComparison;
use super::verdict::Verdict;

impl Comparison {
    /// Verdict and reason, from the first places that exceed the tolerance, are at fault, and differ at all.
    pub(super) fn conclusion(
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
                    "{}; its inputs differ too or are not compared, so the fault is there or before: only an audit can tell, or a baseline",
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
            None if site.is_some_and(|site| site.sums.disagreeing > 0)
                || pair.is_some_and(|pair| pair.rows.iter().any(RowPair::is_finite_elsewhere)) =>
            {
                format!("{place} has nonfinite values in one run only")
            }
            None if site.is_some() => format!("{place} has a row of zeros in one run only"),
            None => format!("{place} is in one run only"),
        }
    }
}

/// The first names of a list, and how many more there are.
fn few(names: &[String]) -> String {
    const SHOWN: usize = 4;
    let more = names.len().saturating_sub(SHOWN);
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}
