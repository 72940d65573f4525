//! Checking contracts over the runs of a session.

use super::format::line;
use super::needs::{OPERATIONS, Supply};
use super::outcome::{Checked, Counterexamples, Judged, Outcome};
use super::scope::Fit;
use super::{Contract, Obligation, Scope, Sql};
use crate::capture::vocabulary;
use crate::error::{Error, ErrorKind, Result};
use crate::open::RunRef;
use crate::sql::{Session, Value, unknown_name};
use arrow::array::{AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Schema};
use serde_saphyr::Spanned;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The parameters that stand for two runs, and the columns of pairs.
const PAIR: [&str; 2] = ["reference", "target"];

/// Checks `contracts` over every run of `session`, each obligation with at most `shown` of its counterexamples. Damage in
/// what an obligation reads is its [`Outcome::Error`], and the others go on.
///
/// # Errors
/// Usage for two contracts of one id; Malformed, with file and line, for SQL of a contract that makes no sense, or would
/// write; otherwise those of answering SQL, with contract, line, obligation and runs.
pub async fn check(session: &Session, contracts: &[Contract], shown: usize) -> Result<Vec<Checked>> {
    let empty = Session::without_traces()?;
    let mut ids = BTreeSet::new();
    for contract in contracts {
        if !ids.insert(contract.id.value.as_str()) {
            return Err(Error::usage(format!("the contract `{}` is named twice", contract.id.value)));
        }
        plan(&empty, contract).await?;
    }
    let mut checked = Vec::with_capacity(contracts.len());
    for contract in contracts {
        checked.push(Checking { session, contract, shown }.all().await?);
    }
    Ok(checked)
}

/// Plans every SQL of `contract` over no trace: what makes no sense is found before anything is read.
async fn plan(empty: &Session, contract: &Contract) -> Result<()> {
    let all = contract.obligations.iter().filter_map(|obligation| obligation.pairs.as_ref());
    for pairs in contract.pairs.iter().chain(all) {
        let columns = planned(empty, contract, &pairs.sql, "pairs", &[]).await?;
        if !PAIR.iter().all(|name| columns.iter().any(|column| column == name)) {
            let message = format!("pairs return `reference` and `target`, not {}", columns.join(", "));
            return Err(contract.wrong(line(&pairs.sql), &message));
        }
    }
    for obligation in &contract.obligations {
        check_names(contract, obligation)?;
        let mut parameters = contract.parameters();
        let names = names(contract, obligation).iter();
        parameters.extend(names.map(|name| ((*name).to_owned(), Value::Text(String::new()))));
        for sql in [Some(&obligation.falsifier), obligation.needs.gaps.as_ref()].into_iter().flatten() {
            planned(empty, contract, sql, &obligation.id.value, &parameters).await?;
        }
    }
    Ok(())
}

/// The points and operations that an obligation needs, and the runs that it is about, are known ones.
fn check_names(contract: &Contract, obligation: &Obligation) -> Result<()> {
    for (scope, id) in [(&contract.applies_to, &contract.id), (&obligation.applies_to, &obligation.id)] {
        if let Some(message) = scope.unknown() {
            return Err(contract.wrong(line(id), &message));
        }
    }
    let points: Vec<&str> = vocabulary().iter().map(|point| point.name.as_str()).collect();
    let needs = &obligation.needs;
    let points = needs.points().map(|name| ("capture point", name, points.as_slice()));
    let operations = needs.made_by.iter().map(|name| ("operation of one row", name, &OPERATIONS[..]));
    for (what, name, known) in points.chain(operations) {
        if !known.contains(&name.as_str()) {
            let message = unknown_name(what, name, known.iter().copied());
            return Err(contract.wrong(line(&obligation.id), &message));
        }
    }
    Ok(())
}

/// The parameters that stand for the runs.
fn names(contract: &Contract, obligation: &Obligation) -> &'static [&'static str] {
    if contract.pairs(obligation).is_some() { &PAIR } else { &["run"] }
}

