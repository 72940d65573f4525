//! Hyper-parameters: typed and checked.

use super::fact::Sourced;
use super::{Activation, Architecture, Role, RopeParameters};
use crate::error::{Error, Result};

/// The numbers that shape a model.
#[derive(Debug, Clone, PartialEq)]
pub struct HyperParameters {
    /// Layers.
    pub layers: u32,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads; query head `h` reads head `h / (heads / kv_heads)`.
    pub kv_heads: u32,
    /// Elements of a head.
    pub head_dim: u32,
    /// Width of the FFN; in layers with experts see [`Experts`].
    pub ffn: u32,
    /// Tokens, as many as the token embedding has rows.
    pub vocabulary: u32,
    /// Largest number of positions.
    pub context: u32,
    /// Added under the root of every norm.
    pub norm_epsilon: f32,
    /// Added to every weight of an RMSNorm: 1 in Gemma's safetensors, else 0.
    pub norm_weight_offset: f32,
    /// Rotary embedding; `None` where positions are learned.
    pub rope: Option<RopeParameters>,
    /// Layers that see only the last positions; `None` where all see all.
    pub window: Option<Window>,
    /// Factor on the product of query and key.
    pub attn_scale: f32,
    /// Cap `c` of the scores, `c * tanh(x / c)`.
    pub attn_softcap: Option<f32>,
    /// Cap of the logits.
    pub logit_softcap: Option<f32>,
    /// Factor on the token embedding.
    pub embedding_scale: Option<f32>,
    /// Activation of the FFN.
    pub activation: Activation,
    /// Whether the FFN has a gate.
    pub gated: bool,
    /// Whether attention and FFN both read the layer's input.
    pub parallel_residual: bool,
    /// Experts, where layers have them.
    pub experts: Option<Experts>,
    /// Whether the output head is the token embedding.
    pub tied_embeddings: bool,
}

/// Sliding-window attention.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Positions that a token sees, its own among them.
    pub positions: u32,
    /// For every layer whether it has the window.
    pub layers: Vec<bool>,
    /// Rotary embedding of those layers, where it is not that of the others.
    pub rope: Option<RopeParameters>,
}

/// FFNs of which a router chooses some for each token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Experts {
    /// Experts of a layer.
    pub count: u32,
    /// Chosen for each token.
    pub used: u32,
    /// Width of an expert.
    pub ffn: u32,
    /// Width of the expert that all tokens share; 0 where there is none.
    pub shared_ffn: u32,
    /// Whether the weights of the chosen are divided by their sum.
    pub normalised: bool,
    /// For every layer whether it has experts; the others have a plain FFN.
    pub layers: Vec<bool>,
}

impl HyperParameters {
    /// What is added to each stored value of weights of `role`: [`HyperParameters::norm_weight_offset`] to norms, else 0.
    pub fn offset_of(&self, role: Role) -> f32 {
        if role.is_norm() { self.norm_weight_offset } else { 0.0 }
    }

    /// Width of all query heads. It fits: opening a model checks the product.
    pub fn q_width(&self) -> u32 {
        self.heads.saturating_mul(self.head_dim)
    }

    /// Width of all key (or value) heads.
    pub fn kv_width(&self) -> u32 {
        self.kv_heads.saturating_mul(self.head_dim)
    }

    /// Positions that a token of layer `layer` sees; `None` for all.
    pub fn window_of(&self, layer: u32) -> Option<u32> {
        self.windowed(layer).map(|window| window.positions)
    }

    /// Rotary embedding of layer `layer`.
    pub fn rope_of(&self, layer: u32) -> Option<RopeParameters> {
        self.windowed(layer).and_then(|window| window.rope).or(self.rope)
    }

    fn windowed(&self, layer: u32) -> Option<&Window> {
        self.window.as_ref().filter(|window| window.layers.get(layer as usize) == Some(&true))
    }

    /// The experts of layer `layer`; `None` where it has a plain FFN.
    pub fn experts_of(&self, layer: u32) -> Option<&Experts> {
        self.experts.as_ref().filter(|experts| experts.layers.get(layer as usize) == Some(&true))
    }

