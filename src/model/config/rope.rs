//! Rotary embedding: `rope_theta` and `rope_scaling` of transformers 4, `rope_parameters` of transformers 5, the latter
//! also by type of layer.

use super::Config;
use crate::error::{Error, Result};
use crate::model::fact::{Facts, Sourced};
use crate::model::{Architecture, RopeParameters, RopeScaling};
use serde_json::{Map, Value};

/// Positions of the context before it was stretched.
const ORIGINAL: &str = "original_max_position_embeddings";

/// Types of layers that have rotary embeddings of their own.
const GLOBAL: &str = "full_attention";
const LOCAL: &str = "sliding_attention";

type Fields = Map<String, Value>;

impl Config {
    /// The rotary embedding of layers that see all positions, and of all layers where there is one only.
    pub(super) fn rope(&self, head_dim: u32, facts: &mut Facts) -> Result<Option<RopeParameters>> {
        if self.architecture == Architecture::Gpt2 {
            return Ok(None);
        }
        let (key, fields) = self.rope_fields(GLOBAL)?;
        let (base, rotary_dim) = self.one_rope(key, fields, self.outer_base()?, head_dim)?;
        let rotary_dim = facts.note("rotary_dim", rotary_dim);
        self.architecture.check_turning(rotary_dim, head_dim)?;
        let base = facts.note("rope_base", base);
        let scaling = self.scaling(key, fields)?;
        if scaling != RopeScaling::None {
            facts.state("rope_scaling", &Sourced::file(scaling));
        }
        Ok(Some(RopeParameters { base, rotary_dim, scaling }))
    }

    /// The base outside of any object; the defaults are those of the families' own configuration classes.
    fn outer_base(&self) -> Result<Sourced<f64>> {
        let given = match self.number("rope_theta")? {
            None if self.architecture == Architecture::GptNeox => self.number("rotary_emb_base")?,
            given => given,
        };
        let default = match self.architecture {
            Architecture::Gemma3 | Architecture::Mixtral => 1_000_000.0,
            _ => 10_000.0,
        };
        Ok(Sourced::or(given, default))
    }

    /// The rotary embedding of layers with a window, where it is another one.
    pub(super) fn local_rope(&self, head_dim: u32, facts: &mut Facts) -> Result<Option<RopeParameters>> {
        let by_type = ["rope_scaling", "rope_parameters"].iter().any(|key| {
            let fields = self.get(key).and_then(Value::as_object);
            fields.is_some_and(|fields| fields.contains_key(LOCAL))
        });
        if self.architecture != Architecture::Gemma3 && !by_type {
            return Ok(None);
        }
        let base = match self.architecture {
            Architecture::Gemma3 => Sourced::or(self.number("rope_local_base_freq")?, 10_000.0),
            _ => self.outer_base()?,
        };
        let (key, fields) = if by_type { self.rope_fields(LOCAL)? } else { ("", None) };
        let (base, rotary_dim) = self.one_rope(key, fields, base, head_dim)?;
        let rotary_dim = facts.note("local_rotary_dim", rotary_dim);
        self.architecture.check_turning(rotary_dim, head_dim)?;
        let base = facts.note("local_rope_base", base);
        let scaling = self.scaling(key, fields)?;
        if scaling != RopeScaling::None {
            facts.state("local_rope_scaling", &Sourced::file(scaling));
        }
        Ok(Some(RopeParameters { base, rotary_dim, scaling }))
    }

