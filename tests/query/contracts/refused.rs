//! Contracts that are none are refused with file and line.

use actrace::contract::{Contract, Severity};
use std::path::Path;

const GOOD: &str = "id: a\nsays: b\ntolerances:\n  slack: {value: 0.5, because: c}\nobligations:\n  - id: d\n    says: e\n    \
                    severity: error\n    falsifier: SELECT $slack\n";

fn said(text: &str) -> String {
    Contract::parse(Path::new("folder/a.yaml"), text).unwrap_err().to_string()
}

#[test]
fn a_contract_is_what_its_file_says() {
    let contract = Contract::parse(Path::new("a.yaml"), GOOD).unwrap();
    assert_eq!((contract.id.value.as_str(), contract.tolerances["slack"].value.value), ("a", 0.5));
    let obligation = &contract.obligations[0];
    assert_eq!((obligation.falsifier.referenced.line(), obligation.severity), (9, Severity::Error));
}

#[test]
fn a_slip_is_named_with_its_line() {
    let with = |from: &str, to: &str| said(&GOOD.replace(from, to));
    let twice = format!("{GOOD}  - id: d\n    says: f\n    severity: error\n    falsifier: SELECT 1\n");
    let answers = [
        with("severity: error", "severity: bad"),
        with("says: e", "sais: e"),
        with("    says: e\n", ""),
        with("value: 0.5", "value: half"),
        with("value: 0.5, because: c", "value: 0.5"),
        with("obligations:", "obligations: 3\nmore:"),
        with("id: a", "id: b"),
        with("id: d", "id: D d"),
        with("$slack", "1"),
        with("value: 0.5", "value: -1"),
        with("because: c", "because: ' '"),
        with("$slack", "$slacks"),
        said(&GOOD.replace("slack", "run")),
        said(&twice),
        said("id: a\nsays: b\nobligations: []\n"),
        with("says: b", "says: [b"),
        with("says: b", "says: b\nsays: c"),
    ];
    insta::assert_snapshot!(answers.join("\n"));
}
