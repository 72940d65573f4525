//! Compares a place over all its rows.

use super::metrics::{Difference, Sums};
use super::pairing::{Pairing, RowPair, SitePair};
use super::row::{Detail, Evidence, RowComparer, RowComparison};
use crate::error::Result;
use crate::stats::Moments;
use rayon::prelude::*;

/// Rows of each place that are compared at a time by one thread.
const CHUNK: usize = 256;

/// One place, compared over all rows that both runs hold.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteComparison {
    /// Sums over all elements of rows whose values are known.
    pub sums: Sums,
    /// Rows whose bits are equal.
    pub equal_rows: u64,
    /// Rows compared by their values.
    pub tensor_rows: u64,
    /// Rows that differ, and of which no values were kept.
    pub undecided_rows: u64,
    /// Error of the worst row over its norm, or over the median norm of the rows if that is larger: one bad row shows
    /// among many good ones, and a row of almost nothing does not shout. Infinite for disagreeing nonfinite values,
    /// which other counts of finite ones prove, and for a row of zeros on one side only; for rows without values a lower bound from their norms.
    pub worst_row: f64,
    /// Position of that row.
    pub worst_position: Option<u32>,
    /// The largest difference of that row.
    pub worst_element: Option<Difference>,
    /// First position at which any bit differs.
    pub first_differing: Option<u32>,
    /// Merged moments of the reference's rows.
    pub reference: Moments,
    /// Merged moments of the target's rows.
    pub target: Moments,
}

impl SiteComparison {
    /// Relative error of the whole tensor; infinite where one side alone is nonfinite or has a row of zeros.
    pub fn whole(&self) -> f64 {
        if self.sums.disagreeing > 0 || self.worst_row.is_infinite() {
            return f64::INFINITY;
        }
        self.sums.rel_l2().unwrap_or(0.0)
    }

    /// The sums, where they are of every compared row; `None` where values of a row that differs were not kept, and where
    /// no row is compared.
    pub fn known(&self) -> Option<&Sums> {
        let rows = self.equal_rows + self.tensor_rows;
        Some(&self.sums).filter(|_| self.undecided_rows == 0 && rows > 0)
    }

    /// Whether any bit of any compared row differs.
    pub fn differs(&self) -> bool {
        self.first_differing.is_some()
    }

    /// Standard deviation of the target over the reference's; `None` where one is undefined or the reference's is 0.
    pub fn ratio_std(&self) -> Option<f64> {
        let (r, t) = (self.reference.std()?, self.target.std()?);
        (r > 0.0).then(|| t / r)
    }
}

/// Compares every place of `pairing`, on all cores; memory is bounded by a few payloads a core.
pub fn compare_sites(pairing: &Pairing) -> Result<Vec<SiteComparison>> {
    let layers: Vec<&[SitePair]> = pairing.sites.chunk_by(|a, b| a.layer == b.layer).collect();
    let compared = layers.par_iter().map(|sites| compare_layer(pairing, sites)).collect::<Result<Vec<_>>>()?;
    Ok(compared.into_iter().flatten().collect())
}

fn compare_layer(pairing: &Pairing, sites: &[SitePair]) -> Result<Vec<SiteComparison>> {
    let medians: Vec<f64> = sites.iter().map(|site| median_norm(&site.rows)).collect();
    let chunks = sites.iter().map(|site| site.rows.len().div_ceil(CHUNK)).max().unwrap_or(0);
    let partial = |chunk: usize| {
        let rows: Vec<&[RowPair]> =
            sites.iter().map(|site| site.rows.chunks(CHUNK).nth(chunk).unwrap_or_default()).collect();
        let compared = compare_rows(pairing, sites, &rows)?;
        let total = |((median, rows), compared): ((&f64, &&[RowPair]), &Vec<RowComparison>)| {
            let mut total = Total::new(*median);
            rows.iter().zip(compared).for_each(|(pair, row)| total.add(pair, row));
            total
        };
        Ok(medians.iter().zip(&rows).zip(&compared).map(total).collect::<Vec<_>>())
    };
    let partials = (0..chunks).into_par_iter().map(partial).collect::<Result<Vec<_>>>()?;
    let none = medians.iter().map(|median| Total::new(*median)).collect();
    let merge = |ours: Vec<Total>, theirs: Vec<Total>| ours.into_iter().zip(theirs).map(|(a, b)| a.merge(b)).collect();
    let totals: Vec<Total> = partials.into_iter().fold(none, merge);
    Ok(totals.into_iter().map(|total| total.site).collect())
}

