//! How a site follows from what was recorded: by its own operation, or by the shortest chain of operations.

use super::Recorded;
use crate::graph::{Graph, Operation, Site, SiteId};
use std::collections::BTreeSet;
use std::ops::Range;

/// How one site is made again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derivation {
    /// The site.
    pub site: SiteId,
    /// Recorded sites that it is made from.
    pub reads: BTreeSet<SiteId>,
    /// Sites between those and the site that were not recorded: they are made again on the way.
    pub through: BTreeSet<SiteId>,
    /// Caches that are read: their rows are needed at every position that a row sees.
    pub caches: BTreeSet<SiteId>,
    /// Positions at which everything is there, as ranges.
    pub positions: Vec<Range<usize>>,
}

impl Derivation {
    /// Leaves out the positions that `wanted` does not want.
    pub fn keep(&mut self, wanted: impl Fn(u32) -> bool) {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for position in self.positions.iter().flat_map(Clone::clone) {
            match ranges.last_mut().filter(|range| range.end == position) {
                _ if !u32::try_from(position).is_ok_and(&wanted) => {}
                Some(range) => range.end += 1,
                None => ranges.push(position..position + 1),
            }
        }
        self.positions = ranges;
    }
}

/// How `site` follows from the recorded tensors of a run; a chain does not leave the layer of the site but for another
/// name of the same values, so that an error is never carried from one layer into the next.
///
/// `None` where an input was not recorded, nor what it follows from within the layer.
pub fn derive(graph: &Graph, recorded: &Recorded, site: SiteId) -> Option<Derivation> {
    let mut derivation = Derivation {
        site,
        reads: BTreeSet::new(),
        through: BTreeSet::new(),
        caches: BTreeSet::new(),
        positions: Vec::new(),
    };
    let own = graph.sites.get(site as usize)?;
    inputs(graph, recorded, own, &mut derivation)?;
    derivation.positions = positions(graph, recorded, &derivation);
    (!derivation.positions.is_empty()).then_some(derivation)
}

fn inputs(graph: &Graph, recorded: &Recorded, site: &Site, derivation: &mut Derivation) -> Option<()> {
    for id in &site.inputs {
        let input = graph.sites.get(*id as usize)?;
        if input.operation == Operation::CacheStore {
            derivation.caches.insert(*id);
        }
        if recorded.has(*id) {
            derivation.reads.insert(*id);
        } else if input.layer == site.layer || input.operation == Operation::Identity {
            derivation.through.insert(*id);
            inputs(graph, recorded, input, derivation)?;
        } else {
            return None;
        }
    }
    Some(())
}

/// Positions whose inputs are all there. What a cache is made from has to be there from the first position that is seen.
fn positions(graph: &Graph, recorded: &Recorded, derivation: &Derivation) -> Vec<Range<usize>> {
    let tokens = recorded.tokens().len();
    let behind: BTreeSet<SiteId> =
        derivation.caches.iter().flat_map(|cache| behind(graph, derivation, *cache)).collect();
    let gapless = behind.iter().map(|read| gapless(recorded, *read)).min().unwrap_or(tokens);
    let whole = |position: &usize| {
        let at = u32::try_from(*position).unwrap_or(u32::MAX);
        derivation.reads.iter().all(|read| recorded.has_at(*read, at))
    };
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for position in (0..tokens.min(gapless)).filter(whole) {
        match ranges.last_mut().filter(|range| range.end == position) {
            Some(range) => range.end += 1,
            None => ranges.push(position..position + 1),
        }
    }
    ranges
}

/// The recorded sites that the rows of `cache` come from: itself, or what it is made from.
fn behind(graph: &Graph, derivation: &Derivation, cache: SiteId) -> Vec<SiteId> {
    if derivation.reads.contains(&cache) {
        return vec![cache];
    }
    let inputs = graph.sites.get(cache as usize).map(|site| site.inputs.as_slice()).unwrap_or_default();
    inputs.iter().flat_map(|input| behind(graph, derivation, *input)).collect()
}

/// Positions from 0 on without a gap.
fn gapless(recorded: &Recorded, site: SiteId) -> usize {
    recorded.positions(site).zip(0u32..).take_while(|(position, expected)| position == expected).count()
}
