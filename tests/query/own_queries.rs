//! Queries of a user's own folders: they are listed and run like the shipped ones, and what is wrong with one is said.

use crate::asking::one_run;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::{TempDir, tempdir};

const OWN: &str = "-- question: Which points are larger than a limit?\n\
                   -- parameter: above number = 4 the limit\n\
                   -- columns: point, largest (absmax)\n\
                   SELECT point, max(absmax) AS largest FROM activations GROUP BY point \
                   HAVING max(absmax) > $above ORDER BY point\n";

fn folder(name: &str, text: &str) -> TempDir {
    let folder = tempdir().unwrap();
    std::fs::write(folder.path().join(name), text).unwrap();
    folder
}

fn query(arguments: &[&str], folders: &[&TempDir]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_actrace-query"));
    command.args(arguments);
    for folder in folders {
        command.arg("--queries").arg(folder.path());
    }
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Fails unless the status is 2 and stderr one line that holds `said`.
fn refused(arguments: &[&str], folders: &[&TempDir], said: &str) {
    let output = query(arguments, folders);
    let stderr = text(&output.stderr);
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(2), 1), "{arguments:?}: {stderr}");
    assert!(stderr.contains(said), "{arguments:?}: {stderr}");
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn own_queries_are_listed_and_run_like_the_shipped_ones() {
    let traces = tempdir().unwrap();
    let trace = one_run(traces.path());
    let (own, more) = (folder("large.sql", OWN), folder("more.sql", OWN));
    let listed = text(&query(&["list"], &[&own, &more]).stdout);
    let expected = "large\n    Which points are larger than a limit?\n    -p above (number = 4): the limit\n    \
                    columns: point, largest (absmax)\n";
    assert!(listed.contains(expected) && listed.contains("\nmore\n") && listed.contains("\nspikes\n"), "{listed}");
    let json: Vec<Value> = serde_json::from_slice(&query(&["list", "--json"], &[&own]).stdout).unwrap();
    let entry = json.iter().find(|entry| entry["name"] == "large").unwrap();
    assert_eq!(entry["question"], "Which points are larger than a limit?");
    let parameter =
        serde_json::json!({ "name": "above", "type": "number", "default": "4", "description": "the limit" });
    assert_eq!(entry["parameters"], serde_json::json!([parameter]));
    assert!(json.iter().any(|entry| entry["name"] == "spikes"));
    let run = ["run", "large", path(&trace), "--format", "csv"];
    assert_eq!(text(&query(&run, &[&more, &own]).stdout), "point,largest\nembed,10.75\nffn_act,12\nlogits,11.25\n");
    assert_eq!(text(&query(&[&run[..], &["-p", "above=100"]].concat(), &[&own]).stdout), "point,largest\n");
    refused(&run, &[&more], "unknown query `large`");
}

#[test]
fn a_name_that_there_is_already_is_refused() {
    let traces = tempdir().unwrap();
    let trace = one_run(traces.path());
    let shadow = folder("spikes.sql", OWN);
    refused(&["list"], &[&shadow], "`spikes` is the name of a shipped query already");
    refused(&["run", "spikes", path(&trace)], &[&shadow], "`spikes` is the name of a shipped query already");
    let (one, other) = (folder("mine.sql", OWN), folder("mine.sql", OWN));
    refused(&["list"], &[&one, &other], path(one.path()));
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_line() {
    let traces = tempdir().unwrap();
    let trace = one_run(traces.path());
    let broken = |wrong: &str| folder("mine.sql", &OWN.replacen("-- parameter: above number = 4 the limit", wrong, 1));
    for (wrong, said) in [
        ("-- parameter: above numbr = 4 the limit", "mine.sql: line 2: `numbr` is no type"),
        ("-- parameter: above number = four the limit", "mine.sql: line 2: `four` is no default of a number"),
        ("-- parametr: above number = 4 the limit", "mine.sql: line 2: `parametr` is no key of a header"),
        ("-- columns: point", "mine.sql: line 3: a second `columns`"),
    ] {
        let broken = broken(wrong);
        refused(&["run", "mine", path(&trace)], &[&broken], said);
        refused(&["list"], &[&broken], said);
    }
    // A parameter that no line declares is found when the query is run.
    let undeclared = broken("-- a comment");
    refused(&["run", "mine", path(&trace)], &[&undeclared], "above");
    refused(&["list"], &[&folder("mine.sql", "SELECT 1\n")], "mine.sql: a query opens with a line `-- question: ...`");
    let missing = folder("mine.sql", OWN);
    std::fs::remove_dir_all(missing.path()).unwrap();
    refused(&["list"], &[&missing], "cannot read the folder of queries");
}

#[test]
fn own_queries_only_read() {
    let traces = tempdir().unwrap();
    let trace = one_run(traces.path());
    let header = "-- question: What is lost?\n-- columns: count\n";
    let writing = folder("writing.sql", &format!("{header}DROP TABLE runs\n"));
    refused(&["run", "writing", path(&trace)], &[&writing], "SQL here only reads");
}
