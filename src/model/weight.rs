//! Weights by role: where a matrix or vector of the model lies in its file, and how to read its rows.

use std::fmt;

/// What a weight does in the forward pass. With a layer number it is the key of a [`super::Model`]'s weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Token embedding, `[vocabulary, hidden]`.
    TokenEmbedding,
    /// Learned position embedding, `[context, hidden]`.
    PositionEmbedding,
    /// Norm before attention, `[hidden]`.
    AttnNorm,
    /// Its bias (LayerNorm).
    AttnNormBias,
    /// Query projection, `[heads * head_dim, hidden]`.
    Q,
    /// Its bias.
    QBias,
    /// Key projection, `[kv_heads * head_dim, hidden]`.
    K,
    /// Its bias.
    KBias,
    /// Value projection, `[kv_heads * head_dim, hidden]`.
    V,
    /// Its bias.
    VBias,
    /// Attention output projection, `[hidden, heads * head_dim]`.
    AttnOut,
    /// Its bias.
    AttnOutBias,
    /// Norm before the FFN, `[hidden]`.
    FfnNorm,
    /// Its bias.
    FfnNormBias,
    /// Gate projection of a gated FFN, `[ffn, hidden]`.
    FfnGate,
    /// Up projection, `[ffn, hidden]`.
    FfnUp,
    /// Its bias.
    FfnUpBias,
    /// Down projection, `[hidden, ffn]`.
    FfnDown,
    /// Its bias.
    FfnDownBias,
    /// Norm after the last layer, `[hidden]`.
    FinalNorm,
    /// Its bias.
    FinalNormBias,
    /// Output head, `[vocabulary, hidden]`; with tied embeddings the token embedding.
    Output,
}

impl Role {
    /// The name in records and tables.
    pub fn name(self) -> &'static str {
        match self {
            Role::TokenEmbedding => "token_embedding",
            Role::PositionEmbedding => "position_embedding",
            Role::AttnNorm => "attn_norm",
            Role::AttnNormBias => "attn_norm_bias",
            Role::Q => "q",
            Role::QBias => "q_bias",
            Role::K => "k",
            Role::KBias => "k_bias",
            Role::V => "v",
            Role::VBias => "v_bias",
            Role::AttnOut => "attn_out",
            Role::AttnOutBias => "attn_out_bias",
            Role::FfnNorm => "ffn_norm",
            Role::FfnNormBias => "ffn_norm_bias",
            Role::FfnGate => "ffn_gate",
            Role::FfnUp => "ffn_up",
            Role::FfnUpBias => "ffn_up_bias",
            Role::FfnDown => "ffn_down",
            Role::FfnDownBias => "ffn_down_bias",
            Role::FinalNorm => "final_norm",
            Role::FinalNormBias => "final_norm_bias",
            Role::Output => "output",
        }
    }
}

/// A weight of the model: its role, and its layer if it belongs to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeightKey {
    /// The layer, or `None` outside the layers.
    pub layer: Option<u32>,
    /// What it does there.
    pub role: Role,
}

impl fmt::Display for WeightKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layer {
            Some(layer) => write!(f, "layers.{layer}.{}", self.role.name()),
            None => f.write_str(self.role.name()),
        }
    }
}

/// How a canonical weight `[rows, columns]` lies in its stored tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Row `r` is stored row `first + r` (a fused tensor holds several weights one below the other).
    Rows {
        /// First stored row.
        first: usize,
    },
    /// Stored transposed (Conv1D of gpt2): element `(r, c)` is stored row `c`, column `first + r`.
    Columns {
        /// First stored column.
        first: usize,
        /// Columns of the stored tensor.
        stored_columns: usize,
    },
    /// Rows of each head are stored in adjacent-pair RoPE order (GGUF files of the llama family):
    /// canonical row `h * head_dim + j * head_dim / 2 + i` is stored row `h * head_dim + 2 * i + j`.
    HeadPairs {
        /// Elements of a head.
        head_dim: usize,
    },
}

impl Layout {
    /// The name in records: `rows`, `columns`, `head_pairs`.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Rows { .. } => "rows",
            Layout::Columns { .. } => "columns",
            Layout::HeadPairs { .. } => "head_pairs",
        }
    }
}

/// A weight in canonical shape over the bytes of its mapped file. Vectors are one row.
#[derive(Debug, Clone)]
pub struct Weight {
    /// Name in the file.
    pub stored_name: String,
    /// What it is.
    pub key: WeightKey,
    /// Type of the stored elements or blocks.
    pub tensor_type: super::TensorType,
    /// Canonical rows (outputs of a matrix; 1 for a vector).
    pub rows: usize,
    /// Canonical columns (inputs of a matrix; the length of a vector).
    pub columns: usize,
    /// Where the rows are.
    pub layout: Layout,
    /// Which file of the model.
    pub file: usize,
    /// Where the stored tensor begins in that file.
    pub offset: u64,
    /// The stored tensor's bytes.
    pub data: super::Bytes,
}
