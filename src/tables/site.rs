//! What the plan says about a range of sites, before anything is read.

use super::{RunColumns, unknown_column};
use crate::error::Result;
use arrow::array::ArrayRef;
use std::sync::Arc;

/// One row for each site of a range.
#[derive(Debug)]
pub struct SiteRows {
    run: Arc<RunColumns>,
    sites: Vec<u32>,
}

impl SiteRows {
    pub(super) fn new(run: Arc<RunColumns>, first: u32, last: u32) -> Self {
        // A range from a damaged index must not grow beyond the plan; a site outside it is named when read.
        let planned = run.view().map_or(0, |view| view.plan.sites.len());
        let last = last.min(u32::try_from(planned).unwrap_or(u32::MAX).saturating_sub(1));
        SiteRows { run, sites: (first..=last).collect() }
    }

    /// The columns that a plan tells.
    pub fn knows(name: &str) -> bool {
        matches!(name, "run" | "label" | "point" | "layer" | "ordinal" | "occurrence" | "dtype")
    }

    /// How many sites.
    pub fn len(&self) -> usize {
        self.sites.len()
    }

    /// Whether the plan has none of them.
    pub fn is_empty(&self) -> bool {
        self.sites.is_empty()
    }

    /// The range, for remembering an answer about it.
    pub fn key(&self) -> (String, Option<u32>, Option<u32>) {
        (self.run.id().to_owned(), self.sites.first().copied(), self.sites.last().copied())
    }

    /// A column that [`SiteRows::knows`].
    pub fn column(&self, name: &str) -> Result<ArrayRef> {
        if let Some(array) = self.run.column(name, self.sites.len())? {
            return Ok(array);
        }
        self.run.site_column(name, &self.sites)?.ok_or_else(|| unknown_column("plan", name))
    }
}
