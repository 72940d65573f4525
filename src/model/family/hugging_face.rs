//! Tensor names of Hugging Face's safetensors.

use super::table::Lie::{Fused, FusedTransposed, HeadThird, Plain, Row, Transposed};
use super::table::Presence::{Needed, Optional};
use super::table::{Entry, GATE_UP, QKV, QKV_BIAS};
use crate::model::{Architecture, Role};

const OUTER: &[Entry] =
    &[(Role::TokenEmbedding, "embed_tokens.weight", Plain, Needed), (Role::FinalNorm, "norm.weight", Plain, Needed)];

const GPT2_OUTER: &[Entry] = &[
    (Role::TokenEmbedding, "wte.weight", Plain, Needed),
    (Role::PositionEmbedding, "wpe.weight", Plain, Needed),
    (Role::FinalNorm, "ln_f.weight", Plain, Needed),
    (Role::FinalNormBias, "ln_f.bias", Plain, Needed),
];

const GPT_NEOX_OUTER: &[Entry] = &[
    (Role::TokenEmbedding, "embed_in.weight", Plain, Needed),
    (Role::FinalNorm, "final_layer_norm.weight", Plain, Needed),
    (Role::FinalNormBias, "final_layer_norm.bias", Plain, Needed),
];

const ATTENTION: &[Entry] = &[
    (Role::AttnNorm, "input_layernorm.weight", Plain, Needed),
    (Role::Q, "self_attn.q_proj.weight", Plain, Needed),
    (Role::K, "self_attn.k_proj.weight", Plain, Needed),
    (Role::V, "self_attn.v_proj.weight", Plain, Needed),
    (Role::AttnOut, "self_attn.o_proj.weight", Plain, Needed),
];

const FFN_NORM: &[Entry] = &[(Role::FfnNorm, "post_attention_layernorm.weight", Plain, Needed)];

const HEAD_NORMS: &[Entry] =
    &[(Role::QNorm, "self_attn.q_norm.weight", Plain, Needed), (Role::KNorm, "self_attn.k_norm.weight", Plain, Needed)];

const QKV_BIASES: &[Entry] = &[
    (Role::QBias, "self_attn.q_proj.bias", Plain, Needed),
    (Role::KBias, "self_attn.k_proj.bias", Plain, Needed),
    (Role::VBias, "self_attn.v_proj.bias", Plain, Needed),
];

const OPTIONAL_QKV_BIASES: &[Entry] = &[
    (Role::QBias, "self_attn.q_proj.bias", Plain, Optional),
    (Role::KBias, "self_attn.k_proj.bias", Plain, Optional),
    (Role::VBias, "self_attn.v_proj.bias", Plain, Optional),
];

const OPTIONAL_OUT_BIAS: &[Entry] = &[(Role::AttnOutBias, "self_attn.o_proj.bias", Plain, Optional)];

const FFN: &[Entry] = &[
    (Role::FfnGate, "mlp.gate_proj.weight", Plain, Needed),
    (Role::FfnUp, "mlp.up_proj.weight", Plain, Needed),
    (Role::FfnDown, "mlp.down_proj.weight", Plain, Needed),
];

const OPTIONAL_FFN_BIASES: &[Entry] = &[
    (Role::FfnGateBias, "mlp.gate_proj.bias", Plain, Optional),
    (Role::FfnUpBias, "mlp.up_proj.bias", Plain, Optional),
    (Role::FfnDownBias, "mlp.down_proj.bias", Plain, Optional),
];

const GEMMA_NORMS: &[Entry] = &[
    (Role::AttnPostNorm, "post_attention_layernorm.weight", Plain, Needed),
    (Role::FfnNorm, "pre_feedforward_layernorm.weight", Plain, Needed),
    (Role::FfnPostNorm, "post_feedforward_layernorm.weight", Plain, Needed),
];

