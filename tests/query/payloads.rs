//! Statistics never cost a payload byte; values cost only those that are asked for.

use crate::asking::{ask, ask_as, one_run, values};
use actrace::sql::output::Format;
use tempfile::tempdir;

#[test]
fn statistics_read_no_payload_byte() {
    let folder = tempdir().unwrap();
    let path = [one_run(folder.path())];
    let queries = [
        "SELECT * EXCEPT (data) FROM activations",
        "SELECT * FROM tensors",
        "SELECT * FROM coverage",
        "SELECT * FROM steps",
        "SELECT * FROM runs",
        "SELECT count(*) FROM activations",
        "SELECT count(*), max(index) FROM elements",
    ];
    for sql in queries {
        let (answer, session) = ask_as(sql, &path, Format::Csv);
        assert!(answer.unwrap().lines().count() > 1, "{sql}");
        assert_eq!(session.set().traces()[0].bytes_read().0, 0, "{sql}");
    }
}

#[test]
fn only_the_payloads_of_rows_that_pass_are_read() {
    let folder = tempdir().unwrap();
    let path = [one_run(folder.path())];
    let read = |sql: &str| {
        let (answer, session) = ask_as(sql, &path, Format::Csv);
        answer.unwrap();
        session.set().traces()[0].bytes_read().0
    };
    let all = read("SELECT data FROM activations");
    let one = read("SELECT data FROM activations WHERE layer = 1 AND position = 2");
    assert!(one > 0 && one * 3 < all, "{one} of {all}");
    assert_eq!(read("SELECT data FROM activations WHERE absmax > 1e9"), 0);
}

#[test]
fn data_is_what_was_recorded() {
    let folder = tempdir().unwrap();
    let answer = ask("SELECT data FROM activations WHERE layer = 1 ORDER BY position", &[one_run(folder.path())]);
    let expected: String = (0..3)
        .map(|position| {
            let row: Vec<String> = values(1, "ffn_act", position).iter().map(f32::to_string).collect();
            format!("\"[{}]\"\n", row.join(","))
        })
        .collect();
    assert_eq!(answer, format!("data\n{expected}"));
}
