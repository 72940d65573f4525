//! Which runs a contract or an obligation is about.

use crate::backend::Semantics;
use crate::model::{Architecture, Format};
use crate::open::RunRef;
use crate::record::RunV1;
use crate::sql::unknown_name;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Conditions on what a run says of itself: each names the values that fit, and all have to. A condition that is not
/// there holds for every run.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// `record`, `replay`, `import`, `weights`.
    pub kind: Option<Vec<String>>,
    /// Family.
    pub architecture: Option<Vec<String>>,
    /// Format of the model's file.
    pub format: Option<Vec<String>>,
    /// `cpu`, `cuda`.
    pub device: Option<Vec<String>>,
    /// `ggml`, `dequantize-f32`.
    pub semantics: Option<Vec<String>>,
    /// Engine that ran.
    pub engine: Option<Vec<String>>,
    /// Hyper-parameters, by key.
    #[serde(default)]
    pub hyper_parameters: BTreeMap<String, Vec<String>>,
}

/// Whether a run is in a [`Scope`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// It is.
    Inside,
    /// It is not, and why.
    Outside(String),
    /// The run does not say.
    Unknown(String),
}

/// Values of a run's identity that are never anything else.
const KINDS: [&str; 4] = ["record", "replay", "import", "weights"];
const DEVICES: [&str; 2] = ["cpu", "cuda"];

impl Scope {
    /// What is wrong with the first value that no run can have; `None` where there is none such.
    pub(super) fn unknown(&self) -> Option<String> {
        let families = Architecture::ALL.map(Architecture::name);
        let formats = [Format::Gguf, Format::Safetensors, Format::Apr].map(Format::name);
        let semantics = [Semantics::Ggml, Semantics::DequantizeF32].map(Semantics::name);
        let fields = [
            ("kind", &self.kind, &KINDS[..]),
            ("architecture", &self.architecture, &families[..]),
            ("format", &self.format, &formats[..]),
            ("device", &self.device, &DEVICES[..]),
            ("semantics", &self.semantics, &semantics[..]),
        ];
        fields.into_iter().find_map(|(what, wanted, known)| {
            let slip = wanted.iter().flatten().find(|value| !known.contains(&value.as_str()))?;
            Some(unknown_name(what, slip, known.iter().copied()))
        })
    }

    /// Whether `run` is inside.
    pub fn fit(&self, run: &RunRef) -> Fit {
        let identity: &RunV1 = &run.view().identity;
        let fields = [
            ("kind", &self.kind, &identity.kind),
            ("architecture", &self.architecture, &identity.architecture),
            ("format", &self.format, &identity.model_format),
            ("device", &self.device, &identity.device_kind),
            ("semantics", &self.semantics, &identity.semantics),
            ("engine", &self.engine, &identity.engine),
        ];
        let fields =
            fields.into_iter().filter_map(|(name, wanted, value)| Some((name, wanted.as_ref()?, value.as_str())));
        let value =
            |key: &str| identity.hyper_parameters.iter().find(|pair| pair.key == key).map(|pair| pair.value.as_str());
        let hyper =
            self.hyper_parameters.iter().map(|(key, wanted)| (key.as_str(), wanted, value(key).unwrap_or_default()));
        let mut unknown = Fit::Inside;
        for (name, wanted, value) in fields.chain(hyper) {
            if value.is_empty() {
                unknown = Fit::Unknown(format!("the run does not say its {name}"));
            } else if !wanted.iter().any(|wanted| wanted == value) {
                return Fit::Outside(format!("{name} is {value}"));
            }
        }
        unknown
    }
}
