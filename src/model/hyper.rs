//! Hyper-parameters: typed, checked, and told apart by where each came from.

use super::overrides::{Given, Overrides};
use crate::error::{Error, Result, nearest};

/// How gate or up projections are activated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// `x / 2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))`, Hugging Face's `gelu_new`.
    GeluTanh,
}

/// Family of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// RMSNorm, grouped-query attention with q, k, v biases, RoPE, SwiGLU.
    Qwen2,
    /// The same without biases (or with, where the file has them).
    Llama,
    /// LayerNorm, biases everywhere, learned positions, plain FFN.
    Gpt2,
}

impl Architecture {
    /// Every known family.
    pub const ALL: [Architecture; 3] = [Architecture::Qwen2, Architecture::Llama, Architecture::Gpt2];

    /// The name in files and records: `qwen2`, `llama`, `gpt2`.
    pub fn name(self) -> &'static str {
        match self {
            Architecture::Qwen2 => "qwen2",
            Architecture::Llama => "llama",
            Architecture::Gpt2 => "gpt2",
        }
    }

    /// The family with a name (`model_type` of config.json, `general.architecture` of GGUF).
    ///
    /// # Errors
    /// Unsupported, with the list of the known.
    pub fn from_name(name: &str) -> Result<Self> {
        Architecture::ALL.into_iter().find(|known| known.name() == name).ok_or_else(|| {
            let known: Vec<&str> = Architecture::ALL.iter().map(|known| known.name()).collect();
            Error::unsupported(format!("architecture {name:?} is not known; this version runs {}", known.join(", ")))
        })
    }
}

/// Rotary position embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeParameters {
    /// Base of the frequencies (`rope_theta`).
    pub base: f64,
    /// Leading elements of a head that turn.
    pub rotary_dim: u32,
}

/// The numbers that shape a model.
#[derive(Debug, Clone, PartialEq)]
pub struct HyperParameters {
    /// Layers.
    pub layers: u32,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads; query head `h` reads head `h / (heads / kv_heads)`.
    pub kv_heads: u32,
    /// Elements of a head.
    pub head_dim: u32,
    /// Width of the FFN.
    pub ffn: u32,
    /// Tokens, as many as the token embedding has rows.
    pub vocabulary: u32,
    /// Largest number of positions.
    pub context: u32,
    /// Added under the root of every norm.
    pub norm_epsilon: f32,
    /// Rotary embedding; `None` where positions are learned.
    pub rope: Option<RopeParameters>,
    /// Activation of the FFN.
    pub activation: Activation,
    /// Whether the FFN has a gate.
    pub gated: bool,
    /// Whether the output head is the token embedding.
    pub tied_embeddings: bool,
}

impl HyperParameters {
    /// Width of all query heads. It fits: opening a model checks the product.
    pub fn q_width(&self) -> u32 {
        self.heads.saturating_mul(self.head_dim)
    }

    /// Width of all key (or value) heads.
    pub fn kv_width(&self) -> u32 {
        self.kv_heads.saturating_mul(self.head_dim)
    }

    /// Refuses numbers that no model can have.
    ///
    /// # Errors
    /// Malformed, with the name of the number.
    pub(super) fn validate(&self) -> Result<()> {
        let sizes = [
            ("layers", self.layers),
            ("hidden", self.hidden),
            ("heads", self.heads),
            ("kv_heads", self.kv_heads),
            ("head_dim", self.head_dim),
            ("ffn", self.ffn),
            ("vocabulary", self.vocabulary),
            ("context", self.context),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(Error::malformed(format!("the model says that {name} is 0")));
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(Error::malformed(format!(
                "{} query heads cannot share {} key heads evenly",
                self.heads, self.kv_heads
            )));
        }
        if self.heads.checked_mul(self.head_dim).is_none() {
            return Err(Error::malformed(format!("{} heads of {} are too wide", self.heads, self.head_dim)));
        }
        if !self.norm_epsilon.is_finite() || self.norm_epsilon < 0.0 {
            return Err(Error::malformed(format!("a norm epsilon of {} makes no sense", self.norm_epsilon)));
        }
        self.rope.map_or(Ok(()), |rope| rope.validate(self.head_dim))
    }
}

impl RopeParameters {
    fn validate(&self, head_dim: u32) -> Result<()> {
        if !self.base.is_finite() || self.base <= 0.0 {
            return Err(Error::malformed(format!("a RoPE base of {} makes no sense", self.base)));
        }
        if !self.rotary_dim.is_multiple_of(2) {
            return Err(Error::malformed(format!("RoPE turns pairs, {} elements are odd", self.rotary_dim)));
        }
        if self.rotary_dim != head_dim {
            return Err(Error::unsupported(format!(
                "partial RoPE ({} of {head_dim} elements of a head) is not supported",
                self.rotary_dim
            )));
        }
        Ok(())
    }
}

/// Where a fact comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The model's file says so.
    File,
    /// It follows from the shape of a tensor.
    Shape,
    /// The file is silent; the family's default, or what follows from other facts.
    Default,
    /// The command line sets it over whatever the file says.
    CommandLine,
}

