//! Small random damage to headers: whatever it does, reading ends with a model or an error, never with a panic.

use super::build::{Apr, Gguf, KINDS, llama_config, llama_tensors, safetensors};
use super::safetensors::open;
use super::{apr_format, format, read_apr, read_gguf};
use crate::error::Result;
use crate::model::open::Contents;
use crate::model::stored::Tensors;
use crate::model::{Bytes, Tokenizer};
use serde_json::json;
use std::path::Path;

/// Mutated inputs per format: a fraction of a second, and far more than the fields of a header.
const ROUNDS: usize = 4000;

/// Marsaglia's xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Changes one to four places among the first `header` bytes: a byte, a number at its limits, a removed or a
    /// repeated stretch, a cut.
    fn damage(&mut self, bytes: &mut Vec<u8>, header: usize) {
        for _ in 0..=self.below(4) {
            let header = header.min(bytes.len());
            if header < 16 {
                return;
            }
            let at = self.below(header - 8);
            match self.below(6) {
                0 => bytes[at] = self.next() as u8,
                1 => bytes[at] ^= 1 << self.below(8),
                2 => {
                    let limits = [0, 1, u64::from(u32::MAX), i64::MAX as u64, u64::MAX, bytes.len() as u64];
                    bytes[at..at + 8].copy_from_slice(&limits[self.below(limits.len())].to_le_bytes());
                }
                3 => drop(bytes.drain(at..at + self.below(8))),
                4 => {
                    let stretch = bytes[at..at + 8].to_vec();
                    bytes.splice(at..at, stretch);
                }
                _ => bytes.truncate(at + self.below(bytes.len() - at)),
            }
        }
    }
}

/// Reads every row of what was accepted.
fn read_all(contents: &Contents) {
    for weight in contents.weights() {
        let mut row = vec![0.0; weight.columns];
        (0..weight.rows).for_each(|i| weight.dequantize_row(i, &mut row).unwrap());
    }
}

