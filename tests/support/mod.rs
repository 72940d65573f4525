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

use std::path::{Path, PathBuf};

/// Root of the package: the folder of Cargo.toml.
pub fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file or folder below `tests/fixtures`.
pub fn fixture(path: &str) -> PathBuf {
    let path = package().join("tests/fixtures").join(path);
    assert!(path.exists(), "no fixture {}", path.display());
    path
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
