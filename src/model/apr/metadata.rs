//! The JSON metadata: told as the config.json that Hugging Face would write, which [`Config`] reads and judges.
//!
//! Some writers store wrong numbers (one head where there are four, another RoPE base), and some store a number twice.
//! So numbers must agree with each other and with the shapes of the tensors; what no shape shows (RoPE base, epsilon,
//! context, heads that share a width otherwise) must at least be there. The user may set any of them.

use crate::error::{Error, Result};
use crate::model::config::Config;
use crate::model::overrides::Overrides;
use crate::model::stored::Tensors;
use crate::model::{Architecture, Layout, Role, Weight};
use serde_json::{Map, Value};
use std::path::Path;

/// Families whose .apr files have been compared with other formats.
const FAMILIES: [Architecture; 2] = [Architecture::Qwen2, Architecture::Llama];

struct Number {
    /// In config.json.
    config: &'static str,
    /// Its name among the facts.
    fact: &'static str,
    /// In .apr files, also behind `model.`.
    names: &'static [&'static str],
    needed: bool,
}

const fn number(config: &'static str, fact: &'static str, names: &'static [&'static str], needed: bool) -> Number {
    Number { config, fact, names, needed }
}

const NUMBERS: [Number; 10] = [
    number("num_hidden_layers", "layers", &["num_layers", "num_hidden_layers", "n_layer"], true),
    number("hidden_size", "hidden", &["hidden_size", "n_embd"], true),
    number("num_attention_heads", "heads", &["num_heads", "num_attention_heads", "n_head"], true),
    number("num_key_value_heads", "kv_heads", &["num_kv_heads", "num_key_value_heads"], false),
    number("head_dim", "head_dim", &["head_dim"], false),
    number("intermediate_size", "ffn", &["intermediate_size", "n_inner"], true),
    number("vocab_size", "vocabulary", &["vocab_size"], false),
    number("max_position_embeddings", "context", &["max_position_embeddings", "n_positions", "context_length"], true),
    number("rope_theta", "rope_base", &["rope_theta"], true),
    number("rms_norm_eps", "norm_epsilon", &["rms_norm_eps"], true),
];

/// What config.json may say besides, under the same name: [`Config`] refuses what is not built.
const PASSED_ON: [&str; 10] = [
    "hidden_act",
    "rope_scaling",
    "rope_parameters",
    "partial_rotary_factor",
    "sliding_window",
    "use_sliding_window",
    "layer_types",
    "mlp_bias",
    "quantization_config",
    "tie_word_embeddings",
];

/// Parts of names of features that are not built.
const UNBUILT: [&str; 3] = ["expert", "softcap", "alibi"];

/// The metadata of a file.
#[derive(Debug)]
pub(in crate::model) struct Metadata {
    fields: Map<String, Value>,
}

impl Metadata {
    pub(super) fn parse(json: &[u8], offset: u64) -> Result<Metadata> {
        let fields = serde_json::from_slice(json)
            .map_err(|cause| Error::malformed("the metadata are no JSON object").at(offset).because(cause))?;
        Ok(Metadata { fields })
    }

