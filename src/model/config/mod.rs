//! config.json of Hugging Face transformers (versions 4 and 5) as hyper-parameters.
//!
//! What would change the forward pass and is not built is refused by name, never passed over.

mod experts;
mod quantization;
mod refusals;
mod rope;
mod window;

use super::fact::{Facts, Source, Sourced};
use super::family::Shapes;
use super::hyper::embedding_scale;
use super::{Activation, Architecture, HyperParameters, Role, WeightKey};
use crate::error::{Error, Result};
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
        let architecture = Architecture::from_hugging_face(model_type)?;
        Ok((fields, architecture))
    }

    pub(super) fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// Typed and checked hyper-parameters; `shapes` are what the tensors tell.
    ///
    /// # Errors
    /// Malformed for missing or senseless numbers; unsupported for features that are not built.
    pub(super) fn hyper(&self, shapes: Shapes, facts: &mut Facts) -> Result<HyperParameters> {
        self.read(shapes, facts).map_err(|error| error.in_file(&self.path))
    }

    fn read(&self, shapes: Shapes, facts: &mut Facts) -> Result<HyperParameters> {
        self.refuse_unbuilt()?;
        let gpt2 = self.architecture == Architecture::Gpt2;
        let name = |others: &'static str, gpt2s: &'static str| if gpt2 { gpt2s } else { others };
        let layers = facts.note("layers", self.needed(name("num_hidden_layers", "n_layer"))?);
        shapes.check_layers(layers)?;
        let hidden = facts.note("hidden", self.needed(name("hidden_size", "n_embd"))?);
        let heads = facts.note("heads", self.needed(name("num_attention_heads", "n_head"))?);
        let kv_heads = match self.architecture.is_gpt() {
            true => Sourced::default(heads),
            false => Sourced::or(self.count("num_key_value_heads")?, heads),
        };
        let kv_heads = facts.note("kv_heads", kv_heads);
        let head_dim = facts.note("head_dim", self.head_dim(hidden, heads)?);
        let ffn = facts.note("ffn", self.ffn(hidden)?);
        let hyper = HyperParameters {
            layers,
            hidden,
            heads,
            kv_heads,
            head_dim,
            ffn,
            vocabulary: facts.note("vocabulary", self.vocabulary(shapes.vocabulary)?),
            context: facts.note("context", self.needed(name("max_position_embeddings", "n_positions"))?),
            norm_epsilon: facts.note("norm_epsilon", self.epsilon()?),
            norm_weight_offset: self.norm_weight_offset(facts),
            rope: self.rope(head_dim, facts)?,
            window: self.window(layers, head_dim, facts)?,
            attn_scale: facts.note("attn_scale", self.attn_scale(head_dim)?),
            attn_softcap: facts.note_some("attn_softcap", self.softcap("attn_logit_softcapping", 50.0)?),
            logit_softcap: facts.note_some("logit_softcap", self.softcap("final_logit_softcapping", 30.0)?),
            embedding_scale: facts.note_some("embedding_scale", embedding_scale(self.architecture, hidden)),
            activation: self.activation(facts)?,
            gated: facts.note("gated", Sourced::default(!self.architecture.is_gpt())),
            parallel_residual: self.parallel_residual(facts)?,
            experts: self.experts(layers, ffn, facts)?,
            tied_embeddings: facts.note("tied_embeddings", self.tied(shapes.has_output)?),
        };
        hyper.validate()?;
        self.refuse_unknown_window(hyper.context)?;
        Ok(hyper)
    }

    /// Gemma's code adds 1 to the weights of its norms.
    fn norm_weight_offset(&self, facts: &mut Facts) -> f32 {
        let offset = Sourced::default(self.architecture.is_gemma().then_some(1.0));
        facts.note_some("norm_weight_offset", offset).unwrap_or(0.0)
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

    fn text(&self, key: &str) -> Result<Option<&str>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| Error::malformed(format!("{key} is {value}, and should be a name")))
    }

    fn head_dim(&self, hidden: u32, heads: u32) -> Result<Sourced<u32>> {
        if let Some(head_dim) = self.count("head_dim")? {
            return Ok(Sourced::file(head_dim));
        }
        // The defaults are those of the families' own configuration classes; null is the quotient everywhere.
        match (self.fields.contains_key("head_dim"), self.architecture) {
            (false, Architecture::Gemma2 | Architecture::Gemma3) => return Ok(Sourced::default(256)),
            (false, Architecture::Qwen3) => return Ok(Sourced::default(128)),
            _ => {}
        }
        match hidden.checked_rem(heads) {
            Some(0) => Ok(Sourced::default(hidden / heads)),
            _ => Err(Error::malformed(format!("a width of {hidden} cannot be split into {heads} heads"))),
        }
    }

    fn ffn(&self, hidden: u32) -> Result<Sourced<u32>> {
        match self.architecture {
            Architecture::Gpt2 => Ok(Sourced::or(self.count("n_inner")?, hidden.saturating_mul(4))),
            _ => self.needed("intermediate_size"),
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
            Architecture::GptNeox => ("layer_norm_eps", 1e-5),
            Architecture::Phi3 | Architecture::Mixtral => ("rms_norm_eps", 1e-5),
            _ => ("rms_norm_eps", 1e-6),
        };
        Ok(Sourced::or(self.number(key)?.map(|epsilon| epsilon as f32), default))
    }

    /// `1 / sqrt(head_dim)`, or of the number that Gemma names.
    fn attn_scale(&self, head_dim: u32) -> Result<Sourced<f32>> {
        if !self.architecture.is_gemma() {
            return Ok(Sourced::default(1.0 / (head_dim as f32).sqrt()));
        }
        let scalar = self.number("query_pre_attn_scalar")?.map(|scalar| (1.0 / scalar.sqrt()) as f32);
        Ok(Sourced::or(scalar, 1.0 / 16.0))
    }

    /// A cap of Gemma 2 and 3: absent it is `default` in Gemma 2, and null is none.
    fn softcap(&self, key: &str, default: f32) -> Result<Sourced<Option<f32>>> {
        Ok(match (self.number(key)?, self.architecture) {
            (Some(cap), Architecture::Gemma2 | Architecture::Gemma3) => Sourced::file(Some(cap as f32)),
            (Some(cap), _) => return Err(Error::unsupported(format!("{key} = {cap} is not supported"))),
            (None, Architecture::Gemma2) if !self.fields.contains_key(key) => Sourced::default(Some(default)),
            (None, _) => Sourced::default(None),
        })
    }

    fn activation(&self, facts: &mut Facts) -> Result<Activation> {
        let (key, default) = match self.architecture {
            Architecture::Gpt2 => ("activation_function", "gelu_new"),
            Architecture::GptNeox => ("hidden_act", "gelu"),
            Architecture::Gemma2 | Architecture::Gemma3 => ("hidden_activation", "gelu_pytorch_tanh"),
            _ => ("hidden_act", "silu"),
        };
        Activation::from_name(facts.note("activation", Sourced::or(self.text(key)?, default)))
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

    fn tied(&self, has_output: bool) -> Result<Sourced<bool>> {
        match (self.flag("tie_word_embeddings")?, has_output) {
            (Some(false), false) => {
                Err(Error::malformed("tie_word_embeddings is false, and the model has no lm_head.weight"))
            }
            (Some(tied), _) => Ok(Sourced::file(tied)),
            (None, has_output) => Ok(Sourced { value: !has_output, source: Source::Shape }),
        }
    }

    /// Refuses biases that the configuration denies, and layers without those that it promises: transformers would drop
    /// the ones and make up the others.
    pub(super) fn check_biases(&self, layers: u32, has: impl Fn(WeightKey) -> bool) -> Result<()> {
        use Role::{AttnOutBias, FfnDownBias, FfnGateBias, FfnUpBias, KBias, QBias, VBias};
        let whole = [QBias, KBias, VBias, AttnOutBias];
        let flags: &[(&str, &[Role])] = match self.architecture {
            Architecture::Llama => &[("attention_bias", &whole), ("mlp_bias", &[FfnGateBias, FfnUpBias, FfnDownBias])],
            Architecture::Qwen2Moe => &[("qkv_bias", &[QBias, KBias, VBias])],
            _ => &[("attention_bias", &whole)],
        };
        for (key, roles) in flags {
            let Some(promised) = self.flag(key).map_err(|error| error.in_file(&self.path))? else { continue };
            let keys = (0..layers).flat_map(|layer| roles.iter().map(move |role| WeightKey::in_layer(layer, *role)));
            if let Some(other) = keys.into_iter().find(|weight| has(*weight) != promised) {
                let found = if promised { "lacks" } else { "has" };
                let message = format!("{key} is {promised}, and the model {found} the weight {other}");
                return Err(Error::malformed(message).in_file(&self.path));
            }
        }
        Ok(())
    }
}
