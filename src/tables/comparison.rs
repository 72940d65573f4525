//! Comparisons as rows: one for each place that reference and target share.

use super::column;
use crate::compare::{Assessment, Comparison, SiteComparison, SitePair, stands_out};
use crate::error::{Error, Result};
use arrow::array::{ArrayRef, BooleanArray, Float64Array, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Schema};
use std::sync::Arc;

/// One row for each target, layer and point, in forward order; none where the runs cannot be compared.
///
/// # Errors
/// Internal, where columns and rows do not fit.
pub fn comparisons(assessments: &[Assessment]) -> Result<RecordBatch> {
    let batches = assessments.iter().map(comparison).collect::<Result<Vec<_>>>()?;
    let schema = batches.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
    concat_batches(&schema, &batches).map_err(|cause| Error::internal("comparisons do not fit together").because(cause))
}

fn comparison(assessment: &Assessment) -> Result<RecordBatch> {
    let comparison: &Comparison = &assessment.comparison;
    let pairs = || comparison.pairing.iter().flat_map(|pairing| &pairing.sites).zip(&comparison.sites);
    let (label, id) = (&assessment.target.view().identity.label, assessment.target.id());
    let of_run = |text: &str| column::text(pairs().map(|_| Some(text)));
    let floats = |of: fn(&SiteComparison) -> Option<f64>| -> ArrayRef {
        Arc::new(Float64Array::from_iter(pairs().map(|(_, site)| of(site))))
    };
    let integers = |of: fn(&SitePair, &SiteComparison) -> Option<u64>| {
        column::long_integers(pairs().map(|(pair, site)| of(pair, site).unwrap_or(u64::MAX)))
    };
    let beyond = (0..pairs().count()).map(|at| Some(stands_out(comparison, at)));
    let columns: Vec<(&str, DataType, ArrayRef)> = vec![
        ("target", DataType::Utf8, of_run(label)),
        ("target_run", DataType::Utf8, of_run(&id)),
        ("ordinal", DataType::Int64, integers(|pair, _| Some(u64::from(pair.ordinal)))),
        ("layer", DataType::Int32, column::layers(pairs().map(|(pair, _)| pair.layer))),
        ("point", DataType::Utf8, column::text(pairs().map(|(pair, _)| Some(pair.point.as_str())))),
        ("occurrence", DataType::Int64, integers(|pair, _| Some(u64::from(pair.occurrence)))),
        ("rows", DataType::Int64, integers(|pair, _| Some(pair.rows.len() as u64))),
        ("missing", DataType::Int64, integers(|pair, _| Some(pair.missing.len() as u64))),
        ("equal_rows", DataType::Int64, integers(|_, site| Some(site.equal_rows))),
        ("rel_l2", DataType::Float64, floats(|site| site.known()?.rel_l2())),
        ("worst_row", DataType::Float64, floats(|site| Some(site.worst_row))),
        ("worst_position", DataType::Int64, integers(|_, site| site.worst_position.map(u64::from))),
        ("max_abs_diff", DataType::Float64, floats(|site| site.known()?.max_abs_diff())),
        ("cosine", DataType::Float64, floats(|site| site.known()?.cosine())),
        ("ratio_std", DataType::Float64, floats(SiteComparison::ratio_std)),
        ("beyond_tolerance", DataType::Boolean, Arc::new(BooleanArray::from_iter(beyond))),
    ];
    let fields: Vec<_> = columns.iter().map(|(name, kind, _)| column::field(name, kind.clone())).collect();
    let arrays = columns.into_iter().map(|(.., array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
        .map_err(|cause| Error::internal("a comparison does not fit its columns").because(cause))
}
