//! `tensors`: statistics merged over the rows of one captured tensor.

use super::activations::{finite_counts, place_fields, statistics_fields};
use super::steps::Tokens;
use super::{Rows, RunColumns, Table, Unit, column, unknown_column};
use crate::error::{Error, Result};
use crate::open::{StepFrames, TraceSet};
use crate::record::{ArchivedStatsV1, SiteV1};
use crate::stats::{Moments, tensor_fingerprint};
use arrow::array::{ArrayRef, Float64Array, UInt64Array};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// The table.
#[derive(Debug)]
pub struct Tensors {
    runs: Vec<Arc<RunColumns>>,
}

impl Tensors {
    pub(super) fn new(runs: Vec<Arc<RunColumns>>) -> Self {
        Tensors { runs }
    }
}

impl Table for Tensors {
    fn name(&self) -> &'static str {
        "tensors"
    }

    fn schema(&self) -> SchemaRef {
        let mut fields = place_fields();
        fields.extend(["rows", "first_position", "last_position"].map(|name| column::field(name, DataType::Int64)));
        fields.extend([column::repeated("dtype"), column::field("shape", DataType::Utf8)]);
        fields.extend(statistics_fields());
        fields.extend(["absmax_position", "absmax_index"].map(|name| column::field(name, DataType::Int64)));
        fields.push(column::field("fingerprint", DataType::UInt64));
        Arc::new(Schema::new(fields))
    }

    fn units(&self, _set: &TraceSet) -> Result<Vec<Unit>> {
        let mut units = Vec::new();
        for run in &self.runs {
            units.extend(run.steps().iter().filter_map(|step| unit(run, step)));
        }
        Ok(units)
    }

    fn open(&self, unit: &Unit) -> Result<Box<dyn Rows>> {
        let run = unit.run.clone().ok_or_else(|| Error::internal("tensors without a run"))?;
        let mut merged: BTreeMap<u32, Merged> = BTreeMap::new();
        for frame in &unit.frames {
            let stats = unit.trace.stats(frame)?;
            merge_frame(&mut merged, stats.record());
        }
        let (sites, tensors) = merged.into_iter().unzip();
        Ok(Box::new(TensorRows { unit: unit.clone(), run, sites, tensors, phase: OnceLock::new() }))
    }
}

/// A step with statistics.
fn unit(run: &Arc<RunColumns>, step: &StepFrames) -> Option<Unit> {
    let hull = |range: fn(&crate::open::FrameEntry) -> (u32, u32)| {
        let ranges = step.stats.iter().map(range);
        ranges.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    };
    let sites = hull(|frame| frame.sites)?;
    Some(Unit {
        trace: Arc::clone(run.reference().trace()),
        run: Some(Arc::clone(run)),
        frames: step.stats.clone(),
        commit: Some(step.commit.clone()),
        rows: usize::try_from(sites.1 - sites.0.min(sites.1)).unwrap_or(usize::MAX).saturating_add(1),
        steps: Some((step.step, step.step)),
        sites: Some(sites),
        positions: None,
    })
}

/// Statistics of a tensor's rows so far.
#[derive(Debug, Clone, Default)]
struct Merged {
    rows: u64,
    positions: (u32, u32),
    widths: (u32, u32),
    counts: [u64; 6],
    min: f64,
    max: f64,
    absmax: f64,
    absmax_at: (u32, u32),
    abs_smallest: f64,
    moments: Moments,
    l1: f64,
    fingerprint: u64,
}

fn merge_frame(merged: &mut BTreeMap<u32, Merged>, record: &ArchivedStatsV1) {
    for (row, finite) in finite_counts(record).into_iter().enumerate() {
        let row = Row { record, row, finite };
        merged.entry(record.site[row.row].to_native()).or_default().add(&row);
    }
}

/// One row of a record; the record's columns are of equal length, which is checked when it is read.
struct Row<'a> {
    record: &'a ArchivedStatsV1,
    row: usize,
    finite: u32,
}

