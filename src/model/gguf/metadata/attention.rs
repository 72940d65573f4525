//! Rotary embedding, windows, scale and caps of attention.

use super::{Fields, Value};
use crate::error::{Error, Result};
use crate::model::fact::{Facts, Sourced};
use crate::model::{Architecture, RopeParameters, RopeScaling, Window};

/// Families whose window is built.
pub(super) fn has_window(architecture: Architecture) -> bool {
    use Architecture::*;
    matches!(architecture, Llama | Mistral | Mixtral | Phi3 | Gemma2 | Gemma3)
}

/// How many layers follow each other until one sees all positions, where the file does not say; `None` where all have
/// the window.
pub(in crate::model::gguf) fn window_period(architecture: Architecture) -> Option<u32> {
    match architecture {
        Architecture::Gemma2 => Some(2),
        Architecture::Gemma3 => Some(6),
        _ => None,
    }
}

impl Fields<'_> {
    /// The rotary embedding of layers that see all positions, and of all layers where there is one only.
    pub(super) fn rope(&self, head_dim: u32, factors: bool, facts: &mut Facts) -> Result<Option<RopeParameters>> {
        if self.architecture == Architecture::Gpt2 {
            return Ok(None);
        }
        let base = facts.note("rope_base", Sourced::or(self.number("rope.freq_base")?, 10_000.0));
        let rotary_dim = facts.note("rotary_dim", self.rotary_dim(head_dim)?);
        self.architecture.check_turning(rotary_dim, head_dim)?;
        let scaling = match (self.scaling()?, factors) {
            (RopeScaling::None, true) => RopeScaling::Stored,
            (_, true) => return Err(Error::unsupported("the model scales RoPE by a factor and by a tensor at once")),
            (scaling, false) => scaling,
        };
        if scaling != RopeScaling::None {
            facts.state("rope_scaling", &Sourced::file(scaling));
        }
        Ok(Some(RopeParameters { base, rotary_dim, scaling }))
    }

    fn rotary_dim(&self, head_dim: u32) -> Result<Sourced<u32>> {
        Ok(Sourced::or(self.count("rope.dimension_count")?, head_dim))
    }

    fn scaling(&self) -> Result<RopeScaling> {
        let key = self.key("rope.scaling.type");
        let factor = match self.number("rope.scaling.factor")? {
            None => self.number("rope.scale_linear")?,
            factor => factor,
        };
        // A factor alone is linear scaling.
        match (self.get("rope.scaling.type"), factor) {
            (Some(Value::Text(kind)), _) if kind == "none" => Ok(RopeScaling::None),
            (Some(Value::Text(kind)), _) if kind != "linear" => {
                Err(Error::unsupported(format!("{key} = {kind:?} is not supported; known are none, linear")))
            }
            (Some(Value::Text(_)) | None, None | Some(1.0)) => Ok(RopeScaling::None),
            (Some(Value::Text(_)) | None, Some(factor)) => Ok(RopeScaling::Linear { factor }),
            (Some(other), _) => Err(Error::malformed(format!("{key} is {other}, and should be a name"))),
        }
    }

    /// The window of those layers that have one; patterns that the file leaves out are llama.cpp's.
    pub(super) fn window(&self, layers: u32, head_dim: u32, facts: &mut Facts) -> Result<Option<Window>> {
        if !has_window(self.architecture) {
            return Ok(None);
        }
        let default = if self.architecture == Architecture::Gemma2 { 4096 } else { 0 };
        let positions = Sourced::or(self.count("attention.sliding_window")?, default);
        if positions.value == 0 {
            return Ok(None);
        }
        let positions = facts.note("window", positions);
        let layers = self.window_layers(layers)?;
        let rope = match self.architecture {
            Architecture::Gemma3 => {
                let base = Sourced::or(self.number("rope.freq_base_swa")?, 10_000.0);
                let base = facts.note("local_rope_base", base);
                let rotary_dim = facts.note("local_rotary_dim", self.rotary_dim(head_dim)?);
                self.architecture.check_turning(rotary_dim, head_dim)?;
                Some(RopeParameters { base, rotary_dim, scaling: RopeScaling::None })
            }
            _ => None,
        };
        let numbers = layers.iter().zip(0..).filter(|(has, _)| **has).map(|(_, layer): (_, u32)| layer.to_string());
        let numbers = numbers.collect::<Vec<_>>().join(",");
        facts.state("window_layers", &Sourced::file(numbers));
        Ok(Some(Window { positions, layers, rope }))
    }

    fn window_layers(&self, layers: u32) -> Result<Vec<bool>> {
        let name = "attention.sliding_window_pattern";
        let Some(default) = window_period(self.architecture) else { return Ok(vec![true; layers as usize]) };
        if let Some(Value::Array(array)) = self.get(name) {
            let wrong = |cause| Error::malformed(format!("{} should be flags", self.key(name))).because(cause);
            let flags = array.flags().map_err(wrong)?;
            return match u32::try_from(flags.len()) == Ok(layers) {
                true => Ok(flags),
                false => Err(Error::malformed(format!("{} has {} layers", self.key(name), flags.len()))),
            };
        }
        // The last of each period sees all positions.
        match self.count(name)?.unwrap_or(default) {
            0 => Err(Error::malformed(format!("{} is 0", self.key(name)))),
            period => Ok((0..layers).map(|layer| !(layer + 1).is_multiple_of(period)).collect()),
        }
    }

    /// `1 / sqrt(head_dim)`. The file does not tell it for Gemma's 27B models, whose numbers of layers are 46 and 62:
    /// there it is `1 / sqrt(hidden / heads)`, as llama.cpp has it.
    pub(super) fn attn_scale(&self, layers: u32, hidden: u32, heads: u32, head_dim: u32) -> Sourced<f32> {
        let size = match (self.architecture, layers) {
            (Architecture::Gemma2, 46) | (Architecture::Gemma3, 62) => hidden.checked_div(heads).unwrap_or(head_dim),
            _ => head_dim,
        };
        Sourced::default(1.0 / (size as f32).sqrt())
    }

    /// A cap of Gemma; absent it is `default` in Gemma 2, and 0 is none.
    pub(super) fn softcap(&self, name: &str, default: f32) -> Result<Sourced<Option<f32>>> {
        match self.architecture {
            Architecture::Gemma2 | Architecture::Gemma3 => {}
            _ => return Ok(Sourced::default(None)),
        }
        Ok(match self.number(name)? {
            Some(cap) => Sourced::file(Some(cap as f32).filter(|cap| *cap != 0.0)),
            None => Sourced::default(Some(default).filter(|_| self.architecture == Architecture::Gemma2)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn the_largest_gemmas_have_a_scale_of_their_own() {
        let pairs = BTreeMap::new();
        let scale = |architecture, layers, hidden, heads| {
            let fields = Fields { pairs: &pairs, architecture };
            1.0 / fields.attn_scale(layers, hidden, heads, 128).value.powi(2)
        };
        // query_pre_attn_scalar of gemma-2-27b is 144, of gemma-3-27b 168.
        assert!((scale(Architecture::Gemma2, 46, 4608, 32) - 144.0).abs() < 1e-3);
        assert!((scale(Architecture::Gemma3, 62, 5376, 32) - 168.0).abs() < 1e-3);
        assert!((scale(Architecture::Gemma3, 48, 3840, 16) - 128.0).abs() < 1e-3);
        assert!((scale(Architecture::Llama, 46, 4608, 32) - 128.0).abs() < 1e-3);
    }
}
