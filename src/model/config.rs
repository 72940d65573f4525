//! config.json of Hugging Face transformers (versions 4 and 5) as hyper-parameters.
//!
//! What would change the forward pass and is not built is refused by name, never passed over.

use super::hyper::{Facts, Source, Sourced};
use super::{Architecture, HyperParameters, RopeParameters};
use crate::error::{Error, Result};
use crate::model::Activation;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// A parsed config.json.
pub(super) struct Config {
    path: PathBuf,
    fields: Map<String, Value>,
    architecture: Architecture,
}

impl Config {
    /// Parses the configuration in file `path` and finds its family.
    ///
    /// # Errors
    /// Malformed where it is no JSON object with a `model_type`; unsupported for an unknown family.
    pub(super) fn parse(json: &[u8], path: &Path) -> Result<Config> {
        let (fields, architecture) = Config::fields(json).map_err(|error| error.in_file(path))?;
        Ok(Config { path: path.to_path_buf(), fields, architecture })
    }

    fn fields(json: &[u8]) -> Result<(Map<String, Value>, Architecture)> {
        let fields: Map<String, Value> = serde_json::from_slice(json)
            .map_err(|cause| Error::malformed("the configuration is no JSON object").because(cause))?;
        let model_type = fields
            .get("model_type")
            .and_then(Value::as_str)
            .ok_or_else(|| Error::malformed("the configuration has no model_type, so the architecture is unknown"))?;
        let architecture = Architecture::from_name(model_type)?;
        Ok((fields, architecture))
    }

    pub(super) fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// Typed and checked hyper-parameters. `vocabulary` counts the rows of the token embedding.
    ///
    /// # Errors
    /// Malformed for missing or senseless numbers; unsupported for features that are not built.
    pub(super) fn hyper(&self, vocabulary: u32, has_output: bool, facts: &mut Facts) -> Result<HyperParameters> {
        self.read(vocabulary, has_output, facts).map_err(|error| error.in_file(&self.path))
    }

    fn read(&self, vocabulary: u32, has_output: bool, facts: &mut Facts) -> Result<HyperParameters> {
        self.refuse_unbuilt()?;
        let gpt2 = self.architecture == Architecture::Gpt2;
        let name = |llama: &'static str, other: &'static str| if gpt2 { other } else { llama };
        let layers = facts.note("layers", self.needed(name("num_hidden_layers", "n_layer"))?);
        let hidden = facts.note("hidden", self.needed(name("hidden_size", "n_embd"))?);
        let heads = facts.note("heads", self.needed(name("num_attention_heads", "n_head"))?);
        let kv_heads = match gpt2 {
            true => Sourced::default(heads),
            false => Sourced::or(self.count("num_key_value_heads")?, heads),
        };
        let kv_heads = facts.note("kv_heads", kv_heads);
        let head_dim = facts.note("head_dim", self.head_dim(hidden, heads)?);
        let hyper = HyperParameters {
            layers,
            hidden,
            heads,
            kv_heads,
            head_dim,
            ffn: facts.note("ffn", self.ffn(hidden)?),
            vocabulary: facts.note("vocabulary", self.vocabulary(vocabulary)?),
            context: facts.note("context", self.needed(name("max_position_embeddings", "n_positions"))?),
            norm_epsilon: facts.note("norm_epsilon", self.epsilon()?),
            rope: self.rope(head_dim, facts)?,
            activation: self.activation(facts)?,
            gated: facts.note("gated", Sourced::default(!gpt2)),
            tied_embeddings: facts.note("tied_embeddings", self.tied(has_output)?),
        };
        hyper.validate()?;
        self.refuse_window(hyper.context)?;
        Ok(hyper)
    }

    /// A present, non-null field.
    fn get(&self, key: &str) -> Option<&Value> {
        self.fields.get(key).filter(|value| !value.is_null())
    }

