//! A statistics record, read in place.
#![allow(unsafe_code)]

use crate::error::Result;
use crate::record::{ArchivedStatsV1, access};
use rkyv::util::AlignedVec;
use std::sync::Arc;

/// A checked STATS record; cheap to clone.
#[derive(Debug, Clone)]
pub struct StatsFrame {
    body: Arc<AlignedVec<64>>,
}

impl StatsFrame {
    /// Checks a body and its meaning.
    pub fn new(body: AlignedVec<64>) -> Result<Self> {
        access::<ArchivedStatsV1>(&body)?.check()?;
        Ok(StatsFrame { body: Arc::new(body) })
    }

    /// The record, in place.
    pub fn record(&self) -> &ArchivedStatsV1 {
        // SAFETY: `new` checked these very bytes as an archive of this type, and they are immutable behind the Arc.
        unsafe { rkyv::access_unchecked::<ArchivedStatsV1>(&self.body) }
    }

    /// The bytes that the record lies in, for columns without a copy.
    pub fn body(&self) -> &Arc<AlignedVec<64>> {
        &self.body
    }
}
