//! Families of models, by the names that files give them.

use crate::error::{Error, Result};

/// How gate or up projections are activated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// `x / 2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))`, Hugging Face's `gelu_new` and `gelu_pytorch_tanh`.
    GeluTanh,
    /// `x / 2 * (1 + erf(x / sqrt(2)))`, Hugging Face's `gelu`.
    GeluErf,
    /// `x * sigmoid(1.702 x)`, Hugging Face's `quick_gelu`.
    GeluQuick,
}

/// Every name of an activation in Hugging Face's configurations.
const ACTIVATIONS: [(&str, Activation); 8] = [
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("gelu", Activation::GeluErf),
    ("gelu_python", Activation::GeluErf),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("quick_gelu", Activation::GeluQuick),
];

impl Activation {
    /// The names that are not aliases, for messages.
    pub(super) const ONE_OF: &'static str = "one of silu, gelu, gelu_new, gelu_pytorch_tanh, quick_gelu";

    /// A name, if it is one of an activation.
    pub(super) fn known_name(name: &str) -> Option<&'static str> {
        ACTIVATIONS.into_iter().map(|(known, _)| known).find(|known| *known == name)
    }

    /// The activation that Hugging Face's configurations call `name`.
    ///
    /// # Errors
    /// Unsupported, with the list of the known.
    pub(super) fn from_name(name: &str) -> Result<Self> {
        let known = ACTIVATIONS.into_iter().find(|(known, _)| *known == name);
        known.map(|(_, activation)| activation).ok_or_else(|| {
            Error::unsupported(format!("activation {name:?} is not supported, only {}", Activation::ONE_OF))
        })
    }
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
    /// Llama with a sliding window.
    Mistral,
    /// Qwen2 without biases, with a norm of each query and key head.
    Qwen3,
    /// Norms before and after each block, scaled embedding, capped scores and logits, windows in every other layer.
    Gemma2,
    /// Gemma 2 without caps, with a norm of each query and key head; local layers have a RoPE base of their own.
    Gemma3,
    /// Llama with fused projections and a sliding window.
    Phi3,
    /// LayerNorm, biases, RoPE on a part of each head, attention and FFN side by side.
    GptNeox,
    /// Mistral with experts.
    Mixtral,
    /// Qwen2 with experts, one of them shared by all tokens.
    Qwen2Moe,
    /// Qwen3 with experts.
    Qwen3Moe,
}

impl Architecture {
    /// Every known family.
    pub const ALL: [Architecture; 12] = [
        Architecture::Qwen2,
        Architecture::Llama,
        Architecture::Gpt2,
        Architecture::Mistral,
        Architecture::Qwen3,
        Architecture::Gemma2,
        Architecture::Gemma3,
        Architecture::Phi3,
        Architecture::GptNeox,
        Architecture::Mixtral,
        Architecture::Qwen2Moe,
        Architecture::Qwen3Moe,
    ];

    /// The name in records, from Hugging Face's `model_type`.
    pub fn name(self) -> &'static str {
        match self {
            Architecture::Qwen2 => "qwen2",
            Architecture::Llama => "llama",
            Architecture::Gpt2 => "gpt2",
            Architecture::Mistral => "mistral",
            Architecture::Qwen3 => "qwen3",
            Architecture::Gemma2 => "gemma2",
            Architecture::Gemma3 => "gemma3",
            Architecture::Phi3 => "phi3",
            Architecture::GptNeox => "gpt_neox",
            Architecture::Mixtral => "mixtral",
            Architecture::Qwen2Moe => "qwen2_moe",
            Architecture::Qwen3Moe => "qwen3_moe",
        }
    }

    /// `model_type` of config.json.
    fn hugging_face(self) -> &'static str {
        match self {
            // `gemma3` there is the model that sees pictures too.
            Architecture::Gemma3 => "gemma3_text",
            other => other.name(),
        }
    }

    /// `general.architecture` of GGUF, and what its keys begin with. Mistral and Mixtral are `llama` there.
    pub fn gguf(self) -> &'static str {
        match self {
            Architecture::Mistral | Architecture::Mixtral => "llama",
            Architecture::GptNeox => "gptneox",
            Architecture::Qwen2Moe => "qwen2moe",
            Architecture::Qwen3Moe => "qwen3moe",
            other => other.name(),
        }
    }

    /// The family with a `model_type` of config.json.
    ///
    /// # Errors
    /// Unsupported, with the list of the known.
    pub fn from_hugging_face(name: &str) -> Result<Self> {
        Architecture::known_by(name, Architecture::hugging_face)
    }

    /// The family with a `general.architecture` of GGUF; `llama` is [`Architecture::Llama`].
    ///
    /// # Errors
    /// Unsupported, with the list of the known.
    pub fn from_gguf(name: &str) -> Result<Self> {
        Architecture::known_by(name, Architecture::gguf)
    }

    fn known_by(name: &str, call: fn(Architecture) -> &'static str) -> Result<Self> {
        Architecture::ALL.into_iter().find(|known| call(*known) == name).ok_or_else(|| {
            let mut known: Vec<&str> = Architecture::ALL.into_iter().map(call).collect();
            known.sort_unstable();
            known.dedup();
            Error::unsupported(format!("architecture {name:?} is not known; this version runs {}", known.join(", ")))
        })
    }

    /// Refuses RoPE of a leading part of each head in families whose code turns all of it.
    ///
    /// # Errors
    /// Unsupported, with the part.
    pub(super) fn check_turning(self, rotary_dim: u32, head_dim: u32) -> Result<()> {
        if rotary_dim == head_dim || matches!(self, Architecture::Phi3 | Architecture::GptNeox) {
            return Ok(());
        }
        Err(Error::unsupported(format!(
            "partial RoPE ({rotary_dim} of {head_dim} elements of a head) is not supported in {}",
            self.name()
        )))
    }

    /// Whether it is of the Gemma kind.
    pub(super) fn is_gemma(self) -> bool {
        matches!(self, Architecture::Gemma2 | Architecture::Gemma3)
    }

    /// Whether layers have experts.
    pub(super) fn has_experts(self) -> bool {
        matches!(self, Architecture::Mixtral | Architecture::Qwen2Moe | Architecture::Qwen3Moe)
    }

    /// Whether norms are LayerNorm and the FFN has no gate.
    pub(super) fn is_gpt(self) -> bool {
        matches!(self, Architecture::Gpt2 | Architecture::GptNeox)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn an_unknown_architecture_names_the_known() {
        let error = Architecture::from_hugging_face("mamba").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("gemma2, gemma3_text, gpt2, gpt_neox, llama, mistral"), "{error}");
        let error = Architecture::from_gguf("mamba").unwrap_err();
        assert!(error.to_string().contains("gptneox, llama, phi3, qwen2, qwen2moe, qwen3, qwen3moe"), "{error}");
    }

    #[test]
    fn every_family_is_found_by_its_names() {
        for known in Architecture::ALL {
            assert_eq!(Architecture::from_hugging_face(known.hugging_face()).unwrap(), known);
            assert_eq!(Architecture::from_gguf(known.gguf()).unwrap().gguf(), known.gguf());
        }
        assert_eq!(Architecture::from_gguf("llama").unwrap(), Architecture::Llama);
    }
}
