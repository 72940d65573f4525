//! What a durability level promises is what the marks in the file say: a frame before a mark was synced.

use crate::command;
use crate::support::trace::{HEADER, Memory, frames, run, stats, step, verified};
use actrace::file::{DetachedSync, Durability, Kind, Storage, Writer};
use actrace::open::{State, Trace};
use actrace::record::{Record, SyncV1};
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Remembers how long the image was at each sync.
#[derive(Clone, Default)]
struct Disk {
    memory: Memory,
    synced: Arc<Mutex<Vec<u64>>>,
}

impl Storage for Disk {
    fn append(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        self.memory.append(parts)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.synced.lock().unwrap().push(self.memory.bytes().len() as u64);
        Ok(())
    }
    fn path(&self) -> &Path {
        self.memory.path()
    }
}

/// Two steps and an end at a level: lengths at each sync, and where the marks say it is durable to.
fn recorded(durability: Durability) -> (Vec<u64>, Vec<u64>, Vec<u8>) {
    let disk = Disk::default();
    let mut writer = Writer::create(disk.clone(), HEADER).unwrap().with_durability(durability);
    let number = writer.begin_run(&run()).unwrap();
    for number_of_step in 0..2 {
        let mut stats = stats(number_of_step);
        stats.payload.fill(0);
        writer.stats(number, &stats).unwrap();
        writer.record(number, number_of_step, &step(number_of_step)).unwrap();
        writer.step_ended().unwrap();
    }
    writer.seal().unwrap();
    let image = disk.memory.bytes();
    let marks = frames(&image).into_iter().filter(|frame| frame.kind == Kind::Sync).map(|frame| {
        let body = &image[frame.offset as usize + 64..][..frame.stored_length as usize];
        SyncV1::decode(body).unwrap().durable_to
    });
    let marks = marks.collect();
    (disk.synced.lock().unwrap().clone(), marks, image)
}

#[test]
fn every_level_syncs_a_new_file_and_a_sealed_one() {
    for level in [Durability::None, Durability::Step, Durability::Every(Duration::from_secs(3600))] {
        let (synced, marks, image) = recorded(level);
        assert_eq!(synced.first(), Some(&64), "{level:?}: the header");
        assert_eq!(synced.last(), Some(&(image.len() as u64)), "{level:?}: the seal");
        let seal = frames(&image).last().unwrap().offset;
        assert_eq!(synced[synced.len() - 2], seal, "{level:?}: a seal is written when all before it is durable");
        assert_eq!(marks.len(), if level == Durability::Step { 2 } else { 0 }, "{level:?}");
    }
}

#[test]
fn a_mark_says_what_was_synced_and_follows_every_step() {
    for level in [Durability::Step, Durability::Every(Duration::ZERO)] {
        let (synced, marks, image) = recorded(level);
        assert!(marks.iter().all(|mark| synced.contains(mark)), "{level:?}: {marks:?} of {synced:?}");
        let steps: Vec<u64> = frames(&image).iter().filter(|f| f.kind == Kind::Step).map(|f| f.end()).collect();
        assert_eq!(marks, steps, "{level:?}");
    }
}

#[test]
fn nothing_new_is_not_synced_again() {
    let disk = Disk::default();
    let mut writer = Writer::create(disk.clone(), HEADER).unwrap().with_durability(Durability::Every(Duration::ZERO));
    assert_eq!(writer.due_in(), None, "nothing was written");
    writer.begin_run(&run()).unwrap();
    assert_eq!(writer.due_in(), Some(Duration::ZERO));
    for _ in 0..3 {
        writer.sync_if_due().unwrap();
    }
    assert_eq!(disk.synced.lock().unwrap().len(), 2, "the header, the run; not the mark alone");
    assert_eq!(writer.due_in(), None);
}

#[test]
fn the_option_of_the_recorder() {
    let folder = tempfile::tempdir().unwrap();
    for (level, marks) in [("none", 0), ("step", 4), ("3600000", 0)] {
        let out = folder.path().join(level);
        assert_eq!(command::run(command::record(&out, 4).args(["--sync", level])).status, 0);
        let frames = Trace::open(&out).unwrap().frames().unwrap();
        assert_eq!(frames.iter().filter(|frame| frame.kind == Kind::Sync).count(), marks, "{level}");
    }
    let refused = command::run(command::record(&folder.path().join("x"), 1).args(["--sync", "often"]));
    assert_eq!(refused.status, 2);
    assert!(refused.stderr.contains("`often` is no durability level: none, step or a number"));
}

