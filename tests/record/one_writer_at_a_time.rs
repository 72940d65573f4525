//! Two processes that append to one file would destroy it: the second one is refused and told who is in its way.

use crate::command;
use crate::support::trace::HEADER;
use actrace::open::{State, Trace, append};

#[test]
fn the_second_writer_is_told_the_process_id_of_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("t.actrace");
    let (writer, _) = append(&out, HEADER).unwrap();
    let refused = command::run(&mut command::record(&out, 1));
    assert_eq!(refused.status, 2);
    let expected = format!("another process (process id {}) is writing to this trace", std::process::id());
    assert!(refused.stderr.contains(&expected), "{}", refused.stderr);
    assert_eq!(std::fs::metadata(&out).unwrap().len(), 64, "nothing was written");
    drop(writer);
}

/// The lock is the kernel's: a writer that is gone, however it went, is in nobody's way.
#[test]
fn the_lock_of_a_process_that_is_gone_is_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("t.actrace");
    let mut child = command::record(&out, 1000).args(["--sync", "none"]).spawn().unwrap();
    while !Trace::open(&out).is_ok_and(|trace| !trace.runs().is_empty()) {
        assert!(child.try_wait().unwrap().is_none(), "a thousand steps take longer");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(Trace::open(&out).unwrap().state(), State::Torn);
    assert_eq!(command::run(&mut command::record(&out, 1)).status, 0);
}
