//! The dimensions of a model that is made up: those of a known one, each of which may be set otherwise.

use crate::error::{Error, Result, nearest};
use crate::model::{Activation, Architecture, HyperParameters, RopeParameters, RopeScaling};
use std::collections::BTreeSet;

/// Layers beyond this are a slip of the hand, and a table of their tensors could fill the memory.
const MOST_LAYERS: u32 = 4096;

/// A known model, as its own configuration has it.
struct Preset {
    name: &'static str,
    architecture: Architecture,
    layers: u32,
    hidden: u32,
    heads: u32,
    kv_heads: u32,
    ffn: u32,
    vocabulary: u32,
    context: u32,
    /// 0 where positions are learned.
    rope_base: f64,
    norm_epsilon: f32,
    tied_embeddings: bool,
}

const PRESETS: [Preset; 5] = [
    Preset {
        name: "qwen2.5-0.5b",
        architecture: Architecture::Qwen2,
        layers: 24,
        hidden: 896,
        heads: 14,
        kv_heads: 2,
        ffn: 4864,
        vocabulary: 151_936,
        context: 32_768,
        rope_base: 1e6,
        norm_epsilon: 1e-6,
        tied_embeddings: true,
    },
    Preset {
        name: "qwen2.5-1.5b",
        architecture: Architecture::Qwen2,
        layers: 28,
        hidden: 1536,
        heads: 12,
        kv_heads: 2,
        ffn: 8960,
        vocabulary: 151_936,
        context: 32_768,
        rope_base: 1e6,
        norm_epsilon: 1e-6,
        tied_embeddings: true,
    },
    Preset {
        name: "qwen2.5-7b",
        architecture: Architecture::Qwen2,
        layers: 28,
        hidden: 3584,
        heads: 28,
        kv_heads: 4,
        ffn: 18_944,
        vocabulary: 152_064,
        context: 32_768,
        rope_base: 1e6,
        norm_epsilon: 1e-6,
        tied_embeddings: false,
    },
    Preset {
        name: "tinyllama-1.1b",
        architecture: Architecture::Llama,
        layers: 22,
        hidden: 2048,
        heads: 32,
        kv_heads: 4,
        ffn: 5632,
        vocabulary: 32_000,
        context: 2048,
        rope_base: 1e4,
        norm_epsilon: 1e-5,
        tied_embeddings: false,
    },
    Preset {
        name: "gpt2",
        architecture: Architecture::Gpt2,
        layers: 12,
        hidden: 768,
        heads: 12,
        kv_heads: 12,
        ffn: 3072,
        vocabulary: 50_257,
        context: 1024,
        rope_base: 0.0,
        norm_epsilon: 1e-5,
        tied_embeddings: true,
    },
];

/// What may be set otherwise. Where `None`, a value follows from the others.
struct Dimensions {
    layers: u32,
    hidden: u32,
    heads: u32,
    kv_heads: Option<u32>,
    head_dim: Option<u32>,
    ffn: u32,
    vocabulary: u32,
    context: u32,
}

/// Keys of [`Shape::new`]'s settings.
const KEYS: [&str; 8] = ["layers", "hidden", "heads", "kv-heads", "head-dim", "ffn", "vocabulary", "context"];

/// The shape of a model that is made up.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    preset: &'static str,
    architecture: Architecture,
    hyper: HyperParameters,
}

impl Shape {
    /// Names of the known shapes.
    pub fn presets() -> impl Iterator<Item = &'static str> {
        PRESETS.iter().map(|preset| preset.name)
    }

    /// The shape of a known model, with `settings` of the form `key=value`: layers, hidden, heads, kv-heads, head-dim
    /// (hidden / heads, unless it is set), ffn, vocabulary, context. Where every query head of the known model has a
    /// key head of its own, kv-heads follows heads.
    ///
    /// # Errors
    /// Usage for an unknown name or key, with the nearest known one, for a value that is no number from 1 on and for a
    /// key that is set twice; malformed or unsupported for numbers that do not go together.
    pub fn new(preset: &str, settings: &[String]) -> Result<Shape> {
        let preset = PRESETS
            .iter()
            .find(|known| known.name == preset)
            .ok_or_else(|| unknown("shape", preset, &PRESETS.map(|preset| preset.name)))?;
        let mut dimensions = preset.dimensions();
        let mut keys = BTreeSet::new();
        for setting in settings {
            let (key, value) = parse(setting)?;
            if !keys.insert(key) {
                return Err(Error::usage(format!("{key} is set twice")));
            }
            dimensions.set(key, value)?;
        }
        let hyper = dimensions.hyper(preset)?;
        hyper.validate()?;
        Ok(Shape { preset: preset.name, architecture: preset.architecture, hyper })
    }

    /// Name of the known model.
    pub fn preset(&self) -> &'static str {
        self.preset
    }

    /// The family.
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// The numbers, as a reader of the file will find them.
    pub fn hyper(&self) -> &HyperParameters {
        &self.hyper
    }
}

fn unknown(what: &str, name: &str, known: &[&str]) -> Error {
    let hint = nearest(name, known.iter().copied()).map_or_else(String::new, |near| format!("did you mean `{near}`? "));
    Error::usage(format!("`{name}` is no {what}: {hint}known are {}", known.join(", ")))
}

