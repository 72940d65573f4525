//! Model files: one [`Model`] from GGUF, safetensors or .apr, its weights by role, mapped and never copied whole; and GGUF
//! files written: models in another element type ([`convert`]), models of random weights ([`synth`]).

mod apr;
mod architecture;
mod bytes;
mod config;
#[cfg(feature = "record")]
pub mod convert;
mod cursor;
mod fact;
mod family;
mod gguf;
mod hyper;
mod open;
mod overrides;
pub mod quant;
mod role;
mod rope;
mod safetensors;
mod scales;
mod stored;
pub mod synth;
mod tensor_type;
#[cfg(test)]
mod tests;
#[cfg(feature = "record")]
mod tokenizer;
#[cfg_attr(not(feature = "record"), allow(dead_code, reason = "only a tokenizer asks for the parts of a vocabulary"))]
mod vocabulary;
mod weight;

pub use architecture::{Activation, Architecture};
pub use bytes::Bytes;
pub use fact::{Fact, Source};
pub use gguf::{GgufContents, GgufValue, GgufWriter, Replace};
pub use hyper::{Experts, HyperParameters, Window};
pub use open::{Format, Model, ModelFile, ModelHash};
pub use overrides::Overrides;
pub use role::{Role, WeightKey};
pub use rope::{RopeParameters, RopeScaling};
pub use safetensors::{SafetensorsEntry, safetensors_entries};
pub use scales::Scales;
pub use tensor_type::TensorType;
#[cfg(feature = "record")]
pub use tokenizer::Tokenizer;
pub use vocabulary::Vocabulary;
pub use weight::{Layout, Weight};
