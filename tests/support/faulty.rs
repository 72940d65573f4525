//! Storage that fails when it is told to, and forgets what was not synced.

use super::trace::Memory;
use actrace::file::Storage;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// When and how an operation fails.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// Which operation, from 0: appends and syncs are counted together.
    pub at: usize,
    /// Whether every later operation fails too.
    pub lasting: bool,
    /// Bytes of a failing append that are written nevertheless.
    pub written: usize,
}

/// An image in memory behind storage that fails; clones share all of it.
#[derive(Clone, Default)]
pub struct Faulty {
    pub image: Memory,
    pub fault: Option<Fault>,
    /// Bytes that the disk holds at most; an append beyond writes what fits.
    pub capacity: Option<usize>,
    operations: Arc<AtomicUsize>,
    synced: Arc<AtomicUsize>,
}

impl Faulty {
    pub fn failing(fault: Fault) -> Self {
        Faulty { fault: Some(fault), ..Faulty::default() }
    }

    pub fn with_capacity(capacity: usize) -> Self {
        Faulty { capacity: Some(capacity), ..Faulty::default() }
    }

    /// Operations so far.
    pub fn operations(&self) -> usize {
        self.operations.load(Ordering::Relaxed)
    }

    /// Bytes that the last sync that succeeded made durable.
    pub fn synced(&self) -> usize {
        self.synced.load(Ordering::Relaxed)
    }

    /// How much of an append of `wanted` bytes is written before it fails; `None` where it does not fail.
    fn failure(&self, wanted: usize) -> Option<(usize, io::Error)> {
        let operation = self.operations.fetch_add(1, Ordering::Relaxed);
        let fault = self.fault.filter(|fault| operation == fault.at || (fault.lasting && operation > fault.at));
        if let Some(fault) = fault {
            return Some((fault.written.min(wanted), io::Error::other("a planted fault")));
        }
        let room = self.capacity?.saturating_sub(self.image.bytes().len());
        (wanted > room).then(|| (room, io::ErrorKind::StorageFull.into()))
    }
}

impl Storage for Faulty {
    fn append(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let bytes = parts.concat();
        match self.failure(bytes.len()) {
            None => self.image.append(&[&bytes]),
            Some((written, error)) => {
                self.image.append(&[&bytes[..written]])?;
                Err(error)
            }
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        if let Some((_, error)) = self.failure(0) {
            return Err(error);
        }
        self.synced.store(self.image.bytes().len(), Ordering::Relaxed);
        Ok(())
    }

    fn path(&self) -> &Path {
        Path::new("faulty.actrace")
    }
}
