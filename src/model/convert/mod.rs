//! A model in another element type: a GGUF file with the values of any model that opens here.
//!
//! Tensors are made from the canonical weights, laid out as GGUF names and orders them, so every format is a source alike.
//! A GGUF source keeps its metadata byte for byte; for others they are written from the hyper-parameters, and read back:
//! a model that GGUF cannot describe is refused.

mod metadata;
mod tensor;
mod tokenizer_json;
mod vocabulary;

use super::family::{Family, Naming};
use super::gguf::{GgufContents, Pieces, Replace};
pub use super::quant::ENCODED;
use super::stored::{Tensors, size_of};
use super::{Format, Model, TensorType};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;
use tensor::Tensor;

/// Where the tokenizer in the new file comes from.
#[derive(Debug, Clone, Copy)]
pub enum TokenizerFrom<'a> {
    /// The model: a GGUF file's metadata, the vocabulary in an .apr file, the tokenizer.json in a folder of safetensors.
    Model,
    /// This tokenizer.json.
    File(&'a Path),
    /// Nowhere: the file has none.
    Nowhere,
}

/// A model that can be written as a GGUF file.
#[derive(Debug)]
pub struct Conversion<'a> {
    model: &'a Model,
    pairs: metadata::Pairs,
    tensors: Vec<Tensor<'a>>,
    loss: Option<&'static str>,
}

impl<'a> Conversion<'a> {
    /// `model` with matrices of `tensor_type`, one of [`ENCODED`]. Vectors, learned positions and routers are F32, as in
    /// llama.cpp's files.
    ///
    /// # Errors
    /// Unsupported for another type, for rows that are no whole blocks of it, for what GGUF files of the family cannot
    /// hold or describe, and for a tokenizer that they cannot; usage where the tokenizer cannot come from there.
    pub fn new(model: &'a Model, tensor_type: TensorType, tokenizer: TokenizerFrom<'_>) -> Result<Self> {
        if !ENCODED.contains(&tensor_type) {
            return Err(Error::unsupported(format!("models are not converted to {}", tensor_type.name())));
        }
        let family = Family::new(model.architecture(), Naming::Gguf, &Tensors::default());
        let tensors = tensor::plan(model, family.holders(model.hyper())?, tensor_type)
            .map_err(|error| error.in_file(model.path()))?;
        let (pairs, loss) = match model.format() {
            Format::Gguf => (metadata::copied(model, tensor_type, tokenizer)?, None),
            _ => metadata::described(model, tensor_type, &tensors, tokenizer)?,
        };
        Ok(Conversion { model, pairs, tensors, loss })
    }

    /// Length of the file in bytes.
    ///
    /// # Errors
    /// Malformed or usage where that overflows.
    pub fn file_bytes(&self) -> Result<u64> {
        self.contents()?.file_bytes()
    }

    /// What the file does not say of the tokenizer, in a sentence.
    pub fn loss(&self) -> Option<&str> {
        self.loss
    }

    /// How many tensors of each type the file has.
    pub fn tensors(&self) -> BTreeMap<TensorType, usize> {
        let mut counts = BTreeMap::new();
        self.tensors.iter().for_each(|tensor| *counts.entry(tensor.tensor_type).or_default() += 1);
        counts
    }

    /// Writes the file on all threads of the pool that it runs in, under a temporary name until it is whole. `progress`
    /// learns how many bytes of data are written, and ends the writing by an error. Gives the length of the file.
    ///
    /// # Errors
    /// Those of `progress`, of [`GgufContents::create`] and of writing; unsupported, naming tensor and row, for a value
    /// that the type cannot hold; environment where the source changed meanwhile.
    pub fn write(&self, path: &Path, replace: Replace, mut progress: impl FnMut(u64) -> Result<()>) -> Result<u64> {
        let mut writer = self.contents()?.create(path, replace)?;
        let mut pieces = Pieces::default();
        let mut done = 0;
        for tensor in &self.tensors {
            writer.begin(&tensor.name)?;
            let bytes = size_of(tensor.tensor_type, &tensor.shape)?;
            let fill = |first: usize, out: &mut [u8]| {
                let filled = tensor.fill(first, out);
                filled.map_err(|error| error.of(&tensor.name).in_file(self.model.path()))
            };
            pieces.write(&mut writer, bytes, tensor.row_bytes()?, fill, |written| progress(done + written))?;
            done += bytes as u64;
        }
        self.model.check_unchanged()?;
        writer.finish()
    }

    fn contents(&self) -> Result<GgufContents> {
        let mut contents = metadata::contents(&self.pairs)?;
        for tensor in &self.tensors {
            contents.add(&tensor.name, tensor.tensor_type, &tensor.shape)?;
        }
        Ok(contents)
    }
}