impl Merged {
    fn add(&mut self, row: &Row<'_>) {
        let (record, index) = (row.record, row.row);
        let (position, width) = (record.position[index].to_native(), record.count[index].to_native());
        let widen = |range: (u32, u32), value: u32| (range.0.min(value), range.1.max(value));
        self.positions = if self.rows == 0 { (position, position) } else { widen(self.positions, position) };
        self.widths = if self.rows == 0 { (width, width) } else { widen(self.widths, width) };
        let columns = [&record.count, &record.nan, &record.pos_inf, &record.neg_inf, &record.zero, &record.subnormal];
        for (sum, column) in self.counts.iter_mut().zip(columns) {
            *sum = sum.saturating_add(u64::from(column[index].to_native()));
        }
        self.rows += 1;
        self.fingerprint = self
            .fingerprint
            .wrapping_add(tensor_fingerprint([(position.into(), record.fingerprint[index].to_native())]));
        if row.finite > 0 {
            self.extremes(row, position);
            let (mean, m2) = (record.mean[index].to_native(), record.m2[index].to_native());
            self.moments = self.moments.merge(Moments { count: row.finite.into(), mean, m2 });
            self.l1 += record.l1[index].to_native();
        }
    }

    fn extremes(&mut self, row: &Row<'_>, position: u32) {
        let (record, index) = (row.record, row.row);
        let (min, max) = (record.min[index].to_native(), record.max[index].to_native());
        let absmax = record.absmax[index].to_native();
        let first = self.moments.count == 0;
        self.min = if first { min } else { self.min.min(min) };
        self.max = if first { max } else { self.max.max(max) };
        if first || absmax > self.absmax {
            self.absmax = absmax;
            self.absmax_at = (position, record.absmax_index[index].to_native());
        }
        let smallest = record.abs_smallest[index].to_native();
        if smallest > 0.0 && (self.abs_smallest == 0.0 || smallest < self.abs_smallest) {
            self.abs_smallest = smallest;
        }
    }

    fn shape(&self, site: &SiteV1) -> String {
        let heads = site.heads.max(1);
        let (narrow, wide) = (self.widths.0 / heads, self.widths.1 / heads);
        let width = if narrow == wide { wide.to_string() } else { format!("{narrow}..{wide}") };
        match site.heads {
            0 => format!("[{}, {width}]", self.rows),
            heads => format!("[{}, {heads}, {width}]", self.rows),
        }
    }
}

struct TensorRows {
    unit: Unit,
    run: Arc<RunColumns>,
    sites: Vec<u32>,
    tensors: Vec<Merged>,
    phase: OnceLock<&'static str>,
}

impl TensorRows {
    fn phase(&self) -> Result<&'static str> {
        if let Some(phase) = self.phase.get() {
            return Ok(phase);
        }
        let commit = self.unit.commit.as_ref().ok_or_else(|| Error::internal("tensors without their step"))?;
        let read = Tokens::read(&self.unit.trace, commit)?.phase();
        Ok(self.phase.get_or_init(|| read))
    }

    fn floats(&self, value: impl Fn(&Merged) -> f64) -> ArrayRef {
        let known = self.tensors.iter().map(|tensor| (tensor.moments.count > 0).then(|| value(tensor)));
        Arc::new(Float64Array::from_iter(known))
    }

    fn derived(&self, value: fn(Moments) -> Option<f64>) -> ArrayRef {
        Arc::new(Float64Array::from_iter(self.tensors.iter().map(|tensor| value(tensor.moments))))
    }

    fn integers(&self, value: impl Fn(&Merged) -> u64) -> ArrayRef {
        column::long_integers(self.tensors.iter().map(value))
    }

    fn statistic(&self, name: &str) -> Option<ArrayRef> {
        let at = |tensor: &Merged, place: u32| if tensor.moments.count == 0 { u64::MAX } else { u64::from(place) };
        Some(match name {
            "rows" => self.integers(|tensor| tensor.rows),
            "first_position" => self.integers(|tensor| tensor.positions.0.into()),
            "last_position" => self.integers(|tensor| tensor.positions.1.into()),
            "count" => self.integers(|tensor| tensor.counts[0]),
            "nan" => self.integers(|tensor| tensor.counts[1]),
            "pos_inf" => self.integers(|tensor| tensor.counts[2]),
            "neg_inf" => self.integers(|tensor| tensor.counts[3]),
            "zero" => self.integers(|tensor| tensor.counts[4]),
            "subnormal" => self.integers(|tensor| tensor.counts[5]),
            "min" => self.floats(|tensor| tensor.min),
            "max" => self.floats(|tensor| tensor.max),
            "mean" => self.floats(|tensor| tensor.moments.mean),
            "absmax" => self.floats(|tensor| tensor.absmax),
            "l1" => self.floats(|tensor| tensor.l1),
            "std" => self.derived(Moments::std),
            "rms" => self.derived(Moments::rms),
            "l2" => self.derived(Moments::l2),
            "abs_smallest" => {
                let found = |tensor: &Merged| Some(tensor.abs_smallest).filter(|value| *value > 0.0);
                Arc::new(Float64Array::from_iter(self.tensors.iter().map(found)))
            }
            "absmax_position" => self.integers(|tensor| at(tensor, tensor.absmax_at.0)),
            "absmax_index" => self.integers(|tensor| at(tensor, tensor.absmax_at.1)),
            "fingerprint" => {
                Arc::new(UInt64Array::from_iter_values(self.tensors.iter().map(|tensor| tensor.fingerprint)))
            }
            _ => return None,
        })
    }
}

