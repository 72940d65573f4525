//! Payloads that were decoded last. Several tensors of a layer share one, and several operations read each tensor.

use crate::error::Result;
use crate::open::{Payload, Trace};
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
    /// Payload `number` of `trace`.
    ///
    /// # Errors
    /// Those of [`Trace::payload`].
    pub(super) fn payload(&self, trace: &Trace, number: u64) -> Result<Arc<Payload>> {
        if let Some(payload) = self.kept().payloads.get(&number) {
            return Ok(Arc::clone(payload));
        }
        // Two threads may decode the same one: that costs time now and then, a lock while decoding would always.
        let payload = Arc::new(trace.payload(number)?);
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