const PHI3: &[Entry] = &[
    (Role::AttnNorm, "input_layernorm.weight", Plain, Needed),
    (Role::Q, "self_attn.qkv_proj.weight", Fused(QKV), Needed),
    (Role::K, "self_attn.qkv_proj.weight", Fused(QKV), Needed),
    (Role::V, "self_attn.qkv_proj.weight", Fused(QKV), Needed),
    (Role::AttnOut, "self_attn.o_proj.weight", Plain, Needed),
    (Role::FfnGate, "mlp.gate_up_proj.weight", Fused(GATE_UP), Needed),
    (Role::FfnUp, "mlp.gate_up_proj.weight", Fused(GATE_UP), Needed),
    (Role::FfnDown, "mlp.down_proj.weight", Plain, Needed),
];

const MIXTRAL_EXPERTS: &[Entry] = &[
    (Role::Router, "block_sparse_moe.gate.weight", Plain, Needed),
    (Role::ExpertGate, "block_sparse_moe.experts.{}.w1.weight", Plain, Needed),
    (Role::ExpertUp, "block_sparse_moe.experts.{}.w3.weight", Plain, Needed),
    (Role::ExpertDown, "block_sparse_moe.experts.{}.w2.weight", Plain, Needed),
];

const QWEN_EXPERTS: &[Entry] = &[
    (Role::Router, "mlp.gate.weight", Plain, Needed),
    (Role::ExpertGate, "mlp.experts.{}.gate_proj.weight", Plain, Needed),
    (Role::ExpertUp, "mlp.experts.{}.up_proj.weight", Plain, Needed),
    (Role::ExpertDown, "mlp.experts.{}.down_proj.weight", Plain, Needed),
];

const QWEN_SHARED_EXPERT: &[Entry] = &[
    (Role::SharedRouter, "mlp.shared_expert_gate.weight", Row, Needed),
    (Role::SharedGate, "mlp.shared_expert.gate_proj.weight", Plain, Needed),
    (Role::SharedUp, "mlp.shared_expert.up_proj.weight", Plain, Needed),
    (Role::SharedDown, "mlp.shared_expert.down_proj.weight", Plain, Needed),
];

const GPT2: &[Entry] = &[
    (Role::AttnNorm, "ln_1.weight", Plain, Needed),
    (Role::AttnNormBias, "ln_1.bias", Plain, Needed),
    (Role::Q, "attn.c_attn.weight", FusedTransposed(QKV), Needed),
    (Role::K, "attn.c_attn.weight", FusedTransposed(QKV), Needed),
    (Role::V, "attn.c_attn.weight", FusedTransposed(QKV), Needed),
    (Role::QBias, "attn.c_attn.bias", Fused(QKV_BIAS), Needed),
    (Role::KBias, "attn.c_attn.bias", Fused(QKV_BIAS), Needed),
    (Role::VBias, "attn.c_attn.bias", Fused(QKV_BIAS), Needed),
    (Role::AttnOut, "attn.c_proj.weight", Transposed, Needed),
    (Role::AttnOutBias, "attn.c_proj.bias", Plain, Needed),
    (Role::FfnNorm, "ln_2.weight", Plain, Needed),
    (Role::FfnNormBias, "ln_2.bias", Plain, Needed),
    (Role::FfnUp, "mlp.c_fc.weight", Transposed, Needed),
    (Role::FfnUpBias, "mlp.c_fc.bias", Plain, Needed),
    (Role::FfnDown, "mlp.c_proj.weight", Transposed, Needed),
    (Role::FfnDownBias, "mlp.c_proj.bias", Plain, Needed),
];