    /// The name of the first number that differs from `other`'s.
    pub(super) fn difference(&self, other: &HyperParameters) -> Option<&'static str> {
        // Taken apart, so that a new number cannot be forgotten.
        let HyperParameters { layers, hidden, heads, kv_heads, head_dim, ffn, vocabulary, context, .. } = self;
        let HyperParameters { norm_epsilon, norm_weight_offset, rope, window, attn_scale, attn_softcap, .. } = self;
        let HyperParameters { logit_softcap, embedding_scale, activation, gated, parallel_residual, .. } = self;
        let HyperParameters { experts, tied_embeddings, .. } = self;
        let equal = [
            ("number of layers", *layers == other.layers),
            ("width", *hidden == other.hidden),
            ("number of heads", *heads == other.heads),
            ("number of key heads", *kv_heads == other.kv_heads),
            ("width of a head", *head_dim == other.head_dim),
            ("width of the FFN", *ffn == other.ffn),
            ("vocabulary", *vocabulary == other.vocabulary),
            ("context", *context == other.context),
            ("norm epsilon", *norm_epsilon == other.norm_epsilon),
            ("offset of norm weights", *norm_weight_offset == other.norm_weight_offset),
            ("rotary embedding", *rope == other.rope),
            ("sliding window", *window == other.window),
            ("attention scale", *attn_scale == other.attn_scale),
            ("cap of scores", *attn_softcap == other.attn_softcap),
            ("cap of logits", *logit_softcap == other.logit_softcap),
            ("embedding scale", *embedding_scale == other.embedding_scale),
            ("activation", *activation == other.activation),
            ("gate of the FFN", *gated == other.gated),
            ("place of the FFN", *parallel_residual == other.parallel_residual),
            ("experts", *experts == other.experts),
            ("output head", *tied_embeddings == other.tied_embeddings),
        ];
        equal.into_iter().find(|(_, equal)| !equal).map(|(name, _)| name)
    }

    /// Refuses numbers that no model can have.
    ///
    /// # Errors
    /// Malformed, with the name of the number.
    pub(super) fn validate(&self) -> Result<()> {
        let sizes = [
            ("layers", self.layers),
            ("hidden", self.hidden),
            ("heads", self.heads),
            ("kv_heads", self.kv_heads),
            ("head_dim", self.head_dim),
            ("ffn", self.ffn),
            ("vocabulary", self.vocabulary),
            ("context", self.context),
            ("window", self.window.as_ref().map_or(1, |window| window.positions)),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(Error::malformed(format!("the model says that {name} is 0")));
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(Error::malformed(format!(
                "{} query heads cannot share {} key heads evenly",
                self.heads, self.kv_heads
            )));
        }
        if self.heads.checked_mul(self.head_dim).is_none() {
            return Err(Error::malformed(format!("{} heads of {} are too wide", self.heads, self.head_dim)));
        }
        if !self.norm_epsilon.is_finite() || self.norm_epsilon < 0.0 {
            return Err(Error::malformed(format!("a norm epsilon of {} makes no sense", self.norm_epsilon)));
        }
        let factors = [
            ("attention scale", Some(self.attn_scale)),
            ("cap of scores", self.attn_softcap),
            ("cap of logits", self.logit_softcap),
            ("embedding scale", self.embedding_scale),
        ];
        for (name, factor) in factors {
            if let Some(factor) = factor.filter(|factor| !factor.is_finite() || *factor <= 0.0) {
                return Err(Error::malformed(format!("a {name} of {factor} makes no sense")));
            }
        }
        self.experts.as_ref().map_or(Ok(()), |experts| experts.validate(self.layers))?;
        let ropes = [self.rope, self.window.as_ref().and_then(|window| window.rope)];
        ropes.into_iter().flatten().try_for_each(|rope| rope.validate(self.head_dim))
    }
}

/// Matrices that the slots of all layers may choose from, three for each expert and slot: a plan lists them all. Models in
/// the field have a tenth of that.
const MOST_CHOICES: u64 = 1 << 20;

