//! Which stored tensor plays which role, per family and naming.
//!
//! A file's tensors must fit the table exactly: a missing one, one of another shape and one that plays no part are
//! all errors, so that no model runs with a piece silently left out.

use super::stored::{StoredTensor, Tensors};
use super::{Architecture, HyperParameters, Layout, Role, Weight, WeightKey};
use crate::error::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};

/// Whose tensor names and layouts a file uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// Hugging Face's; gpt2 matrices are stored `[in, out]`.
    HuggingFace,
    /// GGUF's; q and k of llama are stored in adjacent-pair order.
    Gguf,
}

/// How a weight lies in its tensor.
#[derive(Clone, Copy)]
enum Lie {
    /// As it is.
    Plain,
    /// Transposed.
    Transposed,
    /// One of three, one below the other.
    Third(usize),
    /// One of three, side by side and transposed.
    TransposedThird(usize),
    /// Rows of each head in adjacent pairs.
    Pairs,
}

/// Whether a family's model has the tensor.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    Needed,
    /// Where the file has it.
    Optional,
}

type Entry = (Role, &'static str, Lie, Presence);

use Lie::{Pairs, Plain, Third, Transposed, TransposedThird};
use Presence::{Needed, Optional};

const HF_OUTER: &[Entry] =
    &[(Role::TokenEmbedding, "embed_tokens.weight", Plain, Needed), (Role::FinalNorm, "norm.weight", Plain, Needed)];

const HF_LAYER: &[Entry] = &[
    (Role::AttnNorm, "input_layernorm.weight", Plain, Needed),
    (Role::Q, "self_attn.q_proj.weight", Plain, Needed),
    (Role::K, "self_attn.k_proj.weight", Plain, Needed),
    (Role::V, "self_attn.v_proj.weight", Plain, Needed),
    (Role::AttnOut, "self_attn.o_proj.weight", Plain, Needed),
    (Role::FfnNorm, "post_attention_layernorm.weight", Plain, Needed),
    (Role::FfnGate, "mlp.gate_proj.weight", Plain, Needed),
    (Role::FfnUp, "mlp.up_proj.weight", Plain, Needed),
    (Role::FfnDown, "mlp.down_proj.weight", Plain, Needed),
];

const HF_QWEN2_BIASES: &[Entry] = &[
    (Role::QBias, "self_attn.q_proj.bias", Plain, Needed),
    (Role::KBias, "self_attn.k_proj.bias", Plain, Needed),
    (Role::VBias, "self_attn.v_proj.bias", Plain, Needed),
];

const HF_LLAMA_BIASES: &[Entry] = &[
    (Role::QBias, "self_attn.q_proj.bias", Plain, Optional),
    (Role::KBias, "self_attn.k_proj.bias", Plain, Optional),
    (Role::VBias, "self_attn.v_proj.bias", Plain, Optional),
    (Role::AttnOutBias, "self_attn.o_proj.bias", Plain, Optional),
];

const HF_GPT2_OUTER: &[Entry] = &[
    (Role::TokenEmbedding, "wte.weight", Plain, Needed),
    (Role::PositionEmbedding, "wpe.weight", Plain, Needed),
    (Role::FinalNorm, "ln_f.weight", Plain, Needed),
    (Role::FinalNormBias, "ln_f.bias", Plain, Needed),
];

const HF_GPT2_LAYER: &[Entry] = &[
    (Role::AttnNorm, "ln_1.weight", Plain, Needed),
    (Role::AttnNormBias, "ln_1.bias", Plain, Needed),
    (Role::Q, "attn.c_attn.weight", TransposedThird(0), Needed),
    (Role::K, "attn.c_attn.weight", TransposedThird(1), Needed),
    (Role::V, "attn.c_attn.weight", TransposedThird(2), Needed),
    (Role::QBias, "attn.c_attn.bias", Third(0), Needed),
    (Role::KBias, "attn.c_attn.bias", Third(1), Needed),
    (Role::VBias, "attn.c_attn.bias", Third(2), Needed),
    (Role::AttnOut, "attn.c_proj.weight", Transposed, Needed),
    (Role::AttnOutBias, "attn.c_proj.bias", Plain, Needed),
    (Role::FfnNorm, "ln_2.weight", Plain, Needed),
    (Role::FfnNormBias, "ln_2.bias", Plain, Needed),
    (Role::FfnUp, "mlp.c_fc.weight", Transposed, Needed),
    (Role::FfnUpBias, "mlp.c_fc.bias", Plain, Needed),
    (Role::FfnDown, "mlp.c_proj.weight", Transposed, Needed),
    (Role::FfnDownBias, "mlp.c_proj.bias", Plain, Needed),
];

const GGUF_OUTER: &[Entry] = &[
    (Role::TokenEmbedding, "token_embd.weight", Plain, Needed),
    (Role::FinalNorm, "output_norm.weight", Plain, Needed),
];

const GGUF_LAYER: &[Entry] = &[
    (Role::AttnNorm, "attn_norm.weight", Plain, Needed),
    (Role::V, "attn_v.weight", Plain, Needed),
    (Role::AttnOut, "attn_output.weight", Plain, Needed),
    (Role::FfnNorm, "ffn_norm.weight", Plain, Needed),
    (Role::FfnGate, "ffn_gate.weight", Plain, Needed),
    (Role::FfnUp, "ffn_up.weight", Plain, Needed),
    (Role::FfnDown, "ffn_down.weight", Plain, Needed),
];

const GGUF_QWEN2_LAYER: &[Entry] = &[
    (Role::Q, "attn_q.weight", Plain, Needed),
    (Role::K, "attn_k.weight", Plain, Needed),
    (Role::QBias, "attn_q.bias", Plain, Needed),
    (Role::KBias, "attn_k.bias", Plain, Needed),
    (Role::VBias, "attn_v.bias", Plain, Needed),
];

const GGUF_LLAMA_LAYER: &[Entry] = &[
    (Role::Q, "attn_q.weight", Pairs, Needed),
    (Role::K, "attn_k.weight", Pairs, Needed),
    (Role::QBias, "attn_q.bias", Pairs, Optional),
    (Role::KBias, "attn_k.bias", Pairs, Optional),
    (Role::VBias, "attn_v.bias", Plain, Optional),
    (Role::AttnOutBias, "attn_output.bias", Plain, Optional),
];

const GGUF_GPT2_OUTER: &[Entry] = &[
    (Role::TokenEmbedding, "token_embd.weight", Plain, Needed),
    (Role::PositionEmbedding, "position_embd.weight", Plain, Needed),
    (Role::FinalNorm, "output_norm.weight", Plain, Needed),
    (Role::FinalNormBias, "output_norm.bias", Plain, Needed),
];

const GGUF_GPT2_LAYER: &[Entry] = &[
    (Role::AttnNorm, "attn_norm.weight", Plain, Needed),
    (Role::AttnNormBias, "attn_norm.bias", Plain, Needed),
    (Role::Q, "attn_qkv.weight", Third(0), Needed),
    (Role::K, "attn_qkv.weight", Third(1), Needed),
    (Role::V, "attn_qkv.weight", Third(2), Needed),
    (Role::QBias, "attn_qkv.bias", Third(0), Needed),
    (Role::KBias, "attn_qkv.bias", Third(1), Needed),
    (Role::VBias, "attn_qkv.bias", Third(2), Needed),
    (Role::AttnOut, "attn_output.weight", Plain, Needed),
    (Role::AttnOutBias, "attn_output.bias", Plain, Needed),
    (Role::FfnNorm, "ffn_norm.weight", Plain, Needed),
    (Role::FfnNormBias, "ffn_norm.bias", Plain, Needed),
    (Role::FfnUp, "ffn_up.weight", Plain, Needed),
    (Role::FfnUpBias, "ffn_up.bias", Plain, Needed),
    (Role::FfnDown, "ffn_down.weight", Plain, Needed),
    (Role::FfnDownBias, "ffn_down.bias", Plain, Needed),
];

/// The names of one file: tables, prefixes, and tensors that carry no weight.
pub(super) struct Family {
    architecture: Architecture,
    naming: Naming,
    /// Before names outside the layers, except the output head.
    prefix: &'static str,
}

impl Family {
    /// The table of `architecture`, with the prefix (`model.`, `transformer.` or none) that `tensors` use.
    pub(super) fn new(architecture: Architecture, naming: Naming, tensors: &Tensors) -> Family {
        let prefix = match (naming, architecture) {
            (Naming::Gguf, _) => "",
            (Naming::HuggingFace, Architecture::Gpt2) => "transformer.",
            (Naming::HuggingFace, Architecture::Qwen2 | Architecture::Llama) => "model.",
        };
        let with_prefix = Family { architecture, naming, prefix };
        match tensors.get(&with_prefix.token_embedding()) {
            Some(_) => with_prefix,
            None => Family { prefix: "", ..with_prefix },
        }
    }

    /// Rows of the token embedding: the size of the vocabulary.
    pub(super) fn vocabulary(&self, tensors: &Tensors) -> Result<u32> {
        let name = self.token_embedding();
        let tensor = tensors.get(&name).ok_or_else(|| missing(&name, Role::TokenEmbedding))?;
        match tensor.shape[..] {
            [rows, _] => u32::try_from(rows)
                .map_err(|_| Error::malformed(format!("a vocabulary of {rows} tokens is too large")).of(&name)),
            _ => Err(Error::malformed(format!("a matrix is needed, its shape is {:?}", tensor.shape)).of(&name)),
        }
    }

    /// Whether the file has an output head of its own.
    pub(super) fn has_output(&self, tensors: &Tensors) -> bool {
        tensors.get(self.output()).is_some()
    }

    fn token_embedding(&self) -> String {
        let [(_, name, ..), ..] = self.outer() else { return String::new() };
        format!("{}{name}", self.prefix)
    }

    fn output(&self) -> &'static str {
        match self.naming {
            Naming::HuggingFace => "lm_head.weight",
            Naming::Gguf => "output.weight",
        }
    }

    fn outer(&self) -> &'static [Entry] {
        match (self.naming, self.architecture) {
            (Naming::HuggingFace, Architecture::Gpt2) => HF_GPT2_OUTER,
            (Naming::HuggingFace, Architecture::Qwen2 | Architecture::Llama) => HF_OUTER,
            (Naming::Gguf, Architecture::Gpt2) => GGUF_GPT2_OUTER,
            (Naming::Gguf, Architecture::Qwen2 | Architecture::Llama) => GGUF_OUTER,
        }
    }

    fn layer(&self) -> [&'static [Entry]; 2] {
        match (self.naming, self.architecture) {
            (Naming::HuggingFace, Architecture::Gpt2) => [HF_GPT2_LAYER, &[]],
            (Naming::HuggingFace, Architecture::Qwen2) => [HF_LAYER, HF_QWEN2_BIASES],
            (Naming::HuggingFace, Architecture::Llama) => [HF_LAYER, HF_LLAMA_BIASES],
            (Naming::Gguf, Architecture::Gpt2) => [GGUF_GPT2_LAYER, &[]],
            (Naming::Gguf, Architecture::Qwen2) => [GGUF_LAYER, GGUF_QWEN2_LAYER],
            (Naming::Gguf, Architecture::Llama) => [GGUF_LAYER, GGUF_LLAMA_LAYER],
        }
    }

    fn layer_prefix(&self, layer: u32) -> String {
        match (self.naming, self.architecture) {
            (Naming::HuggingFace, Architecture::Gpt2) => format!("{}h.{layer}.", self.prefix),
            (Naming::HuggingFace, _) => format!("{}layers.{layer}.", self.prefix),
            (Naming::Gguf, _) => format!("blk.{layer}."),
        }
    }

    /// Every weight of the model by key, its shape checked.
    ///
    /// # Errors
    /// Malformed for a missing tensor or one of another shape; unsupported for one that plays no part.
    pub(super) fn assemble(&self, hyper: &HyperParameters, tensors: &Tensors) -> Result<BTreeMap<WeightKey, Weight>> {
        if hyper.layers as usize > tensors.len() {
            return Err(Error::malformed(format!(
                "{} layers need more than the {} tensors that are there",
                hyper.layers,
                tensors.len()
            )));
        }
        let mut build = Build { hyper, tensors, weights: BTreeMap::new(), used: BTreeSet::new() };
        for entry in self.outer() {
            build.add(None, format!("{}{}", self.prefix, entry.1), *entry)?;
        }
        if hyper.tied_embeddings {
            build.tie(self.output())?;
        } else {
            build.add(None, self.output().to_owned(), (Role::Output, "", Plain, Needed))?;
        }
        for layer in 0..hyper.layers {
            let prefix = self.layer_prefix(layer);
            for entry in self.layer().into_iter().flatten() {
                build.add(Some(layer), format!("{prefix}{}", entry.1), *entry)?;
            }
        }
        build.finish(|name| self.carries_no_weight(name))
    }

    /// What a model with these hyper-parameters needs: tensors by name, first role, shape (outermost axis first).
    pub(super) fn needed(&self, hyper: &HyperParameters) -> Vec<(String, Role, Vec<usize>)> {
        let mut tensors: Vec<(String, Role, Vec<usize>)> = Vec::new();
        let mut add = |name: String, (role, _, lie, presence): Entry| {
            // The parts of a fused tensor stand side by side in the table.
            if presence == Needed && tensors.last().is_none_or(|(last, ..)| *last != name) {
                tensors.push((name, role, stored(role, lie, hyper).0));
            }
        };
        for entry in self.outer() {
            add(format!("{}{}", self.prefix, entry.1), *entry);
        }
        if !hyper.tied_embeddings {
            add(self.output().to_owned(), (Role::Output, "", Plain, Needed));
        }
        for layer in 0..hyper.layers {
            let prefix = self.layer_prefix(layer);
            for entry in self.layer().into_iter().flatten() {
                add(format!("{prefix}{}", entry.1), *entry);
            }
        }
        tensors
    }

    /// Tensors that files of these families hold beside the weights: constants that the code computes.
    fn carries_no_weight(&self, name: &str) -> bool {
        match (self.naming, self.architecture) {
            (Naming::HuggingFace, Architecture::Gpt2) => {
                name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias")
            }
            (Naming::HuggingFace, _) => name.ends_with(".rotary_emb.inv_freq"),
            (Naming::Gguf, _) => false,
        }
    }
}

