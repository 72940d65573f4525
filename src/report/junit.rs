//! JUnit XML: what CI systems read of a check. The schema is Jenkins' xunit plugin's, as the crate quick-junit writes it.

use crate::error::{Error, Result};
use quick_junit::{NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestSuite};

/// What came of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It holds.
    Passed,
    /// It was judged, and does not hold.
    Failed(Complaint),
    /// It was not judged, for this reason.
    Skipped(String),
    /// It could not be judged, and should have been.
    Error(Complaint),
}

/// Why a case does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// One line, which CI systems show in lists.
    pub message: String,
    /// Any number of lines, shown when the case is opened; may be empty.
    pub text: String,
}

/// One thing that is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// What it belongs to; with the name it is unique. CI systems group cases by it and split it at its dots.
    pub class: String,
    /// Its name.
    pub name: String,
    /// What came of it.
    pub outcome: Outcome,
}

/// Cases that were checked together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suite {
    /// Its name.
    pub name: String,
    /// Facts about it, by name.
    pub properties: Vec<(String, String)>,
    /// Its cases.
    pub cases: Vec<Case>,
    /// What a person would read of it; may be empty.
    pub output: String,
}

/// A report named `name` with all suites, as XML that ends with a line break. Counts are those of the cases; there are no
/// times, so that equal results are equal bytes. Control characters, which XML cannot hold, are written as Rust escapes
/// them.
///
/// # Errors
/// Internal, where the XML cannot be written.
pub fn junit(name: &str, suites: &[Suite]) -> Result<String> {
    let mut report = Report::new(visible(name));
    report.add_test_suites(suites.iter().map(suite_xml));
    report.to_string().map_err(|cause| Error::internal("cannot write JUnit XML").because(cause))
}

fn suite_xml(suite: &Suite) -> TestSuite {
    let mut xml = TestSuite::new(visible(&suite.name));
    xml.add_properties(suite.properties.iter().map(|(name, value)| Property::new(visible(name), visible(value))));
    xml.add_test_cases(suite.cases.iter().map(case_xml));
    if !suite.output.is_empty() {
        xml.set_system_out(visible(&suite.output));
    }
    xml
}

fn case_xml(case: &Case) -> TestCase {
    let status = match &case.outcome {
        Outcome::Passed => TestCaseStatus::success(),
        Outcome::Failed(complaint) => complained(NonSuccessKind::Failure, complaint),
        Outcome::Error(complaint) => complained(NonSuccessKind::Error, complaint),
        Outcome::Skipped(reason) => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(visible(reason));
            status
        }
    };
    let mut xml = TestCase::new(visible(&case.name), status);
    xml.set_classname(visible(&case.class));
    xml
}

fn complained(kind: NonSuccessKind, complaint: &Complaint) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(kind);
    status.set_message(visible(&complaint.message));
    if !complaint.text.is_empty() {
        status.set_description(visible(&complaint.text));
    }
    status
}

/// Line breaks and tabs stay; other control characters, and what XML has no character for, become escapes.
fn visible(text: &str) -> String {
    let hidden = |c: char| (c.is_control() && !matches!(c, '\n' | '\t')) || matches!(c, '\u{FFFE}' | '\u{FFFF}');
    text.chars().map(|c| if hidden(c) { c.escape_unicode().to_string() } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str, outcome: Outcome) -> Case {
        Case { class: "suite.layers.0".to_owned(), name: name.to_owned(), outcome }
    }

    fn complaint(message: &str, text: &str) -> Complaint {
        Complaint { message: message.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn every_outcome_is_counted_and_said() {
        let cases = vec![
            case("q", Outcome::Passed),
            case("k", Outcome::Failed(complaint("0.3 above 0.1", "layer 0 k\nposition 7"))),
            case("v", Outcome::Skipped("not captured".to_owned())),
            case("o", Outcome::Error(complaint("no file", ""))),
        ];
        let suite = Suite {
            name: "a against b".to_owned(),
            properties: vec![("verdict".to_owned(), "diverged".to_owned())],
            cases,
            output: "the page\n".to_owned(),
        };
        let empty = Suite { name: "empty".to_owned(), properties: vec![], cases: vec![], output: String::new() };
        insta::assert_snapshot!(junit("actrace compare", &[suite, empty]).unwrap(), @r#"
        <?xml version="1.0" encoding="UTF-8"?>
        <testsuites name="actrace compare" tests="4" skipped="1" failures="1" errors="1">
            <testsuite name="a against b" tests="4" skipped="1" errors="1" failures="1">
                <properties>
                    <property name="verdict" value="diverged"/>
                </properties>
                <testcase name="q" classname="suite.layers.0"/>
                <testcase name="k" classname="suite.layers.0">
                    <failure message="0.3 above 0.1">layer 0 k
        position 7</failure>
                </testcase>
                <testcase name="v" classname="suite.layers.0">
                    <skipped message="not captured"/>
                </testcase>
                <testcase name="o" classname="suite.layers.0">
                    <error message="no file"/>
                </testcase>
                <system-out>the page
        </system-out>
            </testsuite>
            <testsuite name="empty" tests="0" skipped="0" errors="0" failures="0"/>
        </testsuites>
        "#);
    }

    #[test]
    fn what_xml_cannot_hold_is_escaped_and_nothing_is_dropped() {
        let hostile = "<a b=\"c\" d='e'>&\u{1b}[31m\0\u{7f}\u{9b}\u{ffff}\r]]>";
        let suite = Suite {
            name: hostile.to_owned(),
            properties: vec![(hostile.to_owned(), hostile.to_owned())],
            cases: vec![case(hostile, Outcome::Failed(complaint(hostile, hostile)))],
            output: hostile.to_owned(),
        };
        let xml = junit(hostile, &[suite]).unwrap();
        let escaped =
            "&lt;a b=&quot;c&quot; d=&apos;e&apos;&gt;&amp;\\u{1b}[31m\\u{0}\\u{7f}\\u{9b}\\u{ffff}\\u{d}]]&gt;";
        // Its own name, the suite's, a property's name and value, the case's, a message, a text, the output.
        assert_eq!(xml.matches(escaped).count(), 8, "{xml}");
        assert!(xml.chars().all(|c| c == '\n' || !c.is_control()), "{xml}");
    }
}