impl Experts {
    fn validate(&self, layers: u32) -> Result<()> {
        if self.used == 0 || self.used > self.count {
            return Err(Error::malformed(format!("{} of {} experts cannot be chosen", self.used, self.count)));
        }
        if self.ffn == 0 {
            return Err(Error::malformed("the model says that the width of an expert is 0"));
        }
        let choices = u64::from(self.count).saturating_mul(self.used.into()).saturating_mul(layers.into());
        if choices > MOST_CHOICES {
            return Err(Error::unsupported(format!(
                "{} of {} experts in {layers} layers are more than a plan can list",
                self.used, self.count
            )));
        }
        Ok(())
    }
}

/// Gemma's factor on the token embedding, the root of its width.
pub(super) fn embedding_scale(architecture: Architecture, hidden: u32) -> Sourced<Option<f32>> {
    Sourced::default(architecture.is_gemma().then(|| (hidden as f32).sqrt()))
}

#[cfg(test)]
mod tests {
    use super::super::RopeScaling;
    use super::*;

    fn rope(base: f64, rotary_dim: u32) -> RopeParameters {
        RopeParameters { base, rotary_dim, scaling: RopeScaling::None }
    }

    fn sound() -> HyperParameters {
        HyperParameters {
            layers: 2,
            hidden: 8,
            heads: 4,
            kv_heads: 2,
            head_dim: 2,
            ffn: 16,
            vocabulary: 32,
            context: 64,
            norm_epsilon: 1e-5,
            norm_weight_offset: 0.0,
            rope: Some(rope(1e4, 2)),
            window: Some(Window { positions: 4, layers: vec![true, false], rope: Some(rope(1e3, 2)) }),
            attn_scale: 0.5,
            attn_softcap: None,
            logit_softcap: None,
            embedding_scale: None,
            activation: Activation::Silu,
            gated: true,
            parallel_residual: false,
            experts: Some(Experts {
                count: 4,
                used: 2,
                ffn: 8,
                shared_ffn: 0,
                normalised: true,
                layers: vec![false, true],
            }),
            tied_embeddings: true,
        }
    }

    #[test]
    fn each_broken_number_is_refused() {
        assert!(sound().validate().is_ok());
        type Break = (&'static str, fn(&mut HyperParameters));
        let breaks: [Break; 16] = [
            ("layers is 0", |h| h.layers = 0),
            ("evenly", |h| h.kv_heads = 3),
            ("too wide", |h| (h.heads, h.kv_heads, h.head_dim) = (1 << 20, 1, 1 << 20)),
            ("epsilon of NaN", |h| h.norm_epsilon = f32::NAN),
            ("epsilon of -1", |h| h.norm_epsilon = -1.0),
            ("base of inf", |h| h.rope = Some(rope(f64::INFINITY, 2))),
            ("odd", |h| (h.head_dim, h.rope) = (3, Some(rope(1e4, 3)))),
            ("cannot turn 0 of 2", |h| h.rope = Some(rope(1e4, 0))),
            ("cannot turn 4 of 2", |h| h.rope = Some(rope(1e4, 4))),
            ("base of 0", |h| h.window.as_mut().unwrap().rope = Some(rope(0.0, 2))),
            ("window is 0", |h| h.window.as_mut().unwrap().positions = 0),
            ("scale of inf", |h| h.attn_scale = f32::INFINITY),
            ("cap of logits of 0", |h| h.logit_softcap = Some(0.0)),
            ("5 of 4 experts", |h| h.experts.as_mut().unwrap().used = 5),
            ("width of an expert", |h| h.experts.as_mut().unwrap().ffn = 0),
            ("more than a plan can list", |h| h.experts.as_mut().unwrap().count = 1 << 20),
        ];
        for (words, change) in breaks {
            let mut hyper = sound();
            change(&mut hyper);
            let error = hyper.validate().unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn layers_have_their_own_window_rope_and_experts() {
        let hyper = sound();
        assert_eq!((hyper.window_of(0), hyper.window_of(1), hyper.window_of(2)), (Some(4), None, None));
        assert_eq!((hyper.rope_of(0).unwrap().base, hyper.rope_of(1).unwrap().base), (1e3, 1e4));
        assert!(hyper.experts_of(0).is_none() && hyper.experts_of(1).is_some());
    }
}
