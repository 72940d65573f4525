//! A writer that is killed at any moment costs the step that was under way and nothing else: not for a reader beside
//! it, not for the next writer of the same file.

use crate::command::{actrace, json, record};
use actrace::open::{FrameEntry, RunView, State, Trace};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;

const FILES: usize = 10;
const KILLS_PER_FILE: usize = 10;

/// Everything a reader may rely on at any moment: whole frames in order without a hole, and complete steps only.
fn look(path: &Path, seen: &mut Vec<FrameEntry>) -> Arc<Trace> {
    let trace = Trace::open(path).unwrap();
    assert!(trace.holes().is_empty(), "{:?}", trace.holes());
    let frames = trace.frames().unwrap();
    let mut end = 64;
    for (number, frame) in frames.iter().enumerate() {
        assert_eq!((frame.seq, frame.offset), (number as u64, end), "in order, one behind the other");
        end = frame.offset + 64 + u64::from(frame.stored_length).next_multiple_of(64);
    }
    assert!(frames.starts_with(seen), "what was there stays there");
    *seen = frames;
    for run in trace.runs() {
        assert!(run.steps.iter().enumerate().all(|(number, step)| step.step as usize == number));
        for step in &run.steps {
            let counts = trace.step(&step.commit).unwrap();
            assert_eq!(step.stats.len(), counts.stats_frames as usize, "no half step");
            let captured = run.plan.sites.iter().filter(|site| site.status == 0).count();
            let rows: u32 = step.stats.iter().map(|stats| stats.rows).sum();
            assert_eq!(rows as usize, captured * counts.token.len(), "every row of the step");
        }
    }
    trace
}

fn values(trace: &Trace, run: &RunView) {
    for step in run.steps.iter().rev().take(1) {
        let stats = trace.stats(&step.stats[0]).unwrap();
        for payload in stats.record().payload.iter() {
            assert!(trace.payload(payload.to_native()).is_ok());
        }
    }
}

fn spawn(out: &Path) -> Child {
    record(out, 1000).stdout(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_hundred_times() {
    let folder = tempfile::tempdir().unwrap();
    for file in 0..FILES {
        let out = folder.path().join(format!("{file}.actrace"));
        let mut seen = Vec::new();
        for kill in 0..KILLS_PER_FILE {
            let before = if kill == 0 { 0 } else { Trace::open(&out).unwrap().runs().len() };
            let mut child = spawn(&out);
            // The moment of the kill moves from the very beginning into the first steps.
            let wanted = (file + kill * 3) % 12;
            let steps = |trace: &Trace| trace.runs().get(before).map_or(0, |run| 1 + run.steps.len());
            while !out.exists() || std::fs::metadata(&out).unwrap().len() < 64 || steps(&look(&out, &mut seen)) < wanted
            {
                assert!(child.try_wait().unwrap().is_none(), "killed in time");
            }
            child.kill().unwrap();
            child.wait().unwrap();
            let trace = look(&out, &mut seen);
            assert_eq!(trace.state(), State::Torn);
            trace.runs().iter().for_each(|run| values(&trace, run));
            let (status, report) = json(actrace("verify").arg(&out));
            assert_eq!((status, report["files"][0]["faults"].as_array().unwrap().len()), (1, 0));
        }
        let killed = Trace::open(&out).unwrap().runs().len();
        assert!(record(&out, 2).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
        let trace = look(&out, &mut seen);
        assert_eq!(trace.state(), State::Sealed);
        assert_eq!(trace.runs().len(), killed + 1);
        assert!(trace.runs()[..killed].iter().all(|run| run.end.is_none()), "no end is invented");
        assert_eq!(json(actrace("verify").arg(&out)).0, 0);
    }
}

/// A reader keeps what it opened, whatever is appended behind it.
#[test]
fn a_reader_of_a_sealed_file_is_not_disturbed_by_the_next_run() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("t.actrace");
    assert!(record(&out, 2).stdout(Stdio::null()).status().unwrap().success());
    let before = Trace::open(&out).unwrap();
    let root = json(actrace("verify").arg(&out)).1["files"][0]["root"].clone();
    let length = std::fs::metadata(&out).unwrap().len();
    assert!(record(&out, 3).stdout(Stdio::null()).status().unwrap().success());
    assert_eq!((before.state(), before.runs().len(), before.end()), (State::Sealed, 1, length));
    values(&before, &before.runs()[0]);
    assert_eq!(Trace::open(&out).unwrap().runs().len(), 2);
    // Cut back to its length then, it is the earlier file: nothing of it was rewritten.
    std::fs::OpenOptions::new().write(true).open(&out).unwrap().set_len(length).unwrap();
    let (status, report) = json(actrace("verify").arg(&out));
    assert_eq!((status, &report["files"][0]["root"]), (0, &root));
}
