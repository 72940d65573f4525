//! Byte-level byte pair encoding (`gpt2`): text is cut, its bytes become characters, and pairs are merged by rank.

use super::bytes::alphabet;
use super::cut::Cut;
use crate::error::{Error, Result};
use crate::model::Vocabulary;
use std::collections::{BTreeMap, BTreeSet};
use tokenizers::Model;
use tokenizers::models::bpe::{BPE, Vocab};

#[derive(Debug)]
pub(super) struct ByteLevel {
    cut: Cut,
    model: BPE,
    alphabet: [char; 256],
    byte_of: BTreeMap<char, u8>,
    /// Whether the vocabulary has a token for each byte.
    has_byte: [bool; 256],
}

impl ByteLevel {
    /// # Errors
    /// Unsupported for an unknown way of cutting; malformed for merges of what is no token.
    pub(super) fn new(vocabulary: &Vocabulary) -> Result<ByteLevel> {
        let cut = Cut::named(vocabulary.pre.as_deref(), vocabulary.pre_key)?;
        if vocabulary.merges.is_empty() {
            return Err(Error::malformed("the vocabulary has no merges, which a byte-level tokenizer needs"));
        }
        let ids: BTreeMap<&str, u32> = (0..).zip(&vocabulary.tokens).map(|(id, token)| (token.as_str(), id)).collect();
        let mut seen = BTreeSet::new();
        let mut merges = Vec::new();
        for (rank, (left, right)) in vocabulary.merges.iter().enumerate() {
            // The package counts on it.
            let parts = [left, right, &format!("{left}{right}")].map(String::to_owned);
            if let Some(stranger) = parts.iter().find(|part| part.is_empty() || !ids.contains_key(part.as_str())) {
                return Err(Error::malformed(format!("merge {rank} needs {stranger:?}, which is no token")));
            }
            // The first of two equal merges counts.
            if seen.insert((left, right)) {
                merges.push((left.clone(), right.clone()));
            }
        }
        let tokens = ids.iter().filter(|(token, _)| !token.is_empty());
        let tokens: Vocab = tokens.map(|(token, id)| ((*token).to_owned(), *id)).collect();
        let model =
            BPE::builder().vocab_and_merges(tokens, merges).ignore_merges(cut.whole_pieces).build().map_err(
                |cause| Error::malformed("the vocabulary and its merges do not fit together").because(cause),
            )?;
        let alphabet = alphabet();
        let has_byte = alphabet.map(|character| ids.contains_key(character.encode_utf8(&mut [0; 4]) as &str));
        let byte_of = alphabet.into_iter().zip(0..=u8::MAX).collect();
        Ok(ByteLevel { cut, model, alphabet, byte_of, has_byte })
    }

    pub(super) fn adds_bos(&self) -> bool {
        self.cut.add_bos
    }

    /// Adds the ids of a text without special tokens.
    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        // The package would leave such a byte out.
        if let Some(byte) = text.bytes().find(|byte| self.has_byte.get(usize::from(*byte)) != Some(&true)) {
            return Err(Error::unsupported(format!("the vocabulary has no token for byte {byte:#04x} of the text")));
        }
        for piece in self.cut.pieces(text)? {
            let word: String = piece.bytes().filter_map(|byte| self.alphabet.get(usize::from(byte))).collect();
            let tokens = self.model.tokenize(&word);
            let tokens =
                tokens.map_err(|cause| Error::unsupported("the tokenizer cannot split the text").because(cause))?;
            ids.extend(tokens.iter().map(|token| token.id));
        }
        Ok(())
    }

    /// Adds the bytes of a token that is text.
    pub(super) fn decode(&self, token: &str, bytes: &mut Vec<u8>) {
        for character in token.chars() {
            match self.byte_of.get(&character) {
                Some(byte) => bytes.push(*byte),
                None => bytes.extend(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }
}
