//! Compares one pair of rows: by fingerprint where it settles the matter, else by values, else by statistics.

use super::logits::LogitsMetrics;
use super::metrics::{Allclose, Difference, Quantiles, Sums};
use super::pairing::{Pairing, RowPair, SitePair};
use super::rows::Row;
use crate::error::{Error, Result};
use crate::open::Payload;
use crate::open::RunRef;
use crate::tensor::Element;
use std::sync::Arc;

/// What a comparison of two rows rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// Equal fingerprints: every bit is equal.
    Fingerprint,
    /// Both tensors, element by element.
    Tensor,
    /// Statistics only, and they differ or the fingerprints do: an error is proven, its size is not.
    Statistics,
}

impl Evidence {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Evidence::Fingerprint => "fingerprint",
            Evidence::Tensor => "tensor",
            Evidence::Statistics => "statistics",
        }
    }
}

/// What is wanted beyond the sums; each costs time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Detail {
    /// The allclose rule for mismatches.
    pub rule: Allclose,
    /// Percentiles.
    pub quantiles: bool,
    /// What differing logits mean.
    pub logits: bool,
}

/// Two rows, compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowComparison {
    /// What it rests on.
    pub evidence: Evidence,
    /// Sums over the elements; `None` where only statistics were kept.
    pub sums: Option<Sums>,
    /// Where the largest error is; `None` where there is none.
    pub worst: Option<Difference>,
    /// Percentiles, where wanted and known.
    pub quantiles: Option<Quantiles>,
    /// Of a logits row, where wanted and known.
    pub logits: Option<LogitsMetrics>,
}

impl RowComparison {
    /// Of values of which only sums are known: those of several rows, say.
    pub(super) fn of_sums(sums: Sums) -> Self {
        RowComparison { evidence: Evidence::Tensor, sums: Some(sums), worst: None, quantiles: None, logits: None }
    }

    /// Compares the values of two rows, which have one length.
    pub fn of<E: Element>(reference: &[E], target: &[E], detail: Detail) -> Self {
        let (sums, worst) = Sums::of(reference, target, detail.rule);
        RowComparison {
            evidence: Evidence::Tensor,
            sums: Some(sums),
            worst,
            quantiles: if detail.quantiles { Quantiles::of(reference, target) } else { None },
            logits: if detail.logits { LogitsMetrics::of(reference, target) } else { None },
        }
    }

    /// A bound that `rel_l2` cannot be below, from the norms alone: `|norm t - norm r| / norm r`.
    pub fn rel_l2_at_least(pair: &RowPair) -> Option<f64> {
        let (r, t) = (pair.reference.moments.l2()?, pair.target.moments.l2()?);
        let difference = (t - r).abs();
        Some(if difference == 0.0 { 0.0 } else { difference / r })
    }
}

/// Reads and compares rows; keeps the payloads that it decoded last, so that rows in order decode each once.
#[derive(Debug)]
pub struct RowComparer<'a> {
    pairing: &'a Pairing,
    detail: Detail,
    reference: Option<(u64, Arc<Payload>)>,
    target: Option<(u64, Arc<Payload>)>,
}

impl<'a> RowComparer<'a> {
    /// A comparer of rows of `pairing`.
    pub fn new(pairing: &'a Pairing, detail: Detail) -> Self {
        RowComparer { pairing, detail, reference: None, target: None }
    }

    /// Compares a pair of rows of `site`.
    pub fn compare(&mut self, site: &SitePair, pair: &RowPair) -> Result<RowComparison> {
        let (r, t) = (&pair.reference, &pair.target);
        let wants_logits = self.detail.logits && site.point == "logits";
        let kept = r.payload != 0 && t.payload != 0;
        if r.fingerprint == t.fingerprint && !(wants_logits && kept) {
            return Ok(equal(r));
        }
        if !kept {
            return Ok(RowComparison {
                evidence: if r.fingerprint == t.fingerprint { Evidence::Fingerprint } else { Evidence::Statistics },
                sums: None,
                worst: None,
                quantiles: None,
                logits: None,
            });
        }
        let detail = Detail { logits: wants_logits, ..self.detail };
        let (reference, target) = self.values(site, pair)?;
        let compared = RowComparison::of(reference, target, detail);
        let bit_equal = r.fingerprint == t.fingerprint;
        Ok(RowComparison { evidence: if bit_equal { Evidence::Fingerprint } else { Evidence::Tensor }, ..compared })
    }

    /// The values of a pair of rows of `site`, the reference's first.
    ///
    /// # Errors
    /// Damaged, where a file does not hold what its statistics name, or never kept it.
    pub fn values(&mut self, site: &SitePair, pair: &RowPair) -> Result<(&[f32], &[f32])> {
        let place = |error: Error| error.of(&site.point);
        let reference = values(&mut self.reference, &self.pairing.reference, &pair.reference).map_err(place)?;
        let target = values(&mut self.target, &self.pairing.target, &pair.target).map_err(place)?;
        Ok((reference, target))
    }
}

/// The values of a row, from the payload that was decoded last or from its own.
fn values<'c>(cache: &'c mut Option<(u64, Arc<Payload>)>, run: &RunRef, row: &Row) -> Result<&'c [f32]> {
    let held = cache.as_ref().is_some_and(|(payload, _)| *payload == row.payload);
    if !held {
        *cache = Some((row.payload, run.trace().payload(row.payload)?));
    }
    cache
        .as_ref()
        .and_then(|(_, payload)| payload.row(row.payload_row as usize))
        .filter(|values| values.len() == row.count as usize)
        .ok_or_else(|| {
            Error::damaged(format!("payload {} has no row {} of {} values", row.payload, row.payload_row, row.count))
                .in_file(run.trace().path())
        })
}

/// A row against its equal: every sum follows from its statistics.
fn equal(row: &Row) -> RowComparison {
    let quantiles = Quantiles { error_p50: 0.0, error_p99: 0.0, ulp_p99: 0 };
    RowComparison {
        evidence: Evidence::Fingerprint,
        sums: Some(Sums::equal(row.moments, row.absmax)),
        worst: None,
        quantiles: (row.moments.count > 0).then_some(quantiles),
        logits: None,
    }
}
