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
    /// `None` where the range leaves the plan: such a unit is damaged, and reading it says so.
    pub(super) fn new(run: Arc<RunColumns>, first: u32, last: u32) -> Option<Self> {
        run.site(last).ok()?;
        Some(SiteRows { run, sites: (first..=last).collect() })
    }

    /// The columns that a plan tells.
    pub fn knows(name: &str) -> bool {
        matches!(name, "run" | "label" | "point" | "layer" | "ordinal" | "occurrence" | "dtype" | "operation")
    }

    /// How many sites, at least one.
    pub fn count(&self) -> usize {
        self.sites.len()
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
