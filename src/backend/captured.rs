//! Rows of a tensor on their way from a device to statistics and records.

use crate::error::Result;
use crate::stats::RowStatistics;
use crate::tensor::Rows;

/// Rows that a backend was asked to show. Taking them may wait for the device, so it happens off the inference thread.
pub enum Captured {
    /// They are in host memory; their statistics are computed when they are taken.
    Host(Rows),
    /// The device computes statistics, and copies values where they were asked for.
    Device(Box<dyn Landing>),
}

/// Statistics, and values where they were asked for, that a device is about to deliver.
pub trait Landing: Send {
    /// How many rows.
    fn rows(&self) -> usize;

    /// Bytes of host memory that are held until the rows are dropped.
    fn held_bytes(&self) -> usize;

    /// Waits until everything is in host memory.
    ///
    /// # Errors
    /// What went wrong on the device; internal where the batch was given up.
    fn land(self: Box<Self>) -> Result<Landed>;
}

/// Rows that have arrived.
#[derive(Debug)]
pub struct Landed {
    /// Statistics of every row.
    pub statistics: Vec<RowStatistics>,
    /// The values, where they were asked for.
    pub values: Option<Rows>,
}

impl Captured {
    /// How many rows.
    pub fn rows(&self) -> usize {
        match self {
            Captured::Host(rows) => rows.len(),
            Captured::Device(landing) => landing.rows(),
        }
    }

    /// Bytes of host memory that are held until the rows are dropped.
    pub fn held_bytes(&self) -> usize {
        match self {
            Captured::Host(rows) => rows.held_bytes(),
            Captured::Device(landing) => landing.held_bytes(),
        }
    }

    /// The rows, in host memory. An observer that calls this within [`crate::forward::Observer::capture`] waits for a
    /// batch that is still being put together: it belongs to another thread, or to the step's end.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn land(self) -> Result<Landed> {
        match self {
            Captured::Host(rows) => {
                let statistics = (0..rows.len()).map(|row| RowStatistics::of(rows.row(row))).collect();
                Ok(Landed { statistics, values: Some(rows) })
            }
            Captured::Device(landing) => landing.land(),
        }
    }
}
