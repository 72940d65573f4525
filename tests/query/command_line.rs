//! `actrace-query` as programs see it: status, stdout, stderr.

use crate::asking::{one_run, run, values};
use crate::synthetic::write;
use actrace::file::Kind;
use actrace::open::Trace;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::tempdir;

fn query(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_actrace-query")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Fails unless the status is `status` and stderr is one line that holds `said`.
fn refused(arguments: &[&str], status: i32, said: &str) {
    let output = query(arguments);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
    assert!(stderr.starts_with("error: ") && stderr.contains(said), "{arguments:?}: {stderr}");
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn formats_reach_stdout_and_files() {
    let folder = tempdir().unwrap();
    let trace = one_run(folder.path());
    let sql = "SELECT label, steps FROM runs";
    let shown = |format: &str| text(&query(&["sql", sql, path(&trace), "--format", format]).stdout);
    assert_eq!(shown("csv"), "label,steps\na,1\n");
    assert_eq!(shown("json"), "[{\"label\":\"a\",\"steps\":1}]\n");
    assert_eq!(shown("ndjson"), "{\"label\":\"a\",\"steps\":1}\n");
    assert_eq!(shown("table"), "label  steps\n-----  -----\na          1\n");
    assert_eq!(shown("markdown"), "| label | steps |\n| ----- | ----: |\n| a     |     1 |\n");
    let out = folder.path().join("out.parquet");
    let output = query(&["sql", sql, path(&trace), "--format", "parquet", "--output", path(&out)]);
    assert!(output.status.success() && output.stdout.is_empty(), "{}", text(&output.stderr));
    assert!(std::fs::read(&out).unwrap().starts_with(b"PAR1"));
}

#[test]
fn a_failed_query_leaves_no_file_and_an_input_is_never_overwritten() {
    let folder = tempdir().unwrap();
    let trace = one_run(folder.path());
    let before = std::fs::read(&trace).unwrap();
    refused(&["sql", "SELECT 1 FROM runs", path(&trace), "--output", path(&trace)], 2, "being read");
    assert_eq!(std::fs::read(&trace).unwrap(), before);
    let out = folder.path().join("out.csv");
    refused(&["sql", "SELECT CAST(label AS INT) FROM runs", path(&trace), "--output", path(&out)], 2, "");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing but the trace is left");
}

#[test]
fn bad_input_gets_one_clear_line() {
    let folder = tempdir().unwrap();
    let trace = one_run(folder.path());
    let foreign = folder.path().join("notes.txt");
    std::fs::write(&foreign, "no trace at all, but long enough to hold a header of sixty-four bytes, as traces do")
        .unwrap();
    refused(&["sql", "SELECT 1 FROM runs", path(&foreign)], 2, "notes.txt");
    refused(&["sql", "SELECT 1 FROM runs", "missing.actrace"], 2, "missing.actrace");
    refused(&["sql", "SELECT * FROM run", path(&trace)], 2, "did you mean `runs`?");
    refused(&["run", "statistic", path(&trace)], 2, "did you mean `statistics`?");
    refused(&["run", "statistics", path(&trace), "-p", "run=b"], 2, "no run has the label or id `b`");
    refused(&["run", "nonfinite", path(&trace), "-p", "limit=many"], 2, "is no whole number");
    refused(&["run", "ratio-by-layer", path(&trace)], 2, "which run is the reference?");
    refused(&["sql", "SELECT 1 FROM runs", path(&trace), "--format", "xml"], 2, "xml");
    refused(&["sql"], 2, "QUERY");
}

#[test]
fn runs_that_share_nothing_are_not_comparable() {
    let folder = tempdir().unwrap();
    let trace = folder.path().join("two.actrace");
    write(&trace, &[run("a", &[1, 2], &values), run("b", &[3, 2], &values)], true);
    refused(&["run", "ratio-by-layer", path(&trace)], 3, "not comparable");
    refused(&["run", "bit-equality", path(&trace)], 3, "not comparable");
}

#[test]
fn bit_equality_counts_rows_and_names_the_first_different_position() {
    let folder = tempdir().unwrap();
    let trace = folder.path().join("two.actrace");
    let negative_zero = |layer: i32, point: &str, position: u32| -> Vec<f32> {
        let mut row = values(layer, point, position);
        row[0] = if layer == 0 && position == 0 { -row[0] } else { row[0] };
        row
    };
    write(&trace, &[run("a", &[1, 2], &values), run("b", &[1, 2], &negative_zero)], true);
    let output = query(&["run", "bit-equality", path(&trace), "--format", "csv"]);
    let expected = "ordinal,layer,point,of,rows,equal,different,first_different\n\
                    0,,embed,2,2,2,0,\n1,0,ffn_act,2,2,1,1,0\n2,1,ffn_act,2,2,2,0,\n3,,logits,2,2,2,0,\n";
    assert_eq!(text(&output.stdout), expected);
}

#[test]
fn a_torn_file_is_read_with_a_note() {
    let folder = tempdir().unwrap();
    let trace = folder.path().join("torn.actrace");
    write(&trace, &[run("a", &[1, 2], &values)], false);
    let output = query(&["sql", "SELECT status, steps FROM runs", path(&trace), "--format", "csv"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout), "status,steps\nincomplete,1\n");
    assert!(text(&output.stderr).starts_with("note: "), "{}", text(&output.stderr));
}

/// Asks for rows; fails unless the answer is `rows` of them, with status 0 and one line on stderr that says `state`.
fn counts_with_note(trace: &Path, rows: u32, state: &str) {
    let output = query(&["sql", "SELECT count(*) AS rows FROM activations", path(trace), "--format", "csv"]);
    let stderr = text(&output.stderr);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), format!("rows\n{rows}\n")), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with(&format!("note: {}: {state}: ", path(trace))), "{stderr}");
}