struct Build<'a> {
    hyper: &'a HyperParameters,
    tensors: &'a Tensors,
    weights: BTreeMap<WeightKey, Weight>,
    used: BTreeSet<String>,
}

impl Build<'_> {
    fn add(&mut self, layer: Option<u32>, name: String, (role, _, lie, presence): Entry) -> Result<()> {
        let Some(tensor) = self.tensors.get(&name) else {
            return if presence == Needed { Err(missing(&name, role)) } else { Ok(()) };
        };
        let key = WeightKey { layer, role };
        let weight = place(key, &name, lie, tensor, self.hyper)?;
        self.weights.insert(key, weight);
        self.used.insert(name);
        Ok(())
    }

    /// Makes the token embedding the output head. A stored head must be a copy of it.
    fn tie(&mut self, output: &str) -> Result<()> {
        let key = WeightKey::outside(Role::TokenEmbedding);
        let embedding =
            self.weights.get(&key).ok_or_else(|| Error::internal("the output is tied before it is known"))?;
        if let Some(stored) = self.tensors.get(output) {
            if stored.tensor_type != embedding.tensor_type || *stored.data != *embedding.data {
                return Err(Error::unsupported(
                    "the configuration ties it to the token embedding, and the file holds another one",
                )
                .of(output));
            }
            self.used.insert(output.to_owned());
        }
        let key = WeightKey::outside(Role::Output);
        let output = Weight { key, ..embedding.clone() };
        self.weights.insert(key, output);
        Ok(())
    }

    fn finish(self, carries_no_weight: impl Fn(&str) -> bool) -> Result<BTreeMap<WeightKey, Weight>> {
        let stray = self.tensors.names().find(|name| !self.used.contains(*name) && !carries_no_weight(name));
        match stray {
            Some(name) => Err(Error::unsupported(
                "it plays no part in this architecture as this version knows it; running without it would be wrong",
            )
            .of(name)),
            None => Ok(self.weights),
        }
    }
}

