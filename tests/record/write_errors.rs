//! A write that fails reaches the user, and nothing pretends to be sealed.

use crate::command::{json, limited, record, run};
use crate::support::trace::Memory;
use crate::traces::record as record_into;
use actrace::ErrorKind;
use actrace::file::Storage;
use actrace::open::{State, Trace};
use std::io;
use std::path::Path;

/// A disk without room.
struct Full(Memory);

impl Storage for Full {
    fn append(&mut self, _: &[&[u8]]) -> io::Result<()> {
        Err(io::ErrorKind::StorageFull.into())
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn path(&self) -> &Path {
        self.0.path()
    }
}

#[test]
fn a_full_disk_is_told_with_what_to_do() {
    let error = record_into(Full(Memory::default())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Environment);
    assert!(error.to_string().contains("the disk is full: free some space; every whole frame"), "{error}");
}

#[test]
fn the_run_ends_or_goes_on_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name| folder.path().join(name);
    let (_, whole) = json(&mut record(&path("whole"), 40));

    let failed = run(&mut limited(400, &record(&path("fails"), 40)));
    assert_eq!(failed.status, 2);
    assert!(failed.stderr.contains("size limit") && failed.stderr.contains("the next recording goes on"));
    assert_eq!(Trace::open(&path("fails")).unwrap().state(), State::Torn);

    let (code, report) = json(&mut limited(400, record(&path("goes on"), 40).args(["--on-write-error", "continue"])));
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