async fn planned(
    empty: &Session,
    contract: &Contract,
    sql: &Sql,
    what: &str,
    parameters: &[(String, Value)],
) -> Result<Vec<String>> {
    let columns = empty.columns(&sql.value, parameters).await;
    columns.map_err(|error| contract.wrong(line(sql), &format!("{what}: {error}")))
}

/// A contract under check.
struct Checking<'a> {
    session: &'a Session,
    contract: &'a Contract,
    shown: usize,
}

impl Checking<'_> {
    async fn all(&self) -> Result<Checked> {
        let contract = self.contract;
        let mut judged = Vec::new();
        for obligation in &contract.obligations {
            let subjects = match contract.pairs(obligation) {
                None => self.session.set().runs().map(|run| vec![run]).collect(),
                Some(pairs) => {
                    let found = self.pairs(&pairs.sql).await;
                    let found = found.map_err(|error| self.located(&pairs.sql, obligation, &[], &error))?;
                    if found.is_empty() {
                        let outcome = Outcome::Unmeasured(vec![pairs.otherwise.clone()]);
                        judged.push(verdict(obligation, &[], outcome));
                    }
                    found
                }
            };
            for runs in &subjects {
                let outcome = match self.judge(obligation, runs).await {
                    Ok(outcome) => outcome,
                    Err(error) if error.kind() == ErrorKind::Damaged => Outcome::Error(error.to_string()),
                    Err(error) => return Err(error),
                };
                judged.push(verdict(obligation, runs, outcome));
            }
        }
        Ok(Checked { id: contract.id.value.clone(), says: contract.says.clone(), judged })
    }

    /// The pairs of runs that the contract is about.
    async fn pairs(&self, sql: &Sql) -> Result<Vec<Vec<RunRef>>> {
        let mut pairs = Vec::new();
        let mut answer = self.session.query(&sql.value, &[]).await?;
        while let Some(batch) = answer.next().await? {
            let [references, targets] = PAIR.map(|name| texts(&batch, name));
            let (references, targets) = (references?, targets?);
            for (reference, target) in references.iter().zip(&targets) {
                let set = self.session.set();
                let runs = vec![set.resolve(reference)?, set.resolve(target)?];
                if runs.iter().all(|run| self.contract.applies_to.fit(run) == Fit::Inside) {
                    pairs.push(runs);
                }
            }
        }
        Ok(pairs)
    }

    async fn judge(&self, obligation: &Obligation, runs: &[RunRef]) -> Result<Outcome> {
        let mut missing = Vec::new();
        for run in runs {
            for scope in [&self.contract.applies_to, &obligation.applies_to] {
                if let Some(outcome) = outside(scope, run) {
                    return Ok(outcome);
                }
            }
            let supply = obligation.needs.supply(run);
            match supply.map_err(|error| self.located(&obligation.id, obligation, runs, &error))? {
                Supply::Rows(gaps) => missing.extend(gaps),
                Supply::NotApplicable(reason) => return Ok(Outcome::NotApplicable(reason)),
                Supply::Nothing(gaps) => return Ok(Outcome::Unmeasured(gaps)),
            }
        }
        let parameters = self.parameters(obligation, runs);
        if let Some(gaps) = &obligation.needs.gaps {
            match self.sentences(gaps, &parameters).await {
                Ok(sentences) => missing.extend(sentences),
                Err(error) if error.kind() == ErrorKind::NotComparable => missing.push(error.to_string()),
                Err(error) => return Err(self.located(gaps, obligation, runs, &error)),
            }
        }
        let (mut found, end) = self.falsify(obligation, &parameters).await?;
        match end {
            Err(error) if error.kind() == ErrorKind::NotComparable => missing.push(error.to_string()),
            Err(error) if error.kind() == ErrorKind::Damaged && found.count > 0 => found.cut = Some(error.to_string()),
            Err(error) => return Err(self.located(&obligation.falsifier, obligation, runs, &error)),
            Ok(()) => {}
        }
        // Gaps and falsifier may have met the same.
        missing.dedup();
        Ok(match (found.count, missing.is_empty()) {
            (1.., _) => Outcome::Broken(found),
            (0, true) => Outcome::Held,
            (0, false) => Outcome::Unmeasured(missing),
        })
    }

    /// `error` with the contract's file and line, the obligation and the runs.
    fn located<T>(&self, place: &Spanned<T>, obligation: &Obligation, runs: &[RunRef], error: &Error) -> Error {
        let labels: Vec<&str> = runs.iter().map(|run| run.view().identity.label.as_str()).collect();
        let of = if labels.is_empty() { String::new() } else { format!(" of {}", labels.join(" against ")) };
        let message = format!("line {}: {}{of}: {error}", line(place), obligation.id.value);
        Error::new(error.kind(), message).in_file(&self.contract.path)
    }

    /// The runs, as falsifiers name them, and the tolerances.
    fn parameters(&self, obligation: &Obligation, runs: &[RunRef]) -> Vec<(String, Value)> {
        let runs = names(self.contract, obligation).iter().zip(runs);
        let runs = runs.map(|(name, run)| ((*name).to_owned(), Value::Text(run.id())));
        runs.chain(self.contract.parameters()).collect()
    }

    /// The first column of an answer, each sentence once.
    async fn sentences(&self, sql: &Sql, parameters: &[(String, Value)]) -> Result<Vec<String>> {
        let mut sentences = Vec::new();
        let mut answer = self.session.query(&sql.value, parameters).await?;
        let name = answer.schema().fields().first().map(|field| field.name().clone()).unwrap_or_default();
        while let Some(batch) = answer.next().await? {
            sentences.extend(texts(&batch, &name)?);
        }
        sentences.sort();
        sentences.dedup();
        Ok(sentences)
    }

    /// Counts every counterexample and keeps the first; and how reading them ended.
    async fn falsify(
        &self,
        obligation: &Obligation,
        parameters: &[(String, Value)],
    ) -> Result<(Counterexamples, Result<()>)> {
        let mut answer = match self.session.query(&obligation.falsifier.value, parameters).await {
            Ok(answer) => answer,
            Err(error) => {
                let shown = RecordBatch::new_empty(Arc::new(Schema::empty()));
                return Ok((Counterexamples { count: 0, shown, cut: None }, Err(error)));
            }
        };
        let (mut count, mut kept) = (0, Vec::new());
        let end = loop {
            let batch = match answer.next().await {
                Ok(Some(batch)) => batch,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            let room = self.shown.saturating_sub(usize::try_from(count).unwrap_or(usize::MAX));
            // A slice without rows would keep its batch in memory.
            if room > 0 {
                kept.push(batch.slice(0, room.min(batch.num_rows())));
            }
            count += batch.num_rows() as u64;
        };
        let shown = concat_batches(&answer.schema(), &kept)
            .map_err(|cause| Error::internal("counterexamples do not fit together").because(cause))?;
        Ok((Counterexamples { count, shown, cut: None }, end))
    }
}

