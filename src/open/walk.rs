//! From frame to frame without an index: what stands where, and what holes between whole frames mean.

use super::input::Input;
use crate::ErrorKind;
use crate::error::Result;
use crate::file::{ALIGNMENT, FileHeader, FrameHeader};

/// What a file is found to be. docs/file-states.md says what each means to its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Complete: a seal ends it.
    Sealed,
    /// No seal at the end: a writer is at work, or was killed. Every whole frame is readable, and what follows the
    /// last of them is nothing or the beginning of a frame.
    Torn,
    /// Bytes that were not known to be durable are not what was written, with or without whole frames behind them:
    /// what a power loss does to an unsynced tail.
    TailLost,
    /// Bytes before a durable mark (a SYNC frame or a seal) are not what was written.
    Damaged,
}

impl State {
    /// The word in reports.
    pub fn name(self) -> &'static str {
        match self {
            State::Sealed => "sealed",
            State::Torn => "torn",
            State::TailLost => "tail_lost",
            State::Damaged => "damaged",
        }
    }

    /// The state of a file without a seal at its end, from where its holes begin and how far it was durable.
    pub(super) fn of_unsealed(holes: impl IntoIterator<Item = u64>, durable_to: u64) -> State {
        let first = holes.into_iter().min();
        match first {
            None => State::Torn,
            Some(start) if start < durable_to => State::Damaged,
            Some(_) => State::TailLost,
        }
    }
}

/// A stretch of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stretch {
    /// A frame whose header is right and whose body lies within the file (it is not read here).
    Frame(FrameHeader),
    /// No frame begins here, up to the next whole one or the end of the file.
    Hole(u64, u64),
    /// The file ends within a frame that begins here.
    Cut(u64),
}

/// The stretches of a file, from the first frame on.
pub struct Walk<'a> {
    input: &'a Input,
    offset: u64,
    length: u64,
}

impl<'a> Walk<'a> {
    /// Walks the first `length` bytes of `input`.
    pub fn new(input: &'a Input, length: u64) -> Self {
        Walk { input, offset: FileHeader::BYTES as u64, length }
    }

    fn stretch(&mut self) -> Result<Stretch> {
        let start = self.offset;
        if let Some(found) = self.at(start)? {
            self.offset = if let Stretch::Frame(header) = &found { header.end() } else { self.length };
            return Ok(found);
        }
        let mut next = start;
        loop {
            next = self.input.find_frame(next + ALIGNMENT as u64, self.length)?;
            // A hole may be followed by a whole frame, or by one that the file ends in.
            if next >= self.length || self.at(next)?.is_some() {
                self.offset = next;
                return Ok(Stretch::Hole(start, next.min(self.length)));
            }
        }
    }

    /// The frame that begins at `offset`, whole or cut, if one does. Its header is read once: between two reads the next
    /// writer may have put another one there.
    fn at(&self, offset: u64) -> Result<Option<Stretch>> {
        let rest = self.length - offset;
        if rest < FrameHeader::BYTES as u64 {
            let begins = self.input.begins_frame(offset, rest as usize)?;
            return Ok(begins.then_some(Stretch::Cut(offset)));
        }
        match self.input.frame_header(offset, u64::MAX) {
            Ok(header) if header.end() <= self.length => Ok(Some(Stretch::Frame(header))),
            Ok(_) => Ok(Some(Stretch::Cut(offset))),
            Err(error) if error.kind() == ErrorKind::Damaged => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Stretch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.offset >= self.length {
            return None;
        }
        let stretch = self.stretch();
        if stretch.is_err() {
            self.offset = self.length;
        }
        Some(stretch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_is_judged_by_the_last_durable_mark() {
        assert_eq!(State::of_unsealed([], 4096), State::Torn);
        assert_eq!(State::of_unsealed([4096, 8192], 4096), State::TailLost);
        assert_eq!(State::of_unsealed([8192, 4032], 4096), State::Damaged);
    }
}
