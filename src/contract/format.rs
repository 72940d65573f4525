//! A contract as its file says it.

use super::{Needs, Scope};
use crate::error::{Error, Result};
use crate::sql::Value;
use serde::Deserialize;
use serde_saphyr::Spanned;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// SQL in a contract, with its place in the file.
pub type Sql = Spanned<String>;

/// A promise about traces.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contract {
    /// Where it was read from; not part of the file.
    #[serde(skip)]
    pub path: PathBuf,
    /// Its id: the file's name without its ending.
    pub id: Spanned<String>,
    /// The promise in a sentence.
    pub says: String,
    /// The runs that it is about; all where it does not say.
    #[serde(default)]
    pub applies_to: Scope,
    /// The pairs of runs that its obligations are about, where they are about two.
    pub pairs: Option<Pairs>,
    /// Numbers that falsifiers use as `$name`, each with its reason.
    #[serde(default)]
    pub tolerances: BTreeMap<String, Tolerance>,
    /// What it comes to.
    pub obligations: Vec<Obligation>,
}

/// Which pairs of runs a contract is about.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pairs {
    /// SQL with the columns `reference` and `target`: run ids.
    pub sql: Sql,
    /// What is missing where it returns nothing.
    pub otherwise: String,
}

/// A number that a falsifier allows for, and why that much.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tolerance {
    /// The number.
    pub value: Spanned<f64>,
    /// Where it comes from.
    pub because: String,
}

/// How much a broken obligation weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The contract is broken.
    Error,
    /// Worth a look; may be right.
    Warning,
}

impl Severity {
    /// The name in contracts and reports.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// One part of a promise that can be broken by itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Obligation {
    /// Its id, unique in the contract.
    pub id: Spanned<String>,
    /// What has to be true, in a sentence.
    pub says: String,
    /// How much a counterexample weighs.
    pub severity: Severity,
    /// The runs that it is about, of those that the contract is about.
    #[serde(default)]
    pub applies_to: Scope,
    /// The pairs of runs that it is about, in place of the contract's.
    pub pairs: Option<Pairs>,
    /// What has to be in the trace for it to be measured.
    #[serde(default)]
    pub needs: Needs,
    /// SQL that returns counterexamples.
    pub falsifier: Sql,
}

impl Contract {
    /// Reads the contract `text` of the file `path`.
    ///
    /// # Errors
    /// Malformed, with file and line, for YAML that is none, an unknown or missing key, a value of another type, an id
    /// that is no id or is there twice.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let mut contract: Contract = serde_saphyr::from_str(text).map_err(|error| unreadable(path, &error))?;
        contract.path = path.to_path_buf();
        contract.check_ids()?;
        contract.check_tolerances()?;
        Ok(contract)
    }

    fn check_ids(&self) -> Result<()> {
        let stem = self.path.file_stem().map(|stem| stem.to_string_lossy());
        if stem.is_some_and(|stem| stem != self.id.value.as_str()) {
            let message = format!("the id `{}` is not the file's name without its ending", self.id.value);
            return Err(self.wrong(line(&self.id), &message));
        }
        if self.obligations.is_empty() {
            return Err(self.wrong(line(&self.id), "a contract has at least one obligation"));
        }
        let mut seen = BTreeSet::new();
        for id in [&self.id].into_iter().chain(self.obligations.iter().map(|obligation| &obligation.id)) {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if id.value.is_empty() || !id.value.chars().all(plain) {
                return Err(self.wrong(line(id), &format!("`{}` is no id: lower-case letters, digits and -", id.value)));
            }
        }
        for Obligation { id, .. } in &self.obligations {
            if !seen.insert(id.value.as_str()) {
                return Err(self.wrong(line(id), &format!("the obligation `{}` is there twice", id.value)));
            }
        }
        Ok(())
    }

    /// A tolerance that no falsifier uses is a slip, and so is one that is no size, has no reason or the name of a run.
    fn check_tolerances(&self) -> Result<()> {
        for (name, tolerance) in &self.tolerances {
            let number = tolerance.value.value;
            let used = self.obligations.iter().any(|obligation| uses(&obligation.falsifier.value, name));
            let message = if RUNS.contains(&name.as_str()) {
                format!("`{name}` stands for a run and is no name of a tolerance")
            } else if !used {
                format!("no falsifier uses the tolerance `{name}`")
            } else if !number.is_finite() || number < 0.0 {
                format!("the tolerance `{name}` is no number from 0 on")
            } else if tolerance.because.trim().is_empty() {
                format!("the tolerance `{name}` has no reason")
            } else {
                continue;
            };
            return Err(self.wrong(line(&tolerance.value), &message));
        }
        Ok(())
    }

    /// The pairs of runs that `obligation` is about; `None` where it is about each run alone.
    pub(super) fn pairs<'a>(&'a self, obligation: &'a Obligation) -> Option<&'a Pairs> {
        obligation.pairs.as_ref().or(self.pairs.as_ref())
    }

    /// The tolerances as parameters of SQL.
    pub(super) fn parameters(&self) -> Vec<(String, Value)> {
        self.tolerances.iter().map(|(name, tolerance)| (name.clone(), Value::Number(tolerance.value.value))).collect()
    }

    /// An error at a line of the file.
    pub(super) fn wrong(&self, line: u64, message: &str) -> Error {
        Error::malformed(format!("line {line}: {message}")).in_file(&self.path)
    }
}

/// Parameters that stand for runs.
const RUNS: [&str; 3] = ["run", "reference", "target"];

/// Whether `sql` has the parameter `name`; `$name` in `$names` is none.
fn uses(sql: &str, name: &str) -> bool {
    let goes_on = |c: char| c.is_alphanumeric() || c == '_';
    sql.split('$').skip(1).any(|rest| rest.strip_prefix(name).is_some_and(|rest| !rest.starts_with(goes_on)))
}

/// The line of a value.
pub(super) fn line<T>(value: &Spanned<T>) -> u64 {
    value.referenced.line()
}

fn unreadable(path: &Path, error: &serde_saphyr::Error) -> Error {
    let place = error.location().map_or_else(String::new, |place| format!("line {}: ", place.line()));
    let text = error.without_snippet().to_string();
    // The place stands in front.
    let text = text.split(" at line ").next().unwrap_or_default();
    Error::malformed(format!("{place}{}", text.split_whitespace().collect::<Vec<_>>().join(" "))).in_file(path)
}
