//! Whole models, built in memory: sound ones open, broken ones are refused with words that help.

mod build;
mod gguf;
mod mutation;
mod opening;
mod published;
mod safetensors;
mod shipped;
mod split;
mod write;

use super::Bytes;
use super::gguf as format;
use super::open::Contents;
use super::stored::Tensors;
use crate::{Error, ErrorKind};

/// What a GGUF file of these bytes holds.
fn read_gguf(bytes: Vec<u8>) -> crate::Result<Contents> {
    let mut tensors = Tensors::default();
    let metadata = format::read(&Bytes::from(bytes), 0, &mut tensors)?;
    Contents::of_gguf(&metadata, &tensors)
}

/// Asserts an error's kind and a part of its text.
fn refused<T>(result: crate::Result<T>, kind: ErrorKind, words: &str) {
    let error: Error = result.err().unwrap_or_else(|| panic!("accepted, and should be refused for {words:?}"));
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(words), "{error}");
}
