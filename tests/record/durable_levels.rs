//! What a durability level promises is what the marks in the file say: a frame before a mark was synced.

use crate::command;
use crate::support::trace::{HEADER, Memory, frames, run, stats, step};
use actrace::file::{Durability, Kind, Storage, Writer};
use actrace::open::Trace;
use actrace::record::{Record, SyncV1};
use std::io;
use std::path::Path;
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
