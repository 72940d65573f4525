//! A run that is told to stop seals what is there: complete steps stay, and the end says why there are no more.

use crate::command::{Finished, actrace, json, record};
use actrace::open::{State, Trace};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A run that is under way: at least one step is complete.
fn under_way(out: &Path) -> Child {
    let mut command = record(out, 1000);
    let mut child = command.arg("--json").stdout(Stdio::piped()).spawn().unwrap();
    let steps = || Trace::open(out).ok().and_then(|trace| trace.runs().first().map(|run| run.steps.len()));
    while steps().is_none_or(|steps| steps == 0) {
        assert!(child.try_wait().unwrap().is_none(), "a thousand steps take longer");
    }
    child
}

fn signal(name: &str, child: &Child) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn sigint_and_sigterm_end_the_run_and_seal_the_file() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["-INT", "-TERM"] {
        let out = folder.path().join(name);
        let child = under_way(&out);
        signal(name, &child);
        let finished = Finished::of(child.wait_with_output().unwrap());
        assert_eq!(finished.status, 3, "{name}");
        let report = finished.report();
        assert_eq!((report["interrupted"].as_bool(), report["sealed"].as_bool()), (Some(true), Some(true)));

        let trace = Trace::open(&out).unwrap();
        let run = &trace.runs()[0];
        let end = run.end.as_ref().unwrap();
        assert_eq!((trace.state(), end.status), (State::Sealed, 1), "{name}");
        assert!((1..1000).contains(&run.steps.len()), "{name}: {} steps", run.steps.len());
        assert_eq!(end.steps as usize, run.steps.len());
        let rows: u64 = run.steps.iter().flat_map(|step| &step.stats).map(|frame| u64::from(frame.rows)).sum();
        assert_eq!(end.rows, rows, "the end counts what readers see");
        let coverage = trace.coverage(run).unwrap();
        assert_eq!(coverage.rows_captured.iter().sum::<u64>(), rows);
        assert_eq!(json(actrace("verify").arg(&out)).0, 0);
    }
}

/// Interrupted after k steps, a run holds what a run of k steps holds.
#[test]
fn an_interrupted_run_is_a_shorter_run() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("interrupted");
    let child = under_way(&out);
    signal("-INT", &child);
    child.wait_with_output().unwrap();
    let trace = Trace::open(&out).unwrap();
    let steps = trace.runs()[0].steps.len();
    let shorter = folder.path().join("shorter");
    assert!(record(&shorter, steps as u32).status().unwrap().success());
    let shorter = Trace::open(&shorter).unwrap();
    let root = |trace: &Trace| trace.runs()[0].end.as_ref().unwrap().content_root;
    assert_eq!(root(&trace), root(&shorter));
}

/// Both signals may reach two threads at the same instant, and then both are the first: but not every time.
#[test]
fn a_second_signal_ends_the_program_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let ended_at_once = (0..20).any(|attempt| {
        let out = folder.path().join(format!("{attempt}.actrace"));
        let mut child = under_way(&out);
        // Stopped, it meets both when it goes on.
        for name in ["-STOP", "-INT", "-TERM", "-CONT"] {
            signal(name, &child);
        }
        let status = child.wait().unwrap();
        let at_once = matches!(status.signal(), Some(2 | 15));
        assert_eq!(Trace::open(&out).unwrap().state() == State::Torn, at_once, "{status:?}");
        at_once
    });
    assert!(ended_at_once);
}
