//! A number of bytes that may be in flight: back-pressure that blocks.

use std::sync::{Condvar, Mutex};

/// Bytes in flight, at most `limit` (or one item that is larger by itself).
pub struct Budget {
    limit: usize,
    used: Mutex<usize>,
    freed: Condvar,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Budget { limit, used: Mutex::new(0), freed: Condvar::new() }
    }

    /// Waits until `bytes` fit. What is larger than the whole budget waits until nothing else is in flight.
    pub fn acquire(&self, bytes: usize) {
        let used = self.used.lock().unwrap_or_else(|poison| poison.into_inner());
        let full = |used: &mut usize| *used > 0 && *used + bytes > self.limit;
        let mut used = self.freed.wait_while(used, full).unwrap_or_else(|poison| poison.into_inner());
        *used += bytes;
    }

    /// Gives `bytes` back.
    pub fn release(&self, bytes: usize) {
        *self.used.lock().unwrap_or_else(|poison| poison.into_inner()) -= bytes;
        self.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    #[test]
    fn what_does_not_fit_waits_for_a_release() {
        let budget = Arc::new(Budget::new(10));
        budget.acquire(25); // alone, though larger than the budget
        let (done, waiting) = channel();
        let other = Arc::clone(&budget);
        let thread = std::thread::spawn(move || {
            other.acquire(1);
            done.send(()).unwrap();
        });
        assert!(waiting.try_recv().is_err(), "nothing fits beside it");
        budget.release(25);
        waiting.recv().unwrap();
        thread.join().unwrap();
    }
}