/// Flips a byte in the body of the first frame of `kind`.
fn damage(trace: &Path, kind: Kind) {
    let frames = Trace::open(trace).unwrap().frames().unwrap();
    let frame = frames.iter().find(|frame| frame.kind == kind).unwrap();
    let mut bytes = std::fs::read(trace).unwrap();
    bytes[frame.offset as usize + 64] ^= 1;
    std::fs::write(trace, bytes).unwrap();
}

#[test]
fn what_is_whole_in_a_broken_file_is_read_with_one_note() {
    let folder = tempdir().unwrap();
    let lost = folder.path().join("lost.actrace");
    write(&lost, &[run("a", &[1, 2], &values)], false);
    let mut bytes = std::fs::read(&lost).unwrap();
    bytes.extend([0x55; 128]);
    std::fs::write(&lost, bytes).unwrap();
    counts_with_note(&lost, 8, "tail_lost");
    // A sealed file whose index is broken is walked, and loses nothing.
    let unindexed = one_run(folder.path());
    damage(&unindexed, Kind::Index);
    counts_with_note(&unindexed, 12, "damaged");
    // Without an index, the walk finds the broken statistics; the step has none then.
    let damaged = folder.path().join("damaged.actrace");
    write(&damaged, &[run("a", &[1, 2], &values)], false);
    damage(&damaged, Kind::Stats);
    counts_with_note(&damaged, 0, "damaged");
}

#[test]
fn a_full_stderr_changes_no_status() {
    let folder = tempdir().unwrap();
    let torn = folder.path().join("torn.actrace");
    write(&torn, &[run("a", &[1], &values)], false);
    let status = |arguments: &[&str]| {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_actrace-query"));
        command.args(arguments).stdout(Stdio::null()).stderr(full).status().unwrap().code()
    };
    assert_eq!(status(&["sql", "SELECT 1 FROM runs", path(&torn)]), Some(0));
    assert_eq!(status(&["sql", "SELECT 1 FROM run", path(&torn)]), Some(2));
    assert_eq!(status(&["sql"]), Some(2));
}

#[test]
fn following_writes_text_to_stdout_and_nothing_else() {
    let folder = tempdir().unwrap();
    let trace = one_run(folder.path());
    let sql = ["sql", "SELECT 1 FROM runs", path(&trace), "--follow"];
    refused(&[&sql[..], &["--format", "parquet"]].concat(), 2, "text format");
    refused(&[&sql[..], &["--output", "rows.csv"]].concat(), 2, "leave --output out");
    refused(&["run", "runs", "missing.actrace", "--follow"], 2, "missing.actrace");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let folder = tempdir().unwrap();
    let trace = one_run(folder.path());
    // Far more than a pipe holds.
    let sql = "SELECT a.* FROM elements a, elements b, elements c";
    let mut child = Command::new(env!("CARGO_BIN_EXE_actrace-query"))
        .args(["sql", sql, path(&trace), "--format", "csv"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 64]).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn too_little_memory_is_said() {
    let folder = tempdir().unwrap();
    let trace = one_run(folder.path());
    let sql = "SELECT count(*) FROM elements a JOIN elements b ON a.value = b.value";
    refused(&["sql", sql, path(&trace), "--memory", "1"], 2, "--memory");
}
