//! What a weight does in the forward pass, and the key that finds it.

use super::HyperParameters;
use std::fmt;

/// What a weight does in the forward pass. With a layer number (and an expert's) it is the key of a [`super::Model`]'s
/// weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Token embedding, `[vocabulary, hidden]`.
    TokenEmbedding,
    /// Learned position embedding, `[context, hidden]`.
    PositionEmbedding,
    /// Divisors of the rotary frequencies, `[rotary_dim / 2]`.
    RopeFactors,
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
    /// Norm of each query head, `[head_dim]`.
    QNorm,
    /// Norm of each key head, `[head_dim]`.
    KNorm,
    /// Attention output projection, `[hidden, heads * head_dim]`.
    AttnOut,
    /// Its bias.
    AttnOutBias,
    /// Norm after attention, `[hidden]`.
    AttnPostNorm,
    /// Norm before the FFN, `[hidden]`.
    FfnNorm,
    /// Its bias.
    FfnNormBias,
    /// Gate projection of a gated FFN, `[ffn, hidden]`.
    FfnGate,
    /// Its bias.
    FfnGateBias,
    /// Up projection, `[ffn, hidden]`.
    FfnUp,
    /// Its bias.
    FfnUpBias,
    /// Down projection, `[hidden, ffn]`.
    FfnDown,
    /// Its bias.
    FfnDownBias,
    /// Router of the experts, `[experts, hidden]`.
    Router,
    /// Gate projection of an expert, `[expert ffn, hidden]`.
    ExpertGate,
    /// Up projection of an expert, `[expert ffn, hidden]`.
    ExpertUp,
    /// Down projection of an expert, `[hidden, expert ffn]`.
    ExpertDown,
    /// Gate of the shared expert as a whole, `[hidden]`.
    SharedRouter,
    /// Gate projection of the shared expert, `[shared ffn, hidden]`.
    SharedGate,
    /// Up projection of the shared expert, `[shared ffn, hidden]`.
    SharedUp,
    /// Down projection of the shared expert, `[hidden, shared ffn]`.
    SharedDown,
    /// Norm after the FFN, `[hidden]`.
    FfnPostNorm,
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
            Role::RopeFactors => "rope_factors",
            Role::AttnNorm => "attn_norm",
            Role::AttnNormBias => "attn_norm_bias",
            Role::Q => "q",
            Role::QBias => "q_bias",
            Role::K => "k",
            Role::KBias => "k_bias",
            Role::V => "v",
            Role::VBias => "v_bias",
            Role::QNorm => "q_norm",
            Role::KNorm => "k_norm",
            Role::AttnOut => "attn_out",
            Role::AttnOutBias => "attn_out_bias",
            Role::AttnPostNorm => "attn_post_norm",
            Role::FfnNorm => "ffn_norm",
            Role::FfnNormBias => "ffn_norm_bias",
            Role::FfnGate => "ffn_gate",
            Role::FfnGateBias => "ffn_gate_bias",
            Role::FfnUp => "ffn_up",
            Role::FfnUpBias => "ffn_up_bias",
            Role::FfnDown => "ffn_down",
            Role::FfnDownBias => "ffn_down_bias",
            Role::Router => "router",
            Role::ExpertGate => "expert_gate",
            Role::ExpertUp => "expert_up",
            Role::ExpertDown => "expert_down",
            Role::SharedRouter => "shared_router",
            Role::SharedGate => "shared_gate",
            Role::SharedUp => "shared_up",
            Role::SharedDown => "shared_down",
            Role::FfnPostNorm => "ffn_post_norm",
            Role::FinalNorm => "final_norm",
            Role::FinalNormBias => "final_norm_bias",
            Role::Output => "output",
        }
    }

    /// The canonical shape `(rows, columns)`; a vector is one row.
    pub fn shape(self, hyper: &HyperParameters) -> (usize, usize) {
        let (hidden, ffn, head) = (hyper.hidden as usize, hyper.ffn as usize, hyper.head_dim as usize);
        let (q, kv) = (hyper.q_width() as usize, hyper.kv_width() as usize);
        let experts = hyper.experts.as_ref().map_or((0, 0, 0), |e| (e.count, e.ffn, e.shared_ffn));
        let (experts, expert, shared) = (experts.0 as usize, experts.1 as usize, experts.2 as usize);
        match self {
            Role::TokenEmbedding | Role::Output => (hyper.vocabulary as usize, hidden),
            Role::PositionEmbedding => (hyper.context as usize, hidden),
            Role::RopeFactors => (1, hyper.rope.map_or(0, |rope| rope.rotary_dim as usize / 2)),
            Role::Q => (q, hidden),
            Role::K | Role::V => (kv, hidden),
            Role::AttnOut => (hidden, q),
            Role::FfnGate | Role::FfnUp => (ffn, hidden),
            Role::FfnDown => (hidden, ffn),
            Role::Router => (experts, hidden),
            Role::ExpertGate | Role::ExpertUp => (expert, hidden),
            Role::ExpertDown => (hidden, expert),
            Role::SharedGate | Role::SharedUp => (shared, hidden),
            Role::SharedDown => (hidden, shared),
            Role::QBias => (1, q),
            Role::KBias | Role::VBias => (1, kv),
            Role::QNorm | Role::KNorm => (1, head),
            Role::FfnGateBias | Role::FfnUpBias => (1, ffn),
            Role::AttnNorm
            | Role::AttnNormBias
            | Role::AttnOutBias
            | Role::AttnPostNorm
            | Role::FfnNorm
            | Role::FfnNormBias
            | Role::FfnDownBias
            | Role::SharedRouter
            | Role::FfnPostNorm
            | Role::FinalNorm
            | Role::FinalNormBias => (1, hidden),
        }
    }

    /// Whether it is a matrix, not a vector.
    pub fn is_matrix(self) -> bool {
        use Role::*;
        matches!(
            self,
            TokenEmbedding
                | PositionEmbedding
                | Output
                | Q
                | K
                | V
                | AttnOut
                | FfnGate
                | FfnUp
                | FfnDown
                | Router
                | ExpertGate
                | ExpertUp
                | ExpertDown
                | SharedGate
                | SharedUp
                | SharedDown
        )
    }

    /// Whether it is the weight of a norm.
    pub fn is_norm(self) -> bool {
        use Role::*;
        matches!(self, AttnNorm | AttnPostNorm | FfnNorm | FfnPostNorm | FinalNorm | QNorm | KNorm)
    }

    /// Whether each expert of a layer has one.
    pub fn is_expert(self) -> bool {
        matches!(self, Role::ExpertGate | Role::ExpertUp | Role::ExpertDown)
    }
}

/// A weight of the model: its role, and its layer and expert if it belongs to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeightKey {
    /// The layer, or `None` outside the layers.
    pub layer: Option<u32>,
    /// The expert of that layer, or `None` outside the experts.
    pub expert: Option<u32>,
    /// What it does there.
    pub role: Role,
}

impl WeightKey {
    /// A weight of layer `layer`.
    pub fn in_layer(layer: u32, role: Role) -> Self {
        WeightKey { layer: Some(layer), expert: None, role }
    }

    /// A weight of expert `expert` of layer `layer`.
    pub fn in_expert(layer: u32, expert: u32, role: Role) -> Self {
        WeightKey { layer: Some(layer), expert: Some(expert), role }
    }

    /// A weight outside the layers.
    pub fn outside(role: Role) -> Self {
        WeightKey { layer: None, expert: None, role }
    }
}

impl fmt::Display for WeightKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(layer) = self.layer {
            write!(f, "layers.{layer}.")?;
        }
        if let Some(expert) = self.expert {
            write!(f, "experts.{expert}.")?;
        }
        f.write_str(self.role.name())
    }
}
