//! A payload's archive without a copy of its values.

use super::PayloadV1;
use crate::error::{Error, Result};
use rkyv::rancor::BoxedError;
use rkyv::ser::{Positional, Writer};

/// The archive of a payload around its planes' bytes, which stay where they are: what [`super::Record::encode`] gives
/// is `head`, the record's `bytes` and `tail`, one after the other. The payload's number stands in the tail.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Framed {
    /// Before the planes' bytes: row boundaries and the planes' places.
    pub head: Vec<u8>,
    /// Behind them: the root.
    pub tail: Vec<u8>,
}

impl PayloadV1 {
    /// Archives everything but the planes' bytes.
    pub fn framed(&self) -> Result<Framed> {
        let around = Around { bytes: &self.bytes, head: Vec::new(), tail: None };
        let around = rkyv::api::high::to_bytes_in::<_, BoxedError>(self, around)
            .map_err(|cause| Error::internal("cannot archive a payload record").because(cause))?;
        let tail = around.tail.ok_or_else(|| Error::internal("an archive does not hold its payload's bytes"))?;
        Ok(Framed { head: around.head, tail })
    }
}

/// Takes what is written, but leaves out `bytes` when they come.
struct Around<'a> {
    bytes: &'a [u8],
    head: Vec<u8>,
    /// From when `bytes` came.
    tail: Option<Vec<u8>>,
}

impl Positional for Around<'_> {
    fn pos(&self) -> usize {
        self.head.len() + self.tail.as_ref().map_or(0, |tail| self.bytes.len() + tail.len())
    }
}

impl<E> Writer<E> for Around<'_> {
    fn write(&mut self, written: &[u8]) -> Result<(), E> {
        match &mut self.tail {
            Some(tail) => tail.extend_from_slice(written),
            // The same memory, not only equal bytes.
            None if std::ptr::eq(written, self.bytes) => self.tail = Some(Vec::new()),
            None => self.head.extend_from_slice(written),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{PlaneV1, Record};
    use proptest::prelude::*;
    use rkyv::util::AlignedVec;

    proptest! {
        #[test]
        fn around_the_bytes_is_the_whole_archive(payload in 1u64.., offsets in prop::collection::vec(any::<u32>(), 0..9),
                                                 planes in 0u8..5, bytes in prop::collection::vec(any::<u8>(), 0..99)) {
            let planes = (0..planes).map(|n| PlaneV1 { codec: n % 2, offset: 7, length: u32::from(n) }).collect();
            let record = PayloadV1 { payload, rows: 3, width: 0, offsets, captured_dtype: 1, stored_dtype: 2, planes,
                                     raw_length: 4, blake3: [5; 32], bytes };
            let Framed { head, tail } = record.framed().unwrap();
            let whole = record.encode(AlignedVec::new()).unwrap();
            prop_assert_eq!([&head[..], &record.bytes, &tail].concat(), whole.as_slice());
        }

        #[test]
        fn the_number_stands_in_the_tail(a in any::<u64>(), b in any::<u64>()) {
            let record = |payload| PayloadV1 { payload, rows: 1, width: 1, offsets: Vec::new(), captured_dtype: 0,
                                               stored_dtype: 0, planes: Vec::new(), raw_length: 4, blake3: [5; 32],
                                               bytes: vec![1, 2, 3, 4, 5] };
            prop_assert_eq!(record(a).framed().unwrap().head, record(b).framed().unwrap().head);
        }
    }
}
