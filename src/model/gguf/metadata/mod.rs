//! GGUF metadata as hyper-parameters.
//!
//! A key of the architecture that is not known here may change the forward pass, so it is refused by name.

mod attention;
mod experts;

pub(super) use attention::window_period;

use super::value::Value;
use crate::error::{Error, Result};
use crate::model::fact::{Facts, Source, Sourced};
use crate::model::family::Shapes;
use crate::model::hyper::embedding_scale;
use crate::model::{Activation, Architecture, HyperParameters};
use std::collections::BTreeMap;

/// Keys (behind the architecture's name) that become hyper-parameters in every family.
const READ: [&str; 13] = [
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon",
    "rope.freq_base",
    "rope.dimension_count",
    "vocab_size",
];

/// Keys that say nothing about the forward pass, or only together with one that is refused.
const SILENT: [&str; 3] = ["tensor_data_layout", "rope.scaling.original_context_length", "rope.scaling.finetuned"];

/// Keys with the numbers at which they change nothing.
const NEUTRAL: [(&str, &[f64]); 9] = [
    ("rope.scaling.attn_factor", &[1.0]),
    ("expert_weights_scale", &[0.0, 1.0]),
    ("expert_count", &[0.0]),
    ("expert_used_count", &[0.0]),
    ("attn_logit_softcapping", &[0.0]),
    ("final_logit_softcapping", &[0.0]),
    ("logit_scale", &[0.0, 1.0]),
    ("attention.clamp_kqv", &[0.0]),
    ("attention.max_alibi_bias", &[0.0]),
];

/// The metadata of a file.
#[derive(Debug)]
pub(in crate::model) struct Metadata {
    pub(super) pairs: BTreeMap<String, Value>,
}

impl Metadata {
    pub(super) fn new(pairs: BTreeMap<String, Value>) -> Self {
        Metadata { pairs }
    }

    /// `general.alignment`.
    pub(super) fn alignment(&self) -> Result<Option<u64>> {
        match self.pairs.get("general.alignment") {
            None => Ok(None),
            Some(Value::Unsigned(alignment)) => Ok(Some(*alignment)),
            Some(other) => Err(Error::malformed(format!("general.alignment is {other}, and should be a count"))),
        }
    }

    /// The family.
    ///
    /// # Errors
    /// Unsupported for an unknown family and for a file that holds something else.
    pub(in crate::model) fn architecture(&self) -> Result<Architecture> {
        match self.pairs.get("general.type") {
            Some(Value::Text(kind)) if kind != "model" => {
                return Err(Error::unsupported(format!("the file holds a {kind:?}, not a whole model")));
            }
            _ => {}
        }
        match self.pairs.get("general.architecture") {
            Some(Value::Text(name)) => Ok(self.with_experts(Architecture::from_gguf(name)?)),
            Some(other) => Err(Error::malformed(format!("general.architecture is {other}, and should be a name"))),
            None => Err(Error::malformed("the metadata have no general.architecture")),
        }
    }

    /// A `llama` with experts is a Mixtral.
    fn with_experts(&self, architecture: Architecture) -> Architecture {
        match (architecture, self.pairs.get("llama.expert_count")) {
            (Architecture::Llama, Some(Value::Unsigned(count))) if *count > 0 => Architecture::Mixtral,
            _ => architecture,
        }
    }

