//! One operation with what it reads.

use super::{ReferenceWeight, rows_of};
use crate::backend::Batch;
use crate::error::{Error, Result};
use crate::graph::Site;
use crate::tensor::{Extent, Rows};

/// One operation with what it reads; every input has one row for each token of the batch.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) site: &'a Site,
    pub(super) inputs: &'a [&'a Rows],
    pub(super) weights: &'a [&'a ReferenceWeight],
    pub(super) batch: Batch<'a>,
}

impl<'a> Call<'a> {
    pub(super) fn new(
        site: &'a Site,
        inputs: &'a [&'a Rows],
        weights: &'a [&'a ReferenceWeight],
        batch: Batch<'a>,
    ) -> Result<Self> {
        let rows = batch.tokens.len();
        if rows == 0 || inputs.iter().any(|input| input.len() != rows) {
            return Err(Error::internal(format!("`{}` needs {rows} rows of every input", site.point)));
        }
        Ok(Call { site, inputs, weights, batch })
    }

    pub(super) fn rows(&self) -> usize {
        self.batch.tokens.len()
    }

    /// Elements of a row of the result.
    pub(super) fn width(&self) -> Result<usize> {
        let width = self.site.axes.width().filter(|width| *width > 0);
        width.map(|width| width as usize).ok_or_else(|| self.unfit("row without a width"))
    }

    pub(super) fn input(&self, index: usize) -> Result<&'a Rows> {
        self.inputs.get(index).copied().ok_or_else(|| self.unfit("missing input"))
    }

    /// The values of an input, row after row.
    pub(super) fn x(&self, index: usize) -> Result<&'a [f32]> {
        self.input(index).map(Rows::values)
    }

    pub(super) fn weight(&self, index: usize) -> Result<&'a ReferenceWeight> {
        self.weights.get(index).copied().ok_or_else(|| self.unfit("missing weight"))
    }

    pub(super) fn unfit(&self, what: &str) -> Error {
        Error::internal(format!("`{}` ({}) has a {what}", self.site.point, self.site.operation.name()))
    }

    /// The result, row after row.
    pub(super) fn made(&self, values: Vec<f32>) -> Result<Rows> {
        self.made_with(values, Extent::Width(self.width()?))
    }

    pub(super) fn made_with(&self, values: Vec<f32>, extent: Extent) -> Result<Rows> {
        rows_of(values, extent, self.rows()).ok_or_else(|| self.unfit("result of another shape"))
    }
}
