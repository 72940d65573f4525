//! The vocabulary in .apr metadata.

use super::metadata::Metadata;
use crate::error::{Error, Result};
use crate::model::vocabulary::{Field, Fields, Vocabulary};
use serde_json::Value;

impl Metadata {
    /// The file's vocabulary; `None` where it has none.
    ///
    /// # Errors
    /// Malformed and unsupported, naming the key.
    pub(in crate::model) fn vocabulary(&self) -> Result<Option<Vocabulary>> {
        Vocabulary::read(self)
    }

    fn list<T>(&self, field: Field, what: &str, element: impl Fn(&Value) -> Option<T>) -> Result<Option<Vec<T>>> {
        let Some(value) = self.get(self.key(field)) else { return Ok(None) };
        let list = value.as_array().and_then(|list| list.iter().map(element).collect());
        let wrong = || Error::malformed(format!("{} should be a list of {what}", self.key(field)));
        list.map(Some).ok_or_else(wrong)
    }

    fn one<T>(&self, field: Field, what: &str, value: impl Fn(&Value) -> Option<T>) -> Result<Option<T>> {
        let Some(said) = self.get(self.key(field)) else { return Ok(None) };
        let wrong = || Error::malformed(format!("{} is {said}, and should be {what}", self.key(field)));
        value(said).map(Some).ok_or_else(wrong)
    }
}

impl Fields for Metadata {
    fn key(&self, field: Field) -> &'static str {
        match field {
            Field::Model => "tokenizer.model",
            Field::Pre => "tokenizer.pre_type",
            Field::Tokens => "tokenizer.vocabulary",
            Field::Kinds => "tokenizer.token_type",
            Field::Scores => "tokenizer.scores",
            Field::Merges => "tokenizer.merges",
            Field::Bos => "tokenizer.bos_token_id",
            Field::Eos => "tokenizer.eos_token_id",
            Field::AddBos => "tokenizer.add_bos_token",
            Field::AddEos => "tokenizer.add_eos_token",
            Field::AddSpacePrefix => "tokenizer.add_space_prefix",
            Field::RemoveExtraSpaces => "tokenizer.remove_extra_whitespaces",
            Field::CharacterMap => "tokenizer.precompiled_charsmap",
        }
    }

    fn has(&self, field: Field) -> bool {
        self.get(self.key(field)).is_some()
    }

    /// A file that was imported with a tokenizer.json names its model `BPE` in another key. It does not say how text is
    /// cut, which is an error where the tokenizer is built.
    fn text(&self, field: Field) -> Result<Option<String>> {
        let text = self.one(field, "a text", |value| value.as_str().map(str::to_owned))?;
        if text.is_none() && field == Field::Model && Metadata::text(self, "tokenizer.model_type")? == Some("BPE") {
            return Ok(Some("gpt2".to_owned()));
        }
        Ok(text)
    }

    fn flag(&self, field: Field) -> Result<Option<bool>> {
        self.one(field, "true or false", Value::as_bool)
    }

    fn count(&self, field: Field) -> Result<Option<u64>> {
        self.one(field, "a count", Value::as_u64)
    }

    fn texts(&self, field: Field) -> Result<Option<Vec<String>>> {
        self.list(field, "texts", |value| value.as_str().map(str::to_owned))
    }

    fn numbers(&self, field: Field) -> Result<Option<Vec<f64>>> {
        self.list(field, "numbers", Value::as_f64)
    }
}