/// A disk whose syncs beside the writing wait for a permit, and fail where nobody gives one any more.
struct Slow {
    disk: Disk,
    permits: Arc<Mutex<Receiver<()>>>,
}

impl Slow {
    fn new() -> (Sender<()>, Disk, Slow) {
        let (permit, permits) = channel();
        let disk = Disk::default();
        (permit, disk.clone(), Slow { disk, permits: Arc::new(Mutex::new(permits)) })
    }
}

impl Storage for Slow {
    fn append(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        self.disk.append(parts)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.disk.sync()
    }
    fn detached_sync(&self) -> Option<DetachedSync> {
        let permits = Arc::clone(&self.permits);
        Some(Box::new(move || permits.lock().unwrap().recv().map_err(|_| io::Error::other("a planted fault"))))
    }
    fn path(&self) -> &Path {
        self.disk.path()
    }
}

/// Writes a run, of which a sync is under way when this returns, and a step behind it.
fn written_beside_a_sync(storage: Slow) -> (Writer<Slow>, u64) {
    let mut writer =
        Writer::create(storage, HEADER).unwrap().with_durability(Durability::Every(Duration::from_millis(1)));
    let number = writer.begin_run(&run()).unwrap();
    let length = writer.file_bytes();
    std::thread::sleep(Duration::from_millis(2));
    writer.sync_if_due().unwrap();
    writer.record(number, 0, &step(0)).unwrap();
    (writer, length)
}

fn marks(disk: &Disk) -> Vec<(u64, u64)> {
    let image = disk.memory.bytes();
    let marks = frames(&image).into_iter().filter(|frame| frame.kind == Kind::Sync);
    marks
        .map(|frame| {
            let body = &image[frame.offset as usize + 64..][..frame.stored_length as usize];
            (frame.offset, SyncV1::decode(body).unwrap().durable_to)
        })
        .collect()
}

#[test]
fn frames_written_while_a_sync_is_under_way_are_behind_what_its_mark_says() {
    let (permit, disk, storage) = Slow::new();
    let (mut writer, length) = written_beside_a_sync(storage);
    assert_eq!(marks(&disk), [], "it is not done");
    let behind = writer.file_bytes();
    permit.send(()).unwrap();
    writer.seal().unwrap();
    assert_eq!(marks(&disk), [(behind, length)], "what was written meanwhile is not said to be durable");
    let synced = disk.synced.lock().unwrap().clone();
    assert_eq!(synced.len(), 3, "header, everything, seal: a seal vouches for what was written meanwhile");

    // The step was lost, the mark behind it was not: no byte that was promised is missing.
    let mut image = disk.memory.bytes();
    let mark = frames(&image).into_iter().find(|frame| frame.kind == Kind::Sync).unwrap();
    image.truncate(mark.end() as usize);
    image[length as usize..behind as usize].fill(0);
    assert_eq!(verified(image.clone()).unwrap().state, State::TailLost);
    image[length as usize - 100] ^= 1;
    assert_eq!(verified(image).unwrap().state, State::Damaged, "but that one was durable");
}

#[test]
fn a_sync_that_fails_beside_the_writing_ends_it() {
    let (permit, disk, storage) = Slow::new();
    let (mut writer, _) = written_beside_a_sync(storage);
    drop(permit);
    let error = writer.seal().unwrap_err().to_string();
    assert!(error.contains("cannot sync") && error.contains("a planted fault"), "{error}");
    assert!(writer.seal().unwrap_err().to_string().contains("an earlier write failed"));
    assert!(writer.record(0, 1, &step(1)).is_err());
    assert!(frames(&disk.memory.bytes()).iter().all(|frame| !matches!(frame.kind, Kind::Sync | Kind::Seal)));
    assert_eq!(disk.synced.lock().unwrap().len(), 1, "no later sync is believed");
}

#[test]
fn one_sync_at_a_time_so_what_is_unsynced_stays_bounded() {
    let (permit, disk, storage) = Slow::new();
    let (mut writer, length) = written_beside_a_sync(storage);
    std::thread::sleep(Duration::from_millis(2));
    assert_eq!(writer.due_in(), Some(Duration::ZERO), "the step waits for its own");
    let releasing = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        permit.send(()).unwrap();
        permit
    });
    writer.sync_if_due().unwrap();
    assert_eq!(marks(&disk).len(), 1, "the second waited for the first");
    assert_eq!(marks(&disk)[0].1, length);
    let permit = releasing.join().unwrap();
    permit.send(()).unwrap();
    let second = writer.file_bytes();
    writer.seal().unwrap();
    assert_eq!(marks(&disk)[1], (second, second), "the step and the first mark");
}
