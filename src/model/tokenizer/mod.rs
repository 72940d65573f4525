//! Tokenizers: text to token ids and back, by a tokenizer.json of Hugging Face tokenizers, or by the vocabulary that a
//! model's file holds.
//!
//! A vocabulary is applied as llama.cpp applies it: special tokens in the text count as such, what begins and ends a text
//! is added as the file says, and nothing is normalised.

mod byte_level;
mod bytes;
mod cut;
mod sentence_piece;
mod special;
#[cfg(test)]
mod tests;

use super::vocabulary::TokenKind;
use super::{Fact, Source, Vocabulary};
use crate::error::{Error, Result};
use byte_level::ByteLevel;
pub(super) use cut::named_by;
use sentence_piece::SentencePiece;
use special::{Fragment, Special};
use std::path::{Path, PathBuf};

/// A tokenizer, the hash of what it came from, and how it was set up.
#[derive(Debug)]
pub struct Tokenizer {
    path: PathBuf,
    hash: [u8; 32],
    facts: Vec<Fact>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Json(Box<tokenizers::Tokenizer>),
    Vocabulary(Box<Own>),
}

/// A vocabulary with what applies it.
#[derive(Debug)]
struct Own {
    tokens: Vec<String>,
    kinds: Vec<TokenKind>,
    special: Special,
    model: Algorithm,
    /// Put before and behind every text.
    bos: Option<u32>,
    eos: Option<u32>,
}

#[derive(Debug)]
enum Algorithm {
    ByteLevel(Box<ByteLevel>),
    SentencePiece { pieces: SentencePiece, space_prefix: bool },
}

impl Tokenizer {
    /// Opens a tokenizer.json.
    ///
    /// Truncation and padding that the file may ask for are switched off, as in transformers: a prompt is never cut.
    ///
    /// # Errors
    /// Environment where the file cannot be read; malformed where it is no tokenizer.
    pub fn open(path: &Path) -> Result<Tokenizer> {
        let bytes = std::fs::read(path).map_err(|cause| Error::io("open the tokenizer", path, cause))?;
        let malformed =
            |cause| Error::malformed("not a tokenizer.json of Hugging Face tokenizers").in_file(path).because(cause);
        let mut inner = tokenizers::Tokenizer::from_bytes(&bytes).map_err(malformed)?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(malformed)?;
        let facts = vec![fact("tokenizer", "tokenizer.json", Source::File)];
        Ok(Tokenizer {
            path: path.to_path_buf(),
            hash: blake3::hash(&bytes).into(),
            facts,
            kind: Kind::Json(inner.into()),
        })
    }

    /// The tokenizer of the vocabulary that the model file at `path` holds.
    ///
    /// # Errors
    /// Unsupported for other kinds than byte-level BPE (`gpt2`) and SentencePiece by scores (`llama`), and for unknown
    /// ways of cutting text; malformed for a vocabulary that lacks what its kind needs.
    pub fn of_vocabulary(vocabulary: &Vocabulary, path: &Path) -> Result<Tokenizer> {
        let (own, facts) = Own::new(vocabulary).map_err(|error| error.in_file(path))?;
        let kind = Kind::Vocabulary(own.into());
        Ok(Tokenizer { path: path.to_path_buf(), hash: vocabulary.hash(), facts, kind })
    }

    /// blake3 of the file, or of the vocabulary's data.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// Where it came from and what it adds to a text, for a run's identity.
    pub fn facts(&self) -> &[Fact] {
        &self.facts
    }

    /// The token ids of a text. Special tokens in the text count as such, and those that the tokenizer puts around a text
    /// are added.
    ///
    /// # Errors
    /// Unsupported where the tokenizer has no id for a part of the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        match &self.kind {
            Kind::Json(inner) => {
                inner.encode_fast(text, true).map(|encoding| encoding.get_ids().to_vec()).map_err(|cause| {
                    Error::unsupported("the tokenizer cannot split the text").in_file(&self.path).because(cause)
                })
            }
            Kind::Vocabulary(own) => own.encode(text).map_err(|error| error.in_file(&self.path)),
        }
    }

    /// The text of token ids, special tokens included. Ids that the tokenizer does not know are left out.
    ///
    /// # Errors
    /// Unsupported where the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        match &self.kind {
            Kind::Json(inner) => inner.decode(ids, false).map_err(|cause| {
                Error::unsupported("the tokenizer cannot turn the ids into text").in_file(&self.path).because(cause)
            }),
            Kind::Vocabulary(own) => Ok(own.decode(ids)),
        }
    }
}

