//! The contracts of `contracts/`, built in so that the binary stands alone.

use super::Contract;
use crate::error::{Error, Result};
use crate::sql::unknown_name;
use std::path::Path;

/// The files. A test holds this list against the folder.
const FILES: &[(&str, &str)] = &[
    ("attention-rows", include_str!("../../contracts/attention-rows.yaml")),
    ("capture-completeness", include_str!("../../contracts/capture-completeness.yaml")),
    ("determinism", include_str!("../../contracts/determinism.yaml")),
    ("device-parity", include_str!("../../contracts/device-parity.yaml")),
    ("format-parity", include_str!("../../contracts/format-parity.yaml")),
    ("no-observer-effect", include_str!("../../contracts/no-observer-effect.yaml")),
    ("norm-algebra", include_str!("../../contracts/norm-algebra.yaml")),
    ("residual-algebra", include_str!("../../contracts/residual-algebra.yaml")),
    ("trace-ffn-sub-block", include_str!("../../contracts/trace-ffn-sub-block.yaml")),
    ("trace-integrity", include_str!("../../contracts/trace-integrity.yaml")),
];

/// Every shipped contract, by name.
///
/// # Errors
/// Malformed, where a file breaks its own form.
pub fn shipped() -> Result<Vec<Contract>> {
    FILES.iter().map(|(name, text)| parse(name, text)).collect()
}

/// The contract that `name` means: a file where it has a `/` or ends with `.yaml`, else a shipped one.
///
/// # Errors
/// Usage for an unknown name, with the nearest known one; Environment where the file cannot be read; as
/// [`Contract::parse`].
pub fn find(name: &str) -> Result<Contract> {
    if name.contains('/') || name.ends_with(".yaml") {
        let path = Path::new(name);
        let text = std::fs::read_to_string(path).map_err(|cause| Error::io("read", path, cause))?;
        return Contract::parse(path, &text);
    }
    match FILES.iter().find(|(known, _)| *known == name) {
        Some((name, text)) => parse(name, text),
        None => {
            let what = unknown_name("contract", name, FILES.iter().map(|(known, _)| *known));
            Err(Error::usage(format!("{what} (a file of your own has a `/` or ends with .yaml)")))
        }
    }
}

fn parse(name: &str, text: &str) -> Result<Contract> {
    Contract::parse(Path::new(&format!("contracts/{name}.yaml")), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_holds_every_file_of_the_folder() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("contracts");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut files: Vec<String> = files.filter(|name| name.ends_with(".yaml")).collect();
        files.sort();
        assert_eq!(files, FILES.iter().map(|(name, _)| format!("{name}.yaml")).collect::<Vec<_>>());
    }

    #[test]
    fn a_near_name_is_suggested() {
        let said = find("norm-algebr").unwrap_err().to_string();
        assert!(said.contains("did you mean `norm-algebra`?"), "{said}");
    }
}
