//! Several traces as one: every run of every file, found by label or id.

use super::{RunView, State, Trace};
use crate::error::{Error, Result, nearest};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// A run and the trace that holds it; cheap to clone.
#[derive(Debug, Clone)]
pub struct RunRef {
    trace: Arc<Trace>,
    ordinal: usize,
}

impl RunRef {
    /// The file that holds the run.
    pub fn trace(&self) -> &Arc<Trace> {
        &self.trace
    }

    /// The run as its file describes it.
    pub fn view(&self) -> &RunView {
        // Only `TraceSet::runs` makes references, one for each run that the trace has, and a trace never changes.
        &self.trace.runs()[self.ordinal]
    }

    /// The run id as 32 hexadecimal digits.
    pub fn id(&self) -> String {
        self.view().id()
    }
}

/// Any number of open traces.
#[derive(Debug, Clone, Default)]
pub struct TraceSet {
    traces: Vec<Arc<Trace>>,
}

impl TraceSet {
    /// Opens every path, in the order given.
    ///
    /// # Errors
    ///
    /// Whatever opening a file says, and `Usage` where two files hold one run: each of its rows would count twice.
    pub fn open(paths: &[PathBuf]) -> Result<Self> {
        let traces = paths.iter().map(|path| Trace::open(path)).collect::<Result<Vec<_>>>()?;
        TraceSet::new(traces)
    }

    /// A set of traces that are open already.
    ///
    /// # Errors
    ///
    /// `Usage` where two of them hold one run.
    pub fn new(traces: Vec<Arc<Trace>>) -> Result<Self> {
        let mut owners: BTreeMap<[u8; 16], &Arc<Trace>> = BTreeMap::new();
        for trace in &traces {
            for run in trace.runs() {
                if let Some(other) = owners.insert(run.identity.run_id, trace) {
                    return Err(Error::usage(format!(
                        "run {} is in {} as well: name one of the two files",
                        run.id(),
                        other.path().display()
                    ))
                    .in_file(trace.path()));
                }
            }
        }
        Ok(TraceSet { traces })
    }

    /// The traces in the order given.
    pub fn traces(&self) -> &[Arc<Trace>] {
        &self.traces
    }

    /// Every run, file by file, in the order of recording.
    pub fn runs(&self) -> impl Iterator<Item = RunRef> + '_ {
        self.traces
            .iter()
            .flat_map(|trace| (0..trace.runs().len()).map(|ordinal| RunRef { trace: Arc::clone(trace), ordinal }))
    }

    /// The traces that no seal ends: torn or damaged ones.
    pub fn unsealed(&self) -> impl Iterator<Item = &Arc<Trace>> {
        self.traces.iter().filter(|trace| trace.state() != State::Sealed)
    }

    /// Whether no writer will go on with any of them: each is sealed, or damaged, which writers refuse.
    pub fn is_over(&self) -> bool {
        self.traces.iter().all(|trace| matches!(trace.state(), State::Sealed | State::Damaged))
    }

    /// The run that `name` means: a label, or the first digits of a run id.
    ///
    /// # Errors
    ///
    /// `Usage` where no run or more than one fits; the text lists what there is.
    pub fn resolve(&self, name: &str) -> Result<RunRef> {
        let mut labelled = Vec::new();
        let mut prefixed = Vec::new();
        for run in self.runs() {
            if run.view().identity.label == name {
                labelled.push(run);
            } else if !name.is_empty() && run.id().starts_with(&name.to_ascii_lowercase()) {
                prefixed.push(run);
            }
        }
        let mut found = if labelled.is_empty() { prefixed } else { labelled };
        match (found.pop(), found.is_empty()) {
            (Some(run), true) => Ok(run),
            (Some(run), false) => {
                found.push(run);
                Err(Error::usage(format!("`{name}` means more than one run: {}; give an id", listing(&found))))
            }
            (None, _) => Err(self.unknown(name)),
        }
    }

    /// Label and id of every run, for messages.
    pub fn listing(&self) -> String {
        listing(&self.runs().collect::<Vec<_>>())
    }

    fn unknown(&self, name: &str) -> Error {
        let runs: Vec<RunRef> = self.runs().collect();
        let labels = runs.iter().map(|run| run.view().identity.label.as_str());
        let hint = match nearest(name, labels) {
            Some(label) => format!("did you mean `{label}`?"),
            None => format!("there are {}", listing(&runs)),
        };
        Error::usage(format!("no run has the label or id `{name}`; {hint}"))
    }
}

fn listing(runs: &[RunRef]) -> String {
    let parts: Vec<String> = runs.iter().map(|run| format!("{} ({})", run.view().identity.label, run.id())).collect();
    if parts.is_empty() { "no runs".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_set_says_that_it_has_no_runs() {
        let error = TraceSet::default().resolve("a").unwrap_err().to_string();
        assert_eq!(error, "no run has the label or id `a`; there are no runs");
    }
}