const GPT_NEOX: &[Entry] = &[
    (Role::AttnNorm, "input_layernorm.weight", Plain, Needed),
    (Role::AttnNormBias, "input_layernorm.bias", Plain, Needed),
    (Role::Q, "attention.query_key_value.weight", HeadThird(0), Needed),
    (Role::K, "attention.query_key_value.weight", HeadThird(1), Needed),
    (Role::V, "attention.query_key_value.weight", HeadThird(2), Needed),
    (Role::QBias, "attention.query_key_value.bias", HeadThird(0), Optional),
    (Role::KBias, "attention.query_key_value.bias", HeadThird(1), Optional),
    (Role::VBias, "attention.query_key_value.bias", HeadThird(2), Optional),
    (Role::AttnOut, "attention.dense.weight", Plain, Needed),
    (Role::AttnOutBias, "attention.dense.bias", Plain, Optional),
    (Role::FfnNorm, "post_attention_layernorm.weight", Plain, Needed),
    (Role::FfnNormBias, "post_attention_layernorm.bias", Plain, Needed),
    (Role::FfnUp, "mlp.dense_h_to_4h.weight", Plain, Needed),
    (Role::FfnUpBias, "mlp.dense_h_to_4h.bias", Plain, Needed),
    (Role::FfnDown, "mlp.dense_4h_to_h.weight", Plain, Needed),
    (Role::FfnDownBias, "mlp.dense_4h_to_h.bias", Plain, Needed),
];

pub(super) fn outer(architecture: Architecture) -> &'static [Entry] {
    match architecture {
        Architecture::Gpt2 => GPT2_OUTER,
        Architecture::GptNeox => GPT_NEOX_OUTER,
        _ => OUTER,
    }
}

/// The tables of a layer, with experts or without.
pub(super) fn layer(architecture: Architecture, experts: bool) -> Vec<&'static [Entry]> {
    use Architecture::*;
    let mut tables = match architecture {
        Gpt2 => return vec![GPT2],
        GptNeox => return vec![GPT_NEOX],
        Phi3 => return vec![PHI3, FFN_NORM],
        Llama => vec![ATTENTION, FFN_NORM, OPTIONAL_QKV_BIASES, OPTIONAL_OUT_BIAS, OPTIONAL_FFN_BIASES],
        Mistral | Mixtral => vec![ATTENTION, FFN_NORM],
        Qwen2 => vec![ATTENTION, FFN_NORM, QKV_BIASES],
        Qwen2Moe => vec![ATTENTION, FFN_NORM, OPTIONAL_QKV_BIASES],
        Qwen3 | Qwen3Moe => vec![ATTENTION, FFN_NORM, HEAD_NORMS, OPTIONAL_QKV_BIASES, OPTIONAL_OUT_BIAS],
        Gemma2 => vec![ATTENTION, GEMMA_NORMS, OPTIONAL_QKV_BIASES, OPTIONAL_OUT_BIAS],
        Gemma3 => vec![ATTENTION, GEMMA_NORMS, HEAD_NORMS, OPTIONAL_QKV_BIASES, OPTIONAL_OUT_BIAS],
    };
    tables.extend_from_slice(match (experts, architecture) {
        (false, _) => &[FFN],
        (true, Mixtral) => &[MIXTRAL_EXPERTS],
        (true, Qwen2Moe) => &[QWEN_EXPERTS, QWEN_SHARED_EXPERT],
        (true, _) => &[QWEN_EXPERTS],
    });
    tables
}

/// Before names outside the layers, except the output head; files of bare models leave it out.
pub(super) fn prefix(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Gpt2 => "transformer.",
        Architecture::GptNeox => "gpt_neox.",
        _ => "model.",
    }
}

pub(super) fn output(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::GptNeox => "embed_out.weight",
        _ => "lm_head.weight",
    }
}

pub(super) fn layer_prefix(architecture: Architecture, layer: u32) -> String {
    match architecture {
        Architecture::Gpt2 => format!("h.{layer}."),
        _ => format!("layers.{layer}."),
    }
}

/// Tensors that files of these families hold beside the weights: constants that the code computes.
pub(super) fn carries_no_weight(architecture: Architecture, name: &str) -> bool {
    let constants: &[&str] = match architecture {
        Architecture::Gpt2 => &[".attn.bias", ".attn.masked_bias"],
        Architecture::GptNeox => &[".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"],
        _ => &[".rotary_emb.inv_freq"],
    };
    constants.iter().any(|constant| name.ends_with(constant))
}
