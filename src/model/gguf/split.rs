//! Models in several GGUF files, `NAME-00001-of-00003.gguf` and so on, as llama.cpp's gguf-split writes them.
//!
//! Each part has a tensor table of its own and three keys: `split.no` (its number, from 0), `split.count` (parts) and
//! `split.tensors.count` (tensors of all parts). The first part has the model's metadata besides.

use super::metadata::Metadata;
use super::value::Value;
use crate::error::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

/// The parts that a model lies in.
#[derive(Debug)]
pub(in crate::model) struct Split {
    folder: PathBuf,
    /// Names of the parts up to the number.
    stem: String,
    count: u64,
    tensors: u64,
}

impl Split {
    /// The set that the file at `path` is a part of; `None` for a whole model. Merged files keep the keys with a count of
    /// 0.
    ///
    /// # Errors
    /// Malformed where keys are missing or of a wrong type, or where the file has another name than its number asks for.
    pub(in crate::model) fn of(path: &Path, metadata: &Metadata) -> Result<Option<Split>> {
        let Some(count) = number(metadata, "split.count")?.filter(|count| *count > 1) else { return Ok(None) };
        let own = needed(metadata, "split.no")?;
        let tensors = needed(metadata, "split.tensors.count")?;
        if own >= count {
            return Err(Error::malformed(format!(
                "split.no is {own}, and the model has {count} parts, counted from 0"
            )));
        }
        let ending = ending(own, count);
        let name = path.file_name().and_then(|name| name.to_str());
        let stem = name.and_then(|name| name.strip_suffix(&ending)).ok_or_else(|| {
            Error::malformed(format!(
                "it is part {} of {count}, so its name must end in {ending}; give all parts the names that they were \
                 made with",
                own + 1
            ))
        })?;
        let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
        Ok(Some(Split { folder, stem: stem.to_owned(), count, tensors }))
    }

    /// The paths of all parts, in order.
    pub(in crate::model) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        (0..self.count).map(|number| self.folder.join(format!("{}{}", self.stem, ending(number, self.count))))
    }

    /// Refuses a part that is not there.
    ///
    /// # Errors
    /// Environment, with the path.
    pub(in crate::model) fn check_present(&self, path: &Path) -> Result<()> {
        if path.exists() {
            return Ok(());
        }
        let message = format!("a part of the model is missing; all {} must lie in one folder", self.count);
        Err(Error::new(ErrorKind::Environment, message).in_file(path))
    }

    /// Checks that part `own` (from 0) belongs to this set, and says nothing that `first`, the first part, does not.
    ///
    /// # Errors
    /// Malformed, naming the key.
    pub(in crate::model) fn check_part(&self, own: u64, part: &Metadata, first: &Metadata) -> Result<()> {
        for (key, expected) in [("split.no", own), ("split.count", self.count), ("split.tensors.count", self.tensors)] {
            let said = needed(part, key)?;
            if said != expected {
                return Err(Error::malformed(format!(
                    "{key} is {said}, and should be {expected}; the files are not of one model"
                )));
            }
        }
        // Names, authors and the like may differ; what describes the forward pass may not.
        let described = |key: &str| !key.starts_with("split.") && !key.starts_with("general.");
        for (key, value) in part.pairs.iter().filter(|(key, _)| described(key) || *key == "general.architecture") {
            if first.pairs.get(key) != Some(value) {
                return Err(Error::malformed(format!("{key} is {value}, and the first part does not say so")));
            }
        }
        Ok(())
    }

    /// Checks that all parts together have as many tensors as they say.
    ///
    /// # Errors
    /// Malformed, with both numbers.
    pub(in crate::model) fn check_tensors(&self, found: usize) -> Result<()> {
        if found as u64 == self.tensors {
            return Ok(());
        }
        let (said, count) = (self.tensors, self.count);
        Err(Error::malformed(format!("split.tensors.count is {said}, and the {count} parts have {found} tensors")))
    }
}

/// How the name of part `number` (from 0) ends.
fn ending(number: u64, count: u64) -> String {
    format!("-{:05}-of-{count:05}.gguf", number + 1)
}

fn number(metadata: &Metadata, key: &str) -> Result<Option<u64>> {
    let Some(value) = metadata.pairs.get(key) else { return Ok(None) };
    let number = match value {
        // The format has 16 bits for parts and 31 for tensors.
        Value::Unsigned(number) if *number <= u64::from(u32::MAX) => Some(*number),
        Value::Signed(number) => u32::try_from(*number).ok().map(u64::from),
        _ => None,
    };
    number.map(Some).ok_or_else(|| Error::malformed(format!("{key} is {value}, and should be a count")))
}

fn needed(metadata: &Metadata, key: &str) -> Result<u64> {
    number(metadata, key)?.ok_or_else(|| Error::malformed(format!("a part of a split model has no {key}")))
}
