//! What the indexes of a damaged file tell about frames that are not there any more.

use super::input::Input;
use super::walk::Stretch;
use crate::ErrorKind;
use crate::error::Result;
use crate::file::{FrameHeader, Kind};
use crate::record::{IndexV1, PayloadIndexV1, Record, SEAL_BYTES, SealV1};
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

/// Frames that some index lists, and where indexes stood.
#[derive(Debug, Default)]
pub struct Inventory {
    /// Kind and rows, by sequence number.
    frames: BTreeMap<u64, (Kind, u64)>,
    indexes: HashSet<u64>,
    /// End of the last whole frame, where that is an index: a seal follows.
    behind_index: Option<u64>,
}

impl Inventory {
    /// Reads every index that is whole.
    pub fn of(input: &Input, stretches: &[Stretch]) -> Result<Self> {
        let mut inventory = Inventory::default();
        for stretch in stretches {
            let Stretch::Frame(header) = stretch else { continue };
            inventory.behind_index = (header.kind == Kind::Index).then(|| header.end());
            if !matches!(header.kind, Kind::Index | Kind::PayloadIndex | Kind::Seal) {
                continue;
            }
            match inventory.read(input, header) {
                Err(error) if error.kind() != ErrorKind::Damaged => return Err(error),
                // A broken index tells nothing.
                _ => {}
            }
        }
        Ok(inventory)
    }

    fn read(&mut self, input: &Input, header: &FrameHeader) -> Result<()> {
        let body = input.body(header)?;
        match header.kind {
            Kind::Index => {
                let index = IndexV1::decode(&body)?;
                self.indexes.insert(index.previous);
                let kinds = index.kind.iter().map(|code| Kind::from_code(*code));
                let listed = kinds.zip(index.rows.iter().map(|rows| u64::from(*rows)));
                self.frames.extend(index.seq.iter().copied().zip(listed));
            }
            Kind::PayloadIndex => {
                let index = PayloadIndexV1::decode(&body)?;
                self.frames.extend(index.seq.iter().map(|seq| (*seq, (Kind::Payload, 0))));
            }
            _ => {
                self.indexes.insert(SealV1::decode(&body)?.index);
            }
        }
        Ok(())
    }

    /// Rows of frame `seq`, 0 where no index tells.
    pub fn rows(&self, seq: u64) -> u64 {
        self.frames.get(&seq).map_or(0, |(_, rows)| *rows)
    }

    /// Kind and rows of the frames with these numbers, as far as an index tells.
    pub fn listed(&self, seqs: Range<u64>) -> Vec<(Kind, u64)> {
        if seqs.is_empty() { Vec::new() } else { self.frames.range(seqs).map(|(_, listed)| *listed).collect() }
    }

    /// Whether an index stood at `offset`.
    pub fn is_index(&self, offset: u64) -> bool {
        self.indexes.contains(&offset)
    }

    /// Whether a hole at the end of the file is what a seal would leave: right behind an index, and of its length.
    pub fn could_be_seal(&self, start: u64, end: u64) -> bool {
        let seal = FrameHeader::BYTES as u64 + crate::file::padded(SEAL_BYTES as u64);
        self.behind_index == Some(start) && end - start == seal
    }
}
