//! Tensor names of GGUF files.

use super::table::Lie::{Fused, Merged, Pairs, Plain, Row};
use super::table::Presence::{Needed, Optional};
use super::table::{Entry, GATE_UP, QKV, QKV_BIAS};
use crate::model::{Architecture, Role};

const OUTER: &[Entry] = &[
    (Role::TokenEmbedding, "token_embd.weight", Plain, Needed),
    (Role::FinalNorm, "output_norm.weight", Plain, Needed),
];

const LLAMA_OUTER: &[Entry] = &[
    (Role::TokenEmbedding, "token_embd.weight", Plain, Needed),
    (Role::FinalNorm, "output_norm.weight", Plain, Needed),
    (Role::RopeFactors, super::ROPE_FACTORS, Plain, Optional),
];

const GPT2_OUTER: &[Entry] = &[
    (Role::TokenEmbedding, "token_embd.weight", Plain, Needed),
    (Role::PositionEmbedding, "position_embd.weight", Plain, Needed),
    (Role::FinalNorm, "output_norm.weight", Plain, Needed),
    (Role::FinalNormBias, "output_norm.bias", Plain, Needed),
];

const GPT_NEOX_OUTER: &[Entry] = &[
    (Role::TokenEmbedding, "token_embd.weight", Plain, Needed),
    (Role::FinalNorm, "output_norm.weight", Plain, Needed),
    (Role::FinalNormBias, "output_norm.bias", Plain, Needed),
];

const COMMON: &[Entry] = &[
    (Role::AttnNorm, "attn_norm.weight", Plain, Needed),
    (Role::AttnOut, "attn_output.weight", Plain, Needed),
    (Role::FfnNorm, "ffn_norm.weight", Plain, Needed),
];

const QKV_PLAIN: &[Entry] = &[
    (Role::Q, "attn_q.weight", Plain, Needed),
    (Role::K, "attn_k.weight", Plain, Needed),
    (Role::V, "attn_v.weight", Plain, Needed),
];

const QKV_BIASES: &[Entry] = &[
    (Role::QBias, "attn_q.bias", Plain, Needed),
    (Role::KBias, "attn_k.bias", Plain, Needed),
    (Role::VBias, "attn_v.bias", Plain, Needed),
];

const QKV_OPTIONAL_BIASES: &[Entry] = &[
    (Role::QBias, "attn_q.bias", Plain, Optional),
    (Role::KBias, "attn_k.bias", Plain, Optional),
    (Role::VBias, "attn_v.bias", Plain, Optional),
];

const LLAMA: &[Entry] = &[
    (Role::Q, "attn_q.weight", Pairs, Needed),
    (Role::K, "attn_k.weight", Pairs, Needed),
    (Role::V, "attn_v.weight", Plain, Needed),
    (Role::QBias, "attn_q.bias", Pairs, Optional),
    (Role::KBias, "attn_k.bias", Pairs, Optional),
    (Role::VBias, "attn_v.bias", Plain, Optional),
    (Role::AttnOutBias, "attn_output.bias", Plain, Optional),
];

const HEAD_NORMS: &[Entry] =
    &[(Role::QNorm, "attn_q_norm.weight", Plain, Needed), (Role::KNorm, "attn_k_norm.weight", Plain, Needed)];

const FFN: &[Entry] = &[
    (Role::FfnGate, "ffn_gate.weight", Plain, Needed),
    (Role::FfnUp, "ffn_up.weight", Plain, Needed),
    (Role::FfnDown, "ffn_down.weight", Plain, Needed),
];

const LLAMA_FFN_BIASES: &[Entry] = &[
    (Role::FfnGateBias, "ffn_gate.bias", Plain, Optional),
    (Role::FfnUpBias, "ffn_up.bias", Plain, Optional),
    (Role::FfnDownBias, "ffn_down.bias", Plain, Optional),
];

const GEMMA_NORMS: &[Entry] = &[
    (Role::AttnPostNorm, "post_attention_norm.weight", Plain, Needed),
    (Role::FfnPostNorm, "post_ffw_norm.weight", Plain, Needed),
];

