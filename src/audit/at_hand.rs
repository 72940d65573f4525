//! The model file that a run used, found again.

use crate::model::{Model, ModelFile};
use crate::record::RunV1;
use crate::replay::overrides;
use std::path::Path;

/// A model file that a run used, or why it is not at hand.
#[derive(Debug)]
pub enum AtHand {
    /// The file, opened with the settings of the run.
    Model(Box<Model>),
    /// It is not there; the reason.
    Absent(String),
}

impl AtHand {
    /// The model of `run`: at `given`, or where the run found it; with the size and hash that the run says.
    pub fn of(run: &RunV1, given: Option<&Path>) -> Self {
        let path = given.unwrap_or_else(|| Path::new(&run.model_path));
        if path.as_os_str().is_empty() || run.model_hash == [0; 32] {
            return AtHand::Absent(format!("`{}` does not say which model file it used", run.label));
        }
        let opened = overrides(run).and_then(|set| Model::open_with(path, &set));
        let model = match opened {
            Ok(model) => model,
            Err(error) => return AtHand::Absent(format!("the model of `{}` cannot be read: {error}", run.label)),
        };
        let changed = || AtHand::Absent(format!("{} is not the file that `{}` used", path.display(), run.label));
        let sizes = |file: &ModelFile| run.model_files.iter().any(|known| known.size == file.size);
        if !run.model_files.is_empty() && !model.files().iter().all(sizes) {
            return changed();
        }
        match model.hash() {
            Ok(hash) if hash.model == run.model_hash => AtHand::Model(Box::new(model)),
            _ => changed(),
        }
    }

    /// The model, where it is there.
    pub fn model(&self) -> Option<&Model> {
        match self {
            AtHand::Model(model) => Some(model),
            AtHand::Absent(_) => None,
        }
    }

    /// Why it is not there.
    pub fn absence(&self) -> Option<&str> {
        match self {
            AtHand::Model(_) => None,
            AtHand::Absent(why) => Some(why),
        }
    }
}
