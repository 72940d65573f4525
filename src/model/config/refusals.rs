//! What changes the forward pass and is not built.

use super::Config;
use crate::error::{Error, Result};
use crate::model::Architecture;

impl Config {
    /// Refuses what changes the forward pass and is not built.
    pub(super) fn refuse_unbuilt(&self) -> Result<()> {
        let neutral = [
            ("scale_attn_weights", true),
            ("scale_attn_by_inverse_layer_idx", false),
            ("reorder_and_upcast_attn", false),
            ("add_cross_attention", false),
            ("use_bidirectional_attention", false),
        ];
        for (key, value) in neutral {
            if self.flag(key)?.is_some_and(|given| given != value) {
                return Err(Error::unsupported(format!("{key} = {} is not supported", !value)));
            }
        }
        let built = matches!(self.architecture, Architecture::Llama);
        if !built && self.flag("mlp_bias")? == Some(true) {
            let name = self.architecture.name();
            return Err(Error::unsupported(format!("mlp_bias = true is not supported in {name}")));
        }
        Ok(())
    }
}
