//! The tensors of a run, found by the sites of a graph.

use crate::compare::{RunRows, SiteRows};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Graph, Site, SiteId};
use crate::open::{Payload, RunRef};
use crate::tensor::{Extent, Rows};
use std::ops::Range;
use std::sync::Arc;

/// A run's tensors by the sites of a graph; values stay in the file until they are asked for.
#[derive(Debug)]
pub struct Recorded {
    rows: RunRows,
    /// For every site of the graph the run's own number of it.
    sites: Vec<Option<u32>>,
    /// Token ids from position 0 on, up to the first position that the run says nothing of.
    tokens: Vec<u32>,
}

impl Recorded {
    /// The tensors of `run`, whose places are found in `graph` by layer, point and occurrence.
    ///
    /// # Errors
    /// NotComparable, where rows have another width than in the graph; those of reading the run's statistics.
    pub fn read(run: RunRef, graph: &Graph) -> Result<Self> {
        let rows = RunRows::read(run)?;
        let plan = &rows.run.view().plan.sites;
        let place = |layer: i32, point: &str, occurrence: u32| {
            let mut known = plan.iter();
            let found = known.find(|s| s.layer == layer && s.point == point && s.occurrence == occurrence);
            found.map(|site| site.site)
        };
        let layer = |layer: Option<u32>| layer.map_or(-1, |layer| layer as i32);
        let sites = graph.sites.iter().map(|site| place(layer(site.layer), site.point, site.occurrence)).collect();
        let mut tokens = Vec::new();
        while let Some(token) = u32::try_from(tokens.len()).ok().and_then(|at| rows.tokens.get(&at)) {
            tokens.push(token.id);
        }
        let recorded = Recorded { rows, sites, tokens };
        graph.sites.iter().try_for_each(|site| recorded.check_width(site))?;
        Ok(recorded)
    }

    /// The run.
    pub fn run(&self) -> &RunRef {
        &self.rows.run
    }

    /// Token ids from position 0 on.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Positions at which the values of `site` were kept, ascending.
    pub fn positions(&self, site: SiteId) -> impl Iterator<Item = u32> + '_ {
        let rows = self.of(site).into_iter().flat_map(SiteRows::iter);
        rows.filter(|(_, row)| row.payload != 0).map(|(position, _)| *position)
    }

    /// Whether values of `site` were kept at any position.
    pub fn has(&self, site: SiteId) -> bool {
        self.positions(site).next().is_some()
    }

    /// Whether values of `site` were kept at `position`.
    pub fn has_at(&self, site: SiteId, position: u32) -> bool {
        self.of(site).and_then(|rows| rows.get(position)).is_some_and(|row| row.payload != 0)
    }

    /// The values of `site` at `positions`.
    ///
    /// # Errors
    /// Damaged, where the file does not hold what its statistics name; internal, where a position was not kept.
    pub fn values(&self, site: SiteId, positions: Range<usize>) -> Result<Rows> {
        let kept = self.of(site);
        let trace = self.run().trace();
        let mut last: Option<(u64, Arc<Payload>)> = None;
        let mut values = Vec::new();
        let mut offsets = vec![0];
        for position in positions.clone() {
            let row = u32::try_from(position).ok().and_then(|position| kept?.get(position)).filter(|r| r.payload != 0);
            let row = row.ok_or_else(|| Error::internal(format!("position {position} of a site was not kept")))?;
            if last.as_ref().is_none_or(|(payload, _)| *payload != row.payload) {
                last = Some((row.payload, trace.payload(row.payload)?));
            }
            let found = last.as_ref().and_then(|(_, payload)| payload.row(row.payload_row as usize));
            let found = found.filter(|values| values.len() == row.count as usize).ok_or_else(|| {
                let message = format!("payload {} has no row {} of {}", row.payload, row.payload_row, row.count);
                Error::damaged(message).in_file(trace.path())
            })?;
            values.extend_from_slice(found);
            offsets.push(values.len());
        }
        let width = offsets.get(1).copied().unwrap_or(0);
        let even = offsets.iter().enumerate().all(|(row, end)| *end == row * width);
        let extent = if even { Extent::Width(width) } else { Extent::Offsets(offsets.into()) };
        Rows::new(Arc::new(values), extent, positions.len())
            .ok_or_else(|| Error::internal("recorded rows do not fit their own extent"))
    }

    /// A run of another model has rows of other widths.
    fn check_width(&self, site: &Site) -> Result<()> {
        let (Some(width), Some(rows)) = (site.axes.width(), self.of(site.id)) else { return Ok(()) };
        let Some((position, row)) = rows.iter().find(|(_, row)| row.count != width) else { return Ok(()) };
        let message = format!(
            "`{}` has {} elements at position {position} where the model has {width}: this run is of another model",
            site.point, row.count
        );
        Err(Error::new(ErrorKind::NotComparable, message).in_file(self.run().trace().path()))
    }

    fn of(&self, site: SiteId) -> Option<&SiteRows> {
        let number = (*self.sites.get(site as usize)?)?;
        self.rows.sites.get(&number)
    }
}
