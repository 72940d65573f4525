//! Copies everything whole of a damaged or torn trace into a new, sealed one.
//!
//! The input is only read. Frames are numbered anew; runs keep their numbers, payloads get new ones, and statistics
//! rows follow them. A row whose payload is lost says that it has none. A LOSS record in each run concerned says what
//! is missing and why. Nothing is invented: a run without an end stays without one, coverage and content root stay
//! what the recorder wrote, so that they tell what was there, and a run whose identity is lost is lost (but for
//! payloads that rows of other runs share).

use super::input::Input;
use super::inventory::Inventory;
use super::payload::Payload;
use super::verify::{Verification, check_record, verify};
use super::walk::{State, Stretch, Walk};
use crate::error::{Error, ErrorKind, Result};
use crate::file::{FileHeader, FileStorage, FrameHeader, Kind, NO_RUN, Writer, sync_folder};
use crate::record::{LossV1, PayloadV1, Record, StatsV1, WeightV1};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

/// Reasons that a LOSS record lists; of more it says how many.
const REASONS: usize = 4;

/// What [`recover`] did.
#[derive(Debug)]
pub struct Recovery {
    /// Frames copied, by kind.
    pub kept: BTreeMap<&'static str, u64>,
    /// Frames that could not be copied, by kind; `unknown` where nothing tells the kind.
    pub lost: BTreeMap<&'static str, u64>,
    /// What each run lost, as written to the new file; without a run, what no run of the new file can tell.
    pub losses: Vec<(Option<u32>, LossV1)>,
    /// Stretches of the input that hold no whole frame, first and end.
    pub holes: Vec<(u64, u64)>,
    /// Bytes of a frame that the input ends in: it was never whole, and is no loss.
    pub cut_bytes: u64,
    /// What a check of every byte of the new file found: it is sealed, and nothing is wrong with it.
    pub verification: Verification,
}

impl Recovery {
    /// Whether everything that was recorded is in the new file.
    pub fn is_complete(&self) -> bool {
        self.losses.is_empty()
    }
}

/// Copies what is whole of `from` into the new file `to`, whose header is `header`. `progress` is told the bytes
/// handled so far, and of how many.
///
/// # Errors
/// Usage, where `to` exists; Foreign or Damaged, where `from` is no trace or not even its identity can be read;
/// Environment. A file `to` that could not be finished is removed.
pub fn recover(from: &Path, to: &Path, header: FileHeader, progress: impl FnMut(u64, u64)) -> Result<Recovery> {
    let input = Input::open_damaged(from)?;
    let storage = FileStorage::create(to)?;
    let recovered = copy(&input, storage, to, header, progress);
    recovered.inspect_err(|_| {
        // The error to report is the first one.
        drop(std::fs::remove_file(to));
    })
}

fn copy(
    input: &Input,
    storage: FileStorage,
    to: &Path,
    header: FileHeader,
    mut progress: impl FnMut(u64, u64),
) -> Result<Recovery> {
    let length = input.length()?;
    let stretches = Walk::new(input, length).collect::<Result<Vec<_>>>()?;
    let mut copier = Copier {
        input,
        inventory: Inventory::of(input, &stretches)?,
        writer: Writer::create(storage, header)?,
        payloads: HashMap::new(),
        strays: HashMap::new(),
        strangers: BTreeMap::new(),
        seq: 0,
        next_run: 0,
        hole: None,
        notes: Notes::default(),
        kept: BTreeMap::new(),
        lost: BTreeMap::new(),
        losses: Vec::new(),
    };
    let mut cut_bytes = 0;
    for stretch in &stretches {
        match stretch {
            Stretch::Frame(header) => {
                copier.frame(header)?;
                progress(header.end(), length);
            }
            Stretch::Hole(start, end) => copier.hole = Some((*start, *end)),
            Stretch::Cut(start) => cut_bytes = length - start,
        }
    }
    copier.end()?;
    sync_folder(to)?;
    let verification = verify(&Input::open(to)?, |_, _| {})?;
    if verification.state != State::Sealed {
        let fault = verification.faults.first().map_or("it is not sealed", |fault| fault.what.as_str());
        return Err(Error::internal(format!("what was recovered does not verify: {fault}")).in_file(to));
    }
    let hole = |stretch: &Stretch| if let Stretch::Hole(start, end) = stretch { Some((*start, *end)) } else { None };
    Ok(Recovery {
        kept: copier.kept,
        lost: copier.lost,
        losses: copier.losses,
        holes: stretches.iter().filter_map(hole).collect(),
        cut_bytes,
        verification,
    })
}

struct Copier<'a> {
    input: &'a Input,
    inventory: Inventory,
    writer: Writer<FileStorage>,
    /// New number and rows of every payload that was copied, by its old number.
    payloads: HashMap<u64, (u64, u32)>,
    /// Payloads of runs whose identity is lost, by number.
    strays: HashMap<u64, FrameHeader>,
    /// Number of other frames of such runs.
    strangers: BTreeMap<u32, u64>,
    /// Number that the next frame should have.
    seq: u64,
    /// The least number that the next run may have.
    next_run: u32,
    /// A hole before the next frame.
    hole: Option<(u64, u64)>,
    notes: Notes,
    kept: BTreeMap<&'static str, u64>,
    lost: BTreeMap<&'static str, u64>,
    losses: Vec<(Option<u32>, LossV1)>,
}

