//! The tiny models of `tests/fixtures/families`, unpacked beside the test binaries.

use super::{fixture, write_once};
use actrace::model::Model;
use std::fs;
use std::path::{Path, PathBuf};

/// Every model of the folder.
pub fn names() -> Vec<String> {
    listed(|name| fixture("families").join(name).is_dir().then_some(name))
}

/// Those that stand there as GGUF files too.
pub fn gguf_names() -> Vec<String> {
    listed(|name| name.strip_suffix(".gguf.zst"))
}

fn listed(pick: impl Fn(&str) -> Option<&str>) -> Vec<String> {
    let entries = fs::read_dir(fixture("families")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = entries.filter_map(|name| pick(name.to_str().unwrap()).map(str::to_owned)).collect();
    names.sort();
    assert!(!names.is_empty());
    names
}

/// The model as safetensors.
pub fn folder(name: &str) -> Model {
    let packed = fixture(&format!("families/{name}"));
    let folder = unpacked_folder().join(name);
    fs::create_dir_all(&folder).unwrap();
    write_once(&folder.join("config.json"), &fs::read(packed.join("config.json")).unwrap());
    write_once(&folder.join("model.safetensors"), &weights(name));
    Model::open(&folder).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The model as a GGUF file.
pub fn gguf(name: &str) -> Model {
    let bytes = gguf_bytes(name);
    fs::create_dir_all(unpacked_folder()).unwrap();
    let path = unpacked_folder().join(format!("{name}.gguf"));
    write_once(&path, &bytes);
    Model::open(&path).unwrap_or_else(|error| panic!("{name}.gguf: {error}"))
}

/// The bytes of the GGUF file.
pub fn gguf_bytes(name: &str) -> Vec<u8> {
    let packed = fs::read(fixture(&format!("families/{name}.gguf.zst"))).unwrap();
    // The file is compressed against the bytes of the safetensors file.
    let weights = weights(name);
    let mut decoder = zstd::Decoder::with_dictionary(packed.as_slice(), &weights).unwrap();
    let mut bytes = Vec::new();
    std::io::copy(&mut decoder, &mut bytes).unwrap();
    bytes
}

/// The bytes of the safetensors file.
pub fn weights(name: &str) -> Vec<u8> {
    fs::read(fixture(&format!("families/{name}/model.safetensors"))).unwrap()
}

/// Writes the model in `folder` to `out` with the router of layer 1 turned upside down: its first layer stays as it is.
pub fn turn_router(folder: &Path, out: &Path) {
    fs::copy(folder.join("config.json"), out.join("config.json")).unwrap();
    let mut bytes = fs::read(folder.join("model.safetensors")).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let names: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let place = &names["model.layers.1.mlp.gate.weight"]["data_offsets"];
    let at = |end: usize| 8 + header + place[end].as_u64().unwrap() as usize;
    // The sign of each BF16 number.
    bytes[at(0)..at(1)].iter_mut().skip(1).step_by(2).for_each(|byte| *byte ^= 0x80);
    fs::write(out.join("model.safetensors"), bytes).unwrap();
}

fn unpacked_folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("families")
}
