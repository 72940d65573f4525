//! Experts of the families that have them.

use super::Fields;
use crate::error::{Error, Result};
use crate::model::fact::{Facts, Sourced};
use crate::model::{Architecture, Experts};

/// Keys that become hyper-parameters in families with experts.
pub(super) const READ: [&str; 6] = [
    "expert_count",
    "expert_used_count",
    "expert_feed_forward_length",
    "expert_shared_feed_forward_length",
    "expert_weights_norm",
    "expert_gating_func",
];

/// The number of softmax among the router's functions.
const SOFTMAX: u32 = 1;

impl Fields<'_> {
    /// The experts, in families that have them; `ffn` is the width of a plain FFN.
    pub(super) fn experts(&self, layers: u32, ffn: u32, facts: &mut Facts) -> Result<Option<Experts>> {
        if !self.architecture.has_experts() {
            return Ok(None);
        }
        if let Some(function) = self.count("expert_gating_func")?.filter(|function| *function != SOFTMAX) {
            let key = self.key("expert_gating_func");
            return Err(Error::unsupported(format!("{key} = {function} is not supported, only {SOFTMAX} (softmax)")));
        }
        let mixtral = self.architecture == Architecture::Mixtral;
        let width = match (self.count("expert_feed_forward_length")?, mixtral) {
            (Some(width), _) => Sourced::file(width),
            (None, true) => Sourced::default(ffn),
            (None, false) => self.needed("expert_feed_forward_length")?,
        };
        let shared = match self.architecture {
            Architecture::Qwen2Moe => Sourced::or(self.count("expert_shared_feed_forward_length")?, ffn),
            _ => Sourced::default(0),
        };
        // Files say it only for families where it is not fixed.
        let fixed = self.architecture != Architecture::Qwen2Moe;
        let normalised = Sourced::or(self.flag("expert_weights_norm")?, fixed);
        Ok(Some(Experts {
            count: facts.note("experts", self.needed("expert_count")?),
            used: facts.note("experts_used", self.needed("expert_used_count")?),
            ffn: facts.note("expert_ffn", width),
            shared_ffn: facts.note("shared_expert_ffn", shared),
            normalised: facts.note("expert_weights_normalised", normalised),
            layers: vec![true; layers as usize],
        }))
    }
}