/// Compares the rows of each place of a layer, payload by payload: a payload that they share is decoded once.
fn compare_rows(pairing: &Pairing, sites: &[SitePair], rows: &[&[RowPair]]) -> Result<Vec<Vec<RowComparison>>> {
    let pairs = sites.iter().zip(rows).enumerate();
    let mut order: Vec<(usize, &SitePair, &RowPair)> =
        pairs.flat_map(|(at, (site, rows))| rows.iter().map(move |pair| (at, site, pair))).collect();
    order.sort_by_key(|(.., pair)| (pair.reference.payload, pair.target.payload));
    let mut comparer = RowComparer::new(pairing, Detail::default());
    let mut compared = order
        .iter()
        .map(|(at, site, pair)| Ok((*at, pair.position, comparer.compare(site, pair)?)))
        .collect::<Result<Vec<_>>>()?;
    compared.sort_by_key(|(at, position, _)| (*at, *position));
    let mut compared = compared.into_iter().map(|(.., row)| row);
    Ok(rows.iter().map(|rows| compared.by_ref().take(rows.len()).collect()).collect())
}

fn median_norm(rows: &[RowPair]) -> f64 {
    let mut norms: Vec<f64> = rows.iter().filter_map(|pair| pair.reference.moments.l2()).collect();
    let middle = norms.len() / 2;
    if norms.is_empty() { 0.0 } else { *norms.select_nth_unstable_by(middle, f64::total_cmp).1 }
}

struct Total {
    median: f64,
    site: SiteComparison,
}

impl Total {
    fn new(median: f64) -> Self {
        Total {
            median,
            site: SiteComparison {
                sums: Sums::default(),
                equal_rows: 0,
                tensor_rows: 0,
                undecided_rows: 0,
                worst_row: 0.0,
                worst_position: None,
                worst_element: None,
                first_differing: None,
                reference: Moments::default(),
                target: Moments::default(),
            },
        }
    }

    fn add(&mut self, pair: &RowPair, row: &RowComparison) {
        match row.evidence {
            Evidence::Fingerprint => self.site.equal_rows += 1,
            Evidence::Tensor => self.site.tensor_rows += 1,
            Evidence::Statistics => self.site.undecided_rows += 1,
        }
        if row.evidence != Evidence::Fingerprint {
            self.site.first_differing.get_or_insert(pair.position);
        }
        if let Some(sums) = row.sums {
            self.site.sums = self.site.sums.merge(sums);
        }
        self.site.reference = self.site.reference.merge(pair.reference.moments);
        self.site.target = self.site.target.merge(pair.target.moments);
        let error = self.row_error(pair, row);
        if error > self.site.worst_row {
            self.site.worst_row = error;
            self.site.worst_position = Some(pair.position);
            self.site.worst_element = row.worst;
        }
    }

    fn row_error(&self, pair: &RowPair, row: &RowComparison) -> f64 {
        let zero = |moments: Moments| moments.l2() == Some(0.0);
        if pair.is_finite_elsewhere() {
            return f64::INFINITY;
        }
        if zero(pair.reference.moments) != zero(pair.target.moments) {
            return f64::INFINITY;
        }
        match row.sums {
            Some(sums) if sums.disagreeing > 0 => f64::INFINITY,
            Some(sums) if sums.error_squares == 0.0 => 0.0,
            Some(sums) => sums.error_squares.sqrt() / sums.reference_squares.sqrt().max(self.median),
            None => RowComparison::rel_l2_at_least(pair).unwrap_or(0.0),
        }
    }

    fn merge(mut self, other: Total) -> Total {
        let (ours, theirs) = (&mut self.site, other.site);
        ours.sums = ours.sums.merge(theirs.sums);
        ours.equal_rows += theirs.equal_rows;
        ours.tensor_rows += theirs.tensor_rows;
        ours.undecided_rows += theirs.undecided_rows;
        ours.first_differing = ours.first_differing.or(theirs.first_differing);
        ours.reference = ours.reference.merge(theirs.reference);
        ours.target = ours.target.merge(theirs.target);
        if theirs.worst_row > ours.worst_row {
            ours.worst_row = theirs.worst_row;
            ours.worst_position = theirs.worst_position;
            ours.worst_element = theirs.worst_element;
        }
        self
    }
}
