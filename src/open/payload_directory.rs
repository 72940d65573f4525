//! Where payloads lie, by number.

use super::directory::{Directory, FrameEntry, listed_payloads};
use super::input::Input;
use crate::error::{Error, Result};
use crate::file::{FrameHeader, Kind};
use crate::record::{PayloadIndexV1, Record};

/// Where each payload lies, by number.
#[derive(Debug, Default)]
pub struct PayloadDirectory {
    /// Stretches of consecutive numbers, ascending.
    stretches: Vec<PayloadIndexV1>,
}

impl PayloadDirectory {
    /// Reads the payload indexes of a file; of payloads that none lists, the frame headers tell.
    pub fn read(input: &Input, directory: &Directory) -> Result<Self> {
        let length = input.length()?;
        let mut stretches = Vec::new();
        for &offset in &directory.payload_indexes {
            let header = input.frame_header(offset, length)?;
            if header.kind != Kind::PayloadIndex {
                return Err(Error::damaged("an index names another frame as its payload index")
                    .at(offset)
                    .in_file(input.path()));
            }
            let index = PayloadIndexV1::decode(&input.body(&header)?);
            stretches.push(index.map_err(|error| error.at(offset).in_file(input.path()))?);
        }
        for header in &directory.loose_payloads {
            let next =
                stretches.last().map(|stretch: &PayloadIndexV1| (stretch.next_payload(), stretch.blake3.is_empty()));
            if next != Some((header.payload, true)) {
                stretches.push(PayloadIndexV1 { first_payload: header.payload, ..PayloadIndexV1::default() });
            }
            if let Some(stretch) = stretches.last_mut() {
                push(stretch, header);
            }
        }
        stretches.sort_by_key(|stretch| stretch.first_payload);
        Ok(PayloadDirectory { stretches })
    }

    /// Where payload `number` begins, or `None` where the file has no such payload.
    pub fn offset(&self, number: u64) -> Option<u64> {
        let after = self.stretches.partition_point(|stretch| stretch.first_payload <= number);
        let stretch = self.stretches.get(after.checked_sub(1)?)?;
        let row = usize::try_from(number - stretch.first_payload).ok()?;
        stretch.offset.get(row).copied()
    }

    /// The number behind the highest: 1 where there is none.
    pub fn next(&self) -> u64 {
        self.stretches.last().map_or(1, PayloadIndexV1::next_payload)
    }

    /// Content hash and number of every indexed payload, oldest first.
    pub fn hashes(&self) -> impl Iterator<Item = ([u8; 32], u64)> + '_ {
        self.stretches.iter().flat_map(|stretch| {
            stretch.blake3.as_chunks::<32>().0.iter().zip(stretch.first_payload..).map(|(hash, number)| (*hash, number))
        })
    }

    /// Entries of all payload frames for the log.
    pub fn entries(&self) -> impl Iterator<Item = FrameEntry> + '_ {
        self.stretches.iter().flat_map(listed_payloads)
    }

    /// The payload index that the next one will have to begin with: payloads that none lists, with their hashes.
    pub fn unindexed(input: &Input, directory: &Directory) -> Result<PayloadIndexV1> {
        let headers = &directory.loose_payloads;
        let first_payload = headers.first().map_or(0, |header| header.payload);
        let mut index = PayloadIndexV1 { first_payload, ..PayloadIndexV1::default() };
        for header in headers {
            let place = |error: Error| error.at(header.offset).in_file(input.path());
            if header.payload != index.next_payload() {
                return Err(place(Error::damaged("payload numbers have a gap")));
            }
            let body = input.body(header)?;
            let payload = crate::record::access::<crate::record::ArchivedPayloadV1>(&body).map_err(place)?;
            push(&mut index, header);
            index.blake3.extend_from_slice(&payload.blake3);
        }
        Ok(index)
    }
}

fn push(index: &mut PayloadIndexV1, header: &FrameHeader) {
    index.seq.push(header.seq);
    index.offset.push(header.offset);
    index.stored_length.push(header.stored_length);
    index.raw_length.push(header.raw_length);
    index.run.push(header.run);
    index.step.push(header.step);
}
