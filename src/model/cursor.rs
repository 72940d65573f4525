//! Reading little-endian numbers and texts in sequence, never past the end.

use crate::error::{Error, Result};

pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Cursor { bytes, position: 0 }
    }

    /// Reads from `position` on, or nothing where the bytes end before.
    pub(super) fn starting(bytes: &'a [u8], position: usize) -> Self {
        Cursor { bytes, position: position.min(bytes.len()) }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> u64 {
        self.position as u64
    }

    /// The next `count` bytes.
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.position..];
        let taken = rest.get(..count).ok_or_else(|| self.short(count as u64))?;
        self.position += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Bytes behind a 64-bit length.
    pub(super) fn counted(&mut self) -> Result<&'a [u8]> {
        let length = self.u64()?;
        let count = usize::try_from(length).map_err(|_| self.short(length))?;
        self.take(count)
    }

    /// A name: UTF-8 behind a 64-bit length.
    pub(super) fn text(&mut self) -> Result<String> {
        let at = self.position();
        let bytes = self.counted()?;
        let text = std::str::from_utf8(bytes);
        text.map(str::to_owned).map_err(|cause| Error::malformed("a name is no UTF-8").at(at).because(cause))
    }

    /// Refuses `count` things of at least `size` bytes that cannot all follow.
    pub(super) fn expect(&self, count: u64, size: u64) -> Result<()> {
        let left = (self.bytes.len() - self.position) as u64;
        match count.checked_mul(size) {
            Some(total) if total <= left => Ok(()),
            total => Err(self.short(total.unwrap_or(u64::MAX))),
        }
    }

    fn short(&self, wanted: u64) -> Error {
        let left = self.bytes.len() - self.position;
        Error::malformed(format!("the file is cut short or damaged: {wanted} bytes should follow, {left} do"))
            .at(self.position())
    }
}
