//! Part A against a replay that was recorded before: the same judgement without a model at hand, and without a search for
//! known roundings.

use super::hypothesis::class_of;
use super::{Bound, Finding, LocalError};
use crate::capture::{Status, vocabulary};
use crate::compare::{Detail, Pairing, RowComparer, SitePair};
use crate::error::{Error, ErrorKind, Result};
use crate::open::RunRef;
use crate::record::SiteV1;
use rayon::prelude::*;

/// Judges every operation of `run` by `replay`, a replay of it; in forward order.
///
/// # Errors
/// NotComparable, where the other run is no replay of this one; those of reading the traces.
pub fn audit_replay(run: &RunRef, replay: &RunRef, done: &(dyn Fn() + Sync)) -> Result<Vec<Finding>> {
    let identity = &replay.view().identity;
    let id = run.view().identity.run_id;
    if identity.kind != "replay" || !identity.parents.iter().any(|parent| parent.run_id == id) {
        let message = format!("`{}` is no replay of `{}`", identity.label, run.view().identity.label);
        return Err(Error::new(ErrorKind::NotComparable, message));
    }
    let pairing = Pairing::new(replay.clone(), run.clone())?;
    let judge = |site: &SiteV1| {
        let pair = pairing.sites.iter().find(|pair| {
            (pair.layer, pair.point.as_str(), pair.occurrence) == (site.layer, site.point.as_str(), site.occurrence)
        });
        let finding = judged(&pairing, site, pair);
        done();
        finding
    };
    let plan = &replay.view().plan.sites;
    let shown =
        plan.par_iter().filter(|site| [Status::Captured as u8, Status::Unsupported as u8].contains(&site.status));
    shown.map(judge).collect()
}

fn judged(pairing: &Pairing, site: &SiteV1, pair: Option<&SitePair>) -> Result<Finding> {
    let known = vocabulary().iter().find(|known| known.name == site.point);
    let point = known.map(|known| known.name.as_str());
    let point = point.ok_or_else(|| Error::unsupported(format!("`{}` is no point that is known here", site.point)))?;
    let place = (u32::try_from(site.layer).ok(), point, site.occurrence);
    let mut finding = Finding::unjudged(site.site, place, &site.operation, "input not recorded");
    let Some(pair) = pair else { return Ok(finding) };
    let mut error = LocalError::default();
    let mut comparer = RowComparer::new(pairing, Detail::default());
    for row in pair.rows.iter().filter(|row| row.reference.payload != 0 && row.target.payload != 0) {
        let (expected, recorded) = comparer.values(pair, row)?;
        error.add_row(row.position as usize, expected, recorded);
    }
    if !error.rows.is_empty() {
        // Which points lie between is not known here: those of a replay of a run with every point are single operations.
        finding.measured(&error, Bound::of([site.operation.as_str()]), class_of(&site.operation));
    }
    Ok(finding)
}
