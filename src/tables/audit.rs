//! An audit as rows: one for each operation, in forward order.

use super::column;
use crate::audit::Finding;
use crate::error::{Error, Result};
use arrow::array::{ArrayRef, Float64Array, RecordBatch};
use arrow::datatypes::{DataType, Schema};
use std::sync::Arc;

/// One row for each operation.
///
/// # Errors
/// Internal, where columns and rows do not fit.
pub fn audit(findings: &[Finding]) -> Result<RecordBatch> {
    let floats =
        |of: fn(&Finding) -> Option<f64>| -> ArrayRef { Arc::new(Float64Array::from_iter(findings.iter().map(of))) };
    let integers = |of: fn(&Finding) -> Option<u32>| {
        column::long_integers(findings.iter().map(|finding| of(finding).map_or(u64::MAX, u64::from)))
    };
    let texts = |of: fn(&Finding) -> Option<String>| column::text(findings.iter().map(of));
    let columns: Vec<(&str, DataType, ArrayRef)> = vec![
        ("site", DataType::Int64, integers(|finding| Some(finding.site))),
        (
            "layer",
            DataType::Int32,
            column::layers(findings.iter().map(|finding| finding.layer.map_or(-1, |layer| layer as i32))),
        ),
        ("point", DataType::Utf8, texts(|finding| Some(finding.point.to_owned()))),
        ("occurrence", DataType::Int64, integers(|finding| Some(finding.occurrence))),
        ("operation", DataType::Utf8, texts(|finding| Some(finding.operation.clone()))),
        ("inputs", DataType::Utf8, texts(|finding| Some(finding.inputs.join(", ")))),
        ("through", DataType::Utf8, texts(|finding| Some(finding.through.join(", ")))),
        ("tokens", DataType::Int64, integers(|finding| u32::try_from(finding.tokens).ok())),
        ("rel_l2", DataType::Float64, floats(|finding| finding.rel_l2)),
        ("bound", DataType::Float64, floats(|finding| finding.bound)),
        ("over_bound", DataType::Float64, floats(|finding| finding.over_bound)),
        ("slope", DataType::Float64, floats(|finding| finding.slope)),
        ("largest_z", DataType::Float64, floats(|finding| finding.largest_z.map(|(z, _)| z))),
        ("channel", DataType::Int64, integers(|finding| finding.largest_z.map(|(_, channel)| channel))),
        ("worst_position", DataType::Int64, integers(|finding| finding.worst_position)),
        ("alternative", DataType::Utf8, texts(|finding| finding.alternative.map(|(name, _)| name.to_owned()))),
        ("alternative_rel_l2", DataType::Float64, floats(|finding| finding.alternative.map(|(_, rel_l2)| rel_l2))),
        ("class", DataType::Utf8, texts(|finding| finding.class().map(|class| class.name().to_owned()))),
        ("verdict", DataType::Utf8, texts(|finding| Some(finding.judgement.text()))),
        ("detects", DataType::Float64, floats(|finding| finding.detects)),
        ("note", DataType::Utf8, texts(|finding| Some(finding.note.clone()).filter(|note| !note.is_empty()))),
    ];
    let fields: Vec<_> = columns.iter().map(|(name, kind, _)| column::field(name, kind.clone())).collect();
    let arrays = columns.into_iter().map(|(.., array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
        .map_err(|cause| Error::internal("an audit does not fit its columns").because(cause))
}
