//! Buffers of packed values, used again: memory that was written to before costs no page faults.

use crate::file::PAYLOAD_TARGET_BYTES;
use std::sync::{Mutex, MutexGuard};

/// Below this, the allocator is fast enough. It also keeps small payloads from holding large buffers while they wait.
const WORTH_KEEPING: usize = PAYLOAD_TARGET_BYTES / 4;

/// Buffers that wait for their next use, at most `most` of them and each at most as large as a payload aims at.
pub struct Spare {
    buffers: Mutex<Vec<Vec<u8>>>,
    most: usize,
}

impl Spare {
    /// None yet.
    pub fn new(most: usize) -> Self {
        Spare { buffers: Mutex::new(Vec::new()), most }
    }

    /// A buffer with room for `length` bytes; what it holds means nothing.
    pub fn take(&self, length: usize) -> Vec<u8> {
        let spare = if length < WORTH_KEEPING { None } else { self.buffers().pop() };
        let mut buffer = spare.unwrap_or_default();
        buffer.reserve_exact(length.saturating_sub(buffer.len()));
        buffer
    }

    /// Takes a buffer back.
    pub fn give(&self, buffer: Vec<u8>) {
        let mut buffers = self.buffers();
        if (WORTH_KEEPING..=PAYLOAD_TARGET_BYTES).contains(&buffer.capacity()) && buffers.len() < self.most {
            buffers.push(buffer);
        }
    }

    fn buffers(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.buffers.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_buffers_come_back_and_others_do_not() {
        let spare = Spare::new(1);
        spare.give(Vec::with_capacity(WORTH_KEEPING + 77));
        spare.give(Vec::with_capacity(WORTH_KEEPING + 99)); // one too many
        assert!(spare.take(10).capacity() < WORTH_KEEPING, "small contents hold no large buffer");
        assert_eq!(spare.take(WORTH_KEEPING).capacity(), WORTH_KEEPING + 77);
        assert_eq!(spare.take(WORTH_KEEPING).capacity(), WORTH_KEEPING, "there was only one");
        for capacity in [WORTH_KEEPING - 1, PAYLOAD_TARGET_BYTES + 1] {
            spare.give(Vec::with_capacity(capacity));
            assert!(spare.buffers().is_empty(), "{capacity}");
        }
    }
}
