//! `steps`: one row for each committed step.

use super::{Rows, RunColumns, Table, Unit, column, unknown_column};
use crate::error::Result;
use crate::forward::StepReport;
use crate::open::{Trace, TraceSet};
use crate::record::StepV1;
use arrow::array::{ArrayRef, Float64Array, Int64Array, UInt64Array};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

/// Steps that are read together.
const STEPS_PER_UNIT: usize = 1024;

/// The table.
#[derive(Debug)]
pub struct Steps {
    runs: Vec<Arc<RunColumns>>,
}

impl Steps {
    pub(super) fn new(runs: Vec<Arc<RunColumns>>) -> Self {
        Steps { runs }
    }
}

impl Table for Steps {
    fn name(&self) -> &'static str {
        "steps"
    }

    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(vec![
            column::repeated("run"),
            column::repeated("label"),
            column::field("step", DataType::Int64),
            column::repeated("phase"),
            column::field("first_position", DataType::Int64),
            column::list("token_ids", DataType::Int64),
            column::field("next_token", DataType::Int64),
            column::field("logits_fingerprint", DataType::UInt64),
            column::field("elapsed_ms", DataType::Float64),
        ]))
    }

    fn units(&self, _set: &TraceSet) -> Result<Vec<Unit>> {
        let mut units = Vec::new();
        for run in &self.runs {
            for steps in run.steps().chunks(STEPS_PER_UNIT) {
                units.push(Unit {
                    trace: Arc::clone(run.reference().trace()),
                    run: Some(Arc::clone(run)),
                    frames: steps.iter().map(|step| step.commit.clone()).collect(),
                    commit: None,
                    rows: steps.len(),
                    steps: steps.first().zip(steps.last()).map(|(first, last)| (first.step, last.step)),
                    sites: None,
                    positions: None,
                });
            }
        }
        Ok(units)
    }

    fn open(&self, unit: &Unit) -> Result<Box<dyn Rows>> {
        Ok(Box::new(StepRows { unit: unit.clone(), records: OnceLock::new() }))
    }
}

struct StepRows {
    unit: Unit,
    records: OnceLock<Vec<StepV1>>,
}

impl StepRows {
    fn records(&self) -> Result<&[StepV1]> {
        if let Some(records) = self.records.get() {
            return Ok(records);
        }
        let read = self.unit.frames.iter().map(|frame| self.unit.trace.step(frame)).collect::<Result<Vec<_>>>()?;
        Ok(self.records.get_or_init(|| read))
    }
}

impl Rows for StepRows {
    fn len(&self) -> usize {
        self.unit.frames.len()
    }

    fn column(&self, name: &str) -> Result<ArrayRef> {
        if let Some(run) = &self.unit.run
            && let Some(array) = run.column(name, self.len())?
        {
            return Ok(array);
        }
        if name == "step" {
            return Ok(column::integers(self.unit.frames.iter().map(|frame| frame.step)));
        }
        let steps = self.records()?;
        Ok(match name {
            "phase" => column::few_texts(steps.iter().map(|step| Some(phase(step)))),
            "first_position" => column::long_integers(
                steps.iter().map(|step| step.position.first().map_or(u64::MAX, |position| u64::from(*position))),
            ),
            "token_ids" => column::integer_lists(steps.iter().map(|step| step.token.iter().copied())),
            "next_token" => Arc::new(Int64Array::from_iter(
                steps.iter().map(|step| chose(step).then_some(i64::from(step.next_token))),
            )),
            "logits_fingerprint" => Arc::new(UInt64Array::from_iter(
                steps.iter().map(|step| chose(step).then_some(step.logits_fingerprint)),
            )),
            "elapsed_ms" => {
                Arc::new(Float64Array::from_iter_values(steps.iter().map(|step| step.elapsed_us as f64 / 1000.0)))
            }
            _ => return Err(unknown_column("steps", name)),
        })
    }
}

/// Whether the logits of a step were seen: an import may be without.
fn chose(step: &StepV1) -> bool {
    step.next_token != StepReport::NO_TOKEN
}

/// The name of a step's phase.
fn phase(step: &StepV1) -> &'static str {
    if step.phase == 0 { "prefill" } else { "decode" }
}

/// The tokens of a step, found by their place.
pub struct Tokens {
    record: StepV1,
    places: HashMap<(u32, u32), usize>,
}

impl Tokens {
    /// Reads the step that `frame` commits.
    pub fn read(trace: &Trace, frame: &crate::open::FrameEntry) -> Result<Self> {
        let record = trace.step(frame)?;
        let places = record.sequence.iter().copied().zip(record.position.iter().copied());
        let places = places.enumerate().map(|(row, place)| (place, row)).collect();
        Ok(Tokens { record, places })
    }

    /// The name of the step's phase.
    pub fn phase(&self) -> &'static str {
        phase(&self.record)
    }

    /// For each place, the entry of `values` (a column of the step); `None` for a place that the step lacks.
    fn at<T: Copy>(&self, values: &[T], places: impl Iterator<Item = (u32, u32)>) -> Vec<Option<T>> {
        // Rows of one site follow each other by position, so the next token is nearly always the next row.
        let mut row = 0;
        places
            .map(|place| {
                if self.place(row) != Some(place) {
                    row = *self.places.get(&place)?;
                }
                row += 1;
                values.get(row - 1).copied()
            })
            .collect()
    }

    fn place(&self, row: usize) -> Option<(u32, u32)> {
        Some((*self.record.sequence.get(row)?, *self.record.position.get(row)?))
    }

    /// Token ids of (sequence, position) places.
    pub fn ids(&self, places: impl Iterator<Item = (u32, u32)>) -> Vec<Option<u32>> {
        self.at(&self.record.token, places)
    }

    /// Fingerprints of the token ids from position 0 up to each place.
    pub fn prefixes(&self, places: impl Iterator<Item = (u32, u32)>) -> Vec<Option<u64>> {
        self.at(&self.record.prefix, places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_by_place_in_any_order_and_missing_places_have_none() {
        let record = StepV1 {
            step: 0,
            phase: 0,
            sequence: vec![0, 0, 0],
            position: vec![4, 5, 6],
            token: vec![40, 50, 60],
            prefix: vec![1, 2, 3],
            next_token: 7,
            logits_fingerprint: 0,
            elapsed_us: 0,
            stats_frames: 0,
            payload_frames: 0,
        };
        let places = [((0, 4), 0), ((0, 5), 1), ((0, 6), 2)].into_iter().collect();
        let tokens = Tokens { record, places };
        let asked = [(0, 6), (0, 4), (0, 5), (1, 4), (0, 6)];
        assert_eq!(tokens.ids(asked.into_iter()), [Some(60), Some(40), Some(50), None, Some(60)]);
        assert_eq!(tokens.prefixes(asked.into_iter())[1], Some(1));
        assert!(chose(&tokens.record));
        assert!(!chose(&StepV1 { next_token: StepReport::NO_TOKEN, ..tokens.record }));
    }
}
