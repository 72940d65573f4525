//! The rows of one run, by site and position: what a comparison lines up.

use crate::error::Result;
use crate::open::RunRef;
use crate::record::SiteV1;
use crate::stats::Moments;
use std::collections::BTreeMap;

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

/// All rows of a run. About a hundred bytes a row; values stay in the file.
#[derive(Debug)]
pub struct RunRows {
    /// The run.
    pub run: RunRef,
    /// Tokens by position.
    pub tokens: BTreeMap<u32, Token>,
    /// Rows by site number and position.
    pub sites: BTreeMap<u32, BTreeMap<u32, Row>>,
    /// How many rows each site was to have, of a run that ended.
    expected: BTreeMap<u32, u64>,
}

impl RunRows {
    /// Reads the statistics of every committed step; no payload is touched.
    pub fn read(run: RunRef) -> Result<Self> {
        let mut tokens = BTreeMap::new();
        let mut sites: BTreeMap<u32, BTreeMap<u32, Row>> = BTreeMap::new();
        for step in &run.view().steps {
            let record = run.trace().step(&step.commit)?;
            let ids = record.token.iter().zip(&record.prefix);
            tokens.extend(record.position.iter().zip(ids).map(|(at, (&id, &prefix))| (*at, Token { id, prefix })));
            for frame in &step.stats {
                read_frame(&run, frame, &mut sites)?;
            }
        }
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

fn read_frame(
    run: &RunRef,
    frame: &crate::open::FrameEntry,
    sites: &mut BTreeMap<u32, BTreeMap<u32, Row>>,
) -> Result<()> {
    let stats = run.trace().stats(frame)?;
    let record = stats.record();
    for at in 0..record.site.len() {
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
        sites.entry(record.site[at].to_native()).or_default().insert(record.position[at].to_native(), row);
    }
    Ok(())
}
