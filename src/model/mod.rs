//! Model files: one [`Model`] from GGUF or safetensors, its weights by role, mapped and never copied whole; and GGUF
//! files written, among them models of random weights ([`synth`]).

mod architecture;
mod bytes;
mod config;
mod fact;
mod family;
mod gguf;
mod hyper;
mod open;
pub mod quant;
mod role;
mod rope;
mod safetensors;
mod stored;
pub mod synth;
mod tensor_type;
#[cfg(test)]
mod tests;
#[cfg(feature = "record")]
mod tokenizer;
mod weight;

pub use architecture::{Activation, Architecture};
pub use bytes::Bytes;
pub use fact::{Fact, Source};
pub use gguf::{GgufContents, GgufValue, GgufWriter, Replace};
pub use hyper::{Experts, HyperParameters, Window};
pub use open::{Format, Model, ModelFile, ModelHash};
pub use role::{Role, WeightKey};
pub use rope::{RopeParameters, RopeScaling};
pub use safetensors::{SafetensorsEntry, safetensors_entries};
pub use tensor_type::TensorType;
#[cfg(feature = "record")]
pub use tokenizer::Tokenizer;
pub use weight::{Layout, Weight};
