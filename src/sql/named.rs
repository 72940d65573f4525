//! Named queries: the files of `queries/`, each with its question, parameters and columns on top.

use super::{Value, error::unknown_name};
use crate::error::{Error, Result};
use crate::open::{RunRef, TraceSet};

/// The files, built in so that the binary stands alone. A test holds this list against the folder.
const FILES: &[(&str, &str)] = &[
    ("bit-equality", include_str!("../../queries/bit-equality.sql")),
    ("coverage", include_str!("../../queries/coverage.sql")),
    ("drift", include_str!("../../queries/drift.sql")),
    ("first-exceeding", include_str!("../../queries/first-exceeding.sql")),
    ("logits", include_str!("../../queries/logits.sql")),
    ("nonfinite", include_str!("../../queries/nonfinite.sql")),
    ("provenance", include_str!("../../queries/provenance.sql")),
    ("ratio-by-layer", include_str!("../../queries/ratio-by-layer.sql")),
    ("runs", include_str!("../../queries/runs.sql")),
    ("spikes", include_str!("../../queries/spikes.sql")),
    ("stale-buffers", include_str!("../../queries/stale-buffers.sql")),
    ("statistics", include_str!("../../queries/statistics.sql")),
    ("weights", include_str!("../../queries/weights.sql")),
    ("worst-positions", include_str!("../../queries/worst-positions.sql")),
];

/// One named query.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// Name: the file's, without its ending.
    pub name: String,
    /// The question that it answers.
    pub question: String,
    /// What it can be told.
    pub parameters: Vec<Parameter>,
    /// The columns of its answer, with what they mean.
    pub columns: String,
    /// What an empty answer means; `None` where empty is a fine answer.
    pub empty: Option<String>,
    /// The SQL.
    pub sql: String,
}

/// A parameter of a query.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Name; SQL says `$name`.
    pub name: String,
    /// What values it takes.
    pub kind: ParameterKind,
    /// Its value when none is given; `None` where one must be given.
    pub default: Option<String>,
    /// What it means.
    pub description: String,
}

/// What values a parameter takes.
#[derive(Debug, Clone, PartialEq)]
pub enum ParameterKind {
    /// A run, by label or first digits of its id. Defaults: `first` and `second` of exactly two runs; `any`.
    Run,
    /// Any text.
    Text,
    /// A number.
    Number,
    /// One of these words.
    OneOf(Vec<String>),
}

/// All named queries, by name.
///
/// # Errors
///
/// `Internal` where a header breaks its own form.
pub fn all() -> Result<Vec<Query>> {
    FILES.iter().map(|(name, text)| Query::parse(name, text)).collect()
}

/// The query `name`.
///
/// # Errors
///
/// `Usage` for an unknown name, with the nearest known one.
pub fn find(name: &str) -> Result<Query> {
    match FILES.iter().find(|(known, _)| *known == name) {
        Some((name, text)) => Query::parse(name, text),
        None => Err(Error::usage(unknown_name("query", name, FILES.iter().map(|(known, _)| *known)))),
    }
}

impl Query {
    /// Reads a query file: comment lines `-- key: value` on top, SQL beneath.
    ///
    /// # Errors
    ///
    /// `Internal` for a header that breaks its own form.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let broken = |what: &str| Error::internal(format!("queries/{name}.sql: {what}"));
        let mut query = Query {
            name: name.to_owned(),
            question: String::new(),
            parameters: Vec::new(),
            columns: String::new(),
            empty: None,
            sql: String::new(),
        };
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next_if(|line| line.starts_with("--")) {
            let Some((key, value)) = line.trim_start_matches("--").trim().split_once(": ") else {
                continue;
            };
            match key {
                "question" => query.question = value.to_owned(),
                "parameter" => query.parameters.push(Parameter::parse(value).ok_or_else(|| broken(line))?),
                "columns" => query.columns = value.to_owned(),
                "empty" => query.empty = Some(value.to_owned()),
                _ => return Err(broken(line)),
            }
        }
        query.sql = lines.collect::<Vec<_>>().join("\n");
        if query.question.is_empty() || query.columns.is_empty() || query.sql.trim().is_empty() {
            return Err(broken("a query opens with its question and its columns"));
        }
        Ok(query)
    }

    /// The values of all parameters: `given` ones, else defaults; runs become run ids.
    ///
    /// # Errors
    ///
    /// `Usage` for a parameter that the query does not have, a value that does not fit, and one that is missing.
    pub fn values(&self, given: &[(String, String)], set: &TraceSet) -> Result<Vec<(String, Value)>> {
        let known = self.parameters.iter().map(|parameter| parameter.name.as_str());
        for (index, (name, _)) in given.iter().enumerate() {
            if !known.clone().any(|known| known == name) {
                let what = format!("parameter of {}", self.name);
                return Err(Error::usage(unknown_name(&what, name, known)));
            }
            if given.iter().take(index).any(|(earlier, _)| earlier == name) {
                return Err(Error::usage(format!("parameter `{name}` is given twice")));
            }
        }
        self.parameters
            .iter()
            .map(|parameter| {
                let value = given.iter().find(|(name, _)| *name == parameter.name).map(|(_, value)| value.as_str());
                Ok((parameter.name.clone(), parameter.value(value, set)?))
            })
            .collect()
    }
}

