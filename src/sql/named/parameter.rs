//! Parameters of named queries: what they are called, what values they take, and which they have.

use crate::error::{Error, Result};
use crate::open::{RunRef, TraceSet};
use crate::sql::error::unknown_name;
use crate::sql::{Value, points};

/// Defaults of runs that stand for a place among the runs of the files.
const PLACES: [&str; 3] = ["first", "second", "third"];

/// The default that stands for no value: every run, every point, every number.
const ANY: &str = "any";

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
    /// A run, by label or first digits of its id; SQL gets the id. The defaults `first`, `second` and `third` hold for
    /// files with exactly as many runs as the query asks about; with `any` SQL gets the empty text.
    Run,
    /// A capture point; with the default `any` SQL gets the empty text.
    Point,
    /// Any text.
    Text,
    /// A finite number; with the default `any` SQL gets NULL.
    Number,
    /// A whole number from 0 on, below 2^32; with the default `any` SQL gets NULL.
    Integer,
    /// One of these words.
    OneOf(Vec<String>),
}

impl ParameterKind {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "run" => ParameterKind::Run,
            "point" => ParameterKind::Point,
            "text" => ParameterKind::Text,
            "number" => ParameterKind::Number,
            "integer" => ParameterKind::Integer,
            choice if choice.contains('|') => ParameterKind::OneOf(choice.split('|').map(str::to_owned).collect()),
            _ => return None,
        })
    }

    /// What a listing calls it.
    pub fn name(&self) -> String {
        match self {
            ParameterKind::Run => "run".to_owned(),
            ParameterKind::Point => "point".to_owned(),
            ParameterKind::Text => "text".to_owned(),
            ParameterKind::Number => "number".to_owned(),
            ParameterKind::Integer => "integer".to_owned(),
            ParameterKind::OneOf(choices) => choices.join("|"),
        }
    }

    fn allows_default(&self, word: &str) -> bool {
        match self {
            ParameterKind::Run => word == ANY || PLACES.contains(&word),
            ParameterKind::Point | ParameterKind::Text => true,
            ParameterKind::Number => word == ANY || finite(word).is_some(),
            ParameterKind::Integer => word == ANY || whole(word).is_some(),
            ParameterKind::OneOf(choices) => choices.iter().any(|choice| choice == word),
        }
    }
}

impl Parameter {
    /// Reads `name type [= default] description`.
    ///
    /// # Errors
    ///
    /// What is wrong, in words.
    pub(super) fn parse(text: &str) -> std::result::Result<Self, String> {
        let mut words = text.split_whitespace().peekable();
        let form = "a parameter is `name type [= default] description`";
        let (Some(name), Some(kind)) = (words.next(), words.next()) else { return Err(form.to_owned()) };
        let Some(kind) = ParameterKind::parse(kind) else {
            return Err(format!("`{kind}` is no type: run, point, text, number, integer or words joined by |; {form}"));
        };
        let default = match words.next_if_eq(&"=") {
            Some(_) => Some(words.next().ok_or(form)?.to_owned()),
            None => None,
        };
        if let Some(default) = &default
            && !kind.allows_default(default)
        {
            return Err(format!("`{default}` is no default of a {}", kind.name()));
        }
        Ok(Parameter { name: name.to_owned(), kind, default, description: words.collect::<Vec<_>>().join(" ") })
    }

    /// How many runs there are at least where its default holds.
    pub(super) fn place_of_run(&self) -> Option<usize> {
        let default = self.default.as_deref().filter(|_| self.kind == ParameterKind::Run)?;
        PLACES.iter().position(|place| *place == default).map(|place| place + 1)
    }

    /// The value that SQL gets; `runs` is how many runs the query asks about.
    pub(super) fn value(&self, given: Option<&str>, set: &TraceSet, runs: usize) -> Result<Value> {
        let (name, text) = (&self.name, given.or(self.default.as_deref()));
        let any = given.is_none() && self.default.as_deref() == Some(ANY);
        let missing =
            || Error::usage(format!("parameter `{name}` needs a value: -p {name}=... ({})", self.description));
        match &self.kind {
            ParameterKind::Run | ParameterKind::Point if any => Ok(Value::Text(String::new())),
            ParameterKind::Number | ParameterKind::Integer if any => Ok(Value::Missing),
            ParameterKind::Run => self.run(given, set, runs),
            ParameterKind::Point => {
                let text = text.ok_or_else(missing)?;
                points::check_name(text, set)?;
                Ok(Value::Text(text.to_owned()))
            }
            ParameterKind::Text => Ok(Value::Text(text.ok_or_else(missing)?.to_owned())),
            ParameterKind::Number => {
                let text = text.ok_or_else(missing)?;
                let number =
                    finite(text).ok_or_else(|| Error::usage(format!("`{text}` is no finite number, for `{name}`")))?;
                Ok(Value::Number(number))
            }
            ParameterKind::Integer => {
                let text = text.ok_or_else(missing)?;
                let number = whole(text)
                    .ok_or_else(|| Error::usage(format!("`{text}` is no whole number from 0 on, for `{name}`")))?;
                Ok(Value::Number(f64::from(number)))
            }
            ParameterKind::OneOf(choices) => {
                let text = text.ok_or_else(missing)?;
                if !choices.iter().any(|choice| choice == text) {
                    return Err(Error::usage(unknown_name(name, text, choices.iter().map(String::as_str))));
                }
                Ok(Value::Text(text.to_owned()))
            }
        }
    }

