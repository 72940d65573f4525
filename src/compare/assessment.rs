//! Everything that is said of two runs side by side: the comparison, what it means for the answer, what looks wrong in
//! either run by itself, and what a user's rules come to.

use super::answer::Answer;
use super::comparison::Comparison;
use super::likeness::Relation;
use super::rules::Rules;
use super::ruling::Rulings;
use super::verdict::{Judge, Verdict};
use super::warning::Warning;
use crate::error::Result;
use crate::open::RunRef;

/// What two runs come to, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Nothing speaks against the target.
    Passed,
    /// It cannot be told.
    Undecided,
    /// The target is further off than is allowed.
    Failed,
}

impl Standing {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Standing::Passed => "passed",
            Standing::Undecided => "undecided",
            Standing::Failed => "failed",
        }
    }
}

/// Two runs, with everything that is said of them.
#[derive(Debug)]
pub struct Assessment {
    /// The run to compare with.
    pub reference: RunRef,
    /// The run that is asked about.
    pub target: RunRef,
    /// How far apart they are, and where they part.
    pub comparison: Comparison,
    /// What that means for the answer; `None` where they cannot be lined up.
    pub answer: Option<Answer>,
    /// What speaks against comparing them.
    pub warnings: Vec<Warning>,
    /// What looks wrong in the reference.
    pub reference_warnings: Vec<Warning>,
    /// What looks wrong in the target.
    pub target_warnings: Vec<Warning>,
    /// What the rules come to, where there are some and rows were compared.
    pub rulings: Option<Rulings>,
}

impl Assessment {
    /// Looks at a comparison from all sides. `reference_warnings` are those of the reference: several targets share them.
    ///
    /// # Errors
    /// Those of reading.
    pub fn of(
        reference: &RunRef,
        target: &RunRef,
        comparison: Comparison,
        reference_warnings: &[Warning],
        rules: Option<&Rules>,
    ) -> Result<Self> {
        let answer = comparison.pairing.as_ref().map(Answer::of).transpose()?;
        let ruled = rules.filter(|_| !comparison.sites.is_empty());
        Ok(Assessment {
            answer,
            warnings: Warning::between(&reference.view().identity, &target.view().identity),
            reference_warnings: reference_warnings.to_vec(),
            target_warnings: Warning::of(target)?,
            rulings: ruled.map(|rules| Rulings::of(rules, &comparison)).transpose()?,
            reference: reference.clone(),
            target: target.clone(),
            comparison,
        })
    }

    /// What it comes to. Rules stand in place of the tolerance: what was found otherwise stands beside them.
    pub fn standing(&self) -> Standing {
        match (&self.rulings, self.comparison.verdict) {
            (Some(rulings), _) if rulings.fails() || self.is_proven() => Standing::Failed,
            (Some(rulings), _) if rulings.is_undecided() => Standing::Undecided,
            (Some(_), _) | (None, Verdict::Equal | Verdict::WithinTolerance) => Standing::Passed,
            (None, Verdict::Diverged) => Standing::Failed,
            (None, Verdict::NotComparable | Verdict::Undecided) => Standing::Undecided,
        }
    }

    /// Whether a divergence rests on more than a tolerance: on an audit, a baseline, or a place that one run lacks.
    pub fn is_proven(&self) -> bool {
        let Comparison { verdict, judged_by, first_divergence, baseline, relation, .. } = &self.comparison;
        let lacking = first_divergence.as_ref().is_some_and(|first| first.site.is_none());
        // A twin baseline signs as twins: its verdict is a baseline's all the same.
        let by_baseline = baseline.is_some() && *relation != Relation::Twins;
        let beyond_tolerance = by_baseline || matches!(judged_by, Some(Judge::Audit | Judge::Baseline));
        *verdict == Verdict::Diverged && (lacking || beyond_tolerance)
    }

    /// Whether no values were kept of any row that differs: errors are lower bounds then, from norms.
    pub fn rests_on_statistics(&self) -> bool {
        let rows = |count: fn(&super::SiteComparison) -> u64| self.comparison.sites.iter().map(count).sum::<u64>();
        rows(|site| site.undecided_rows) > 0 && rows(|site| site.tensor_rows) == 0
    }
}