fn outside(scope: &Scope, run: &RunRef) -> Option<Outcome> {
    match scope.fit(run) {
        Fit::Inside => None,
        Fit::Outside(reason) => Some(Outcome::NotApplicable(reason)),
        Fit::Unknown(reason) => Some(Outcome::Unmeasured(vec![reason])),
    }
}

fn verdict(obligation: &Obligation, runs: &[RunRef], outcome: Outcome) -> Judged {
    Judged {
        id: obligation.id.value.clone(),
        says: obligation.says.clone(),
        severity: obligation.severity,
        runs: runs.iter().map(|run| (run.view().identity.label.clone(), run.id())).collect(),
        outcome,
    }
}

/// A column as texts.
///
/// # Errors
/// Usage, where one is NULL: a contract that says nothing at a place where it has to.
fn texts(batch: &RecordBatch, name: &str) -> Result<Vec<String>> {
    let wrong = || Error::internal(format!("an answer has no texts in `{name}`"));
    let column = batch.column_by_name(name).ok_or_else(wrong)?;
    let column = cast(column, &DataType::Utf8).map_err(|cause| wrong().because(cause))?;
    let null = || Error::usage(format!("`{name}` is NULL in a row"));
    column.as_string::<i32>().iter().map(|text| text.map(str::to_owned).ok_or_else(null)).collect()
}