    /// Typed and checked hyper-parameters; `shapes` are what the tensors tell.
    ///
    /// # Errors
    /// Malformed for missing or senseless numbers; unsupported for features that are not built.
    pub(in crate::model) fn hyper(&self, shapes: Shapes, facts: &mut Facts) -> Result<HyperParameters> {
        let architecture = self.architecture()?;
        let fields = Fields { pairs: &self.pairs, architecture };
        let layers = facts.note("layers", fields.needed("block_count")?);
        shapes.check_layers(layers)?;
        let hidden = facts.note("hidden", fields.needed("embedding_length")?);
        let heads = facts.note("heads", fields.needed("attention.head_count")?);
        let kv_heads = Sourced::or(fields.count("attention.head_count_kv")?, heads);
        let kv_heads = facts.note("kv_heads", kv_heads);
        let head_dim = facts.note("head_dim", fields.head_dim(hidden, heads)?);
        let ffn = facts.note("ffn", fields.needed("feed_forward_length")?);
        let hyper = HyperParameters {
            layers,
            hidden,
            heads,
            kv_heads,
            head_dim,
            ffn,
            vocabulary: facts.note("vocabulary", fields.vocabulary(shapes.vocabulary)?),
            context: facts.note("context", fields.needed("context_length")?),
            norm_epsilon: facts.note("norm_epsilon", fields.epsilon()?),
            // Gemma's converter adds the 1 to the weights.
            norm_weight_offset: 0.0,
            rope: fields.rope(head_dim, shapes.has_rope_factors, facts)?,
            window: fields.window(layers, head_dim, facts)?,
            attn_scale: facts.note("attn_scale", fields.attn_scale(layers, hidden, heads, head_dim)),
            attn_softcap: facts.note_some("attn_softcap", fields.softcap("attn_logit_softcapping", 50.0)?),
            logit_softcap: facts.note_some("logit_softcap", fields.softcap("final_logit_softcapping", 30.0)?),
            embedding_scale: facts.note_some("embedding_scale", embedding_scale(architecture, hidden)),
            activation: activation(architecture, facts)?,
            gated: facts.note("gated", Sourced::default(!architecture.is_gpt())),
            parallel_residual: fields.parallel_residual(facts)?,
            experts: fields.experts(layers, ffn, facts)?,
            tied_embeddings: facts
                .note("tied_embeddings", Sourced { value: !shapes.has_output, source: Source::Shape }),
        };
        hyper.validate()?;
        fields.refuse_unbuilt(&hyper)?;
        Ok(hyper)
    }
}

/// The format names no activation: it belongs to the architecture, as Hugging Face's model of it computes it.
fn activation(architecture: Architecture, facts: &mut Facts) -> Result<Activation> {
    let name = match architecture {
        Architecture::Gpt2 => "gelu_new",
        Architecture::Gemma2 | Architecture::Gemma3 => "gelu_pytorch_tanh",
        Architecture::GptNeox => "gelu",
        _ => "silu",
    };
    Activation::from_name(facts.note("activation", Sourced::default(name)))
}

struct Fields<'a> {
    pairs: &'a BTreeMap<String, Value>,
    architecture: Architecture,
}

