//! The vocabulary that a model's file brings along: tokens, scores or merges, and what is added to a prompt.
//!
//! GGUF and .apr name the same things differently; [`Fields`] is what they have in common. A vocabulary is read when a
//! text has to become tokens, not when the model is opened: a model runs on token ids without one.

use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// Parts of a vocabulary. Each format has a key for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Model,
    Pre,
    Tokens,
    Kinds,
    Scores,
    Merges,
    Bos,
    Eos,
    AddBos,
    AddEos,
    AddSpacePrefix,
    RemoveExtraSpaces,
    CharacterMap,
}

/// Metadata with a vocabulary.
///
/// Each method is malformed, naming the key, where the field is of another type.
pub(super) trait Fields {
    /// The format's key of a field.
    fn key(&self, field: Field) -> &'static str;
    fn has(&self, field: Field) -> bool;
    fn text(&self, field: Field) -> Result<Option<String>>;
    fn flag(&self, field: Field) -> Result<Option<bool>>;
    fn count(&self, field: Field) -> Result<Option<u64>>;
    fn texts(&self, field: Field) -> Result<Option<Vec<String>>>;
    fn numbers(&self, field: Field) -> Result<Option<Vec<f64>>>;
}

/// What a token is. The numbers are those of `llama_token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A piece of text.
    Normal,
    /// Stands for what has no token.
    Unknown,
    /// Means something to the model and is no text, as the begin of a text.
    Control,
    /// Text that is never split or joined.
    UserDefined,
    /// Reserved, or of no kind that is known.
    Unused,
    /// One byte.
    Byte,
}

impl TokenKind {
    /// Its `llama_token_type`.
    pub(super) fn number(self) -> i32 {
        match self {
            TokenKind::Normal => 1,
            TokenKind::Unknown => 2,
            TokenKind::Control => 3,
            TokenKind::UserDefined => 4,
            TokenKind::Unused => 5,
            TokenKind::Byte => 6,
        }
    }

    fn from_number(number: f64) -> TokenKind {
        let kinds = [TokenKind::Normal, TokenKind::Unknown, TokenKind::Control, TokenKind::UserDefined];
        let kinds = kinds.into_iter().chain([TokenKind::Unused, TokenKind::Byte]);
        kinds.zip(1u8..).find(|(_, known)| f64::from(*known) == number).map_or(TokenKind::Unused, |(kind, _)| kind)
    }
}

/// A vocabulary, checked: lists are of equal length, ids are in range, no two tokens are equal, scores are finite.
#[derive(Debug, Clone, PartialEq)]
pub struct Vocabulary {
    /// The kind of tokenizer: `gpt2`, `llama` and others.
    pub(super) model: String,
    /// How text is cut before merging.
    pub(super) pre: Option<String>,
    /// By id; an empty one matches nothing.
    pub(super) tokens: Vec<String>,
    /// As many as tokens.
    pub(super) kinds: Vec<TokenKind>,
    /// As many as tokens, or none.
    pub(super) scores: Vec<f32>,
    /// Pairs to merge, the first first.
    pub(super) merges: Vec<(String, String)>,
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) add_bos: Option<bool>,
    pub(super) add_eos: Option<bool>,
    pub(super) add_space_prefix: Option<bool>,
    /// The key of [`Vocabulary::pre`], for messages.
    pub(super) pre_key: &'static str,
    /// The key of [`Vocabulary::model`], for messages.
    pub(super) model_key: &'static str,
}

