//! Page-locked memory of the host.

#![allow(unsafe_code)]

use super::device::{Device, check};
use super::params::RowRecord;
use crate::error::{Error, Result};
use cudarc::driver::result;
use std::sync::Arc;

/// Page-locked bytes on the host, which the card writes to directly.
pub(super) struct Pinned {
    address: *mut u8,
    bytes: usize,
    device: Arc<Device>,
}

// SAFETY: plain memory that its owner alone points to.
unsafe impl Send for Pinned {}
// SAFETY: shared references only read.
unsafe impl Sync for Pinned {}

impl Pinned {
    /// `bytes` of cached page-locked memory.
    pub(super) fn new(device: &Arc<Device>, bytes: usize) -> Result<Self> {
        device.bind()?;
        // SAFETY: freed in drop, with the context alive.
        let address = check(&format!("lock {bytes} bytes of host memory"), unsafe { result::malloc_host(bytes, 0) })?;
        // Defined bytes from the start: a copy that failed leaves zeros, not another process's memory.
        // SAFETY: the driver just gave `bytes` writable bytes.
        unsafe { std::ptr::write_bytes(address.cast::<u8>(), 0, bytes) };
        Ok(Pinned { address: address.cast(), bytes, device: Arc::clone(device) })
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where a copy may write; the caller waits for it before it reads, but for [`Pinned::has_arrived`].
    pub(super) fn target(&self, offset: usize, length: usize) -> Result<(*mut u8, usize)> {
        if offset.checked_add(length).is_none_or(|end| end > self.bytes) {
            return Err(Error::internal("a copy that exceeds its page-locked memory"));
        }
        // SAFETY: within the allocation, as was just checked.
        Ok((unsafe { self.address.add(offset) }, length))
    }

    /// Makes every byte one that is not expected, where no copy is under way.
    pub(super) fn clear(&mut self) {
        // SAFETY: the whole allocation, which nobody else points to.
        unsafe { std::ptr::write_bytes(self.address, 0xFF, self.bytes) };
    }

    /// Whether something arrived in the eight bytes from word `word` on since they were cleared. What else was copied may
    /// still be under way.
    pub(super) fn has_arrived(&self, word: usize) -> bool {
        if word >= self.bytes / size_of::<u64>() {
            return true;
        }
        // SAFETY: within the allocation, which is aligned to pages; the card may write there meanwhile, so the read is
        // volatile and nothing is made of it but this answer.
        unsafe { self.address.cast::<u64>().add(word).read_volatile() != u64::MAX }
    }

    /// `count` values of `T` from byte `offset` on; called after the event behind the copy that wrote them.
    pub(super) fn values<T: Delivered>(&self, offset: usize, count: usize) -> &[T] {
        let end = count.checked_mul(size_of::<T>()).and_then(|length| offset.checked_add(length));
        let aligned = (self.address as usize + offset).is_multiple_of(align_of::<T>());
        if !aligned || end.is_none_or(|end| end > self.bytes) {
            return &[];
        }
        // SAFETY: within the allocation and aligned; every bit pattern is a T; nothing writes while it is borrowed.
        unsafe { std::slice::from_raw_parts(self.address.add(offset).cast(), count) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.device.bind().is_ok() {
            // SAFETY: allocated by malloc_host, freed once. A failure leaves it to the process's end.
            let _ = unsafe { result::free_host(self.address.cast()) };
        }
    }
}

/// Types that any bytes are a value of.
///
/// # Safety
/// Every bit pattern has to be valid.
pub(super) unsafe trait Delivered {}
// SAFETY: any 32 bits are an f32.
unsafe impl Delivered for f32 {}
// SAFETY: any 64 bits are a u64.
unsafe impl Delivered for u64 {}
// SAFETY: made of integers and floats without padding.
unsafe impl Delivered for RowRecord {}