    /// A present field; null says nothing.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.fields.get(key).filter(|value| !value.is_null())
    }

    /// The text of a field.
    ///
    /// # Errors
    /// Malformed where it is something else.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| Error::malformed(format!("{key} is {value}, and should be a text")));
        text.map(Some)
    }

    /// The same as a config.json; `path` is the file, for messages.
    ///
    /// # Errors
    /// Malformed for missing numbers, and those that contradict each other or the tensors; unsupported for what is not
    /// built.
    pub(in crate::model) fn config(&self, path: &Path, tensors: &Tensors, overrides: &Overrides) -> Result<Config> {
        self.refuse_unbuilt()?;
        let mut fields = Map::new();
        fields.insert("model_type".to_owned(), self.architecture()?.name().into());
        for number in &NUMBERS {
            let set = overrides.get(number.fact).and_then(|text| serde_json::from_str(text).ok());
            if let Some(value) = set.map_or_else(|| self.number(number), |set| Ok(Some(set)))? {
                fields.insert(number.config.to_owned(), value);
            }
        }
        for key in PASSED_ON {
            fields.extend(self.get(key).map(|value| (key.to_owned(), value.clone())));
        }
        if let Some(tied) = self.get("tied_embeddings") {
            fields.insert("tie_word_embeddings".to_owned(), tied.clone());
        }
        Shapes { fields: &fields, tensors }.check()?;
        let json = serde_json::to_vec(&fields).map_err(|cause| Error::internal("cannot write JSON").because(cause))?;
        Config::parse(&json, path)
    }

    fn architecture(&self) -> Result<Architecture> {
        let name = ["architecture", "hf_model_type"].into_iter().find_map(|key| self.text(key).transpose());
        let name = name.transpose()?.ok_or_else(|| Error::malformed("the metadata have no architecture"))?;
        FAMILIES.into_iter().find(|family| family.name() == name.to_lowercase()).ok_or_else(|| {
            let known = FAMILIES.map(Architecture::name).join(", ");
            Error::unsupported(format!("architecture {name:?} is not supported in .apr files; known are {known}"))
        })
    }

    /// The value that every name of a number has.
    fn number(&self, number: &Number) -> Result<Option<Value>> {
        let names = number.names.iter().flat_map(|name| [(*name).to_owned(), format!("model.{name}")]);
        let mut said: Vec<(String, &Value)> = Vec::new();
        for name in names {
            said.extend(self.get(&name).map(|value| (name, value)));
        }
        for pair in said.windows(2) {
            let [(name, value), (other, second)] = pair else { continue };
            if !agree(value, second) {
                return Err(Error::malformed(format!(
                    "{name} is {value} and {other} is {second}; give the right one with --set {}=VALUE",
                    number.fact
                )));
            }
        }
        match said.first() {
            Some((_, value)) => Ok(Some((*value).clone())),
            None if number.needed => Err(Error::malformed(format!(
                "the metadata have no {}; give it with --set {}=VALUE",
                number.names.first().unwrap_or(&number.config),
                number.fact
            ))),
            None => Ok(None),
        }
    }

    fn refuse_unbuilt(&self) -> Result<()> {
        if self.get("format").and_then(Value::as_str) == Some("entrenar-checkpoint") {
            return Err(Error::unsupported(
                "checkpoints of entrenar hold their matrices as [in, out]; they are not supported, convert them first",
            ));
        }
        let idle = |value: &Value| value == &Value::Bool(false) || value.as_f64() == Some(0.0);
        let named = |key: &str| UNBUILT.iter().any(|part| key.contains(part)) && !key.starts_with("tokenizer.");
        match self.fields.iter().find(|(key, value)| named(key) && !value.is_null() && !idle(value)) {
            Some((key, value)) => {
                Err(Error::unsupported(format!("{key} = {value} is not supported; running without it could be wrong")))
            }
            None => Ok(()),
        }
    }

    /// Lets queries and keys be read in the order in which the file stores their rows.
    ///
    /// apr never moves bytes. A llama that came from GGUF has its rows in pairs (`rope_type` 0); from safetensors, in
    /// halves (2), as all of qwen2.
    ///
    /// # Errors
    /// Unsupported and malformed for every other combination: which order the rows have would be a guess.
    pub(in crate::model) fn order_heads<'a>(
        &self,
        head_dim: u32,
        weights: impl Iterator<Item = &'a mut Weight>,
    ) -> Result<()> {
        let said = ["rope_type", "model.rope_type"].into_iter().find_map(|key| self.get(key));
        let said = said.ok_or_else(|| {
            Error::unsupported("the metadata have no rope_type, so the order of query and key rows is not known")
        })?;
        let from_gguf = self.text("original_format")?.is_some_and(|format| format.eq_ignore_ascii_case("gguf"));
        match (self.architecture()?, said.as_u64(), from_gguf) {
            (Architecture::Qwen2, Some(2), _) | (Architecture::Llama, Some(2), false) => Ok(()),
            (Architecture::Llama, Some(0), true) => {
                let turned = [Role::Q, Role::K, Role::QBias, Role::KBias];
                for weight in weights.filter(|weight| turned.contains(&weight.key.role)) {
                    weight.layout = Layout::HeadPairs { head_dim: head_dim as usize };
                }
                Ok(())
            }
            (architecture, _, _) => Err(Error::unsupported(format!(
                "rope_type {said} of {} from {} is not supported: the order of its query and key rows is not known",
                architecture.name(),
                if from_gguf { "GGUF" } else { "another format" }
            ))),
        }
    }
}

