//! Whole models, built in memory: sound ones open, broken ones are refused with words that help.

mod apr;
mod build;
#[cfg(feature = "record")]
mod convert;
mod fp8;
mod gguf;
mod mutation;
mod opening;
mod overrides;
mod published;
mod safetensors;
mod shipped;
mod split;
mod write;

use super::apr as apr_format;
use super::gguf as format;
use super::open::Contents;
use super::stored::Tensors;
use super::{Bytes, Overrides};
use crate::{Error, ErrorKind};
use std::path::Path;

/// What a GGUF file of these bytes holds.
fn read_gguf(bytes: Vec<u8>) -> crate::Result<Contents> {
    let mut tensors = Tensors::default();
    let metadata = format::read(&Bytes::from(bytes), 0, &mut tensors)?;
    Contents::of_gguf(&metadata, &tensors, &Overrides::default())
}

/// What an .apr file of these bytes holds.
fn read_apr(bytes: Vec<u8>) -> crate::Result<Contents> {
    read_apr_with(bytes, &Overrides::default())
}

fn read_apr_with(bytes: Vec<u8>, overrides: &Overrides) -> crate::Result<Contents> {
    let mut tensors = Tensors::default();
    let metadata = apr_format::read(&Bytes::from(bytes), 0, &mut tensors)?;
    Contents::of_apr(&metadata, Path::new("m.apr"), &tensors, overrides)
}

/// Asserts an error's kind and a part of its text.
fn refused<T>(result: crate::Result<T>, kind: ErrorKind, words: &str) {
    let error: Error = result.err().unwrap_or_else(|| panic!("accepted, and should be refused for {words:?}"));
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(words), "{error}");
}