impl Rows for TensorRows {
    fn len(&self) -> usize {
        self.sites.len()
    }

    fn column(&self, name: &str) -> Result<ArrayRef> {
        if let Some(array) = self.run.column(name, self.len())? {
            return Ok(array);
        }
        if let Some(array) = self.run.site_column(name, &self.sites)? {
            return Ok(array);
        }
        if let Some(array) = self.statistic(name) {
            return Ok(array);
        }
        let step = self.unit.steps.map_or(0, |(step, _)| step);
        Ok(match name {
            "step" => column::integers(vec![step; self.len()]),
            "phase" => column::constant_text(self.phase()?, self.len())?,
            "shape" => {
                let shapes = self.sites.iter().zip(&self.tensors);
                let shapes = shapes.map(|(site, tensor)| Ok(Some(tensor.shape(self.run.site(*site)?))));
                column::text(shapes.collect::<Result<Vec<_>>>()?)
            }
            _ => return Err(unknown_column("tensors", name)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::StatsV1;

    fn record(rows: &[&[f64]]) -> StatsV1 {
        let mut record = StatsV1::default();
        for (position, row) in (0..).zip(rows) {
            let n = row.len() as f64;
            let mean = row.iter().sum::<f64>() / n;
            let absolute = |value: &f64| value.abs();
            record.site.push(3);
            record.sequence.push(0);
            record.position.push(position);
            record.count.push(row.len() as u32);
            for counts in [&mut record.nan, &mut record.pos_inf, &mut record.neg_inf, &mut record.zero] {
                counts.push(0);
            }
            record.subnormal.push(0);
            record.min.push(row.iter().copied().fold(f64::INFINITY, f64::min));
            record.max.push(row.iter().copied().fold(f64::NEG_INFINITY, f64::max));
            record.absmax.push(row.iter().map(absolute).fold(0.0, f64::max));
            record.abs_smallest.push(row.iter().map(absolute).fold(f64::INFINITY, f64::min));
            for indices in [&mut record.min_index, &mut record.max_index, &mut record.absmax_index] {
                indices.push(0);
            }
            record.mean.push(mean);
            record.m2.push(row.iter().map(|value| (value - mean).powi(2)).sum());
            record.l1.push(row.iter().map(absolute).sum());
            record.fingerprint.push(u64::from(position) + 100);
            record.payload.push(0);
            record.payload_row.push(0);
        }
        record
    }

    fn merged(rows: &[&[f64]]) -> Merged {
        let bytes = rkyv::to_bytes::<rkyv::rancor::BoxedError>(&record(rows)).unwrap();
        let archived = rkyv::access::<ArchivedStatsV1, rkyv::rancor::BoxedError>(&bytes).unwrap();
        let mut merged = BTreeMap::new();
        merge_frame(&mut merged, archived);
        merged.remove(&3).unwrap()
    }

    #[test]
    fn merging_rows_gives_what_two_passes_over_all_values_give() {
        let rows: [&[f64]; 3] = [&[1.0e6, 1.0e6 + 1.0, 1.0e6 + 2.0], &[-4.0], &[0.5, 0.25, 0.125, 8.0]];
        let all: Vec<f64> = rows.concat();
        let n = all.len() as f64;
        let mean = all.iter().sum::<f64>() / n;
        let m2: f64 = all.iter().map(|value| (value - mean).powi(2)).sum();
        let merged = merged(&rows);
        // Both ways round at each of a few operations on numbers of like size.
        let near = |a: f64, b: f64| (a - b).abs() <= 16.0 * f64::EPSILON * b.abs();
        assert!(near(merged.moments.mean, mean), "{} {mean}", merged.moments.mean);
        assert!(near(merged.moments.m2, m2), "{} {m2}", merged.moments.m2);
        assert_eq!((merged.min, merged.max, merged.absmax_at), (-4.0, 1.0e6 + 2.0, (0, 0)));
        assert_eq!((merged.abs_smallest, merged.rows, merged.positions), (0.125, 3, (0, 2)));
    }
}
