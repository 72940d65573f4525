//! Where the tensors of a batch are put: memory of their own, or an arena whose addresses repeat from step to step.

use super::device::{Device, DeviceMemory, check};
use crate::error::{Error, Result};
use cudarc::driver::CudaEvent;
use std::sync::Arc;

/// Bytes of one chunk of an arena.
const CHUNK: usize = 32 << 20;
/// Where tensors begin: what the widest loads need.
const ALIGNMENT: usize = 256;

/// Where a batch's tensors are put: an arena for few rows, whose addresses repeat, else memory of their own.
pub(super) struct Memory {
    device: Arc<Device>,
    arenas: [(Arena, Option<Arc<CudaEvent>>); 2],
    arena: Option<usize>,
    next: usize,
}

impl Memory {
    pub(super) fn new(device: &Arc<Device>) -> Self {
        Memory { device: Arc::clone(device), arenas: Default::default(), arena: None, next: 0 }
    }

    /// Whether this batch's requests get the same addresses as those of the batch before the last.
    pub(super) fn repeats(&self) -> bool {
        self.arena.is_some()
    }

    /// A batch begins. Two arenas take turns, so that copies of one step run beside the next; the stream waits for
    /// those of the step before that.
    pub(super) fn begin(&mut self, few: bool) -> Result<()> {
        self.arena = None;
        if few {
            let (arena, copied) = &mut self.arenas[self.next];
            if let Some(event) = copied.take() {
                check("order two streams", self.device.streams.compute.wait(&event))?;
            }
            arena.reset();
            self.arena = Some(self.next);
            self.next = (self.next + 1) % self.arenas.len();
        }
        Ok(())
    }

    /// Copies out of this batch's memory are through behind `event`.
    pub(super) fn copied(&mut self, event: Arc<CudaEvent>) {
        if let Some(arena) = self.arena {
            self.arenas[arena].1 = Some(event);
        }
    }

    /// `bytes` for `what` and their address.
    pub(super) fn take(&mut self, bytes: usize, what: impl FnOnce() -> String) -> Result<(Arc<DeviceMemory>, u64)> {
        match self.arena {
            Some(arena) => self.arenas[arena].0.take(&self.device, bytes, what),
            None => {
                let memory = self.device.alloc(bytes, &what())?;
                let address = memory.address();
                Ok((memory, address))
            }
        }
    }
}

/// Memory for the tensors of one step: the same requests in the same order get the same addresses, so that a captured
/// graph fits every step.
#[derive(Default)]
struct Arena {
    chunks: Vec<Arc<DeviceMemory>>,
    chunk: usize,
    used: usize,
}

impl Arena {
    /// Begins again. Whatever the last step left is overwritten in stream order.
    fn reset(&mut self) {
        (self.chunk, self.used) = (0, 0);
    }

    /// `bytes` of the next chunk that has room.
    fn take(
        &mut self,
        device: &Arc<Device>,
        bytes: usize,
        what: impl FnOnce() -> String,
    ) -> Result<(Arc<DeviceMemory>, u64)> {
        while self.chunks.get(self.chunk).is_some_and(|chunk| self.used + bytes > chunk.bytes()) {
            (self.chunk, self.used) = (self.chunk + 1, 0);
        }
        if self.chunk == self.chunks.len() {
            self.chunks.push(device.alloc(CHUNK.max(bytes), &what())?);
        }
        let chunk = self.chunks.get(self.chunk).ok_or_else(|| Error::internal("an arena without a chunk"))?;
        let address = chunk.address() + self.used as u64;
        self.used = (self.used + bytes).next_multiple_of(ALIGNMENT);
        Ok((Arc::clone(chunk), address))
    }
}
