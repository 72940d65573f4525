//! The tokenizer in the new file: the vocabulary of the source, or what a tokenizer.json says.

use super::{TokenizerFrom, tokenizer_json};
use crate::error::{Error, Result};
use crate::model::gguf::{GgufValue, describe_vocabulary};
use crate::model::vocabulary::{TokenKind, Vocabulary};
use crate::model::{Format, Model};
use serde_json::Value;
use std::path::Path;

/// A tokenizer as metadata, and what is lost with it.
pub(super) type Described = (Vec<(String, GgufValue)>, Option<&'static str>);

/// The metadata of the tokenizer of a model that is no GGUF file.
///
/// # Errors
/// Usage where there is no tokenizer to take; environment and malformed for the file; unsupported for what GGUF cannot
/// say.
pub(super) fn pairs(model: &Model, tokenizer: TokenizerFrom<'_>) -> Result<Described> {
    let (vocabulary, loss) = match tokenizer {
        TokenizerFrom::Nowhere => {
            return Ok((vec![("tokenizer.ggml.model".to_owned(), GgufValue::Text("no_vocab".to_owned()))], None));
        }
        TokenizerFrom::File(path) => of_file(model, path)?,
        TokenizerFrom::Model => of_model(model)?,
    };
    let vocabulary = filled(vocabulary, model.hyper().vocabulary).map_err(|error| error.in_file(model.path()))?;
    Ok((describe_vocabulary(&vocabulary), loss))
}

fn of_model(model: &Model) -> Result<(Vocabulary, Option<&'static str>)> {
    let path = model.path().join("tokenizer.json");
    match model.vocabulary()? {
        Some(vocabulary) if vocabulary.model == "gpt2" && vocabulary.pre.is_none() => Err(Error::unsupported(
            "the vocabulary does not say how text is cut into words: name a tokenizer.json by --tokenizer, or write a file \
             without a tokenizer by --no-tokenizer",
        )
        .in_file(model.path())),
        Some(vocabulary) => Ok((vocabulary, None)),
        None if model.format() == Format::Safetensors && path.exists() => of_file(model, &path),
        None => Err(Error::usage(
            "the model has no tokenizer: name a tokenizer.json by --tokenizer, or write a file without by --no-tokenizer",
        )
        .in_file(model.path())),
    }
}

/// A tokenizer.json, and from config.json the ids of begin and end that it does not name itself.
fn of_file(model: &Model, path: &Path) -> Result<(Vocabulary, Option<&'static str>)> {
    let bytes = std::fs::read(path).map_err(|cause| Error::io("open the tokenizer", path, cause))?;
    let (vocabulary, loss) = tokenizer_json::read(&bytes).map_err(|error| error.in_file(path))?;
    let Some(config) = model.files().iter().find(|file| file.name == "config.json") else {
        return Ok((vocabulary, loss));
    };
    let fields: Value = serde_json::from_slice(&config.bytes)
        .map_err(|cause| Error::malformed("no JSON").in_file(&config.path).because(cause))?;
    // Lists of several ids, and null, name none.
    let id = |key: &str| {
        let id = fields.get(key)?.as_u64().and_then(|id| u32::try_from(id).ok())?;
        Some(id).filter(|id| *id < model.hyper().vocabulary)
    };
    let (bos, eos) = (vocabulary.bos.or(id("bos_token_id")), vocabulary.eos.or(id("eos_token_id")));
    Ok((Vocabulary { bos, eos, ..vocabulary }, loss))
}

/// As many tokens as the token embedding has rows: llama.cpp asks for that, and its converter fills up so.
fn filled(mut vocabulary: Vocabulary, rows: u32) -> Result<Vocabulary> {
    let (tokens, rows) = (vocabulary.tokens.len(), rows as usize);
    if tokens > rows {
        return Err(Error::unsupported(format!("the tokenizer has {tokens} tokens, and the model {rows}")));
    }
    vocabulary.tokens.extend((tokens..rows).map(|id| format!("[PAD{id}]")));
    vocabulary.kinds.resize(rows, TokenKind::Unused);
    if !vocabulary.scores.is_empty() {
        vocabulary.scores.resize(rows, 0.0);
    }
    Ok(vocabulary)
}
