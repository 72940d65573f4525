//! SentencePiece by scores (`llama`): of all neighbours that make a token together, those with the best score merge, the
//! leftmost first, until none is left; characters without a token become their bytes.
//!
//! There is no list of merges in such a vocabulary, so byte pair encoding by rank does not fit it. The rule is that of
//! BPE in SentencePiece (`bpe_model.cc`), which llama.cpp follows.

use crate::error::{Error, Result};
use crate::model::Vocabulary;
use crate::model::vocabulary::TokenKind;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Range;

/// What stands for a space in tokens.
const SPACE: char = '\u{2581}';

#[derive(Debug)]
pub(super) struct SentencePiece {
    /// Texts that may come out of merging, with their scores.
    pieces: BTreeMap<String, (u32, f32)>,
    bytes: BTreeMap<u8, u32>,
}

impl SentencePiece {
    /// # Errors
    /// Malformed where the vocabulary has no scores, or a byte token that names no byte.
    pub(super) fn new(vocabulary: &Vocabulary) -> Result<SentencePiece> {
        if vocabulary.scores.is_empty() {
            return Err(Error::malformed("the vocabulary has no scores, which a SentencePiece tokenizer needs"));
        }
        let (mut pieces, mut bytes) = (BTreeMap::new(), BTreeMap::new());
        let tokens = vocabulary.tokens.iter().zip(&vocabulary.kinds).zip(&vocabulary.scores);
        for (id, ((token, kind), score)) in (0..).zip(tokens) {
            match kind {
                TokenKind::Byte => {
                    let byte = byte_of(token)
                        .ok_or_else(|| Error::malformed(format!("token {id} is {token:?}, and should name a byte")))?;
                    bytes.insert(byte, id);
                }
                // Cut out of the text before, or no text at all.
                TokenKind::Control | TokenKind::Unknown => {}
                _ if token.is_empty() => {}
                _ => {
                    pieces.insert(token.clone(), (id, *score));
                }
            }
        }
        Ok(SentencePiece { pieces, bytes })
    }

    /// Adds the ids of a text without special tokens; `prefix` puts a space in front.
    pub(super) fn encode(&self, text: &str, prefix: bool, ids: &mut Vec<u32>) -> Result<()> {
        let spaced = prefix.then_some(' ').into_iter().chain(text.chars());
        let text: String = spaced.map(|character| if character == ' ' { SPACE } else { character }).collect();
        let mut symbols = Symbols::new(&text);
        let mut pairs = BinaryHeap::new();
        for right in 1..symbols.parts.len() {
            pairs.extend(self.pair(&symbols, right - 1, Some(right)));
        }
        while let Some(pair) = pairs.pop() {
            if !symbols.merge(&pair) {
                continue;
            }
            let (before, after) = symbols.neighbours(pair.left);
            pairs.extend(before.and_then(|before| self.pair(&symbols, before, Some(pair.left))));
            pairs.extend(self.pair(&symbols, pair.left, after));
        }
        for part in symbols.parts.iter().filter(|part| !part.range.is_empty()) {
            self.push(text.get(part.range.clone()).unwrap_or_default(), ids)?;
        }
        Ok(())
    }

    /// Two neighbours, if they make a token.
    fn pair(&self, symbols: &Symbols<'_>, left: usize, right: Option<usize>) -> Option<Pair> {
        let right = right?;
        let range = symbols.parts.get(left)?.range.start..symbols.parts.get(right)?.range.end;
        let (_, score) = self.pieces.get(symbols.text.get(range.clone())?)?;
        Some(Pair { score: *score, left, right, range })
    }

    fn push(&self, piece: &str, ids: &mut Vec<u32>) -> Result<()> {
        if let Some((id, _)) = self.pieces.get(piece) {
            ids.push(*id);
            return Ok(());
        }
        for byte in piece.bytes() {
            let id = self.bytes.get(&byte).ok_or_else(|| {
                Error::unsupported(format!(
                    "the vocabulary has no token for {piece:?} of the text, and none for its bytes"
                ))
            })?;
            ids.push(*id);
        }
        Ok(())
    }

    /// Adds the bytes of a token that is text or a byte.
    pub(super) fn decode(&self, token: &str, kind: TokenKind, bytes: &mut Vec<u8>) {
        match byte_of(token).filter(|_| kind == TokenKind::Byte) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend(token.replace(SPACE, " ").as_bytes()),
        }
    }
}

/// The byte that a token like `<0x0A>` names.
fn byte_of(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}

/// A text as symbols that merge: a list in one vector. A symbol that went into its left neighbour is empty.
struct Symbols<'a> {
    text: &'a str,
    parts: Vec<Part>,
}

struct Part {
    /// Bytes of the text.
    range: Range<usize>,
    before: Option<usize>,
    after: Option<usize>,
}

/// Two neighbours that make a token; the better comes first out of a heap.
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    range: Range<usize>,
}

impl<'a> Symbols<'a> {
    fn new(text: &'a str) -> Symbols<'a> {
        let mut parts: Vec<Part> = Vec::new();
        for (index, (start, character)) in text.char_indices().enumerate() {
            let range = start..start + character.len_utf8();
            let after = (range.end < text.len()).then_some(index + 1);
            parts.push(Part { range, before: index.checked_sub(1), after });
        }
        Symbols { text, parts }
    }

    /// Merges a pair, unless one of its parts has merged with another since it was found.
    fn merge(&mut self, pair: &Pair) -> bool {
        let [Some(left), Some(right)] = [pair.left, pair.right].map(|index| self.parts.get(index)) else {
            return false;
        };
        let whole = !left.range.is_empty() && !right.range.is_empty();
        if !whole || left.range.start != pair.range.start || right.range.end != pair.range.end {
            return false;
        }
        let after = right.after;
        if let Some(right) = self.parts.get_mut(pair.right) {
            right.range = 0..0;
        }
        if let Some(left) = self.parts.get_mut(pair.left) {
            (left.range, left.after) = (pair.range.clone(), after);
        }
        if let Some(next) = after.and_then(|after| self.parts.get_mut(after)) {
            next.before = Some(pair.left);
        }
        true
    }

    fn neighbours(&self, index: usize) -> (Option<usize>, Option<usize>) {
        self.parts.get(index).map_or((None, None), |part| (part.before, part.after))
    }
}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        // Scores are finite. Zeros of either sign are equal, and `total_cmp` would order them.
        let by_score = self.score.partial_cmp(&other.score).unwrap_or(Ordering::Equal);
        by_score.then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pair {}
