//! Hyper-parameters as text, told apart by where each came from.

use super::overrides::{Given, Overrides};
use crate::error::{Error, Result, nearest};
use std::fmt;

/// Where a fact comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The model's file says so.
    File,
    /// It follows from the shape of a tensor.
    Shape,
    /// The file is silent; the family's default, or what follows from other facts.
    Default,
    /// The command line sets it over whatever the file says.
    CommandLine,
}

impl Source {
    /// The name in records: `file`, `shape`, `default`, `override`.
    pub fn name(self) -> &'static str {
        match self {
            Source::File => "file",
            Source::Shape => "shape",
            Source::Default => "default",
            Source::CommandLine => "override",
        }
    }
}

/// One hyper-parameter as text, for a run's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// Its name: mostly the field of [`super::HyperParameters`].
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// Where it comes from.
    pub source: Source,
}

/// A value and where it comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sourced<T> {
    pub value: T,
    pub source: Source,
}

impl<T> Sourced<T> {
    pub(super) fn file(value: T) -> Self {
        Sourced { value, source: Source::File }
    }

    pub(super) fn default(value: T) -> Self {
        Sourced { value, source: Source::Default }
    }

    /// The file's value, or the default.
    pub(super) fn or(value: Option<T>, default: T) -> Self {
        value.map_or_else(|| Sourced::default(default), Sourced::file)
    }
}

/// Collects facts while the fields are read, and puts what the user set in their place.
#[derive(Debug, Default)]
pub(super) struct Facts {
    facts: Vec<Fact>,
    /// Those that the user may set.
    settable: Vec<&'static str>,
    overrides: Overrides,
    /// The first setting that is no value of its hyper-parameter.
    senseless: Option<Error>,
}

impl Facts {
    pub(super) fn new(overrides: &Overrides) -> Facts {
        Facts { overrides: overrides.clone(), ..Facts::default() }
    }

    /// Notes a value, or what the user set instead, and hands it on.
    #[must_use = "the user may have set another value"]
    pub(super) fn note<T: Given>(&mut self, key: &'static str, sourced: Sourced<T>) -> T {
        let sourced = self.overridden(key, sourced);
        self.settable.push(key);
        self.state(key, &sourced);
        sourced.value
    }

    /// Notes a value where there is one; where there is none, none can be set.
    #[must_use = "the user may have set another value"]
    pub(super) fn note_some<T: Given>(&mut self, key: &'static str, sourced: Sourced<Option<T>>) -> Option<T> {
        let value = sourced.value?;
        Some(self.note(key, Sourced { value, source: sourced.source }))
    }

    /// Notes what stands for several numbers, and so cannot be set as one.
    pub(super) fn state<T: fmt::Display>(&mut self, key: &'static str, sourced: &Sourced<T>) {
        self.facts.push(Fact { key, value: sourced.value.to_string(), source: sourced.source });
    }

    fn overridden<T: Given>(&mut self, key: &'static str, sourced: Sourced<T>) -> Sourced<T> {
        let Some(text) = self.overrides.get(key) else { return sourced };
        if let Some(value) = T::given(text) {
            return Sourced { value, source: Source::CommandLine };
        }
        let message = format!("{key} is set to `{text}`, and should be {}", T::WHAT);
        self.senseless.get_or_insert_with(|| Error::usage(message));
        sourced
    }

    /// What the reader of the fields came to, unless a setting makes no sense. Which keys are known shows only when all
    /// fields were read.
    ///
    /// # Errors
    /// Usage for a setting that is no value, or whose key cannot be set in this model; else the reader's.
    pub(super) fn judge<T>(&mut self, read: Result<T>) -> Result<T> {
        if let Some(error) = self.senseless.take() {
            return Err(error);
        }
        let read = read?;
        let Some(key) = self.overrides.keys().find(|key| !self.settable.contains(key)) else { return Ok(read) };
        if self.facts.iter().any(|fact| fact.key == key) {
            return Err(Error::usage(format!("{key} stands for several numbers of the file and cannot be set")));
        }
        Err(Error::usage(match nearest(key, self.settable.iter().copied()) {
            Some(near) => format!("this model has no hyper-parameter `{key}`; did you mean `{near}`?"),
            None => format!("this model has no hyper-parameter `{key}`; it has {}", self.settable.join(", ")),
        }))
    }

    pub(super) fn into_vec(self) -> Vec<Fact> {
        self.facts
    }
}
