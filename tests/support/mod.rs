//! What both test binaries share: models, fixtures and readers that are not the product's own.
//!
//! `#[path = "../support/mod.rs"] mod support;` takes it into a binary.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test, a panic is the report")]

pub mod apr;
pub mod attack;
pub mod broken;
pub mod families;
pub mod faulty;
pub mod forge;
pub mod gguf;
pub mod memory;
pub mod plant;
pub mod quantise;
pub mod safetensors;
pub mod trace;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Root of the package: the folder of Cargo.toml.
pub fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file or folder below `tests/fixtures`; a file that is packed there is unpacked beside the test binaries.
pub fn fixture(path: &str) -> PathBuf {
    let stored = package().join("tests/fixtures").join(path);
    if stored.exists() {
        return stored;
    }
    let packed = fs::read(stored.with_added_extension("zst"));
    let packed = packed.unwrap_or_else(|error| panic!("no fixture {}: {error}", stored.display()));
    let unpacked = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fixtures").join(path);
    fs::create_dir_all(unpacked.parent().unwrap()).unwrap();
    write_once(&unpacked, &zstd::decode_all(packed.as_slice()).unwrap());
    unpacked
}

/// Tests run side by side, and a mapped file must not change: each writes under a name of its own, the rename is atomic,
/// and a file that is there already stays.
pub fn write_once(path: &Path, bytes: &[u8]) {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return;
    }
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap()).unwrap();
    file.write_all(bytes).unwrap();
    file.persist(path).unwrap();
}

/// What to give `--model` for `MODEL.TYPE`: the folder of a safetensors model, or a GGUF file.
///
/// Models are `tiny-qwen2` and `tiny-gpt2`; types are `safetensors`, `f16`, `q8_0` and `q4_k_m`.
pub fn model(name: &str) -> PathBuf {
    let (model, kind) = name.split_once('.').expect("MODEL.TYPE");
    let folder = package().join("models").join(model);
    assert!(folder.is_dir(), "no model {model}");
    let shipped = folder.join(format!("{name}.gguf"));
    match kind {
        "safetensors" => folder,
        _ if shipped.exists() => shipped,
        _ => gguf::rebuilt(name),
    }
}

/// `‖target - reference‖ / ‖reference‖`, summed in f64; 0 when both are all zero.
pub fn rel_l2(reference: &[f32], target: &[f32]) -> f64 {
    assert_eq!(reference.len(), target.len(), "lengths differ");
    let (mut error, mut norm) = (0.0_f64, 0.0_f64);
    for (&r, &t) in reference.iter().zip(target) {
        error += (f64::from(t) - f64::from(r)).powi(2);
        norm += f64::from(r).powi(2);
    }
    if error == 0.0 { 0.0 } else { (error / norm).sqrt() }
}
