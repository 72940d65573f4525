//! When a writer syncs, and the sync that is under way beside its writing.

use super::Durability;
use super::storage::DetachedSync;
use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes that are not left to wait for their time: a disk that is idle until then cannot make up for it.
const MUCH: u64 = 64 << 20;

/// What is not synced yet, and what is just being synced.
pub struct Syncing {
    durability: Durability,
    /// When the oldest frame was written that no sync covers; `None` where everything but marks is covered.
    unsynced_since: Option<Instant>,
    /// Bytes that no sync covers.
    unsynced: u64,
    under_way: Option<UnderWay>,
}

/// A sync on a thread of its own.
struct UnderWay {
    since: Instant,
    /// The length of the file when it began: all that it promises.
    durable_to: u64,
    thread: JoinHandle<io::Result<()>>,
}

impl Syncing {
    /// Everything is synced, and from now on what `durability` says.
    pub fn new(durability: Durability) -> Self {
        Syncing { durability, unsynced_since: None, unsynced: 0, under_way: None }
    }

    /// Syncs as `durability` says from now on.
    pub fn follow(&mut self, durability: Durability) {
        self.durability = durability;
    }

    /// Whether every step is to be synced.
    pub fn every_step(&self) -> bool {
        self.durability == Durability::Step
    }

    /// A frame of `bytes` bytes was written that is to be synced.
    pub fn written(&mut self, bytes: u64) {
        self.unsynced_since.get_or_insert_with(Instant::now);
        self.unsynced += bytes;
    }

    /// Whether much is unsynced that no sync keeps waiting: a sync beside the writing can begin before its time.
    pub fn can_begin_early(&self) -> bool {
        let free = self.under_way.is_none() || self.has_ended();
        matches!(self.durability, Durability::Every(_)) && self.unsynced >= MUCH && free
    }

    /// Whether there are frames that no sync covers.
    pub fn is_owed(&self) -> bool {
        self.unsynced_since.is_some()
    }

    /// Everything written so far was synced.
    pub fn synced(&mut self) {
        (self.unsynced_since, self.unsynced) = (None, 0);
    }

    /// Time until the next sync is due, or the mark of the one that is under way; `None` where only further frames can
    /// bring that about.
    pub fn due_in(&self) -> Option<Duration> {
        let Durability::Every(wait) = self.durability else { return None };
        let since = self.unsynced_since.or(self.under_way.as_ref().map(|sync| sync.since))?;
        Some(wait.saturating_sub(since.elapsed()))
    }

    /// Starts `sync` on a thread of its own, for the `durable_to` bytes that the file has.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn start(&mut self, sync: DetachedSync, durable_to: u64) -> io::Result<()> {
        let thread = std::thread::Builder::new().name("actrace-sync".to_owned()).spawn(sync)?;
        self.under_way = Some(UnderWay { since: Instant::now(), durable_to, thread });
        self.synced();
        Ok(())
    }

    /// Whether the sync that was under way has come to its end.
    pub fn has_ended(&self) -> bool {
        self.under_way.as_ref().is_some_and(|sync| sync.thread.is_finished())
    }

    /// Waits for the sync that is under way, if any; how far the file is durable then.
    ///
    /// # Errors
    /// Those of the sync.
    pub fn wait(&mut self) -> io::Result<Option<u64>> {
        let Some(UnderWay { durable_to, thread, .. }) = self.under_way.take() else { return Ok(None) };
        thread.join().map_err(|_| io::Error::other("the thread that syncs ended in a panic"))??;
        Ok(Some(durable_to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn much_is_synced_before_its_time_where_no_sync_is_under_way() {
        let hour = Durability::Every(Duration::from_secs(3600));
        let mut syncing = Syncing::new(hour);
        syncing.written(MUCH - 1);
        assert!(!syncing.can_begin_early());
        syncing.written(1);
        assert!(syncing.can_begin_early());
        let (permit, permits) = channel();
        syncing.start(Box::new(move || permits.recv().map_err(std::io::Error::other)), MUCH).unwrap();
        syncing.written(MUCH);
        assert!(!syncing.can_begin_early(), "one at a time");
        permit.send(()).unwrap();
        assert_eq!(syncing.wait().unwrap(), Some(MUCH));
        assert!(syncing.can_begin_early());
        syncing.synced();
        assert!(!syncing.can_begin_early());
        for level in [Durability::None, Durability::Step] {
            let mut syncing = Syncing::new(level);
            syncing.written(2 * MUCH);
            assert!(!syncing.can_begin_early(), "{level:?} says when");
        }
    }
}
