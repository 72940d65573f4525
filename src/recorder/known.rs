//! Contents that the file holds already, as a hint to the packers: the writer decides.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard};

/// Hashes that are held, as many as the writer remembers: at most about 80 MB of memory.
const MOST: usize = 1 << 20;

/// Content hashes of payloads that are stored or on their way to the file.
pub struct Known(Mutex<HashSet<[u8; 32]>>);

impl Known {
    /// The hashes of what is stored.
    pub fn new<'a>(stored: impl Iterator<Item = &'a [u8; 32]>) -> Self {
        Known(Mutex::new(stored.copied().collect()))
    }

    /// Notes a hash; tells whether it was there before.
    pub fn note(&self, hash: [u8; 32]) -> bool {
        let mut known = self.hashes();
        if known.len() >= MOST { known.contains(&hash) } else { !known.insert(hash) }
    }

    fn hashes(&self) -> MutexGuard<'_, HashSet<[u8; 32]>> {
        self.0.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}
