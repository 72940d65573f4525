//! Whole models, built in memory: sound ones open, broken ones are refused with words that help.

mod build;
mod gguf;
mod mutation;
mod opening;
mod published;
mod safetensors;
mod shipped;

use crate::{Error, ErrorKind};

/// Asserts an error's kind and a part of its text.
fn refused<T>(result: crate::Result<T>, kind: ErrorKind, words: &str) {
    let error: Error = result.err().unwrap_or_else(|| panic!("accepted, and should be refused for {words:?}"));
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(words), "{error}");
}