fn fact(key: &'static str, value: impl ToString, source: Source) -> Fact {
    Fact { key, value: value.to_string(), source }
}

impl Own {
    fn new(vocabulary: &Vocabulary) -> Result<(Own, Vec<Fact>)> {
        let mut facts = vec![
            fact("tokenizer", "vocabulary of the model file", Source::File),
            fact("tokenizer.model", &vocabulary.model, Source::File),
        ];
        let mut flag = |key, given: Option<bool>, default| {
            let value = given.unwrap_or(default);
            facts.push(fact(key, value, if given.is_some() { Source::File } else { Source::Default }));
            value
        };
        // What is added where the file does not say is llama.cpp's default for the kind.
        let (model, adds_bos) = match vocabulary.model.as_str() {
            "gpt2" => {
                let model = ByteLevel::new(vocabulary)?;
                let adds_bos = model.adds_bos();
                (Algorithm::ByteLevel(model.into()), adds_bos)
            }
            "llama" => {
                let space_prefix = flag("tokenizer.add_space_prefix", vocabulary.add_space_prefix, true);
                (Algorithm::SentencePiece { pieces: SentencePiece::new(vocabulary)?, space_prefix }, true)
            }
            other => {
                return Err(Error::unsupported(format!(
                    "{} = {other:?} is not supported; known are gpt2 and llama",
                    vocabulary.model_key
                )));
            }
        };
        let bos = flag("tokenizer.add_bos", vocabulary.add_bos, adds_bos);
        let eos = flag("tokenizer.add_eos", vocabulary.add_eos, false);
        if let Algorithm::ByteLevel(_) = model {
            facts.extend(vocabulary.pre.as_ref().map(|pre| fact("tokenizer.pre", pre, Source::File)));
        }
        let needed = |what: &str, added: bool, id: Option<u32>| match (added, id) {
            (true, None) => {
                Err(Error::malformed(format!("a text needs its {what} token, and the vocabulary names none")))
            }
            (added, id) => Ok(id.filter(|_| added)),
        };
        let own = Own {
            tokens: vocabulary.tokens.clone(),
            kinds: vocabulary.kinds.clone(),
            special: Special::of(vocabulary),
            model,
            bos: needed("first", bos, vocabulary.bos)?,
            eos: needed("last", eos, vocabulary.eos)?,
        };
        Ok((own, facts))
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids: Vec<u32> = self.bos.into_iter().collect();
        let mut behind_special = true;
        for fragment in self.special.fragments(text) {
            match (fragment, &self.model) {
                (Fragment::Token(id), _) => ids.push(id),
                (Fragment::Text(text), Algorithm::ByteLevel(model)) => model.encode(text, &mut ids)?,
                (Fragment::Text(text), Algorithm::SentencePiece { pieces, space_prefix }) => {
                    pieces.encode(text, *space_prefix && behind_special, &mut ids)?;
                }
            }
            behind_special = matches!(fragment, Fragment::Token(_));
        }
        ids.extend(self.eos);
        Ok(ids)
    }

    fn decode(&self, ids: &[u32]) -> String {
        let mut bytes = Vec::new();
        for id in ids {
            let (Some(token), Some(kind)) = (self.tokens.get(*id as usize), self.kinds.get(*id as usize)) else {
                continue;
            };
            match (kind, &self.model) {
                (TokenKind::Control | TokenKind::UserDefined | TokenKind::Unknown, _) => bytes.extend(token.as_bytes()),
                (_, Algorithm::ByteLevel(model)) => model.decode(token, &mut bytes),
                (_, Algorithm::SentencePiece { pieces, .. }) => pieces.decode(token, *kind, &mut bytes),
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        let prefixed = matches!(self.model, Algorithm::SentencePiece { space_prefix: true, .. });
        // The space that encoding puts in front.
        text.strip_prefix(' ').filter(|_| prefixed).unwrap_or(&text).to_owned()
    }
}
