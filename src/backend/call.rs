//! One operation with what it reads, for backends of the processor.

use super::Batch;
use crate::error::{Error, Result};
use crate::graph::Site;
use crate::tensor::{Extent, Rows};
use std::sync::Arc;

/// One operation with what it reads; every input has one row per token of the batch.
pub(super) struct Call<'a, W> {
    pub(super) site: &'a Site,
    pub(super) inputs: &'a [&'a Rows],
    pub(super) weights: &'a [&'a W],
    pub(super) batch: Batch<'a>,
}

impl<'a, W> Call<'a, W> {
    /// Checks that every input has a row for each token.
    pub(super) fn new(site: &'a Site, inputs: &'a [&'a Rows], weights: &'a [&'a W], batch: Batch<'a>) -> Result<Self> {
        let rows = batch.tokens.len();
        if inputs.iter().any(|input| input.len() != rows) || rows == 0 {
            return Err(Error::internal(format!("`{}` needs {rows} rows of every input", site.point)));
        }
        Ok(Call { site, inputs, weights, batch })
    }

    /// Tokens of the batch.
    pub(super) fn rows(&self) -> usize {
        self.batch.tokens.len()
    }

    /// Elements of a row of the result.
    pub(super) fn width(&self) -> Result<usize> {
        let width = self.site.axes.width().filter(|width| *width > 0);
        width.map(|width| width as usize).ok_or_else(|| Error::internal(format!("`{}` has no width", self.site.point)))
    }

    pub(super) fn input(&self, index: usize) -> Result<&'a Rows> {
        self.inputs.get(index).copied().ok_or_else(|| self.missing("input"))
    }

    /// The values of an input, row after row.
    pub(super) fn x(&self, index: usize) -> Result<&'a [f32]> {
        self.input(index).map(Rows::values)
    }

    pub(super) fn weight(&self, index: usize) -> Result<&'a W> {
        self.weights.get(index).copied().ok_or_else(|| self.missing("weight"))
    }

    pub(super) fn missing(&self, what: &str) -> Error {
        Error::internal(format!("`{}` lacks an {what} that its operation needs", self.site.point))
    }

    /// An operation that came to the wrong place.
    pub(super) fn misplaced(&self) -> Error {
        Error::internal(format!("`{}` came to the wrong kernels", self.site.point))
    }

    /// The result, row after row.
    pub(super) fn made(&self, values: Vec<f32>) -> Result<Rows> {
        self.made_with(values, Extent::Width(self.width()?))
    }

    pub(super) fn made_with(&self, values: Vec<f32>, extent: Extent) -> Result<Rows> {
        Rows::new(Arc::new(values), extent, self.rows()).ok_or_else(|| {
            Error::internal(format!("`{}` came out in another shape than its site says", self.site.point))
        })
    }
}
