//! The rows of one run, by site and position: what a comparison lines up.

use crate::error::Result;
use crate::open::{FrameEntry, RunRef};
use crate::record::SiteV1;
use crate::stats::Moments;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Frames that are decoded at a time: bounds what is held twice.
const FRAMES: usize = 64;

/// One token's row of one site: its statistics, and where its values are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// Step that captured it.
    pub step: u32,
    /// Elements.
    pub count: u32,
    /// Fingerprint of the bits.
    pub fingerprint: u64,
    /// Payload, 0 where no tensor was kept.
    pub payload: u64,
    /// Row in that payload.
    pub payload_row: u32,
    /// Zeros.
    pub zero: u32,
    /// Moments of the finite values.
    pub moments: Moments,
    /// Largest finite absolute value; `None` where there is none.
    pub absmax: Option<f64>,
}

/// A token at a position, and the fingerprint of all tokens up to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// Token id.
    pub id: u32,
    /// Fingerprint of the prefix that ends with it.
    pub prefix: u64,
}

/// The rows of one site, by position, ascending.
#[derive(Debug, Default)]
pub struct SiteRows(Vec<(u32, Row)>);

impl SiteRows {
    /// The row at `position`.
    pub fn get(&self, position: u32) -> Option<&Row> {
        let place = self.0.binary_search_by_key(&position, |(at, _)| *at).ok()?;
        self.0.get(place).map(|(_, row)| row)
    }

    /// Positions and rows.
    pub fn iter(&self) -> impl Iterator<Item = &(u32, Row)> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Steps come in the order of their positions, and so there is seldom anything to sort. Of two rows at one position
    /// the later stands.
    fn sort(&mut self) {
        if self.0.is_sorted_by(|a, b| a.0 < b.0) {
            return;
        }
        self.0.reverse();
        self.0.sort_by_key(|(position, _)| *position);
        self.0.dedup_by_key(|(position, _)| *position);
    }
}

/// All rows of a run. About a hundred bytes a row; values stay in the file.
#[derive(Debug)]
pub struct RunRows {
    /// The run.
    pub run: RunRef,
    /// Tokens by position.
    pub tokens: BTreeMap<u32, Token>,
    /// Rows by site number and position.
    pub sites: BTreeMap<u32, SiteRows>,
    /// How many rows each site was to have, of a run that ended.
    expected: BTreeMap<u32, u64>,
}

impl RunRows {
    /// Reads the statistics of every committed step; no payload is touched.
    pub fn read(run: RunRef) -> Result<Self> {
        let mut tokens = BTreeMap::new();
        for step in &run.view().steps {
            let record = run.trace().step(&step.commit)?;
            let ids = record.token.iter().zip(&record.prefix);
            tokens.extend(record.position.iter().zip(ids).map(|(at, (&id, &prefix))| (*at, Token { id, prefix })));
        }
        let sites = read_sites(&run)?;
        let mut expected = BTreeMap::new();
        if run.view().end.is_some() {
            let coverage = run.trace().coverage(run.view())?;
            expected.extend(coverage.site.into_iter().zip(coverage.rows_expected));
        }
        Ok(RunRows { run, tokens, sites, expected })
    }

    /// Whether a site has every row that it was to have: a position without one was never asked for.
    pub fn is_whole(&self, site: u32) -> bool {
        let rows = self.sites.get(&site).map_or(0, |rows| rows.len() as u64);
        self.expected.get(&site) == Some(&rows)
    }

    /// The plan's entry for a site.
    pub fn site(&self, site: u32) -> Option<&SiteV1> {
        self.run.view().plan.sites.get(site as usize)
    }
}

/// The rows of every site: frames are decoded on all cores, and taken in their order.
fn read_sites(run: &RunRef) -> Result<BTreeMap<u32, SiteRows>> {
    let frames: Vec<&FrameEntry> = run.view().steps.iter().flat_map(|step| &step.stats).collect();
    let mut sites: BTreeMap<u32, SiteRows> = BTreeMap::new();
    for some in frames.chunks(FRAMES) {
        for rows in some.par_iter().map(|frame| read_frame(run, frame)).collect::<Result<Vec<_>>>()? {
            for of_site in rows.chunk_by(|a, b| a.0 == b.0) {
                if let Some((site, ..)) = of_site.first() {
                    let known = sites.entry(*site).or_default();
                    known.0.extend(of_site.iter().map(|(_, position, row)| (*position, *row)));
                }
            }
        }
    }
    sites.values_mut().for_each(SiteRows::sort);
    Ok(sites)
}

/// Site, position and row of all that a frame holds.
fn read_frame(run: &RunRef, frame: &FrameEntry) -> Result<Vec<(u32, u32, Row)>> {
    let stats = run.trace().stats(frame)?;
    let record = stats.record();
    let row = |at: usize| {
        let count = record.count[at].to_native();
        let nonfinite = [&record.nan, &record.pos_inf, &record.neg_inf].map(|column| column[at].to_native());
        let finite = nonfinite.iter().fold(count, |finite, some| finite.saturating_sub(*some));
        let row = Row {
            step: frame.step,
            count,
            fingerprint: record.fingerprint[at].to_native(),
            payload: record.payload[at].to_native(),
            payload_row: record.payload_row[at].to_native(),
            zero: record.zero[at].to_native(),
            moments: Moments {
                count: u64::from(finite),
                mean: record.mean[at].to_native(),
                m2: record.m2[at].to_native(),
            },
            absmax: (finite > 0).then(|| record.absmax[at].to_native()),
        };
        (record.site[at].to_native(), record.position[at].to_native(), row)
    };
    Ok((0..record.site.len()).map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_by_position_and_the_later_of_two_stands() {
        let row = |step| Row {
            step,
            count: 1,
            fingerprint: 0,
            payload: 0,
            payload_row: 0,
            zero: 0,
            moments: Moments::default(),
            absmax: None,
        };
        let mut rows = SiteRows(vec![(4, row(0)), (2, row(1)), (4, row(2)), (3, row(3))]);
        rows.sort();
        assert_eq!(rows.iter().map(|(at, row)| (*at, row.step)).collect::<Vec<_>>(), [(2, 1), (3, 3), (4, 2)]);
        assert_eq!((rows.get(4).map(|row| row.step), rows.get(5), rows.len()), (Some(2), None, 3));
    }
}