    fn run(&self, given: Option<&str>, set: &TraceSet, runs: usize) -> Result<Value> {
        if let Some(given) = given {
            return Ok(Value::Text(set.resolve(given)?.id()));
        }
        let there: Vec<RunRef> = set.runs().collect();
        let place = self.place_of_run().filter(|_| there.len() == runs);
        match place.and_then(|place| there.get(place - 1)) {
            Some(run) => Ok(Value::Text(run.id())),
            None => {
                let (name, listing) = (&self.name, set.listing());
                Err(Error::usage(format!("which run is the {name}? -p {name}=LABEL; there are {listing}")))
            }
        }
    }
}

/// NaN and infinities compare with nothing as a user means it: a limit of them would silence a query.
fn finite(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// What layers, positions, steps and rows are counted with: a part of one would silently be none of them.
fn whole(text: &str) -> Option<u32> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_has_a_name_a_type_a_default_and_a_description() {
        let parameter = Parameter::parse("statistic std|rms = std which one").unwrap();
        assert_eq!(parameter.kind, ParameterKind::OneOf(vec!["std".into(), "rms".into()]));
        assert_eq!((parameter.default.as_deref(), parameter.description.as_str()), (Some("std"), "which one"));
        assert!(Parameter::parse("limit").unwrap_err().starts_with("a parameter is"));
        assert!(Parameter::parse("limit count = 3").unwrap_err().starts_with("`count` is no type"));
    }

    #[test]
    fn a_default_fits_its_type() {
        for wrong in ["a run = fourth", "a number = many", "a number = nan", "a std|rms = mean"] {
            assert!(Parameter::parse(wrong).unwrap_err().contains("is no default of a "), "{wrong}");
        }
        assert!(Parameter::parse("a number = any").is_ok() && Parameter::parse("a run = any").is_ok());
    }

    #[test]
    fn a_number_is_finite() {
        let (set, limit) = (TraceSet::default(), Parameter::parse("above number = 1 limit").unwrap());
        for wrong in ["nan", "inf", "-infinity", "1e999", "many"] {
            let error = limit.value(Some(wrong), &set, 0).unwrap_err().to_string();
            assert_eq!(error, format!("`{wrong}` is no finite number, for `above`"));
        }
    }

    #[test]
    fn an_integer_is_whole_and_not_negative() {
        let (set, layer) = (TraceSet::default(), Parameter::parse("layer integer = any one layer").unwrap());
        for wrong in ["1.5", "-1", "1e3", "4294967296", "many", ""] {
            let error = layer.value(Some(wrong), &set, 0).unwrap_err().to_string();
            assert_eq!(error, format!("`{wrong}` is no whole number from 0 on, for `layer`"));
        }
        assert_eq!(layer.value(Some("7"), &set, 0).unwrap(), Value::Number(7.0));
        assert_eq!(layer.value(None, &set, 0).unwrap(), Value::Missing);
        assert!(Parameter::parse("layer integer = 1.5 one layer").unwrap_err().contains("is no default of a "));
    }

    #[test]
    fn any_is_the_empty_text_or_null() {
        let set = TraceSet::default();
        let value = |text: &str| Parameter::parse(text).unwrap().value(None, &set, 0).unwrap();
        assert_eq!(value("a run = any"), Value::Text(String::new()));
        assert_eq!(value("a point = any"), Value::Text(String::new()));
        assert_eq!(value("a number = any"), Value::Missing);
    }

    #[test]
    fn a_point_that_no_model_has_is_refused_with_the_near_name() {
        let set = TraceSet::default();
        let point = Parameter::parse("point point = resid_post where").unwrap();
        assert_eq!(point.value(None, &set, 0).unwrap(), Value::Text("resid_post".into()));
        let error = point.value(Some("resid_pots"), &set, 0).unwrap_err().to_string();
        assert_eq!(error, "unknown capture point `resid_pots`; did you mean `resid_post`?");
    }
}
