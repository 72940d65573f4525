//! Sealed, torn, tail lost, damaged, foreign: what opening and verifying call a file follows from where it is broken.

use crate::command::{actrace, json, run};
use crate::support::trace::{frames, sample, verified};
use actrace::ErrorKind;
use actrace::file::{FileHeader, FrameHeader, Kind};
use actrace::open::{Input, Source, State, Trace};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// A sealed run and an unsealed one behind it, with a mark in its midst.
fn unsealed() -> Vec<u8> {
    let mut image = sample();
    let end = frames(&image).iter().rfind(|frame| frame.kind == Kind::Coverage).unwrap().end();
    image.truncate(end as usize);
    image
}

fn opened(image: &[u8]) -> State {
    Trace::of(Input::of(image.to_vec(), Path::new("image")).unwrap()).unwrap().state()
}

/// Both ways of asking agree.
fn state(image: &[u8]) -> State {
    let (open, verify) = (opened(image), verified(image.to_vec()).unwrap().state);
    assert_eq!(open, verify);
    open
}

fn zeroed(image: &[u8], block: u64) -> Vec<u8> {
    let mut image = image.to_vec();
    image[block as usize * 64..][..64].fill(0);
    image
}

#[test]
fn sealed_and_torn() {
    let image = unsealed();
    assert_eq!(state(&sample()), State::Sealed);
    assert_eq!(state(&image), State::Torn);
    for cut in image.len() - 200..image.len() {
        assert_eq!(state(&image[..cut]), State::Torn, "cut at {cut}");
    }
    assert_eq!(state(&image[..64]), State::Torn, "a header alone: a writer began");
    let names = [State::Sealed, State::Torn, State::TailLost, State::Damaged].map(State::name);
    assert_eq!(names, ["sealed", "torn", "tail_lost", "damaged"]);
}

/// Every zeroed block of an unsealed file: a lost tail where the frame in it is behind every mark that is left, damage
/// elsewhere.
#[test]
fn a_hole_is_judged_by_the_marks_that_are_left() {
    let image = unsealed();
    let all = frames(&image);
    let durable_without = |broken: &FrameHeader| {
        // Marks of the sample follow their sync at once: they speak of their own place.
        let marks = all.iter().filter(|f| matches!(f.kind, Kind::Sync | Kind::Seal) && f.offset != broken.offset);
        marks.map(|mark| mark.offset).max().unwrap()
    };
    let mut seen = Vec::new();
    for block in 1..image.len() as u64 / 64 {
        let broken = all.iter().find(|frame| frame.offset / 64 <= block && block < frame.end() / 64).unwrap();
        let damaged = zeroed(&image, block);
        if damaged == image {
            continue;
        }
        let expected = if broken.offset < durable_without(broken) { State::Damaged } else { State::TailLost };
        assert_eq!(verified(damaged.clone()).unwrap().state, expected, "block {block}, {:?}", broken.kind);
        // Opening reads no payload, so a hole in the values of one is found when they are asked for.
        let values = broken.kind == Kind::Payload && block != broken.offset / 64;
        assert_eq!(opened(&damaged), if values { State::Torn } else { expected }, "block {block}, {:?}", broken.kind);
        seen.push(expected);
    }
    assert!(seen.contains(&State::Damaged) && seen.contains(&State::TailLost));
}

#[test]
fn a_hole_in_front_of_a_seal_is_damage_and_what_is_whole_stays_readable() {
    let image = sample();
    let all = frames(&image);
    for kind in [Kind::Run, Kind::Plan, Kind::Index, Kind::End] {
        let frame = all.iter().find(|frame| frame.kind == kind).unwrap();
        let damaged = zeroed(&image, frame.offset / 64);
        // An end is read when its run is opened, like the identity; the rest is found by verify.
        assert_eq!(verified(damaged.clone()).unwrap().state, State::Damaged, "{kind:?}");
        let trace = Trace::of(Input::of(damaged, Path::new("image")).unwrap()).unwrap();
        assert_eq!(trace.state(), State::Damaged, "{kind:?}");
        let labels: Vec<&str> = trace.runs().iter().map(|run| run.identity.label.as_str()).collect();
        assert_eq!(labels, if kind == Kind::Run { &["again"][..] } else { &["golden", "again"] }, "{kind:?}");
    }
}

#[test]
fn a_lost_tail_with_and_without_frames_behind_it() {
    let image = unsealed();
    let all = frames(&image);
    let last = all.last().unwrap();
    assert_eq!(state(&zeroed(&image, last.offset / 64)), State::TailLost, "the last frame");
    let before = &all[all.len() - 2];
    assert_eq!(state(&zeroed(&image, before.offset / 64)), State::TailLost, "the one before it");
    assert_eq!(state(&[&image[..], &[0; 640]].concat()), State::TailLost, "blocks that were never written");
    assert_eq!(state(&[&sample()[..], &[7; 100]].concat()), State::TailLost, "behind a seal");
}

