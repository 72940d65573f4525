//! Model files: one [`Model`] from GGUF or safetensors, its weights by role, mapped and never copied whole.

mod bytes;
mod config;
mod family;
mod gguf;
mod hyper;
mod open;
pub mod quant;
mod safetensors;
mod stored;
mod tensor_type;
#[cfg(test)]
mod tests;
#[cfg(feature = "record")]
mod tokenizer;
mod weight;

pub use bytes::Bytes;
pub use hyper::{Activation, Architecture, Fact, HyperParameters, RopeParameters, Source};
pub use open::{Format, Model, ModelFile, ModelHash};
pub use tensor_type::TensorType;
#[cfg(feature = "record")]
pub use tokenizer::Tokenizer;
pub use weight::{Layout, Role, Weight, WeightKey};
