//! A write that fails reaches the user, and nothing pretends to be sealed.

use crate::commands::{json, record, status, stderr};
use crate::support::trace::{Memory, verified};
use crate::traces::record as record_into;
use actrace::ErrorKind;
use actrace::file::Storage;
use actrace::open::{State, Trace};
use std::io;
use std::path::Path;
use std::process::Command;

/// Fails from operation `fails_at` on: a write in the middle of its bytes, or a sync.
#[derive(Clone)]
struct Failing {
    memory: Memory,
    operations: usize,
    fails_at: usize,
}

impl Failing {
    fn next(&mut self) -> io::Result<()> {
        self.operations += 1;
        if self.operations > self.fails_at { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl Storage for Failing {
    fn append(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        if let Err(error) = self.next() {
            let bytes = parts.concat();
            self.memory.append(&[&bytes[..bytes.len() / 2]])?;
            return Err(error);
        }
        self.memory.append(parts)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.next()
    }
    fn path(&self) -> &Path {
        self.memory.path()
    }
}

#[test]
fn whichever_operation_fails_the_recording_fails_and_is_not_sealed() {
    let mut failures = 0;
    for fails_at in 0.. {
        let memory = Memory::default();
        let outcome = record_into(Failing { memory: memory.clone(), operations: 0, fails_at });
        let Err(error) = outcome else { break };
        failures += 1;
        assert_eq!(error.kind(), ErrorKind::Environment, "operation {fails_at}");
        assert!(error.to_string().contains("the disk is full: free some space"), "operation {fails_at}: {error}");
        if let Ok(found) = verified(memory.bytes()) {
            let sync_of_the_seal = found.state == State::Sealed && found.loose_bytes == 0;
            assert!(found.faults.is_empty(), "operation {fails_at}: {:?}", found.faults);
            // A seal that is written and cannot be synced is there, and the error says that it may not stay.
            assert!(found.state == State::Torn || (sync_of_the_seal && error.to_string().contains("cannot sync")));
        }
    }
    assert!(failures > 10, "{failures} operations");
}

/// Under a file size limit that the run exceeds; the signal that comes with it is ignored, so that the write fails.
fn limited(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 400; exec \"$@\"", "sh"]).arg(command.get_program());
    shell.args(command.get_args());
    shell
}

#[test]
fn the_run_ends_or_goes_on_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name| folder.path().join(name);
    let (_, whole) = json(&mut record(&path("whole"), 40));

    let failed = limited(&record(&path("fails"), 40)).output().unwrap();
    assert_eq!(status(&failed), 2);
    assert!(stderr(&failed).contains("size limit") && stderr(&failed).contains("the next recording goes on"));
    assert_eq!(Trace::open(&path("fails")).unwrap().state(), State::Torn);

    let (code, report) = json(&mut limited(record(&path("goes on"), 40).args(["--on-write-error", "continue"])));
    assert_eq!((code, report["sealed"].as_bool()), (3, Some(false)));
    assert!(report["error"].as_str().unwrap().contains("size limit"));
    assert_eq!(report["tokens"], whole["tokens"], "the run itself is none the worse");
    assert_eq!(report["logits_fingerprints"], whole["logits_fingerprints"]);
    let trace = Trace::open(&path("goes on")).unwrap();
    assert_eq!((trace.state(), trace.runs()[0].end.is_none()), (State::Torn, true));

    // With room again, the next run goes on behind the last whole frame.
    assert!(record(&path("fails"), 2).status().unwrap().success());
    let trace = Trace::open(&path("fails")).unwrap();
    assert_eq!((trace.state(), trace.runs().len()), (State::Sealed, 2));
}