fn missing(name: &str, role: Role) -> Error {
    Error::malformed(format!("the model has no such tensor, and needs it as {}", role.name())).of(name)
}

/// The shape of the tensor that a weight lies in, and how it lies there.
fn stored(role: Role, lie: Lie, hyper: &HyperParameters) -> (Vec<usize>, Layout) {
    let (rows, columns) = role.shape(hyper);
    let (shape, layout) = match lie {
        Plain => (vec![rows, columns], Layout::Rows { first: 0 }),
        Pairs => (vec![rows, columns], Layout::HeadPairs { head_dim: hyper.head_dim as usize }),
        Third(part) => (vec![rows.saturating_mul(3), columns], Layout::Rows { first: part * rows }),
        Transposed => (vec![columns, rows], Layout::Columns { first: 0, stored_columns: rows }),
        TransposedThird(part) => {
            let stored_columns = rows.saturating_mul(3);
            (vec![columns, stored_columns], Layout::Columns { first: part.saturating_mul(rows), stored_columns })
        }
    };
    // A vector has one axis: its rows, fused or not, follow each other on it.
    let shape = if role.is_matrix() { shape } else { vec![shape.iter().copied().fold(1, usize::saturating_mul)] };
    (shape, layout)
}

fn place(key: WeightKey, name: &str, lie: Lie, tensor: &StoredTensor, hyper: &HyperParameters) -> Result<Weight> {
    let (rows, columns) = key.role.shape(hyper);
    let (expected, layout) = stored(key.role, lie, hyper);
    if tensor.shape != expected {
        return Err(Error::malformed(format!(
            "its shape is {:?}, and the hyper-parameters ask for {expected:?}",
            tensor.shape
        ))
        .of(name));
    }
    // Fused rows of blocks begin on a block only where a row is whole blocks.
    tensor.tensor_type.row_bytes(columns).map_err(|error| error.of(name))?;
    Ok(Weight {
        stored_name: name.to_owned(),
        key,
        tensor_type: tensor.tensor_type,
        rows,
        columns,
        layout,
        file: tensor.file,
        offset: tensor.offset,
        data: tensor.data.clone(),
    })
}