impl Fields<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture.gguf())
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.pairs.get(&self.key(name))
    }

    fn count(&self, name: &str) -> Result<Option<u32>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let count = match value {
            Value::Unsigned(count) => u32::try_from(*count).ok(),
            Value::Signed(count) => u32::try_from(*count).ok(),
            Value::Array(_) => {
                return Err(Error::unsupported(format!("{} differs between layers", self.key(name))));
            }
            _ => None,
        };
        let wrong = || Error::malformed(format!("{} is {value}, and should be a count", self.key(name)));
        count.map(Some).ok_or_else(wrong)
    }

    fn needed(&self, name: &str) -> Result<Sourced<u32>> {
        let count = self.count(name)?;
        count.map(Sourced::file).ok_or_else(|| Error::malformed(format!("the metadata have no {}", self.key(name))))
    }

    fn number(&self, name: &str) -> Result<Option<f64>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Float(number)) => Ok(Some(*number)),
            Some(Value::Unsigned(number)) => Ok(Some(*number as f64)),
            Some(Value::Signed(number)) => Ok(Some(*number as f64)),
            Some(other) => Err(Error::malformed(format!("{} is {other}, and should be a number", self.key(name)))),
        }
    }

    fn head_dim(&self, hidden: u32, heads: u32) -> Result<Sourced<u32>> {
        let (key, value) = (self.count("attention.key_length")?, self.count("attention.value_length")?);
        let split = match hidden.checked_rem(heads) {
            Some(0) => Some(hidden / heads),
            _ => None,
        };
        match (key.or(split), value.or(split)) {
            (Some(key), Some(value)) if key != value => Err(Error::unsupported(format!(
                "keys of {key} and values of {value} elements a head are not supported, only equal ones"
            ))),
            (Some(size), _) if key.is_some() => Ok(Sourced::file(size)),
            (Some(size), _) => Ok(Sourced::default(size)),
            (None, _) => Err(Error::malformed(format!("a width of {hidden} cannot be split into {heads} heads"))),
        }
    }

    fn vocabulary(&self, rows: u32) -> Result<Sourced<u32>> {
        match self.count("vocab_size")? {
            Some(said) if said != rows => Err(Error::malformed(format!(
                "{} is {said}, and the token embedding has {rows} rows",
                self.key("vocab_size")
            ))),
            _ => Ok(Sourced { value: rows, source: Source::Shape }),
        }
    }

    fn epsilon(&self) -> Result<Sourced<f32>> {
        let name = match self.architecture.is_gpt() {
            true => "attention.layer_norm_epsilon",
            false => "attention.layer_norm_rms_epsilon",
        };
        let epsilon = self.number(name)?;
        epsilon
            .map(|epsilon| Sourced::file(epsilon as f32))
            .ok_or_else(|| Error::malformed(format!("the metadata have no {}", self.key(name))))
    }

    fn flag(&self, name: &str) -> Result<Option<bool>> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(Error::malformed(format!("{} is {other}, and should be a flag", self.key(name)))),
        }
    }

    fn parallel_residual(&self, facts: &mut Facts) -> Result<bool> {
        match self.architecture {
            Architecture::GptNeox => {
                let parallel = Sourced::or(self.flag("use_parallel_residual")?, true);
                Ok(facts.note("parallel_residual", parallel))
            }
            _ => Ok(false),
        }
    }

    /// Whether a key becomes a hyper-parameter in this family.
    fn is_read(&self, name: &str) -> bool {
        use Architecture::*;
        match name {
            "rope.scaling.type" | "rope.scaling.factor" | "rope.scale_linear" => self.architecture != Gpt2,
            "use_parallel_residual" => self.architecture == GptNeox,
            "attention.sliding_window" => attention::has_window(self.architecture),
            "attention.sliding_window_pattern" => self.architecture.is_gemma(),
            "rope.freq_base_swa" => self.architecture == Gemma3,
            "attn_logit_softcapping" | "final_logit_softcapping" => self.architecture.is_gemma(),
            _ => self.architecture.has_experts() && experts::READ.contains(&name),
        }
    }

    fn refuse_unbuilt(&self, hyper: &HyperParameters) -> Result<()> {
        let prefix = self.key("");
        for (key, value) in self.pairs {
            let Some(name) = key.strip_prefix(&prefix) else { continue };
            let known = READ.contains(&name) || self.is_read(name) || SILENT.contains(&name);
            if !known && !changes_nothing(name, value, hyper) {
                return Err(Error::unsupported(format!(
                    "{key} = {value} is not supported; running without it could be wrong"
                )));
            }
        }
        Ok(())
    }
}

fn changes_nothing(name: &str, value: &Value, hyper: &HyperParameters) -> bool {
    let number = match value {
        Value::Float(number) => Some(*number),
        Value::Unsigned(number) => Some(*number as f64),
        Value::Signed(number) => Some(*number as f64),
        _ => None,
    };
    match (name, value) {
        ("attention.causal", Value::Bool(causal)) => *causal,
        ("use_parallel_residual", Value::Bool(parallel)) => !parallel,
        ("attention.sliding_window", Value::Unsigned(window)) => *window == 0 || *window >= hyper.context.into(),
        _ => NEUTRAL
            .iter()
            .any(|(known, numbers)| *known == name && number.is_some_and(|number| numbers.contains(&number))),
    }
}
