//! Model files: one [`Model`] from GGUF or safetensors, its weights by role, mapped and never copied whole; and GGUF
//! files written: models in another element type ([`convert`]), models of random weights ([`synth`]).

mod architecture;
mod bytes;
mod config;
pub mod convert;
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
pub use tensor_type::TensorType;
#[cfg(feature = "record")]
pub use tokenizer::Tokenizer;
pub use weight::{Layout, Weight};