/// Whether two fields say the same. A number that was f32 once may have gained digits.
fn agree(one: &Value, other: &Value) -> bool {
    let rounded = |value: &Value| value.as_f64().filter(|_| !value.is_u64()).map(|number| number as f32);
    one == other || rounded(one).is_some() && rounded(one) == rounded(other)
}

/// Numbers held against the shapes of tensors.
struct Shapes<'a> {
    fields: &'a Map<String, Value>,
    tensors: &'a Tensors,
}

impl Shapes<'_> {
    fn said(&self, key: &str) -> Option<u64> {
        self.fields.get(key).and_then(Value::as_u64)
    }

    /// An axis of the tensor with a name, with or without the prefix.
    fn axis(&self, name: &str, axis: usize) -> Option<u64> {
        let tensor = self.tensors.get(&format!("model.{name}")).or_else(|| self.tensors.get(name));
        tensor.and_then(|tensor| tensor.shape.get(axis)).map(|length| *length as u64)
    }

    fn layers(&self) -> Option<u64> {
        let numbers = self.tensors.names().filter_map(|name| {
            let name = name.strip_prefix("model.").unwrap_or(name);
            name.strip_prefix("layers.")?.split('.').next()?.parse::<u64>().ok()
        });
        numbers.max()?.checked_add(1)
    }

    fn check(&self) -> Result<()> {
        let simple = [
            ("num_hidden_layers", "layers", "the layers that the tensors' names count", self.layers()),
            ("hidden_size", "hidden", "the columns of embed_tokens.weight", self.axis("embed_tokens.weight", 1)),
            (
                "intermediate_size",
                "ffn",
                "the rows of layers.0.mlp.gate_proj.weight",
                self.axis("layers.0.mlp.gate_proj.weight", 0),
            ),
        ];
        for (key, fact, what, found) in simple {
            if let (Some(said), Some(found)) = (self.said(key), found)
                && said != found
            {
                return Err(Error::malformed(format!(
                    "the metadata say that {key} is {said}, and {what} are {found}; if the tensors are right, add \
                     --set {fact}={found}"
                )));
            }
        }
        self.check_heads("num_attention_heads", "query", "layers.0.self_attn.q_proj.weight")?;
        self.check_heads("num_key_value_heads", "key", "layers.0.self_attn.k_proj.weight")
    }

    /// Heads times their width must be the rows of their projection.
    fn check_heads(&self, key: &str, what: &str, projection: &str) -> Result<()> {
        let all = self.said("num_attention_heads");
        let split = || self.said("hidden_size").and_then(|hidden| hidden.checked_div(all?));
        let head_dim = self.said("head_dim").or_else(split);
        let (heads, rows) = (self.said(key).or(all), self.axis(projection, 0));
        let (Some(heads), Some(head_dim), Some(rows)) = (heads, head_dim, rows) else { return Ok(()) };
        if heads.checked_mul(head_dim) == Some(rows) {
            return Ok(());
        }
        Err(Error::malformed(format!(
            "the metadata say that there are {heads} {what} heads of {head_dim}, and {projection} has {rows} rows; some \
             writers store wrong numbers: look up the model's own and add --set heads=N --set kv_heads=N (or --set \
             head_dim=N)"
        )))
    }
}
