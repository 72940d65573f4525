//! Sliding windows, and which layers have them.

use super::Config;
use crate::error::{Error, Result};
use crate::model::fact::{Facts, Sourced};
use crate::model::{Architecture, Window};
use serde_json::Value;

impl Config {
    /// The window of those layers that have one. Sizes and patterns that the file leaves out are those of the
    /// families' own configuration classes.
    pub(super) fn window(&self, layers: u32, head_dim: u32, facts: &mut Facts) -> Result<Option<Window>> {
        use Architecture::*;
        let (used, default) = match self.architecture {
            Gpt2 | GptNeox | Llama => (false, None),
            Mistral | Gemma2 | Gemma3 => (true, Some(4096)),
            Phi3 | Mixtral => (true, None),
            // These carry the number even where it is switched off.
            Qwen2 | Qwen3 | Qwen2Moe | Qwen3Moe => (self.flag("use_sliding_window")?.unwrap_or(false), Some(4096)),
        };
        let said = match self.fields.contains_key("sliding_window") {
            true => Sourced::file(self.count("sliding_window")?),
            false => Sourced::default(default),
        };
        let positions = said.value.filter(|positions| used && *positions > 0);
        let types = self.layer_types(layers)?;
        let Some(positions) = positions else {
            return match types.unwrap_or_default().contains(&true) {
                true => Err(Error::malformed("layer_types has layers of sliding_attention, and there is no window")),
                false => Ok(None),
            };
        };
        let from = if matches!(self.architecture, Qwen2 | Qwen3 | Qwen2Moe) { self.max_window_layers()? } else { 0 };
        let period = self.count("sliding_window_pattern")?.unwrap_or(6);
        if period == 0 {
            return Err(Error::malformed("sliding_window_pattern is 0"));
        }
        let by_family = |layer: u32| match self.architecture {
            Gemma2 => layer.is_multiple_of(2),
            Gemma3 => !(layer + 1).is_multiple_of(period),
            Qwen2 | Qwen3 => layer >= from,
            Qwen2Moe => layer.is_multiple_of(2) && layer < from,
            _ => true,
        };
        let by_family: Vec<bool> = (0..layers).map(by_family).collect();
        let layers = match types {
            // These have one kind of layer, whatever a list says.
            Some(types) if matches!(self.architecture, Mistral | Mixtral | Phi3 | Qwen3Moe) && types != by_family => {
                let name = self.architecture.name();
                return Err(Error::unsupported(format!("layer_types: in {name} all layers have the window")));
            }
            Some(types) => types,
            None => by_family,
        };
        if !layers.contains(&true) {
            return Ok(None);
        }
        let rope = self.local_rope(head_dim, facts)?;
        let positions = facts.note("window", Sourced { value: positions, source: said.source });
        let numbers = layers.iter().zip(0..).filter(|(has, _)| **has).map(|(_, layer): (_, u32)| layer.to_string());
        facts.state("window_layers", &Sourced::file(numbers.collect::<Vec<_>>().join(",")));
        Ok(Some(Window { positions, layers, rope }))
    }

    fn max_window_layers(&self) -> Result<u32> {
        Ok(self.count("max_window_layers")?.unwrap_or(28))
    }

    /// For every layer whether it has a window, where the file lists the layers' types.
    fn layer_types(&self, layers: u32) -> Result<Option<Vec<bool>>> {
        let Some(value) = self.get("layer_types") else { return Ok(None) };
        let kinds = value
            .as_array()
            .filter(|kinds| u32::try_from(kinds.len()) == Ok(layers))
            .ok_or_else(|| Error::malformed(format!("layer_types should be a list of {layers} names")))?;
        let windowed = kinds.iter().map(|kind| match kind.as_str() {
            Some("full_attention") => Ok(false),
            Some("sliding_attention") => Ok(true),
            _ => Err(Error::unsupported(format!(
                "layer_types: {kind} is not supported, only full_attention and sliding_attention"
            ))),
        });
        windowed.collect::<Result<_>>().map(Some)
    }

    /// Refuses a sliding window in families that have none, where some position of the context could notice.
    pub(super) fn refuse_unknown_window(&self, context: u32) -> Result<()> {
        if !matches!(self.architecture, Architecture::Llama | Architecture::Gpt2 | Architecture::GptNeox) {
            return Ok(());
        }
        match self.get("sliding_window").map(Value::as_u64) {
            Some(Some(window)) if window < context.into() => {
                let name = self.architecture.name();
                Err(Error::unsupported(format!("a sliding window of {window} positions is not supported in {name}")))
            }
            _ => Ok(()),
        }
    }
}
