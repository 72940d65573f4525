//! What a GGUF file says of a model besides its tensors: the way back from hyper-parameters to metadata.
//!
//! Keys are those of llama.cpp's own converter. What a family's files leave to the reader, as llama.cpp does, is left out
//! here too.

use super::GgufValue;
use super::metadata::window_period;
use crate::model::{Architecture, Experts, HyperParameters, Role, RopeScaling, TensorType};

/// The type of a tensor with a role where matrices shall be of `matrices`: llama.cpp keeps vectors, learned positions and
/// routers in F32.
pub(in crate::model) fn type_of(role: Role, matrices: TensorType) -> TensorType {
    match role.is_matrix() && !matches!(role, Role::PositionEmbedding | Role::Router) {
        true => matrices,
        false => TensorType::F32,
    }
}

/// llama.cpp's number for files whose matrices mostly are of a type (`llama_ftype`).
pub(in crate::model) fn file_type(tensor_type: TensorType) -> u32 {
    match tensor_type {
        TensorType::F32 => 0,
        // It has none: LLAMA_FTYPE_GUESSED.
        TensorType::F8E4M3 => 1024,
        TensorType::F16 => 1,
        TensorType::Q8_0 => 7,
        TensorType::Q4K => 14,
        TensorType::Q5K => 16,
        TensorType::Q6K => 18,
        TensorType::Bf16 => 32,
        TensorType::Q4_0 => 2,
        TensorType::Q4_1 => 3,
        TensorType::Q5_0 => 8,
        TensorType::Q5_1 => 9,
        TensorType::Q2K => 10,
        TensorType::Q3K => 12,
        TensorType::Iq4Nl => 25,
        TensorType::Iq4Xs => 30,
        TensorType::Mxfp4 => 38,
    }
}

/// The metadata that describe a model, with their whole keys.
pub(in crate::model) fn describe(architecture: Architecture, hyper: &HyperParameters) -> Vec<(String, GgufValue)> {
    let mut pairs = sizes(hyper);
    pairs.extend(norm_and_rope(architecture, hyper));
    pairs.extend(attention(architecture, hyper));
    pairs.extend(hyper.experts.as_ref().map(|experts| expert_numbers(architecture, experts)).unwrap_or_default());
    if architecture == Architecture::GptNeox {
        pairs.push(("use_parallel_residual", GgufValue::Bool(hyper.parallel_residual)));
    }
    let name = architecture.gguf();
    pairs.into_iter().map(|(key, value)| (format!("{name}.{key}"), value)).collect()
}

type Pairs = Vec<(&'static str, GgufValue)>;

fn sizes(hyper: &HyperParameters) -> Pairs {
    vec![
        ("block_count", GgufValue::U32(hyper.layers)),
        ("context_length", GgufValue::U32(hyper.context)),
        ("embedding_length", GgufValue::U32(hyper.hidden)),
        ("feed_forward_length", GgufValue::U32(hyper.ffn)),
        ("attention.head_count", GgufValue::U32(hyper.heads)),
        ("attention.head_count_kv", GgufValue::U32(hyper.kv_heads)),
        ("attention.key_length", GgufValue::U32(hyper.head_dim)),
        ("attention.value_length", GgufValue::U32(hyper.head_dim)),
        ("vocab_size", GgufValue::U32(hyper.vocabulary)),
    ]
}

fn norm_and_rope(architecture: Architecture, hyper: &HyperParameters) -> Pairs {
    let epsilon = match architecture.is_gpt() {
        true => "attention.layer_norm_epsilon",
        false => "attention.layer_norm_rms_epsilon",
    };
    let mut pairs = vec![(epsilon, GgufValue::F32(hyper.norm_epsilon))];
    let Some(rope) = hyper.rope else { return pairs };
    pairs.push(("rope.freq_base", GgufValue::F32(rope.base as f32)));
    pairs.push(("rope.dimension_count", GgufValue::U32(rope.rotary_dim)));
    // The other kinds of scaling are a tensor.
    if let RopeScaling::Linear { factor } = rope.scaling {
        pairs.push(("rope.scaling.type", GgufValue::Text("linear".to_owned())));
        pairs.push(("rope.scaling.factor", GgufValue::F32(factor as f32)));
    }
    pairs
}

fn attention(architecture: Architecture, hyper: &HyperParameters) -> Pairs {
    let mut pairs = Vec::new();
    if let Some(window) = &hyper.window {
        pairs.push(("attention.sliding_window", GgufValue::U32(window.positions)));
        let of_family = |layer: u32| window_period(architecture).is_none_or(|n| !(layer + 1).is_multiple_of(n));
        if window.layers.iter().zip(0..).any(|(has, layer)| *has != of_family(layer)) {
            pairs.push(("attention.sliding_window_pattern", GgufValue::Flags(window.layers.clone())));
        }
        if let Some(rope) = window.rope {
            pairs.push(("rope.freq_base_swa", GgufValue::F32(rope.base as f32)));
        }
    } else if architecture == Architecture::Gemma2 {
        // Absent it would be the family's own.
        pairs.push(("attention.sliding_window", GgufValue::U32(0)));
    }
    let caps = [("attn_logit_softcapping", hyper.attn_softcap), ("final_logit_softcapping", hyper.logit_softcap)];
    pairs.extend(caps.into_iter().filter_map(|(key, cap)| Some((key, GgufValue::F32(cap?)))));
    pairs
}

fn expert_numbers(architecture: Architecture, experts: &Experts) -> Pairs {
    let mut pairs =
        vec![("expert_count", GgufValue::U32(experts.count)), ("expert_used_count", GgufValue::U32(experts.used))];
    // A Mixtral's experts are as wide as its FFN.
    if architecture != Architecture::Mixtral {
        pairs.push(("expert_feed_forward_length", GgufValue::U32(experts.ffn)));
    }
    if architecture == Architecture::Qwen2Moe {
        pairs.push(("expert_shared_feed_forward_length", GgufValue::U32(experts.shared_ffn)));
        pairs.push(("expert_weights_norm", GgufValue::Bool(experts.normalised)));
    }
    pairs
}
