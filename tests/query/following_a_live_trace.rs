//! `--follow` while a writer is at work: every finished step is seen, never half a one, and the seal ends it.
//!
//! Nothing here waits for a time: each side waits for what the other one writes.

use crate::asking::{one_run, run, values};
use crate::synthetic::{UnderWay, write, writer};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use tempfile::tempdir;

const COUNTS: &str = "SELECT count(DISTINCT step) AS steps, count(*) AS rows FROM activations";

/// A process that follows, and its two pipes.
struct Following {
    child: Child,
    stdout: Option<BufReader<ChildStdout>>,
    stderr: BufReader<ChildStderr>,
}

impl Following {
    fn start(arguments: &[&str], trace: &Path, format: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_actrace-query"))
            .args(arguments)
            .arg(trace)
            .args(["--follow", "--format", format])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().map(BufReader::new);
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Following { child, stdout, stderr }
    }

    /// The next line of stdout, as soon as it is there.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.as_mut().unwrap().read_line(&mut line).unwrap();
        line
    }

    /// Status at the end, and what was still to be read from stdout and stderr.
    fn end(mut self) -> (Option<i32>, String, String) {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        if let Some(pipe) = &mut self.stdout {
            pipe.read_to_string(&mut stdout).unwrap();
        }
        self.stderr.read_to_string(&mut stderr).unwrap();
        (self.child.wait().unwrap().code(), stdout, stderr)
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // After a failed assertion the process would follow for ever; one that has ended cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn each_finished_step_is_answered_and_the_seal_ends_it() {
    let folder = tempdir().unwrap();
    let trace = folder.path().join("live.actrace");
    let mut writer = writer(&trace);
    let run = run("a", &[5, 6, 7], &values);
    let mut under_way = UnderWay::begin(&mut writer, &run);
    under_way.statistics();
    under_way.commit();
    // Half a step stands in the file when the query begins.
    under_way.statistics();
    let mut following = Following::start(&["sql", COUNTS], &trace, "ndjson");
    assert_eq!(following.line(), "{\"steps\":1,\"rows\":12}\n");
    under_way.commit();
    assert_eq!(following.line(), "{\"steps\":2,\"rows\":16}\n");
    under_way.statistics();
    under_way.commit();
    under_way.end();
    writer.seal().unwrap();
    let (status, rest, stderr) = following.end();
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    assert_eq!(rest.lines().last(), Some("{\"steps\":3,\"rows\":20}"), "{rest}");
}

#[test]
fn a_step_without_its_commit_mark_is_not_shown_after_the_seal_either() {
    let folder = tempdir().unwrap();
    let trace = folder.path().join("live.actrace");
    let mut writer = writer(&trace);
    let run = run("a", &[5, 6, 7], &values);
    let mut under_way = UnderWay::begin(&mut writer, &run);
    under_way.statistics();
    under_way.commit();
    let mut following = Following::start(&["sql", COUNTS], &trace, "ndjson");
    assert_eq!(following.line(), "{\"steps\":1,\"rows\":12}\n");
    under_way.statistics();
    writer.seal().unwrap();
    // The half step alone is no reason to answer: there is one answer more, that of the sealed file.
    assert_eq!(following.end(), (Some(0), "{\"steps\":1,\"rows\":12}\n".to_owned(), String::new()));
}

#[test]
fn an_empty_file_is_waited_for() {
    let folder = tempdir().unwrap();
    let trace = folder.path().join("new.actrace");
    std::fs::File::create(&trace).unwrap();
    let mut following = Following::start(&["sql", COUNTS], &trace, "ndjson");
    let mut note = String::new();
    following.stderr.read_line(&mut note).unwrap();
    assert!(note.starts_with("note: ") && note.contains("waiting"), "{note}");
    write(&trace, &[run("a", &[5, 6, 7], &values)], true);
    let (status, answers, stderr) = following.end();
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    assert_eq!(answers.lines().last(), Some("{\"steps\":1,\"rows\":12}"), "{answers}");
}

#[test]
fn a_reader_that_goes_away_ends_it() {
    let folder = tempdir().unwrap();
    let trace = folder.path().join("live.actrace");
    let mut writer = writer(&trace);
    let run = run("a", &[5, 6, 7], &values);
    let mut under_way = UnderWay::begin(&mut writer, &run);
    under_way.statistics();
    under_way.commit();
    let mut following = Following::start(&["sql", COUNTS], &trace, "ndjson");
    following.line();
    following.stdout = None;
    under_way.statistics();
    under_way.commit();
    assert_eq!(following.end(), (Some(0), String::new(), String::new()));
}

#[test]
fn a_sealed_file_is_answered_once() {
    let folder = tempdir().unwrap();
    let trace = one_run(folder.path());
    for format in ["table", "csv", "json", "ndjson", "markdown"] {
        let once = Command::new(env!("CARGO_BIN_EXE_actrace-query"))
            .args(["run", "statistics", "--format", format])
            .arg(&trace)
            .output()
            .unwrap();
        let (status, followed, _) = Following::start(&["run", "statistics"], &trace, format).end();
        assert_eq!((status, followed.as_bytes()), (Some(0), once.stdout.as_slice()), "{format}");
    }
}