fn parse(setting: &str) -> Result<(&str, u32)> {
    let (key, value) = setting
        .split_once('=')
        .ok_or_else(|| Error::usage(format!("`{setting}` sets nothing: give key=value, for instance layers=2")))?;
    match value.parse() {
        Ok(value) if value > 0 => Ok((key, value)),
        _ => Err(Error::usage(format!("{key} is a whole number from 1 to {}, not `{value}`", u32::MAX))),
    }
}

impl Preset {
    fn dimensions(&self) -> Dimensions {
        Dimensions {
            layers: self.layers,
            hidden: self.hidden,
            heads: self.heads,
            kv_heads: (self.kv_heads != self.heads).then_some(self.kv_heads),
            head_dim: None,
            ffn: self.ffn,
            vocabulary: self.vocabulary,
            context: self.context,
        }
    }
}

impl Dimensions {
    fn set(&mut self, key: &str, value: u32) -> Result<()> {
        match key {
            "layers" if value > MOST_LAYERS => {
                return Err(Error::usage(format!("layers={value} is more than {MOST_LAYERS}")));
            }
            "layers" => self.layers = value,
            "hidden" => self.hidden = value,
            "heads" => self.heads = value,
            "kv-heads" => self.kv_heads = Some(value),
            "head-dim" => self.head_dim = Some(value),
            "ffn" => self.ffn = value,
            "vocabulary" => self.vocabulary = value,
            "context" => self.context = value,
            _ => return Err(unknown("dimension", key, &KEYS)),
        }
        Ok(())
    }

    fn hyper(&self, preset: &Preset) -> Result<HyperParameters> {
        let gpt2 = preset.architecture == Architecture::Gpt2;
        let kv_heads = self.kv_heads.unwrap_or(self.heads);
        if gpt2 && kv_heads != self.heads {
            return Err(Error::usage(format!(
                "kv-heads={kv_heads} with {} heads: gpt2 holds q, k and v in one matrix, all of one size",
                self.heads
            )));
        }
        let split = self.hidden.is_multiple_of(self.heads).then(|| self.hidden / self.heads);
        let head_dim = self.head_dim.or(split).ok_or_else(|| {
            let (hidden, heads) = (self.hidden, self.heads);
            Error::usage(format!(
                "a hidden width of {hidden} cannot be split into {heads} heads: set heads or head-dim"
            ))
        })?;
        let rope = RopeParameters { base: preset.rope_base, rotary_dim: head_dim, scaling: RopeScaling::None };
        Ok(HyperParameters {
            layers: self.layers,
            hidden: self.hidden,
            heads: self.heads,
            kv_heads,
            head_dim,
            ffn: self.ffn,
            vocabulary: self.vocabulary,
            context: self.context,
            norm_epsilon: preset.norm_epsilon,
            norm_weight_offset: 0.0,
            rope: (!gpt2).then_some(rope),
            window: None,
            attn_scale: 1.0 / (head_dim as f32).sqrt(),
            attn_softcap: None,
            logit_softcap: None,
            embedding_scale: None,
            activation: if gpt2 { Activation::GeluTanh } else { Activation::Silu },
            gated: !gpt2,
            parallel_residual: false,
            experts: None,
            tied_embeddings: preset.tied_embeddings,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn shape(preset: &str, settings: &[&str]) -> Result<Shape> {
        Shape::new(preset, &settings.iter().map(|setting| (*setting).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_not_set_follows() {
        let hyper = shape("qwen2.5-7b", &["hidden=512", "heads=8"]).unwrap().hyper;
        assert_eq!((hyper.head_dim, hyper.kv_heads), (64, 4), "kv-heads stays where heads share key heads");
        let hyper = shape("gpt2", &["hidden=64", "heads=4"]).unwrap().hyper;
        assert_eq!((hyper.head_dim, hyper.kv_heads, hyper.rope), (16, 4, None));
        let hyper = shape("tinyllama-1.1b", &["head-dim=32"]).unwrap().hyper;
        assert_eq!((hyper.head_dim, hyper.rope.unwrap().rotary_dim), (32, 32));
    }

    #[test]
    fn each_wrong_word_and_number_is_refused() {
        let cases: [(&str, &[&str], &str); 14] = [
            ("qwen2.5-8b", &[], "did you mean `qwen2.5-7b`?"),
            ("mixtral", &[], "`mixtral` is no shape: known are qwen2.5-0.5b, qwen2.5-1.5b"),
            ("gpt2", &["layer=2"], "did you mean `layers`?"),
            ("gpt2", &["banana=2"], "`banana` is no dimension: known are layers, hidden"),
            ("gpt2", &["layers"], "`layers` sets nothing"),
            ("gpt2", &["layers=0"], "layers is a whole number from 1"),
            ("gpt2", &["layers=-1"], "not `-1`"),
            ("gpt2", &["layers=4294967296"], "not `4294967296`"),
            ("gpt2", &["layers=4294967295"], "more than 4096"),
            ("gpt2", &["layers=2", "layers=3"], "layers is set twice"),
            ("gpt2", &["kv-heads=4"], "one matrix"),
            ("gpt2", &["heads=5"], "768 cannot be split into 5 heads"),
            ("qwen2.5-7b", &["heads=14"], "14 query heads cannot share 4 key heads"),
            ("qwen2.5-7b", &["head-dim=33"], "33 elements are odd"),
        ];
        for (preset, settings, words) in cases {
            let error = shape(preset, settings).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
            assert!(matches!(error.kind(), ErrorKind::Usage | ErrorKind::Malformed), "{error}");
        }
    }
}
