//! What `compare` judges two runs by, beside the runs themselves.

use crate::audit::{AtHand, check_auditable, judge};
use crate::cli::progress;
use crate::compare::{Comparison, Relation};
use crate::error::{Error, Result};
use crate::open::{RunRef, TraceSet};
use std::path::{Path, PathBuf};

/// A known-good run, and the model files that an audit reads.
#[derive(Debug, Default, clap::Args)]
pub struct Judging {
    /// Label or id of a third run that is known to be right, at the target's precision: a run like the target in all but
    /// the fault is compared with it bit by bit, of another one the errors against the reference are
    #[arg(long, value_name = "RUN", conflicts_with = "rtol")]
    baseline: Option<String>,
    /// Audit the target whatever the runs are; without it, only where the comparison alone cannot name the place
    #[arg(long, conflicts_with = "no_audit")]
    audit: bool,
    /// Judge by the comparison alone
    #[arg(long, conflicts_with_all = ["model", "reference_model"])]
    no_audit: bool,
    /// The model file that the target used, where it is no longer at the path that the run names
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
    /// The same of the reference
    #[arg(long, value_name = "PATH")]
    reference_model: Option<PathBuf>,
}

impl Judging {
    /// Compares two runs and judges them.
    ///
    /// # Errors
    /// Usage, where a run or a model file is not the one that is meant; those of reading.
    pub fn compare(
        &self,
        set: &TraceSet,
        (reference, target): (&RunRef, &RunRef),
        rtol: Option<f64>,
        strict: bool,
    ) -> Result<Comparison> {
        let mut comparison = Comparison::new(reference.clone(), target.clone(), rtol, strict)?;
        if let Some(baseline) = &self.baseline {
            comparison = comparison.with_baseline(&set.resolve(baseline)?)?;
        }
        let asked = self.audit || self.model.is_some() || self.reference_model.is_some();
        // Twins name the place themselves, and a tolerance that the user gave is absolute.
        let wanted = !comparison.is_decided() && comparison.relation != Relation::Twins && rtol.is_none();
        if comparison.pairing.is_some() && !comparison.sites.is_empty() && (asked || wanted && !self.no_audit) {
            match rtol {
                Some(_) => self.audit_beside(&mut comparison, reference, target)?,
                None => self.audit(&mut comparison, reference, target)?,
            }
        }
        Ok(comparison)
    }

    /// Refuses what only one of several targets can have.
    ///
    /// # Errors
    /// Usage.
    pub fn check_several(&self) -> Result<()> {
        match self.model {
            Some(_) => Err(Error::usage("--model is the file of one target: leave it out, or name one --target")),
            None => Ok(()),
        }
    }

    /// An audit that changes no verdict: what it says stands behind the reason.
    fn audit_beside(&self, comparison: &mut Comparison, reference: &RunRef, target: &RunRef) -> Result<()> {
        let (verdict, judged_by) = (comparison.verdict, comparison.judged_by);
        let (first, reason) = (comparison.first_divergence.clone(), comparison.reason.clone());
        self.audit(comparison, reference, target)?;
        (comparison.verdict, comparison.judged_by, comparison.first_divergence) = (verdict, judged_by, first);
        if !comparison.reason.starts_with(&reason) {
            comparison.reason =
                format!("{reason}; the audit, which changes no verdict by --rtol: {}", comparison.reason);
        }
        Ok(())
    }

    fn audit(&self, comparison: &mut Comparison, reference: &RunRef, target: &RunRef) -> Result<()> {
        let own = at_hand(target, self.model.as_deref())?;
        let original = at_hand(reference, self.reference_model.as_deref())?;
        if self.audit {
            check_auditable(&own, &original)?;
        }
        let bar = progress::operations("auditing", comparison.sites.len());
        let judged = judge(comparison, &own, &original, &|| bar.inc(1));
        bar.finish_and_clear();
        judged
    }
}

/// The model of a run; one that was given has to be it.
fn at_hand(run: &RunRef, given: Option<&Path>) -> Result<AtHand> {
    match (AtHand::of(&run.view().identity, given), given) {
        (AtHand::Absent(why), Some(_)) => Err(Error::usage(why)),
        (found, _) => Ok(found),
    }
}
