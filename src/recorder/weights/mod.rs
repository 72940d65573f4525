//! The weights of a model as records: what is stored, the statistics of the canonical values, and the values where they
//! are kept. A tensor is walked in pieces, so that memory does not depend on the size of the model.

mod fold;
mod piece;

use super::{Outcome, Summary, Untraced, end, now_us};
use crate::capture::weight_ref;
use crate::error::Result;
use crate::file::{Storage, Writer};
use crate::model::{Model, Weight};
use crate::record::{PayloadV1, PlanV1, RunV1, WeightV1};
use fold::Fold;
use piece::{Kept, PIECE, Piece, kept_type};
use rayon::prelude::*;
use std::collections::HashMap;
use std::ops::Range;

/// What is recorded of a model's weights.
pub struct Weights<'a> {
    /// The model.
    pub model: &'a Model,
    /// Whether values are kept, and scales of quantised ones.
    pub keep_values: bool,
    /// Told after every stretch how many elements are done; an error ends the recording.
    pub progress: &'a mut dyn FnMut(u64) -> Result<()>,
}

/// What was written of a model's weights.
pub struct Written {
    /// Weights.
    pub weights: u64,
    /// Payload frames.
    pub payloads: u64,
    /// Raw bytes of kept values and scales.
    pub value_bytes: u64,
    content: blake3::Hasher,
}

impl Written {
    /// Nothing yet.
    pub fn nothing() -> Self {
        Written { weights: 0, payloads: 0, value_bytes: 0, content: blake3::Hasher::new_derive_key(CONTEXT) }
    }
}

const CONTEXT: &str = "actrace 1 weights root";

/// Elements of all weights of `model`.
pub fn weight_elements(model: &Model) -> u64 {
    model.weights().map(elements).fold(0, u64::saturating_add)
}

fn elements(weight: &Weight) -> u64 {
    (weight.rows as u64).saturating_mul(weight.columns as u64)
}

/// Raw bytes that [`Weights`] writes of `model`, before compression.
pub fn expected_weight_bytes(model: &Model, keep_values: bool) -> u64 {
    const RECORD: u64 = 1024;
    let values = |weight: &Weight| {
        let elements = elements(weight);
        let scales = weight.scale_elements().map_or(0, |shared| elements / shared as u64);
        let size = kept_type(weight, model.hyper().offset_of(weight.key.role)).size() as u64;
        elements.saturating_mul(size).saturating_add(scales.saturating_mul(4))
    };
    let bytes = |weight| if keep_values { values(weight) } else { 0 };
    model.weights().map(|weight| bytes(weight).saturating_add(RECORD)).fold(0, u64::saturating_add)
}

/// Appends a run that is the weights of a model alone, and seals the file. An interrupted one is ended as such.
///
/// # Errors
/// What ended the recording: it is written into the run's end where the file can still be written.
pub fn record_weights<S: Storage>(mut writer: Writer<S>, run: &RunV1, weights: Weights<'_>) -> Result<(Summary, u64)> {
    let ordinal = writer.begin_run(run)?;
    // What is planned and has no record was not captured; what is not planned, the model does not have.
    let planned = weights.model.weights().map(weight_ref).collect();
    writer.record(ordinal, 0, &PlanV1 { sites: Vec::new(), weights: planned })?;
    let mut written = Written::nothing();
    let result = weights.write(&mut writer, ordinal, &mut written);
    let outcome = result.as_ref().map_or_else(Outcome::of, |()| Outcome::Finished);
    let mut summary = Summary {
        steps: 0,
        rows: 0,
        payloads: written.payloads,
        tensor_bytes: written.value_bytes,
        file_bytes: 0,
        content_root: *written.content.finalize().as_bytes(),
    };
    let sealed = writer
        .record(ordinal, 0, &end(&outcome, &summary, now_us(), Untraced::NotCompared))
        .and_then(|()| writer.seal());
    // The first error is the one to report.
    result.and(sealed)?;
    summary.file_bytes = writer.file_bytes();
    Ok((summary, written.weights))
}

impl Weights<'_> {
    /// Appends a record of every weight to run `run`, and the values' payloads before it.
    ///
    /// # Errors
    /// The writer's, the progress's, and Environment where the model's files changed meanwhile.
    pub(super) fn write<S: Storage>(self, writer: &mut Writer<S>, run: u32, written: &mut Written) -> Result<()> {
        let mut stored_hashes: HashMap<(usize, u64, usize), [u8; 32]> = HashMap::new();
        let mut done = 0;
        for weight in self.model.weights() {
            // Experts in one tensor, fused and tied ones: each stored tensor is hashed once.
            let place = (weight.file, weight.offset, weight.data.len());
            let stored = *stored_hashes
                .entry(place)
                .or_insert_with(|| *blake3::Hasher::new().update_rayon(&weight.data).finalize().as_bytes());
            let added = self.model.hyper().offset_of(weight.key.role);
            let mut fold = Fold::new(weight, added, stored);
            for pieces in batches(weight) {
                let pieces = pieces.into_par_iter().map_init(
                    || None,
                    |encoder, rows| Piece::of(weight, added, rows, self.keep_values.then_some(encoder)),
                );
                for piece in pieces.collect::<Result<Vec<_>>>().map_err(|error| error.of(&weight.stored_name))? {
                    done += piece.values.len() as u64;
                    fold.add(piece, |kept| kept.write(writer, run, written))?;
                }
                (self.progress)(done)?;
            }
            let record = fold.record();
            written.weights += 1;
            cover(&mut written.content, &record);
            writer.record(run, 0, &record)?;
            writer.sync_if_due()?;
        }
        self.model.check_unchanged()
    }
}

/// What the content root of a run of weights covers of one.
fn cover(content: &mut blake3::Hasher, record: &WeightV1) {
    let name = &record.weight.canonical_name;
    content.update(&(name.len() as u32).to_le_bytes()).update(name.as_bytes());
    for axis in &record.weight.shape {
        content.update(&axis.to_le_bytes());
    }
    content.update(&record.stored_blake3).update(&record.values_blake3);
}

/// Rows of each piece of `weight`, as many pieces at a time as there are threads.
fn batches(weight: &Weight) -> impl Iterator<Item = Vec<Range<usize>>> {
    let (rows, each) = (weight.rows, (PIECE / weight.columns.max(1)).max(1));
    let together = each.saturating_mul(rayon::current_num_threads());
    (0..rows).step_by(together).map(move |first| {
        let end = rows.min(first.saturating_add(together));
        (first..end).step_by(each).map(|start| start..end.min(start.saturating_add(each))).collect()
    })
}

impl Kept {
    /// Writes what the file does not hold yet; gives the numbers of both payloads.
    fn write<S: Storage>(self, writer: &mut Writer<S>, run: u32, written: &mut Written) -> Result<(u64, Option<u64>)> {
        let mut number = |payload: PayloadV1| {
            written.value_bytes += payload.raw_length;
            if let Some(known) = writer.known_payload(&payload.blake3) {
                return Ok(known);
            }
            written.payloads += 1;
            writer.payload(run, 0, payload)
        };
        let values = number(self.values)?;
        Ok((values, self.scales.map(number).transpose()?))
    }
}