    fn count(&self, key: &str) -> Result<Option<u32>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let count = value.as_u64().and_then(|count| u32::try_from(count).ok());
        count.map(Some).ok_or_else(|| Error::malformed(format!("{key} is {value}, and should be a count")))
    }

    fn needed(&self, key: &str) -> Result<Sourced<u32>> {
        let count = self.count(key)?;
        count.map(Sourced::file).ok_or_else(|| Error::malformed(format!("the configuration has no {key}")))
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| Error::malformed(format!("{key} is {value}, and should be a number")))
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value
            .as_bool()
            .map(Some)
            .ok_or_else(|| Error::malformed(format!("{key} is {value}, and should be true or false")))
    }

    fn head_dim(&self, hidden: u32, heads: u32) -> Result<Sourced<u32>> {
        if let Some(head_dim) = self.count("head_dim")? {
            return Ok(Sourced::file(head_dim));
        }
        match hidden.checked_rem(heads) {
            Some(0) => Ok(Sourced::default(hidden / heads)),
            _ => Err(Error::malformed(format!("a width of {hidden} cannot be split into {heads} heads"))),
        }
    }

    fn ffn(&self, hidden: u32) -> Result<Sourced<u32>> {
        match self.architecture {
            Architecture::Gpt2 => Ok(Sourced::or(self.count("n_inner")?, hidden.saturating_mul(4))),
            Architecture::Qwen2 | Architecture::Llama => self.needed("intermediate_size"),
        }
    }

    fn vocabulary(&self, rows: u32) -> Result<Sourced<u32>> {
        match self.count("vocab_size")? {
            Some(said) if said != rows => {
                Err(Error::malformed(format!("vocab_size is {said}, and the token embedding has {rows} rows")))
            }
            _ => Ok(Sourced { value: rows, source: Source::Shape }),
        }
    }

    fn epsilon(&self) -> Result<Sourced<f32>> {
        // The defaults are those of the families' own configuration classes.
        let (key, default) = match self.architecture {
            Architecture::Gpt2 => ("layer_norm_epsilon", 1e-5),
            Architecture::Qwen2 | Architecture::Llama => ("rms_norm_eps", 1e-6),
        };
        Ok(Sourced::or(self.number(key)?.map(|epsilon| epsilon as f32), default))
    }

    fn activation(&self, facts: &mut Facts) -> Result<Activation> {
        let (key, default) = match self.architecture {
            Architecture::Gpt2 => ("activation_function", "gelu_new"),
            Architecture::Qwen2 | Architecture::Llama => ("hidden_act", "silu"),
        };
        let given = self.get(key).map(|value| value.as_str().ok_or(value)).transpose();
        let given = given.map_err(|value| Error::malformed(format!("{key} is {value}, and should be a name")))?;
        let activation = match facts.note("activation", Sourced::or(given, default)) {
            "silu" | "swish" => Activation::Silu,
            "gelu_new" | "gelu_pytorch_tanh" => Activation::GeluTanh,
            other => {
                return Err(Error::unsupported(format!(
                    "activation {other:?} is not supported; known are silu, gelu_new, gelu_pytorch_tanh"
                )));
            }
        };
        Ok(activation)
    }

    fn rope(&self, head_dim: u32, facts: &mut Facts) -> Result<Option<RopeParameters>> {
        if self.architecture == Architecture::Gpt2 {
            return Ok(None);
        }
        let nested = self.get("rope_parameters").and_then(|value| value.get("rope_theta"));
        let nested = nested.map(|value| {
            value.as_f64().ok_or_else(|| Error::malformed(format!("rope_theta is {value}, and should be a number")))
        });
        let base = match nested.transpose()? {
            Some(base) => Some(base),
            None => self.number("rope_theta")?,
        };
        let base = facts.note("rope_base", Sourced::or(base, 10_000.0));
        let rotary_dim = facts.note("rotary_dim", Sourced::default(head_dim));
        Ok(Some(RopeParameters { base, rotary_dim }))
    }

    fn tied(&self, has_output: bool) -> Result<Sourced<bool>> {
        match (self.flag("tie_word_embeddings")?, has_output) {
            (Some(false), false) => {
                Err(Error::malformed("tie_word_embeddings is false, and the model has no lm_head.weight"))
            }
            (Some(tied), _) => Ok(Sourced::file(tied)),
            (None, has_output) => Ok(Sourced { value: !has_output, source: Source::Shape }),
        }
    }

    /// Refuses what changes the forward pass and is not built.
    fn refuse_unbuilt(&self) -> Result<()> {
        if let Some(value) = self.get("quantization_config") {
            let method = value.get("quant_method").and_then(Value::as_str).unwrap_or("unnamed");
            return Err(Error::unsupported(format!("quantization_config ({method}) is not supported in safetensors")));
        }
        let neutral = [
            ("scale_attn_weights", true),
            ("scale_attn_by_inverse_layer_idx", false),
            ("reorder_and_upcast_attn", false),
            ("add_cross_attention", false),
            ("mlp_bias", false),
        ];
        for (key, value) in neutral {
            if self.flag(key)?.is_some_and(|given| given != value) {
                return Err(Error::unsupported(format!("{key} = {} is not supported", !value)));
            }
        }
        self.refuse_partial_rotary(self.number("partial_rotary_factor")?)?;
        for key in ["rope_scaling", "rope_parameters"] {
            self.refuse_scaled_rope(key)?;
        }
        Ok(())
    }

    fn refuse_partial_rotary(&self, factor: Option<f64>) -> Result<()> {
        match factor {
            Some(factor) if factor != 1.0 => {
                Err(Error::unsupported(format!("partial_rotary_factor = {factor} is not supported")))
            }
            _ => Ok(()),
        }
    }

    fn refuse_scaled_rope(&self, key: &str) -> Result<()> {
        let Some(value) = self.get(key) else { return Ok(()) };
        let fields =
            value.as_object().ok_or_else(|| Error::malformed(format!("{key} is {value}, and should be an object")))?;
        for (field, value) in fields {
            match (field.as_str(), value) {
                ("rope_theta", _) | (_, Value::Null) => {}
                ("rope_type" | "type", Value::String(name)) if name == "default" => {}
                ("rope_type" | "type", other) => {
                    return Err(Error::unsupported(format!("{key}: RoPE type {other} is not supported, only default")));
                }
                ("partial_rotary_factor", factor) => self.refuse_partial_rotary(factor.as_f64())?,
                (other, _) => {
                    return Err(Error::unsupported(format!("{key}: field {other} is not supported")));
                }
            }
        }
        Ok(())
    }

    /// Refuses a sliding window that some position of the context could notice.
    fn refuse_window(&self, context: u32) -> Result<()> {
        let used = match self.architecture {
            // The family carries the number even where it is switched off.
            Architecture::Qwen2 => self.flag("use_sliding_window")?.unwrap_or(false),
            Architecture::Llama | Architecture::Gpt2 => true,
        };
        if let Some(window) = self.count("sliding_window")?.filter(|window| used && *window < context) {
            return Err(Error::unsupported(format!("a sliding window of {window} positions is not supported")));
        }
        let types = self.get("layer_types").and_then(Value::as_array);
        let other = types.into_iter().flatten().find(|kind| kind.as_str() != Some("full_attention"));
        other.map_or(Ok(()), |kind| {
            Err(Error::unsupported(format!("layer_types: {kind} is not supported, only full_attention")))
        })
    }
}
