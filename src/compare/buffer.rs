//! Rows that two layers hold bit for bit, as a buffer does that was not written again.

use crate::record::SiteV1;
use std::collections::BTreeMap;

/// What makes two rows the same: the point (as the first site that is it), position, fingerprint, elements.
type Key = (u32, u32, u64, u32);

/// Rows of the layers, 32 bytes each.
#[derive(Debug)]
pub(super) struct Buffers<'a> {
    sites: &'a [SiteV1],
    /// For each site, the first site that is the same point and occurrence, in whatever layer.
    alike: Vec<u32>,
    rows: Vec<(Key, u32)>,
}

/// Rows of one site that an earlier layer's site has too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shared {
    /// The first layer that has the first of them.
    pub(super) source: i32,
    /// How many.
    pub(super) rows: u64,
    /// Position of the first.
    pub(super) position: u32,
}

impl<'a> Buffers<'a> {
    pub(super) fn new(sites: &'a [SiteV1]) -> Self {
        let mut first = BTreeMap::new();
        let alike = |site: &'a SiteV1| *first.entry((site.point.as_str(), site.occurrence)).or_insert(site.site);
        Buffers { sites, alike: sites.iter().map(alike).collect(), rows: Vec::new() }
    }

    /// Adds a row of `site`.
    pub(super) fn add(&mut self, site: &SiteV1, position: u32, fingerprint: u64, count: u32) {
        if let Some(alike) = self.alike.get(site.site as usize).filter(|_| site.layer >= 0) {
            self.rows.push(((*alike, position, fingerprint, count), site.site));
        }
    }

    /// What sites share with earlier layers, by site number.
    pub(super) fn shared(mut self) -> BTreeMap<u32, Shared> {
        let layer = |site: u32| self.sites.get(site as usize).map_or(-1, |site| site.layer);
        self.rows.sort_unstable_by_key(|(key, site)| (*key, layer(*site)));
        let mut shared: BTreeMap<u32, Shared> = BTreeMap::new();
        for same in self.rows.chunk_by(|(one, _), (other, _)| one == other) {
            let Some((((_, position, ..), first), rest)) = same.split_first() else { continue };
            for (_, site) in rest.iter().filter(|(_, site)| layer(*site) != layer(*first)) {
                let source = layer(*first);
                let found = shared.entry(*site).or_insert(Shared { source, rows: 0, position: *position });
                found.rows += 1;
                if *position < found.position {
                    (found.position, found.source) = (*position, source);
                }
            }
        }
        shared
    }
}
