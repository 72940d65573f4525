//! Experts of the families that have them.

use super::Config;
use crate::error::{Error, Result};
use crate::model::fact::{Facts, Sourced};
use crate::model::{Architecture, Experts};
use serde_json::Value;

impl Config {
    /// The experts, in families that have them; `ffn` is the width of a plain FFN.
    pub(super) fn experts(&self, layers: u32, ffn: u32, facts: &mut Facts) -> Result<Option<Experts>> {
        if !self.architecture.has_experts() {
            return Ok(None);
        }
        let mixtral = self.architecture == Architecture::Mixtral;
        let count = match (self.count("num_experts")?, self.count("num_local_experts")?) {
            (Some(one), Some(other)) if one != other => {
                return Err(Error::malformed(format!("num_experts is {one}, and num_local_experts {other}")));
            }
            (Some(count), _) | (None, Some(count)) => count,
            (None, None) => return Err(Error::malformed("the configuration has no num_experts")),
        };
        let width = if mixtral { Sourced::file(ffn) } else { self.needed("moe_intermediate_size")? };
        let shared = match self.architecture {
            Architecture::Qwen2Moe => self.needed("shared_expert_intermediate_size")?,
            _ => Sourced::default(0),
        };
        let normalised = match mixtral {
            true => Sourced::default(true),
            false => Sourced::or(self.flag("norm_topk_prob")?, false),
        };
        Ok(Some(Experts {
            count: facts.note("experts", Sourced::file(count)),
            used: facts.note("experts_used", self.needed("num_experts_per_tok")?),
            ffn: facts.note("expert_ffn", width),
            shared_ffn: facts.note("shared_expert_ffn", shared),
            normalised: facts.note("expert_weights_normalised", normalised),
            layers: if mixtral { vec![true; layers as usize] } else { self.expert_layers(layers)? },
        }))
    }

    /// Every `decoder_sparse_step`-th layer, but for those of `mlp_only_layers`.
    fn expert_layers(&self, layers: u32) -> Result<Vec<bool>> {
        let step = self.count("decoder_sparse_step")?.unwrap_or(1);
        let plain: Vec<u64> = match self.get("mlp_only_layers") {
            None => Vec::new(),
            Some(value) => {
                let numbers = value.as_array().map(|list| list.iter().map(Value::as_u64).collect::<Option<_>>());
                numbers.flatten().ok_or_else(|| {
                    Error::malformed(format!("mlp_only_layers is {value}, and should be a list of layers"))
                })?
            }
        };
        if step == 0 {
            return Err(Error::malformed("decoder_sparse_step is 0"));
        }
        Ok((0..layers).map(|layer| (layer + 1).is_multiple_of(step) && !plain.contains(&layer.into())).collect())
    }
}
