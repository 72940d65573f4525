//! Hyper-parameters that a user sets over what a model's file says.

use super::Activation;
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::fmt::Display;

/// Hyper-parameters to set, by the names of [`super::Fact::key`]. The default sets none.
///
/// A name that the model does not have, or a text that is no value of it, is refused where the model is opened: which
/// names there are depends on its family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides(BTreeMap<String, String>);

impl Overrides {
    /// Parses settings of the form `key=value`.
    ///
    /// # Errors
    /// Usage for a setting of another form, and for a key that is set twice.
    pub fn parse<'a>(settings: impl IntoIterator<Item = &'a str>) -> Result<Overrides> {
        let mut set = BTreeMap::new();
        for setting in settings {
            let (key, value) = setting
                .split_once('=')
                .filter(|(key, value)| !key.is_empty() && !value.is_empty())
                .ok_or_else(|| Error::usage(format!("`{setting}` sets nothing: write key=value, like heads=4")))?;
            if set.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(Error::usage(format!("{key} is set twice")));
            }
        }
        Ok(Overrides(set))
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// A type of hyper-parameters that can be read from the command line.
pub(super) trait Given: Display + Sized {
    /// What a text should be, for messages.
    const WHAT: &'static str;

    /// The value that a text stands for.
    fn given(text: &str) -> Option<Self>;
}

impl Given for u32 {
    const WHAT: &'static str = "a count";

    fn given(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Given for f32 {
    const WHAT: &'static str = "a number";

    fn given(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Given for f64 {
    const WHAT: &'static str = "a number";

    fn given(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Given for bool {
    const WHAT: &'static str = "true or false";

    fn given(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// The only names among the hyper-parameters are those of activations.
impl Given for &str {
    const WHAT: &'static str = Activation::ONE_OF;

    fn given(text: &str) -> Option<Self> {
        Activation::known_name(text)
    }
}
