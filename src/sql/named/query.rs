//! One named query: its header, read and checked.

use super::header::{Header, at};
use super::parameter::Parameter;
use crate::error::{Error, Result};
use crate::open::TraceSet;
use crate::sql::Value;
use crate::sql::error::unknown_name;

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

impl Query {
    /// Reads a query file: comment lines `-- key: value` on top, SQL beneath.
    ///
    /// # Errors
    ///
    /// `Usage` for a header that breaks its form, with the line.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let header = Header::of(text)?;
        let needed = |key: &str| {
            let missing = || Error::usage(format!("a query opens with a line `-- {key}: ...`, and there is none"));
            header.value(key)?.map(str::to_owned).ok_or_else(missing)
        };
        let query = Query {
            name: name.to_owned(),
            question: needed("question")?,
            columns: needed("columns")?,
            empty: header.value("empty")?.map(str::to_owned),
            parameters: parameters(&header)?,
            sql: header.sql,
        };
        if query.sql.trim().is_empty() {
            return Err(Error::usage("there is no SQL under the header"));
        }
        if let Some(idle) = query.parameters.iter().find(|parameter| !uses(&query.sql, &parameter.name)) {
            return Err(Error::usage(format!("the SQL has no `${}`: the parameter does nothing", idle.name)));
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
        let runs = self.parameters.iter().filter_map(Parameter::place_of_run).max().unwrap_or(0);
        self.parameters
            .iter()
            .map(|parameter| {
                let value = given.iter().find(|(name, _)| *name == parameter.name).map(|(_, value)| value.as_str());
                Ok((parameter.name.clone(), parameter.value(value, set, runs)?))
            })
            .collect()
    }
}

/// Whether `sql` says `$name`.
fn uses(sql: &str, name: &str) -> bool {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    sql.split('$').skip(1).any(|rest| rest.strip_prefix(name).is_some_and(|behind| !behind.starts_with(word)))
}

fn parameters(header: &Header<'_>) -> Result<Vec<Parameter>> {
    let mut parameters: Vec<Parameter> = Vec::new();
    for (line, text) in header.values("parameter") {
        let parameter = Parameter::parse(text).map_err(|what| at(line, &what))?;
        if parameters.iter().any(|other| other.name == parameter.name) {
            return Err(at(line, &format!("a second parameter `{}`", parameter.name)));
        }
        parameters.push(parameter);
    }
    Ok(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::named::Catalogue;

    #[test]
    fn slips_in_names_and_values_are_refused_with_the_near_name() {
        let query = Catalogue::shipped().find("ratio-by-layer").unwrap();
        let set = TraceSet::default();
        let error = |name: &str, value: &str| {
            query.values(&[(name.to_owned(), value.to_owned())], &set).unwrap_err().to_string()
        };
        assert_eq!(
            error("statistik", "std"),
            "unknown parameter of ratio-by-layer `statistik`; did you mean `statistic`?"
        );
    }

    #[test]
    fn a_header_that_breaks_its_form_is_refused_with_what_is_wrong() {
        let said = |text: &str| Query::parse("mine", text).unwrap_err().to_string();
        let full = "-- question: What?\n-- a comment\n-- columns: one\n";
        assert_eq!(said(full), "there is no SQL under the header");
        assert_eq!(Query::parse("mine", &format!("{full}SELECT 1")).unwrap().sql, "SELECT 1");
        assert_eq!(said("SELECT 1"), "a query opens with a line `-- question: ...`, and there is none");
        assert!(said("-- question: What?\nSELECT 1").contains("-- columns: ..."));
        assert_eq!(said("-- question: What?\n-- question: Why?\n"), "line 2: a second `question`");
        assert_eq!(
            said(&format!("{full}-- limits: 3\nSELECT 1")),
            "line 4: `limits` is no key of a header; keys are question, parameter, columns, empty"
        );
        let parameters = format!("{full}-- parameter: a number = 1\n-- parameter: a number = 2\nSELECT $a");
        assert_eq!(said(&parameters), "line 5: a second parameter `a`");
        let idle = format!("{full}-- parameter: a number = 1\nSELECT $ab");
        assert_eq!(said(&idle), "the SQL has no `$a`: the parameter does nothing");
    }
}
