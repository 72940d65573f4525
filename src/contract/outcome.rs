//! What checking comes to.

use super::Severity;
use arrow::array::RecordBatch;

/// What an obligation is, of one run or of two.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Measured, and nothing breaks it.
    Held,
    /// Something breaks it.
    Broken(Counterexamples),
    /// What it needs is not in the trace; nothing that is there breaks it. What is missing, and why.
    Unmeasured(Vec<String>),
    /// It is not about this run, and why.
    NotApplicable(String),
    /// What it reads is damaged, and nothing was found before: where, and how.
    Error(String),
}

impl Outcome {
    /// The name in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Outcome::Held => "held",
            Outcome::Broken(_) => "broken",
            Outcome::Unmeasured(_) => "unmeasured",
            Outcome::NotApplicable(_) => "not_applicable",
            Outcome::Error(_) => "error",
        }
    }
}

/// What a falsifier returned.
#[derive(Debug, Clone)]
pub struct Counterexamples {
    /// How many there are; of those before `cut`.
    pub count: u64,
    /// The first of them.
    pub shown: RecordBatch,
    /// What ended the count early; `None` where all are counted.
    pub cut: Option<String>,
}

/// An obligation of one run or one pair of runs.
#[derive(Debug, Clone)]
pub struct Judged {
    /// The obligation's id.
    pub id: String,
    /// What has to be true.
    pub says: String,
    /// How much a counterexample weighs.
    pub severity: Severity,
    /// Label and id of the run, or of reference and target; none where there is no run that it could be about.
    pub runs: Vec<(String, String)>,
    /// What it is.
    pub outcome: Outcome,
}

/// A contract over all runs.
#[derive(Debug, Clone)]
pub struct Checked {
    /// Its id.
    pub id: String,
    /// The promise.
    pub says: String,
    /// Its obligations, run by run.
    pub judged: Vec<Judged>,
}

/// How many obligations of all runs are what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Held.
    pub held: u64,
    /// Broken, those of severity error.
    pub broken: u64,
    /// Broken, those of severity warning.
    pub warnings: u64,
    /// Unmeasured.
    pub unmeasured: u64,
    /// Not applicable.
    pub not_applicable: u64,
    /// Not judged: what they read is damaged.
    pub errors: u64,
}

impl Counts {
    /// The counts over `checked`.
    pub fn of(checked: &[Checked]) -> Self {
        let mut counts = Counts::default();
        for judged in checked.iter().flat_map(|contract| &contract.judged) {
            let count = match (&judged.outcome, judged.severity) {
                (Outcome::Held, _) => &mut counts.held,
                (Outcome::Broken(_), Severity::Error) => &mut counts.broken,
                (Outcome::Broken(_), Severity::Warning) => &mut counts.warnings,
                (Outcome::Unmeasured(_), _) => &mut counts.unmeasured,
                (Outcome::NotApplicable(_), _) => &mut counts.not_applicable,
                (Outcome::Error(_), _) => &mut counts.errors,
            };
            *count += 1;
        }
        counts
    }
}