const PHI3: &[Entry] = &[
    (Role::Q, "attn_qkv.weight", Fused(QKV), Needed),
    (Role::K, "attn_qkv.weight", Fused(QKV), Needed),
    (Role::V, "attn_qkv.weight", Fused(QKV), Needed),
    (Role::FfnGate, "ffn_up.weight", Fused(GATE_UP), Needed),
    (Role::FfnUp, "ffn_up.weight", Fused(GATE_UP), Needed),
    (Role::FfnDown, "ffn_down.weight", Plain, Needed),
];

const EXPERTS: &[Entry] = &[
    (Role::Router, "ffn_gate_inp.weight", Plain, Needed),
    (Role::ExpertGate, "ffn_gate_exps.weight", Merged, Needed),
    (Role::ExpertUp, "ffn_up_exps.weight", Merged, Needed),
    (Role::ExpertDown, "ffn_down_exps.weight", Merged, Needed),
];

const SHARED_EXPERT: &[Entry] = &[
    (Role::SharedRouter, "ffn_gate_inp_shexp.weight", Row, Needed),
    (Role::SharedGate, "ffn_gate_shexp.weight", Plain, Needed),
    (Role::SharedUp, "ffn_up_shexp.weight", Plain, Needed),
    (Role::SharedDown, "ffn_down_shexp.weight", Plain, Needed),
];

/// gpt2 and GPT-NeoX.
const GPT: &[Entry] = &[
    (Role::AttnNormBias, "attn_norm.bias", Plain, Needed),
    (Role::Q, "attn_qkv.weight", Fused(QKV), Needed),
    (Role::K, "attn_qkv.weight", Fused(QKV), Needed),
    (Role::V, "attn_qkv.weight", Fused(QKV), Needed),
    (Role::QBias, "attn_qkv.bias", Fused(QKV_BIAS), Needed),
    (Role::KBias, "attn_qkv.bias", Fused(QKV_BIAS), Needed),
    (Role::VBias, "attn_qkv.bias", Fused(QKV_BIAS), Needed),
    (Role::AttnOutBias, "attn_output.bias", Plain, Needed),
    (Role::FfnNormBias, "ffn_norm.bias", Plain, Needed),
    (Role::FfnUp, "ffn_up.weight", Plain, Needed),
    (Role::FfnUpBias, "ffn_up.bias", Plain, Needed),
    (Role::FfnDown, "ffn_down.weight", Plain, Needed),
    (Role::FfnDownBias, "ffn_down.bias", Plain, Needed),
];

pub(super) fn outer(architecture: Architecture) -> &'static [Entry] {
    match architecture {
        Architecture::Gpt2 => GPT2_OUTER,
        Architecture::GptNeox => GPT_NEOX_OUTER,
        Architecture::Llama | Architecture::Mistral | Architecture::Mixtral => LLAMA_OUTER,
        _ => OUTER,
    }
}

/// The tables of a layer, with experts or without.
pub(super) fn layer(architecture: Architecture, experts: bool) -> Vec<&'static [Entry]> {
    use Architecture::*;
    let mut tables = match architecture {
        Gpt2 | GptNeox => return vec![COMMON, GPT],
        Phi3 => return vec![COMMON, PHI3],
        Llama | Mistral => vec![COMMON, LLAMA, LLAMA_FFN_BIASES],
        Mixtral => vec![COMMON, LLAMA],
        Qwen2 => vec![COMMON, QKV_PLAIN, QKV_BIASES],
        Qwen2Moe => vec![COMMON, QKV_PLAIN, QKV_OPTIONAL_BIASES],
        Qwen3 | Qwen3Moe => vec![COMMON, QKV_PLAIN, HEAD_NORMS],
        Gemma2 => vec![COMMON, QKV_PLAIN, GEMMA_NORMS],
        Gemma3 => vec![COMMON, QKV_PLAIN, GEMMA_NORMS, HEAD_NORMS],
    };
    tables.extend_from_slice(match (experts, architecture) {
        (false, _) => &[FFN],
        (true, Qwen2Moe) => &[EXPERTS, SHARED_EXPERT],
        (true, _) => &[EXPERTS],
    });
    tables
}
