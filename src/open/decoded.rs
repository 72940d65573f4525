//! Payloads that were decoded last. The rows that a token has in a layer share one, so whoever reads point by
//! point comes back to it.

use super::Payload;
use crate::error::Result;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of values that are kept, about: what a few layers of a decode step and a few pieces of a prefill take.
const KEPT_BYTES: usize = 64 << 20;

/// Decoded payloads of one trace, the oldest of which make room for new ones. Shared between threads.
#[derive(Debug, Default)]
pub(super) struct Decoded(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    payloads: HashMap<u64, Arc<Payload>>,
    order: VecDeque<u64>,
    bytes: usize,
}

impl Decoded {
    /// Payload `number`: the one that is kept, or what `decode` makes.
    ///
    /// # Errors
    /// Those of `decode`.
    pub(super) fn payload(&self, number: u64, decode: impl FnOnce() -> Result<Payload>) -> Result<Arc<Payload>> {
        if let Some(payload) = self.kept().payloads.get(&number) {
            return Ok(Arc::clone(payload));
        }
        // Two threads may decode the same one: that costs time now and then, a lock while decoding would always.
        let payload = Arc::new(decode()?);
        self.kept().keep(number, &payload);
        Ok(payload)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn keep(&mut self, number: u64, payload: &Arc<Payload>) {
        if self.payloads.insert(number, Arc::clone(payload)).is_some() {
            return;
        }
        self.order.push_back(number);
        self.bytes += payload.held_bytes();
        while self.bytes > KEPT_BYTES && self.order.len() > 1 {
            let oldest = self.order.pop_front().and_then(|oldest| self.payloads.remove(&oldest));
            self.bytes -= oldest.map_or(0, |oldest| oldest.held_bytes());
        }
    }
}
