//! Rebuilds the .apr files of the apr tool from the shipped models, byte for byte.
//!
//! The tree holds each file's bytes before its tensors and its blake3 (`tests/fixtures/apr`); the tensors are copies of
//! stretches of a shipped file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::Deserialize;

#[derive(Deserialize)]
struct Recipe {
    bytes: usize,
    blake3: String,
    source: String,
    /// Offset in the .apr file, offset in the source, length.
    stretches: Vec<(usize, usize, usize)>,
    checksum: String,
}

/// A file that is replaced while another test runs it would be a changed model.
static BUILDING: Mutex<()> = Mutex::new(());

/// Path of the rebuilt file `MODEL.TYPE.apr`, and where its tensor data begin; built once and kept beside the test
/// binaries.
pub fn rebuilt(name: &str) -> (PathBuf, usize) {
    let recipes = std::fs::read(super::fixture("apr/recipes.json")).unwrap();
    let mut recipes: BTreeMap<String, Recipe> = serde_json::from_slice(&recipes).unwrap();
    let recipe = recipes.remove(name).unwrap_or_else(|| panic!("no recipe for {name}"));
    let head = std::fs::read(super::fixture(&format!("apr/{name}.head"))).unwrap();
    let data = head.len();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("models");
    let path = folder.join(format!("{name}.apr"));
    let _alone = BUILDING.lock();
    if std::fs::read(&path).is_ok_and(|bytes| blake3::hash(&bytes).to_hex().as_str() == recipe.blake3) {
        return (path, data);
    }
    let bytes = build(name, head, &recipe);
    assert_eq!(blake3::hash(&bytes).to_hex().as_str(), recipe.blake3, "{name} differs from apr's file");
    std::fs::create_dir_all(&folder).unwrap();
    super::write_once(&path, &bytes);
    (path, data)
}

fn build(name: &str, mut file: Vec<u8>, recipe: &Recipe) -> Vec<u8> {
    let (model, _) = name.split_once('.').unwrap();
    let source = std::fs::read(super::package().join("models").join(model).join(&recipe.source)).unwrap();
    file.resize(recipe.bytes - 4, 0);
    for (to, from, length) in &recipe.stretches {
        file[*to..to + length].copy_from_slice(&source[*from..from + length]);
    }
    let checksum = u32::from_str_radix(&recipe.checksum, 16).unwrap();
    file.extend(checksum.to_be_bytes());
    file
}