    /// The object that describes the rotary embedding of a type of layers, and the key that it stands under.
    fn rope_fields(&self, kind: &str) -> Result<(&'static str, Option<&Fields>)> {
        let both = (self.get("rope_scaling"), self.get("rope_parameters"));
        let (key, value) = match both {
            (Some(_), Some(_)) => {
                return Err(Error::unsupported("rope_scaling and rope_parameters are both there, and one must hold"));
            }
            (Some(value), None) => ("rope_scaling", value),
            (None, Some(value)) => ("rope_parameters", value),
            (None, None) => return Ok(("rope_parameters", None)),
        };
        let object = |value: &'static str, found: &Value| {
            Error::malformed(format!("{value} is {found}, and should be an object"))
        };
        let fields = value.as_object().ok_or_else(|| object(key, value))?;
        if !fields.contains_key(GLOBAL) && !fields.contains_key(LOCAL) {
            return Ok((key, Some(fields)));
        }
        if let Some(other) = fields.keys().find(|name| *name != GLOBAL && *name != LOCAL) {
            return Err(Error::unsupported(format!("{key}: layers of type {other} are not supported")));
        }
        match fields.get(kind) {
            None | Some(Value::Null) => Ok((key, None)),
            Some(value) => Ok((key, Some(value.as_object().ok_or_else(|| object(key, value))?))),
        }
    }

    /// Base and turning elements.
    fn one_rope(
        &self,
        key: &str,
        fields: Option<&Fields>,
        base: Sourced<f64>,
        head_dim: u32,
    ) -> Result<(Sourced<f64>, Sourced<u32>)> {
        let number = |name: &str| field(key, fields, name);
        let base = number("rope_theta")?.map_or(base, Sourced::file);
        let part = match (number("partial_rotary_factor")?, self.number("partial_rotary_factor")?) {
            (Some(part), _) | (None, Some(part)) => Some(part),
            (None, None) if self.architecture == Architecture::GptNeox => {
                Some(self.number("rotary_pct")?.unwrap_or(0.25))
            }
            (None, None) => None,
        };
        let rotary_dim = match part {
            None => Sourced::default(head_dim),
            Some(1.0) => Sourced::file(head_dim),
            // Rounded towards zero, as transformers does it.
            Some(part) => Sourced::file((f64::from(head_dim) * part) as u32),
        };
        Ok((base, rotary_dim))
    }

    /// The context before it was stretched: `given` in the object, or outside of it, or else what it is now.
    fn original_context(&self, key: &str, given: Option<f64>) -> Result<u32> {
        let outside = self.count(ORIGINAL)?;
        match (given, outside) {
            (Some(given), Some(outside)) if given != f64::from(outside) => {
                Err(Error::malformed(format!("{ORIGINAL} is {outside}, and in {key} it is {given}")))
            }
            (_, Some(context)) => Ok(context),
            (Some(given), None) if given.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&given) => {
                Ok(given as u32)
            }
            (Some(given), None) => {
                Err(Error::malformed(format!("{key}: {ORIGINAL} is {given}, and should be a count")))
            }
            (None, None) => Ok(self.needed("max_position_embeddings")?.value),
        }
    }

    fn scaling(&self, key: &str, fields: Option<&Fields>) -> Result<RopeScaling> {
        const KNOWN: [&str; 8] = [
            "rope_theta",
            "rope_type",
            "type",
            "partial_rotary_factor",
            "factor",
            "low_freq_factor",
            "high_freq_factor",
            ORIGINAL,
        ];
        let Some(object) = fields else { return Ok(RopeScaling::None) };
        let kind = object.get("rope_type").or_else(|| object.get("type")).filter(|kind| !kind.is_null());
        let number = |name: &str| field(key, fields, name);
        let needed = |name: &str| {
            number(name)?.ok_or_else(|| Error::malformed(format!("{key} has no {name}, and its RoPE type needs it")))
        };
        let scaling = match kind.map(|kind| kind.as_str().ok_or(kind)) {
            None | Some(Ok("default")) => RopeScaling::None,
            Some(Ok("linear")) => RopeScaling::Linear { factor: needed("factor")? },
            Some(Ok("llama3")) => RopeScaling::Llama3 {
                factor: needed("factor")?,
                low: needed("low_freq_factor")?,
                high: needed("high_freq_factor")?,
                original_context: self.original_context(key, number(ORIGINAL)?)?,
            },
            Some(Ok(other)) => {
                return Err(Error::unsupported(format!(
                    "{key}: RoPE type {other:?} is not supported; known are default, linear, llama3"
                )));
            }
            Some(Err(other)) => return Err(Error::malformed(format!("{key}: RoPE type {other} is no name"))),
        };
        let unknown = object.iter().find(|(name, value)| !value.is_null() && !KNOWN.contains(&name.as_str()));
        match unknown {
            Some((name, _)) => Err(Error::unsupported(format!("{key}: field {name} is not supported"))),
            None => Ok(scaling),
        }
    }
}

fn field(key: &str, fields: Option<&Fields>, name: &str) -> Result<Option<f64>> {
    match fields.and_then(|fields| fields.get(name)) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_f64()
            .map(Some)
            .ok_or_else(|| Error::malformed(format!("{key}: {name} is {value}, and should be a number"))),
    }
}