impl Source {
    /// The name in records: `file`, `shape`, `default`, `override`.
    pub fn name(self) -> &'static str {
        match self {
            Source::File => "file",
            Source::Shape => "shape",
            Source::Default => "default",
            Source::CommandLine => "override",
        }
    }
}

/// One hyper-parameter as text, for a run's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// Its name: the field of [`HyperParameters`].
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// Where it comes from.
    pub source: Source,
}

/// A value and where it comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sourced<T> {
    pub value: T,
    pub source: Source,
}

impl<T> Sourced<T> {
    pub(super) fn file(value: T) -> Self {
        Sourced { value, source: Source::File }
    }

    pub(super) fn default(value: T) -> Self {
        Sourced { value, source: Source::Default }
    }

    /// The file's value, or the default.
    pub(super) fn or(value: Option<T>, default: T) -> Self {
        value.map_or_else(|| Sourced::default(default), Sourced::file)
    }
}

/// Collects facts while the fields are read, and puts what the user set in their place.
#[derive(Debug, Default)]
pub(super) struct Facts {
    facts: Vec<Fact>,
    overrides: Overrides,
    /// The first setting that is no value of its hyper-parameter.
    senseless: Option<Error>,
}

impl Facts {
    pub(super) fn new(overrides: &Overrides) -> Facts {
        Facts { overrides: overrides.clone(), ..Facts::default() }
    }

    /// Notes a value, or what the user set instead, and hands it on.
    #[must_use = "the user may have set another value"]
    pub(super) fn note<T: Given>(&mut self, key: &'static str, sourced: Sourced<T>) -> T {
        let Sourced { value, source } = self.overridden(key, sourced);
        self.facts.push(Fact { key, value: value.to_string(), source });
        value
    }

    fn overridden<T: Given>(&mut self, key: &'static str, sourced: Sourced<T>) -> Sourced<T> {
        let Some(text) = self.overrides.get(key) else { return sourced };
        if let Some(value) = T::given(text) {
            return Sourced { value, source: Source::CommandLine };
        }
        let message = format!("{key} is set to `{text}`, and should be {}", T::WHAT);
        self.senseless.get_or_insert_with(|| Error::usage(message));
        sourced
    }

    /// What the reader of the fields came to, unless a setting makes no sense. Which keys are known shows only when all
    /// fields were read.
    ///
    /// # Errors
    /// Usage for a setting that is no value, or whose key this model does not have; else the reader's.
    pub(super) fn judge<T>(&mut self, read: Result<T>) -> Result<T> {
        if let Some(error) = self.senseless.take() {
            return Err(error);
        }
        let read = read?;
        let known = || self.facts.iter().map(|fact| fact.key);
        match self.overrides.keys().find(|key| known().all(|known| known != *key)) {
            None => Ok(read),
            Some(key) => Err(Error::usage(match nearest(key, known()) {
                Some(near) => format!("this model has no hyper-parameter `{key}`; did you mean `{near}`?"),
                None => {
                    let known = known().collect::<Vec<_>>().join(", ");
                    format!("this model has no hyper-parameter `{key}`; it has {known}")
                }
            })),
        }
    }

    pub(super) fn into_vec(self) -> Vec<Fact> {
        self.facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn sound() -> HyperParameters {
        HyperParameters {
            layers: 2,
            hidden: 8,
            heads: 4,
            kv_heads: 2,
            head_dim: 2,
            ffn: 16,
            vocabulary: 32,
            context: 64,
            norm_epsilon: 1e-5,
            rope: Some(RopeParameters { base: 1e4, rotary_dim: 2 }),
            activation: Activation::Silu,
            gated: true,
            tied_embeddings: true,
        }
    }

    #[test]
    fn each_broken_number_is_refused() {
        assert!(sound().validate().is_ok());
        type Break = (&'static str, fn(&mut HyperParameters));
        let breaks: [Break; 8] = [
            ("layers is 0", |h| h.layers = 0),
            ("evenly", |h| h.kv_heads = 3),
            ("too wide", |h| (h.heads, h.kv_heads, h.head_dim) = (1 << 20, 1, 1 << 20)),
            ("epsilon of NaN", |h| h.norm_epsilon = f32::NAN),
            ("epsilon of -1", |h| h.norm_epsilon = -1.0),
            ("base of inf", |h| h.rope = Some(RopeParameters { base: f64::INFINITY, rotary_dim: 2 })),
            ("odd", |h| (h.head_dim, h.rope) = (3, Some(RopeParameters { base: 1e4, rotary_dim: 3 }))),
            ("partial RoPE", |h| h.rope = Some(RopeParameters { base: 1e4, rotary_dim: 0 })),
        ];
        for (words, change) in breaks {
            let mut hyper = sound();
            change(&mut hyper);
            let error = hyper.validate().unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn an_unknown_architecture_names_the_known() {
        let error = Architecture::from_name("mamba").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("qwen2, llama, gpt2"));
    }
}
