//! docs/functions.md has every function, no other, and examples that come out as it says.

use crate::asking::{ask, run};
use crate::support;
use crate::synthetic::{Run, write};
use actrace::open::TraceSet;
use actrace::sql::functions;
use std::collections::BTreeSet;
use std::sync::Arc;
use tempfile::tempdir;

/// The page shows six digits.
const SHOWN: f64 = 5e-6;

struct Entry {
    name: String,
    expression: String,
    value: String,
}

/// The rows of the table of the page.
fn entries() -> Vec<Entry> {
    let page = std::fs::read_to_string(support::package().join("docs/functions.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [function, definition, source, example] = cells[..] else { panic!("{line}") };
        assert!(!definition.is_empty() && !source.is_empty(), "{line}");
        let (expression, value) = example.trim_matches('`').split_once("` is `").unwrap_or_else(|| panic!("{line}"));
        let name = function.trim_start_matches('`').split('(').next().unwrap();
        Entry { name: name.to_owned(), expression: expression.to_owned(), value: value.to_owned() }
    })
    .collect()
}

/// Words and numbers of a value as text, whatever stands around them.
fn words(text: &str) -> Vec<&str> {
    text.split(|c: char| ", []{}:\"".contains(c)).filter(|word| !word.is_empty()).collect()
}

fn same(shown: &str, found: &str) -> bool {
    let near = |(shown, found): (&&str, &&str)| match (shown.parse::<f64>(), found.parse::<f64>()) {
        // Integers of 64 bits have more digits than f64.
        (Ok(one), Ok(other)) => shown == found || (one.abs() < 1e15 && (one - other).abs() <= SHOWN * one.abs()),
        _ => shown == found,
    };
    let (shown, found) = (words(shown), words(found));
    shown.len() == found.len() && shown.iter().zip(&found).all(near)
}

#[test]
fn every_function_is_on_the_page_and_no_other() {
    let set = Arc::new(TraceSet::default());
    let scalars = functions::scalars(&set);
    let aggregates = functions::aggregates(&set);
    let names = scalars.iter().map(|function| function.name()).chain(aggregates.iter().map(|function| function.name()));
    let registered: Vec<&str> = names.collect();
    let entries = entries();
    let documented: BTreeSet<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(documented, registered.iter().copied().collect());
    assert_eq!((entries.len(), documented.len()), (registered.len(), registered.len()), "each once");
}

#[test]
fn every_example_comes_out_as_the_page_says() {
    let folder = tempdir().unwrap();
    let path = [folder.path().join("two.actrace")];
    let values = |rows: [[f32; 3]; 2]| move |_: i32, _: &str, position: u32| rows[position as usize].to_vec();
    let (r, t) = (values([[3.0, 4.0, 0.0], [1.0, -2.0, 2.0]]), values([[3.0, 5.0, 0.0], [1.0, -2.0, 2.5]]));
    let one = |label, values| Run { sites: vec![(0, "q")], ..run(label, &[5, 6], values) };
    write(&path[0], &[one("r", &r), one("t", &t)], true);
    let set = Arc::new(TraceSet::default());
    let aggregates: Vec<String> =
        functions::aggregates(&set).iter().map(|function| function.name().to_owned()).collect();
    let mut wrong = Vec::new();
    for Entry { name, expression, value } in entries() {
        let tokens = if aggregates.contains(&name) { "" } else { "WHERE r.position = 0" };
        let answer = ask(
            &format!(
                "WITH r AS (SELECT * FROM activations WHERE label = 'r'), t AS (SELECT * FROM activations WHERE label = 't')
                 SELECT {expression} AS v FROM r JOIN t USING (position) {tokens}"
            ),
            &path,
        );
        let found = answer.strip_prefix("v\n").unwrap().trim_end();
        if !expression.starts_with(&format!("{name}(")) || !same(&value, found) {
            wrong.push(format!("{name}: {expression} is {found}, the page says {value}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
