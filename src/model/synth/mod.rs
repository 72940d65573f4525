//! Made-up models: GGUF files of a known model's shape with random weights, for benchmarks and tests.
//!
//! Matrices have mean 0 and standard deviation 1 / sqrt(columns), so that a product of a normalised row has elements of
//! about 1 whatever the width: attention scores and logits are of that size, each layer adds at most about 1.4 to the
//! variance of the residual stream (1 by attention, 0.4 by the FFN), and nothing grows faster than the root of the number
//! of layers. Norms are about 1, biases about 0, both with standard deviation 0.1, so that leaving one out shows.

mod draw;
mod random;
mod shape;

use super::family::{Family, Holder, Naming, Presence};
use super::gguf::{GgufContents, GgufValue, Pieces, Replace, describe, file_type, type_of};
use super::stored::Tensors;
use super::{HyperParameters, Role, TensorType};
use crate::error::{Error, Result};
pub use draw::DRAWN;
use draw::{Draw, Spread};
pub use shape::Shape;
use std::path::Path;

/// Standard deviation of vectors.
const VECTOR_STD: f32 = 0.1;

/// A model that can be written to a file.
#[derive(Debug, Clone)]
pub struct Synthetic {
    shape: Shape,
    tensor_type: TensorType,
    seed: u64,
    tensors: Vec<Tensor>,
}

/// A tensor that is to be drawn.
#[derive(Debug, Clone)]
struct Tensor {
    name: String,
    /// Outermost axis first.
    shape: Vec<usize>,
    tensor_type: TensorType,
    spread: Spread,
}

impl Synthetic {
    /// A model of `shape` with matrices of `tensor_type`, in all bytes a function of `seed`. Vectors, and learned
    /// positions as in llama.cpp's files, are f32.
    ///
    /// # Errors
    /// Usage for a width that blocks of the type do not divide.
    pub fn new(shape: Shape, tensor_type: TensorType, seed: u64) -> Result<Self> {
        let family = Family::new(shape.architecture(), Naming::Gguf, &Tensors::default());
        let needed = family.holders(shape.hyper())?.into_iter().filter(|holder| holder.presence == Presence::Needed);
        let tensors = needed.map(|Holder { name, role, shape: dimensions, .. }| {
            let tensor_type = type_of(role, tensor_type);
            check_width(&name, role, tensor_type, shape.hyper())?;
            Ok(Tensor { spread: spread(role, &dimensions), name, shape: dimensions, tensor_type })
        });
        Ok(Synthetic { tensors: tensors.collect::<Result<_>>()?, shape, tensor_type, seed })
    }

    /// How many weights the model has.
    pub fn parameters(&self) -> u64 {
        let elements =
            |tensor: &Tensor| tensor.shape.iter().fold(1u64, |product, axis| product.saturating_mul(*axis as u64));
        self.tensors.iter().map(elements).fold(0, u64::saturating_add)
    }

    /// Length of the file in bytes.
    ///
    /// # Errors
    /// Malformed or usage where that overflows.
    pub fn file_bytes(&self) -> Result<u64> {
        self.contents()?.file_bytes()
    }

    /// Writes the file on all threads of the pool that it runs in, under a temporary name until it is whole. `progress`
    /// learns how many bytes of data are written, and ends the writing by an error. Gives the length of the file.
    ///
    /// # Errors
    /// Those of `progress`, of [`GgufContents::create`] and of writing.
    pub fn write(&self, path: &Path, replace: Replace, mut progress: impl FnMut(u64) -> Result<()>) -> Result<u64> {
        let contents = self.contents()?;
        let mut writer = contents.create(path, replace)?;
        let mut pieces = Pieces::default();
        let mut done = 0;
        for tensor in &self.tensors {
            writer.begin(&tensor.name)?;
            let draw = Draw::new(random::key(self.seed, &tensor.name), tensor.tensor_type, tensor.spread)?;
            let bytes = super::stored::size_of(tensor.tensor_type, &tensor.shape)?;
            let fill = |first: usize, out: &mut [u8]| {
                draw.fill(first as u64, out);
                Ok(())
            };
            pieces.write(&mut writer, bytes, draw.unit_bytes(), fill, |written| progress(done + written))?;
            done += bytes as u64;
        }
        writer.finish()
    }

    fn contents(&self) -> Result<GgufContents> {
        let mut contents = GgufContents::default();
        for (key, value) in self.metadata() {
            contents.set(&key, value)?;
        }
        for tensor in &self.tensors {
            contents.add(&tensor.name, tensor.tensor_type, &tensor.shape)?;
        }
        Ok(contents)
    }

    fn metadata(&self) -> Vec<(String, GgufValue)> {
        let architecture = self.shape.architecture().gguf();
        let text = |text: &str| GgufValue::Text(text.to_owned());
        let mut pairs = vec![
            ("general.architecture".to_owned(), text(architecture)),
            ("general.type".to_owned(), text("model")),
            ("general.name".to_owned(), text(&format!("synthetic {}", self.shape.preset()))),
            ("general.description".to_owned(), text(&format!("random weights, seed {}", self.seed))),
            ("general.file_type".to_owned(), GgufValue::U32(file_type(self.tensor_type))),
            // The blocks are those that ggml has since it counts its quantisations' versions to 2.
            ("general.quantization_version".to_owned(), GgufValue::U32(2)),
            ("tokenizer.ggml.model".to_owned(), text("no_vocab")),
        ];
        pairs.extend(describe(self.shape.architecture(), self.shape.hyper()));
        pairs
    }
}

/// Mean and standard deviation of a tensor's elements.
fn spread(role: Role, shape: &[usize]) -> Spread {
    match (role.is_matrix(), role) {
        (true, _) => Spread { mean: 0.0, std: 1.0 / (shape.last().copied().unwrap_or(1) as f32).sqrt() },
        (false, Role::AttnNorm | Role::FfnNorm | Role::FinalNorm) => Spread { mean: 1.0, std: VECTOR_STD },
        (false, _) => Spread { mean: 0.0, std: VECTOR_STD },
    }
}

/// Refuses rows that are no whole blocks, with the name of the dimension that makes them so.
fn check_width(name: &str, role: Role, tensor_type: TensorType, hyper: &HyperParameters) -> Result<()> {
    let (columns, block) = (role.shape(hyper).1, tensor_type.block_elements());
    if columns.is_multiple_of(block) {
        return Ok(());
    }
    let dimension = match role {
        Role::AttnOut => "heads x head-dim",
        Role::FfnDown => "ffn",
        _ => "hidden",
    };
    Err(Error::usage(format!(
        "its rows have {columns} elements ({dimension}), which blocks of {block} ({}) do not divide: set it to {}, or \
         choose a type with smaller blocks",
        tensor_type.name(),
        columns.next_multiple_of(block)
    ))
    .of(name))
}