/// What is known to be missing of the run that is being copied.
#[derive(Default)]
struct Notes {
    run: Option<u32>,
    frames: BTreeMap<&'static str, u64>,
    rows: u64,
    why: Vec<String>,
    /// Rows and weights whose payload is lost.
    bare_rows: u64,
    lost_payloads: BTreeSet<u64>,
    /// Rows of steps without a commit mark so far.
    uncommitted: BTreeMap<u32, u64>,
}

impl Copier<'_> {
    fn frame(&mut self, header: &FrameHeader) -> Result<()> {
        self.account_for_hole(header.seq);
        self.seq = header.seq.saturating_add(1);
        match header.kind {
            // Of the file itself: the new one has its own.
            Kind::Index | Kind::PayloadIndex | Kind::Seal | Kind::Sync => {
                return match self.input.body(header) {
                    Err(error) if error.kind() == ErrorKind::Damaged => {
                        self.lose(header.kind.name(), 1, 0);
                        Ok(())
                    }
                    read => read.map(drop),
                };
            }
            Kind::Payload if self.notes.run != Some(header.run) => {
                self.strays.insert(header.payload, *header);
                return Ok(());
            }
            Kind::Run => {
                self.note_losses()?;
                self.notes.run = None;
                if header.run == NO_RUN || header.run < self.next_run {
                    // Its number is another run's: what follows cannot be told apart.
                    *self.lost.entry(header.kind.name()).or_default() += 1;
                    *self.strangers.entry(header.run).or_default() += 1;
                    return Ok(());
                }
            }
            _ if self.notes.run != Some(header.run) => {
                *self.strangers.entry(header.run).or_default() += 1;
                *self.lost.entry(header.kind.name()).or_default() += 1;
                return Ok(());
            }
            _ => {}
        }
        match self.copy(header) {
            Ok(()) => *self.kept.entry(header.kind.name()).or_default() += 1,
            Err(error) if error.kind() == ErrorKind::Damaged => {
                let rows = self.inventory.rows(header.seq);
                self.lose(header.kind.name(), 1, rows);
                self.notes.why.push(error.to_string());
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Copies a frame that is right.
    ///
    /// # Errors
    /// Damaged, where it is not: nothing was written then.
    fn copy(&mut self, header: &FrameHeader) -> Result<()> {
        let body = self.input.body(header)?;
        check_record(header, &body)?;
        match header.kind {
            Kind::Payload => return self.copy_payload(header, header.run, PayloadV1::decode(&body)?),
            Kind::Stats => {
                let mut stats = StatsV1::decode(&body)?;
                self.follow_payloads(header.run, &mut stats)?;
                *self.notes.uncommitted.entry(stats.step).or_default() += stats.site.len() as u64;
                return self.writer.stats(header.run, &stats);
            }
            Kind::Weight => {
                let mut weight = WeightV1::decode(&body)?;
                self.follow_values(header.run, &mut weight)?;
                return self.writer.record(header.run, header.step, &weight);
            }
            Kind::Run => {
                self.notes.run = Some(header.run);
                self.next_run = header.run.saturating_add(1);
            }
            Kind::Step => drop(self.notes.uncommitted.remove(&header.step)),
            _ => {}
        }
        self.writer.copy(header, &body)
    }

    fn copy_payload(&mut self, header: &FrameHeader, run: u32, record: PayloadV1) -> Result<()> {
        Payload::decode(&record)?;
        let rows = record.rows;
        let number = self.writer.payload(run, header.step, record)?;
        self.payloads.insert(header.payload, (number, rows));
        Ok(())
    }

    /// Frames between the last one and number `next` are missing: says which, as far as anything tells.
    fn account_for_hole(&mut self, next: u64) {
        let Some((start, end)) = self.hole.take() else { return };
        let missing = next.saturating_sub(self.seq);
        let listed = self.inventory.listed(self.seq..next);
        let mut unknown = missing.saturating_sub(listed.len() as u64);
        for (kind, rows) in listed {
            self.lose(kind.name(), 1, rows);
        }
        if unknown == 1 && self.inventory.is_index(start) {
            self.lose(Kind::Index.name(), 1, 0);
            unknown = 0;
        }
        if unknown > 0 {
            self.lose("unknown", unknown, 0);
        }
        self.notes.why.push(format!("bytes {start} to {end} hold no whole frame"));
    }

    fn lose(&mut self, kind: &'static str, frames: u64, rows: u64) {
        *self.lost.entry(kind).or_default() += frames;
        *self.notes.frames.entry(kind).or_default() += frames;
        self.notes.rows += rows;
    }

    /// Gives rows of run `run` the new numbers of their payloads, and no payload where theirs is lost.
    fn follow_payloads(&mut self, run: u32, stats: &mut StatsV1) -> Result<()> {
        for (payload, row) in stats.payload.iter_mut().zip(&mut stats.payload_row).filter(|(payload, _)| **payload != 0)
        {
            match self.followed(run, *payload, *row)? {
                Some(number) => *payload = number,
                None => {
                    self.notes.bare_rows += 1;
                    (*payload, *row) = (0, 0);
                }
            }
        }
        Ok(())
    }

    /// The same for a weight, whose values are kept whole or not at all.
    fn follow_values(&mut self, run: u32, weight: &mut WeightV1) -> Result<()> {
        let mut whole = true;
        for payload in weight.payloads.iter_mut().chain(&mut weight.scale_payloads) {
            match self.followed(run, *payload, 0)? {
                Some(number) => *payload = number,
                None => whole = false,
            }
        }
        if !whole {
            self.notes.bare_rows += 1;
            weight.payloads.clear();
            weight.scale_payloads.clear();
            weight.scale_elements = 0;
        }
        Ok(())
    }

    /// The new number of a payload that has a row `row`; `None` where it is lost, which is noted.
    fn followed(&mut self, run: u32, payload: u64, row: u32) -> Result<Option<u64>> {
        if let Some(stray) = self.strays.remove(&payload) {
            self.adopt(&stray, run)?;
        }
        let found = self.payloads.get(&payload).filter(|(_, rows)| row < *rows).map(|(number, _)| *number);
        if found.is_none() {
            self.notes.lost_payloads.insert(payload);
        }
        Ok(found)
    }

    /// Copies a payload of a run that is lost for a row of run `run` that shares it.
    fn adopt(&mut self, stray: &FrameHeader, run: u32) -> Result<()> {
        let copied = self.input.body(stray).and_then(|body| {
            check_record(stray, &body)?;
            self.copy_payload(stray, run, PayloadV1::decode(&body)?)
        });
        let (count, result) = match copied {
            Err(error) if error.kind() == ErrorKind::Damaged => (&mut self.lost, Ok(())),
            copied => (&mut self.kept, copied),
        };
        *count.entry(Kind::Payload.name()).or_default() += 1;
        result
    }

    /// Writes what the run that ends here lost.
    fn note_losses(&mut self) -> Result<()> {
        let mut notes = std::mem::take(&mut self.notes);
        for own in [Kind::Index, Kind::PayloadIndex, Kind::Seal, Kind::Sync] {
            // They were of the file, not of what was recorded, and the new file has its own.
            notes.frames.remove(own.name());
        }
        if ["step", "unknown"].iter().any(|kind| notes.frames.contains_key(kind)) && !notes.uncommitted.is_empty() {
            notes.rows += notes.uncommitted.values().sum::<u64>();
            let steps: Vec<String> = notes.uncommitted.keys().map(u32::to_string).collect();
            notes
                .why
                .push(format!("rows of step {} are kept without the mark that their step is complete", list(&steps)));
        }
        if !notes.frames.is_empty() {
            let frames: Vec<String> = notes.frames.iter().map(|(kind, frames)| format!("{frames} {kind}")).collect();
            let what = format!("frames: {}", frames.join(", "));
            self.lost_in(notes.run, LossV1 { what, rows: notes.rows, why: list(&notes.why) })?;
        }
        if notes.bare_rows > 0 {
            let payloads: Vec<String> = notes.lost_payloads.iter().map(u64::to_string).collect();
            let why = format!("lost with payload {} of the original file", list(&payloads));
            self.lost_in(notes.run, LossV1 { what: "tensors".to_owned(), rows: notes.bare_rows, why })?;
        }
        Ok(())
    }

    fn lost_in(&mut self, run: Option<u32>, loss: LossV1) -> Result<()> {
        if let Some(run) = run {
            self.writer.record(run, 0, &loss)?;
        }
        self.losses.push((run, loss));
        Ok(())
    }

    /// Accounts for what is behind the last whole frame, and seals.
    fn end(&mut self) -> Result<()> {
        if let Some((start, end)) = self.hole.take() {
            let seal = self.inventory.could_be_seal(start, end);
            self.lose(if seal { Kind::Seal.name() } else { "unknown" }, 1, 0);
            self.notes.why.push(format!("bytes {start} to {end}, the last, hold no whole frame"));
        }
        self.note_losses()?;
        if !self.strays.is_empty() {
            *self.lost.entry(Kind::Payload.name()).or_default() += self.strays.len() as u64;
        }
        for (run, frames) in std::mem::take(&mut self.strangers) {
            let what = format!("run {run} of the original file: {frames} frames");
            let why = "its identity is lost".to_owned();
            self.losses.push((None, LossV1 { what, rows: 0, why }));
        }
        self.writer.seal()
    }
}

/// The first few of `items`, and how many more there are.
fn list(items: &[String]) -> String {
    let shown = items.iter().take(REASONS).cloned().collect::<Vec<_>>().join("; ");
    match items.len().saturating_sub(REASONS) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}