/// Opens many mutants and reads every weight of those that are accepted. Some must be, and some not: else the damage is
/// too weak or too strong to test anything.
fn never_panics(seed: u64, rounds: usize, mut mutant: impl FnMut(&mut Random) -> Result<Contents>) {
    let mut random = Random(seed);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..rounds {
        match mutant(&mut random) {
            Ok(contents) => {
                read_all(&contents);
                accepted += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(accepted > 0 && refused > 0, "{accepted} accepted, {refused} refused");
}

#[test]
fn damaged_gguf_headers_never_panic() {
    damaged(&Gguf::llama(), ROUNDS);
}

/// Fewer rounds for files of every element type: they are large, and the header is the one above with other numbers.
#[test]
fn damaged_gguf_headers_of_every_type_never_panic() {
    for kinds in KINDS.chunks(8) {
        damaged(&Gguf::of_types(kinds), ROUNDS / 8);
    }
}

fn damaged(file: &Gguf, rounds: usize) {
    let whole = file.bytes();
    let data: usize = file.tensors.iter().map(|tensor| tensor.data.len().next_multiple_of(32)).sum();
    never_panics(0x9e37_79b9_7f4a_7c15, rounds, |random| {
        let mut bytes = whole.clone();
        random.damage(&mut bytes, whole.len().saturating_sub(data));
        read_gguf(bytes)
    });
}

#[test]
fn damaged_safetensors_headers_never_panic() {
    let whole = safetensors(&llama_tensors("model."));
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let config = llama_config().to_string();
    never_panics(0x2545_f491_4f6c_dd1d, ROUNDS, |random| {
        let (mut bytes, mut config) = (whole.clone(), config.clone().into_bytes());
        match random.below(4) {
            0 => {
                let length = config.len();
                random.damage(&mut config, length);
            }
            _ => random.damage(&mut bytes, header),
        }
        open(&config, bytes)
    });
}

/// Half of the mutants have right sums, so that the damage gets past them.
#[test]
fn damaged_apr_headers_never_panic() {
    let whole = Apr::llama().bytes();
    let data: usize = Apr::llama().tensors.iter().map(|tensor| tensor.data.len().next_multiple_of(64)).sum();
    never_panics(0x6a09_e667_f3bc_c908, ROUNDS, |random| {
        let mut bytes = whole.clone();
        random.damage(&mut bytes, whole.len() - data);
        if random.below(2) == 0 {
            Apr::seal(&mut bytes);
        }
        read_apr(bytes)
    });
}

/// A vocabulary with damaged lists is refused or splits a text; the package underneath would panic on some.
#[test]
fn damaged_vocabularies_never_panic() {
    let mut random = Random(0xbb67_ae85_84ca_a73b);
    let (mut split, mut refused) = (0, 0);
    for name in ["byte_level.gguf", "sentence_piece.gguf"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizer").join(name);
        let whole = std::fs::read(&path).unwrap();
        let tensors = whole.windows(17).position(|window| window == b"token_embd.weight").unwrap();
        for _ in 0..ROUNDS / 8 {
            let mut bytes = whole.clone();
            random.damage(&mut bytes, tensors);
            let tokenizer = format::read(&Bytes::from(bytes), 0, &mut Tensors::default())
                .and_then(|metadata| metadata.vocabulary())
                .and_then(|vocabulary| {
                    vocabulary.map(|vocabulary| Tokenizer::of_vocabulary(&vocabulary, &path)).transpose()
                });
            match tokenizer {
                Ok(Some(tokenizer)) => {
                    if let Ok(ids) = tokenizer.encode("fn main() {\n    12345 größer \u{1}<|end|> 中文 \u{10ffff}")
                    {
                        tokenizer.decode(&ids).unwrap();
                    }
                    split += 1;
                }
                Ok(None) | Err(_) => refused += 1,
            }
        }
    }
    assert!(split > 20 && refused > 20, "{split} split, {refused} refused");
}

/// The same in .apr metadata, where the lists are JSON: an element of another type, a list of another length, a number out
/// of range.
#[test]
fn senseless_apr_vocabularies_are_refused() {
    let vocabulary = |change: &dyn Fn(&mut Apr)| {
        let mut file = Apr::llama();
        file.metadata["tokenizer.model"] = json!("llama");
        file.metadata["tokenizer.vocabulary"] = json!(["<unk>", "<s>", "</s>", "a", "b", "ab"]);
        file.metadata["tokenizer.scores"] = json!([0, 0, 0, -1, -2, -3]);
        file.metadata["tokenizer.token_type"] = json!([2, 3, 3, 1, 1, 1]);
        file.metadata["tokenizer.bos_token_id"] = json!(1);
        change(&mut file);
        let read = apr_format::read(&Bytes::from(file.bytes()), 0, &mut Tensors::default())?.vocabulary()?;
        read.map(|vocabulary| Tokenizer::of_vocabulary(&vocabulary, Path::new("m.apr"))?.encode("<s>ab")).transpose()
    };
    let sound = vocabulary(&|file| file.metadata["tokenizer.add_space_prefix"] = json!(false));
    assert_eq!(sound.unwrap().unwrap(), [1, 1, 5]);
    assert!(vocabulary(&|file| file.metadata["tokenizer.vocabulary"] = json!(null)).unwrap().is_none());
    let cases = [
        ("tokenizer.vocabulary", json!([1]), "should be a list of texts"),
        ("tokenizer.vocabulary", json!("abc"), "should be a list of texts"),
        (
            "tokenizer.vocabulary",
            json!(["a", "b", "a", "c", "d", "e"]),
            "tokens 0 and 2 of tokenizer.vocabulary are both",
        ),
        ("tokenizer.scores", json!([0]), "tokenizer.scores has 1 entries, and there are 6 tokens"),
        ("tokenizer.scores", json!(["0"]), "should be a list of numbers"),
        ("tokenizer.token_type", json!([1, 2]), "tokenizer.token_type has 2 entries"),
        ("tokenizer.bos_token_id", json!(6), "tokenizer.bos_token_id is 6, and there are 6 tokens"),
        ("tokenizer.bos_token_id", json!(-1), "should be a count"),
        ("tokenizer.add_bos_token", json!(1), "should be true or false"),
        ("tokenizer.merges", json!(["ab"]), "entry 0 of tokenizer.merges is \"ab\""),
        ("tokenizer.merges", json!([" "]), "should be two tokens"),
        ("tokenizer.model", json!(7), "should be a text"),
        ("tokenizer.model", json!(null), "has no tokenizer.model"),
        ("tokenizer.precompiled_charsmap", json!([1]), "tokenizer.precompiled_charsmap, which is not supported"),
        ("tokenizer.remove_extra_whitespaces", json!(true), "remove_extra_whitespaces, which is not supported"),
    ];
    for (key, value, words) in cases {
        let error = vocabulary(&|file| file.metadata[key] = value.clone()).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}