impl Vocabulary {
    /// Reads and checks the vocabulary; `None` where the file has none.
    ///
    /// # Errors
    /// Malformed, naming the key; unsupported for normalisation that is not built.
    pub(super) fn read(fields: &impl Fields) -> Result<Option<Vocabulary>> {
        let Some(tokens) = fields.texts(Field::Tokens)? else { return Ok(None) };
        let key = |field| fields.key(field);
        let model = fields
            .text(Field::Model)?
            .ok_or_else(|| Error::malformed(format!("the vocabulary has no {}", key(Field::Model))))?;
        if fields.has(Field::CharacterMap) || fields.flag(Field::RemoveExtraSpaces)? == Some(true) {
            let field = if fields.has(Field::CharacterMap) { Field::CharacterMap } else { Field::RemoveExtraSpaces };
            return Err(Error::unsupported(format!("the vocabulary has {}, which is not supported", key(field))));
        }
        check_unique(&tokens, key(Field::Tokens))?;
        let kinds = listed(fields, Field::Kinds, tokens.len())?;
        let kinds = kinds.map(|kinds| kinds.into_iter().map(TokenKind::from_number).collect());
        let scores = listed(fields, Field::Scores, tokens.len())?.unwrap_or_default();
        if let Some(id) = scores.iter().position(|score| !score.is_finite()) {
            return Err(Error::malformed(format!("the score of token {id} in {} is not finite", key(Field::Scores))));
        }
        let id = |field| token_id(fields, field, tokens.len());
        Ok(Some(Vocabulary {
            model,
            pre: fields.text(Field::Pre)?,
            kinds: kinds.unwrap_or_else(|| vec![TokenKind::Normal; tokens.len()]),
            scores: scores.into_iter().map(|score| score as f32).collect(),
            merges: merges(fields)?,
            bos: id(Field::Bos)?,
            eos: id(Field::Eos)?,
            add_bos: fields.flag(Field::AddBos)?,
            add_eos: fields.flag(Field::AddEos)?,
            add_space_prefix: fields.flag(Field::AddSpacePrefix)?,
            pre_key: key(Field::Pre),
            model_key: key(Field::Model),
            tokens,
        }))
    }

    /// Tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is no token at all.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// blake3 over everything that decides about ids, in one form for all formats: two files with one vocabulary have
    /// one hash.
    pub(super) fn hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let mut text = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        text("actrace vocabulary 1");
        text(&self.model);
        text(self.pre.as_deref().unwrap_or_default());
        self.tokens.iter().for_each(|token| text(token));
        for (left, right) in &self.merges {
            text(left);
            text(right);
        }
        let numbers = [self.tokens.len(), self.merges.len(), self.scores.len()];
        for number in numbers {
            hasher.update(&(number as u64).to_le_bytes());
        }
        for kind in &self.kinds {
            hasher.update(&[*kind as u8]);
        }
        for score in &self.scores {
            hasher.update(&score.to_le_bytes());
        }
        for id in [self.bos, self.eos] {
            hasher.update(&id.map_or(u64::MAX, u64::from).to_le_bytes());
        }
        for flag in [self.add_bos, self.add_eos, self.add_space_prefix] {
            hasher.update(&[flag.map_or(2, u8::from)]);
        }
        hasher.finalize().into()
    }
}

/// Numbers, one for each token.
fn listed(fields: &impl Fields, field: Field, tokens: usize) -> Result<Option<Vec<f64>>> {
    match fields.numbers(field)? {
        Some(numbers) if numbers.len() != tokens => {
            let (key, length) = (fields.key(field), numbers.len());
            Err(Error::malformed(format!("{key} has {length} entries, and there are {tokens} tokens")))
        }
        other => Ok(other),
    }
}

fn token_id(fields: &impl Fields, field: Field, tokens: usize) -> Result<Option<u32>> {
    let Some(id) = fields.count(field)? else { return Ok(None) };
    let known = u32::try_from(id).ok().filter(|known| (*known as usize) < tokens);
    let key = fields.key(field);
    known.map(Some).ok_or_else(|| Error::malformed(format!("{key} is {id}, and there are {tokens} tokens")))
}

/// Merges are written as two tokens with a space between; the left one may begin with a space.
fn merges(fields: &impl Fields) -> Result<Vec<(String, String)>> {
    let merges = fields.texts(Field::Merges)?.unwrap_or_default();
    let split = |(rank, merge): (usize, &String)| {
        let first = merge.chars().next().map_or(0, char::len_utf8);
        let space = merge.get(first..).and_then(|rest| rest.find(' ')).map(|space| space + first);
        let pair = space.and_then(|space| Some((merge.get(..space)?.to_owned(), merge.get(space + 1..)?.to_owned())));
        pair.ok_or_else(|| {
            let key = fields.key(Field::Merges);
            Error::malformed(format!(
                "entry {rank} of {key} is {merge:?}, and should be two tokens with a space between"
            ))
        })
    };
    merges.iter().enumerate().map(split).collect()
}

fn check_unique(tokens: &[String], key: &str) -> Result<()> {
    let mut seen = BTreeMap::new();
    for (id, token) in tokens.iter().enumerate().filter(|(_, token)| !token.is_empty()) {
        if let Some(other) = seen.insert(token, id) {
            return Err(Error::malformed(format!("tokens {other} and {id} of {key} are both {token:?}")));
        }
    }
    Ok(())
}
