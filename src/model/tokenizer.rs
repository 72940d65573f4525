//! Tokenizers: text to token ids and back, by a tokenizer.json of Hugging Face tokenizers.

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// A tokenizer and the hash of the file it came from.
#[derive(Debug)]
pub struct Tokenizer {
    path: PathBuf,
    hash: [u8; 32],
    inner: tokenizers::Tokenizer,
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
        Ok(Tokenizer { path: path.to_path_buf(), hash: blake3::hash(&bytes).into(), inner })
    }

    /// blake3 of the file.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// The token ids of a text. Special tokens in the text count as such, and the post-processor adds its own.
    ///
    /// # Errors
    /// Unsupported where the tokenizer has no id for a part of the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, true).map_err(|cause| {
            Error::unsupported("the tokenizer cannot split the text").in_file(&self.path).because(cause)
        })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of token ids, special tokens included. Ids that the tokenizer does not know are left out.
    ///
    /// # Errors
    /// Unsupported where the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, false).map_err(|cause| {
            Error::unsupported("the tokenizer cannot turn the ids into text").in_file(&self.path).because(cause)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Deserialize)]
    struct Expected {
        texts: Vec<String>,
        ids: BTreeMap<String, Vec<Vec<u32>>>,
        decoded: BTreeMap<String, Vec<String>>,
    }

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizer").join(name)
    }

    #[test]
    fn hard_texts_get_the_ids_of_the_python_package() {
        let expected: Expected = serde_json::from_slice(&std::fs::read(fixture("expected.json")).unwrap()).unwrap();
        assert_eq!(expected.ids.len(), 3);
        for (name, rows) in &expected.ids {
            let tokenizer = Tokenizer::open(&fixture(&format!("{name}.json"))).unwrap();
            for (i, text) in expected.texts.iter().enumerate() {
                assert_eq!(tokenizer.encode(text).unwrap(), rows[i], "{name}: {text:?}");
                assert_eq!(tokenizer.decode(&rows[i]).unwrap(), expected.decoded[name][i], "{name}: {text:?}");
            }
        }
    }

    #[test]
    fn the_shipped_tokenizers_give_the_reference_prompt_s_ids() {
        #[derive(Deserialize)]
        struct Prompt {
            text: String,
            token_ids: Vec<u32>,
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let json = std::fs::read(root.join("tests/fixtures/reference/prompt.json")).unwrap();
        let prompt: Prompt = serde_json::from_slice(&json).unwrap();
        for model in ["tiny-qwen2", "tiny-gpt2"] {
            let tokenizer = Tokenizer::open(&root.join("models").join(model).join("tokenizer.json")).unwrap();
            assert_eq!(tokenizer.encode(&prompt.text).unwrap(), prompt.token_ids, "{model}");
        }
    }

    #[test]
    fn a_prompt_is_never_cut_or_padded() {
        let mut json: serde_json::Value =
            serde_json::from_slice(&std::fs::read(fixture("qwen2.json")).unwrap()).unwrap();
        json["truncation"] =
            serde_json::json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
        json["padding"] = serde_json::json!({"strategy": {"Fixed": 9}, "direction": "Right",
            "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "<|end|>"});
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        std::fs::write(&path, json.to_string()).unwrap();
        let whole = Tokenizer::open(&fixture("qwen2.json")).unwrap();
        let tokenizer = Tokenizer::open(&path).unwrap();
        assert_eq!(tokenizer.encode("one two three").unwrap(), whole.encode("one two three").unwrap());
        assert_ne!(tokenizer.hash(), whole.hash());
    }

    #[test]
    fn a_file_that_is_no_tokenizer_is_named() {
        let error = Tokenizer::open(&fixture("expected.json")).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Malformed);
        assert_eq!(error.file(), Some(fixture("expected.json").as_path()));
    }
}