/// Rows of a step whose commit mark is lost are not taken for the next step's.
#[test]
fn a_step_without_its_mark_is_no_step() {
    let image = sample();
    let all = frames(&image);
    let mark = all.iter().find(|frame| frame.kind == Kind::Step).unwrap();
    let mut damaged = zeroed(&image, mark.offset / 64);
    damaged.truncate(all.iter().find(|frame| frame.kind == Kind::Coverage).unwrap().offset as usize);
    let trace = Trace::of(Input::of(damaged, Path::new("image")).unwrap()).unwrap();
    let steps: Vec<(u32, usize)> = trace.runs()[0].steps.iter().map(|step| (step.step, step.stats.len())).collect();
    assert_eq!(steps, [(1, 1)]);
    let stats = trace.stats(&trace.runs()[0].steps[0].stats[0]).unwrap();
    assert_eq!(stats.record().step.to_native(), 1);
}

/// A file whose tail goes away before it is read.
#[derive(Debug)]
struct Shrinking {
    bytes: Vec<u8>,
    tail: AtomicU64,
}

impl Source for Shrinking {
    fn length(&self) -> io::Result<u64> {
        Ok(self.bytes.len() as u64 + self.tail.load(Ordering::Relaxed))
    }
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let read = self.bytes.read_exact_at(bytes, offset);
        if read.is_err() {
            self.tail.store(0, Ordering::Relaxed);
        }
        read
    }
}

/// The next writer does that to what a killed one left of a frame.
#[test]
fn a_tail_that_is_cut_while_a_file_is_opened_is_no_damage() {
    let bytes = unsealed();
    let whole = frames(&bytes).len();
    for tail in [1, 63, 64, 65, 5000, 1 << 20] {
        let source = Shrinking { bytes: bytes.clone(), tail: AtomicU64::new(tail) };
        let trace = Trace::of(Input::of(source, Path::new("t")).unwrap());
        let trace = trace.unwrap_or_else(|error| panic!("{tail} bytes gone: {error}"));
        assert_eq!((trace.state(), trace.frames().unwrap().len()), (State::Torn, whole), "{tail} bytes gone");
    }
}

/// A file that is another one after some reads.
#[derive(Debug)]
struct Replaced {
    before: Vec<u8>,
    after: Vec<u8>,
    reads: AtomicU64,
}

impl Replaced {
    fn now(&self) -> &Vec<u8> {
        if self.reads.load(Ordering::Relaxed) > 0 { &self.before } else { &self.after }
    }
}

impl Source for Replaced {
    fn length(&self) -> io::Result<u64> {
        self.now().length()
    }
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.now().read_exact_at(bytes, offset)?;
        self.reads.store(self.reads.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
        Ok(())
    }
}

/// The next writer cuts the beginning of a long frame off, and has already gone on when a reader is in the middle.
#[test]
fn a_tail_that_is_replaced_while_a_file_is_opened_is_no_damage() {
    let after = unsealed();
    let all = frames(&after);
    let cut = &all[all.len() / 2];
    let longer = FrameHeader { stored_length: 1 << 24, raw_length: 1 << 24, ..*cut };
    let uuid = FileHeader::decode(&after[..64]).unwrap().uuid;
    let mut before = [&after[..cut.offset as usize], &longer.encode(&uuid)].concat();
    before.resize(after.len() - 64, 0);
    for reads in 1..3 * all.len() as u64 {
        let source = Replaced { before: before.clone(), after: after.clone(), reads: AtomicU64::new(reads) };
        let trace = Trace::of(Input::of(source, Path::new("t")).unwrap()).unwrap();
        assert_eq!((trace.state(), trace.holes()), (State::Torn, [].as_slice()), "after {reads} reads");
    }
}

#[test]
fn exit_status_and_words_of_verify() {
    let folder = tempfile::tempdir().unwrap();
    let image = unsealed();
    let last = frames(&image).last().unwrap().offset;
    let files = [
        ("sealed", sample(), 0),
        ("torn", image.clone(), 1),
        ("damaged", zeroed(&sample(), 5), 1),
        ("tail_lost", zeroed(&image, last / 64), 3),
        ("foreign", b"GGUF and so on".to_vec(), 2),
    ];
    for (name, bytes, expected) in &files {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let (status, report) = json(actrace("verify").arg(&path));
        assert_eq!((status, report["files"][0]["state"].as_str()), (*expected, Some(*name)));
    }
    let verify = |names: &[&str]| {
        let paths = names.iter().map(|name| folder.path().join(name));
        run(actrace("verify").args(paths)).status
    };
    assert_eq!(verify(&["sealed", "tail_lost"]), 3);
    assert_eq!(verify(&["foreign", "tail_lost", "sealed"]), 2);
    assert_eq!(verify(&["foreign", "tail_lost", "torn"]), 1);
    let foreign = Trace::open(&folder.path().join("foreign")).unwrap_err();
    assert_eq!(foreign.kind(), ErrorKind::Foreign);
}