impl Parameter {
    /// `name type [= default] description`.
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace().peekable();
        let name = words.next()?.to_owned();
        let kind = match words.next()? {
            "run" => ParameterKind::Run,
            "text" => ParameterKind::Text,
            "number" => ParameterKind::Number,
            choice if choice.contains('|') => ParameterKind::OneOf(choice.split('|').map(str::to_owned).collect()),
            _ => return None,
        };
        let default = match words.next_if_eq(&"=") {
            Some(_) => Some(words.next()?.to_owned()),
            None => None,
        };
        Some(Parameter { name, kind, default, description: words.collect::<Vec<_>>().join(" ") })
    }

    fn value(&self, given: Option<&str>, set: &TraceSet) -> Result<Value> {
        let name = &self.name;
        let missing =
            || Error::usage(format!("parameter `{name}` needs a value: -p {name}=... ({})", self.description));
        match &self.kind {
            ParameterKind::Run => self.run(given, set),
            ParameterKind::Text => Ok(Value::Text(given.or(self.default.as_deref()).ok_or_else(missing)?.to_owned())),
            ParameterKind::Number => {
                let text = given.or(self.default.as_deref()).ok_or_else(missing)?;
                let number = text.parse().map_err(|_| Error::usage(format!("`{text}` is no number, for `{name}`")))?;
                Ok(Value::Number(number))
            }
            ParameterKind::OneOf(choices) => {
                let text = given.or(self.default.as_deref()).ok_or_else(missing)?;
                if !choices.iter().any(|choice| choice == text) {
                    return Err(Error::usage(unknown_name(name, text, choices.iter().map(String::as_str))));
                }
                Ok(Value::Text(text.to_owned()))
            }
        }
    }

    fn run(&self, given: Option<&str>, set: &TraceSet) -> Result<Value> {
        if let Some(given) = given {
            return Ok(Value::Text(set.resolve(given)?.id()));
        }
        let runs: Vec<RunRef> = set.runs().collect();
        let run = match (self.default.as_deref(), runs.as_slice()) {
            (Some("any"), _) => return Ok(Value::Text(String::new())),
            (Some("first"), [run, _]) | (Some("second"), [_, run]) => run,
            _ => {
                let (name, listing) = (&self.name, set.listing());
                return Err(Error::usage(format!("which run is the {name}? -p {name}=LABEL; there are {listing}")));
            }
        };
        Ok(Value::Text(run.id()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_holds_every_file_of_the_folder() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("queries");
        let mut files: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        files.sort();
        let listed: Vec<String> = FILES.iter().map(|(name, _)| format!("{name}.sql")).collect();
        assert_eq!(files, listed);
    }

    #[test]
    fn every_header_can_be_read_and_every_parameter_is_used() {
        for query in all().unwrap() {
            for parameter in &query.parameters {
                assert!(query.sql.contains(&format!("${}", parameter.name)), "{}: {}", query.name, parameter.name);
            }
        }
    }

    #[test]
    fn a_parameter_has_a_name_a_type_a_default_and_a_description() {
        let parameter = Parameter::parse("statistic std|rms = std which one").unwrap();
        assert_eq!(parameter.kind, ParameterKind::OneOf(vec!["std".into(), "rms".into()]));
        assert_eq!((parameter.default.as_deref(), parameter.description.as_str()), (Some("std"), "which one"));
        assert_eq!(Parameter::parse("limit count = 3"), None);
    }

    #[test]
    fn slips_in_names_and_values_are_refused_with_the_near_name() {
        let query = find("ratio-by-layer").unwrap();
        let set = TraceSet::default();
        let error = |name: &str, value: &str| {
            query.values(&[(name.to_owned(), value.to_owned())], &set).unwrap_err().to_string()
        };
        assert_eq!(
            error("statistik", "std"),
            "unknown parameter of ratio-by-layer `statistik`; did you mean `statistic`?"
        );
        assert!(find("ratio-by-layers").unwrap_err().to_string().contains("did you mean `ratio-by-layer`?"));
    }
}
