//! Hyper-parameters as text, told apart by where each came from.

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
}

impl Source {
    /// The name in records: `file`, `shape`, `default`.
    pub fn name(self) -> &'static str {
        match self {
            Source::File => "file",
            Source::Shape => "shape",
            Source::Default => "default",
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

/// Collects facts while the fields are read.
#[derive(Debug, Default)]
pub(super) struct Facts(Vec<Fact>);

impl Facts {
    /// Notes a value and hands it on.
    pub(super) fn note<T: fmt::Display>(&mut self, key: &'static str, sourced: Sourced<T>) -> T {
        self.0.push(Fact { key, value: sourced.value.to_string(), source: sourced.source });
        sourced.value
    }

    /// Notes a value where there is one.
    pub(super) fn note_some<T: fmt::Display>(&mut self, key: &'static str, sourced: Sourced<Option<T>>) -> Option<T> {
        let value = sourced.value?;
        Some(self.note(key, Sourced { value, source: sourced.source }))
    }

    pub(super) fn into_vec(self) -> Vec<Fact> {
        self.0
    }
}
