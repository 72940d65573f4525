//! The vocabulary in GGUF metadata, read and written.

use super::GgufValue;
use super::metadata::Metadata;
use super::value::Value;
use crate::error::{Error, Result};
use crate::model::vocabulary::{Field, Fields, Vocabulary};

/// The metadata of a vocabulary. What it does not say is left out.
pub(in crate::model) fn describe_vocabulary(vocabulary: &Vocabulary) -> Vec<(String, GgufValue)> {
    let text = |text: &String| GgufValue::Text(text.clone());
    let kinds = vocabulary.kinds.iter().map(|kind| kind.number()).collect();
    let merges = vocabulary.merges.iter().map(|(left, right)| format!("{left} {right}"));
    let scores = Some(&vocabulary.scores).filter(|scores| !scores.is_empty());
    let fields = [
        (Field::Model, Some(text(&vocabulary.model))),
        (Field::Pre, vocabulary.pre.as_ref().map(text)),
        (Field::Tokens, Some(GgufValue::Texts(vocabulary.tokens.clone()))),
        (Field::Scores, scores.map(|scores| GgufValue::F32s(scores.clone()))),
        (Field::Kinds, Some(GgufValue::I32s(kinds))),
        (Field::Merges, Some(GgufValue::Texts(merges.collect())).filter(|_| !vocabulary.merges.is_empty())),
        (Field::Bos, vocabulary.bos.map(GgufValue::U32)),
        (Field::Eos, vocabulary.eos.map(GgufValue::U32)),
        (Field::AddBos, vocabulary.add_bos.map(GgufValue::Bool)),
        (Field::AddEos, vocabulary.add_eos.map(GgufValue::Bool)),
        (Field::AddSpacePrefix, vocabulary.add_space_prefix.map(GgufValue::Bool)),
    ];
    fields.into_iter().filter_map(|(field, value)| Some((key(field).to_owned(), value?))).collect()
}

/// The key of a field.
fn key(field: Field) -> &'static str {
    match field {
        Field::Model => "tokenizer.ggml.model",
        Field::Pre => "tokenizer.ggml.pre",
        Field::Tokens => "tokenizer.ggml.tokens",
        Field::Kinds => "tokenizer.ggml.token_type",
        Field::Scores => "tokenizer.ggml.scores",
        Field::Merges => "tokenizer.ggml.merges",
        Field::Bos => "tokenizer.ggml.bos_token_id",
        Field::Eos => "tokenizer.ggml.eos_token_id",
        Field::AddBos => "tokenizer.ggml.add_bos_token",
        Field::AddEos => "tokenizer.ggml.add_eos_token",
        Field::AddSpacePrefix => "tokenizer.ggml.add_space_prefix",
        Field::RemoveExtraSpaces => "tokenizer.ggml.remove_extra_whitespaces",
        Field::CharacterMap => "tokenizer.ggml.precompiled_charsmap",
    }
}

impl Metadata {
    /// The file's vocabulary; `None` where it has none.
    ///
    /// # Errors
    /// Malformed and unsupported, naming the key.
    pub(in crate::model) fn vocabulary(&self) -> Result<Option<Vocabulary>> {
        Vocabulary::read(self)
    }

    fn wrong(&self, field: Field, what: &str) -> Error {
        let key = self.key(field);
        match self.pairs.get(key) {
            Some(value) => Error::malformed(format!("{key} is {value}, and should be {what}")),
            None => Error::malformed(format!("{key} should be {what}")),
        }
    }
}

impl Fields for Metadata {
    fn key(&self, field: Field) -> &'static str {
        key(field)
    }

    fn has(&self, field: Field) -> bool {
        self.pairs.contains_key(self.key(field))
    }

    fn text(&self, field: Field) -> Result<Option<String>> {
        match self.pairs.get(self.key(field)) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text.clone())),
            Some(_) => Err(self.wrong(field, "a text")),
        }
    }

    fn flag(&self, field: Field) -> Result<Option<bool>> {
        match self.pairs.get(self.key(field)) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong(field, "true or false")),
        }
    }

    fn count(&self, field: Field) -> Result<Option<u64>> {
        let count = match self.pairs.get(self.key(field)) {
            None => return Ok(None),
            Some(Value::Unsigned(count)) => Some(*count),
            Some(Value::Signed(count)) => u64::try_from(*count).ok(),
            Some(_) => None,
        };
        count.map(Some).ok_or_else(|| self.wrong(field, "a count"))
    }

    fn texts(&self, field: Field) -> Result<Option<Vec<String>>> {
        match self.pairs.get(self.key(field)) {
            None => Ok(None),
            Some(Value::Array(array)) => {
                let texts = array.texts().map_err(|cause| self.wrong(field, "a list of texts").because(cause))?;
                Ok(Some(texts))
            }
            Some(_) => Err(self.wrong(field, "a list of texts")),
        }
    }

    fn numbers(&self, field: Field) -> Result<Option<Vec<f64>>> {
        match self.pairs.get(self.key(field)) {
            None => Ok(None),
            Some(Value::Array(array)) => {
                let numbers = array.numbers().map_err(|cause| self.wrong(field, "a list of numbers").because(cause))?;
                Ok(Some(numbers))
            }
            Some(_) => Err(self.wrong(field, "a list of numbers")),
        }
    }
}
