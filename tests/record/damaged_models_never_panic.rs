//! Every family with damaged numbers: whatever a configuration or a header says, opening ends with a model or an error, and
//! a model that was accepted runs.

use crate::running::untraced;
use crate::support::families;
use actrace::backend::{CpuBackend, Semantics};
use actrace::forward::Forward;
use actrace::model::Model;
use serde_json::{Value, json};
use std::path::Path;

/// Marsaglia's xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// Opens what lies at `path` and, where that is a model, runs two tokens.
fn try_out(path: &Path) -> Result<(), String> {
    let model = Model::open(path).map_err(|error| error.to_string())?;
    // A context or a vocabulary that was made larger is no reason to run long.
    let backend = CpuBackend::new(Semantics::DequantizeF32, 1).unwrap();
    let mut forward = Forward::new(&model, backend).map_err(|error| error.to_string())?;
    if model.hyper().context >= 3 {
        untraced(&mut forward, &[3, 1], 1);
    }
    Ok(())
}

fn odd_value(random: &mut Random) -> Value {
    let values = [
        json!(0),
        json!(1),
        json!(2),
        json!(3),
        json!(-1),
        json!(u32::MAX),
        json!(u64::MAX),
        json!(1e308),
        json!(0.3),
        json!(true),
        json!("default"),
        json!([]),
        json!([0, 1, 2]),
        json!({}),
        json!({"full_attention": 3}),
        Value::Null,
    ];
    values[random.below(values.len())].clone()
}

#[test]
fn configurations() {
    let (mut accepted, mut refused) = (0, 0);
    for name in families::names() {
        let model = families::folder(&name);
        let config: Value = serde_json::from_slice(&std::fs::read(model.path().join("config.json")).unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("model.safetensors"), families::weights(&name)).unwrap();
        let keys: Vec<&String> = config.as_object().unwrap().keys().collect();
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for _ in 0..60 {
            let mut broken = config.clone();
            for _ in 0..=random.below(2) {
                broken[keys[random.below(keys.len())]] = odd_value(&mut random);
            }
            std::fs::write(folder.path().join("config.json"), broken.to_string()).unwrap();
            match try_out(folder.path()) {
                Ok(()) => accepted += 1,
                Err(_) => refused += 1,
            }
        }
    }
    assert!(accepted > 100 && refused > 100, "{accepted} accepted, {refused} refused");
}

#[test]
fn gguf_headers() {
    let (mut accepted, mut refused) = (0, 0);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.gguf");
    for name in families::gguf_names() {
        let whole = families::gguf_bytes(&name);
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        for _ in 0..150 {
            let mut bytes = whole.clone();
            // Metadata and the list of tensors fill the first two thousand bytes and more.
            let at = random.below(2000);
            let limits = [0, 1, 2, u64::from(u32::MAX), u64::MAX, 3 << 32];
            match random.below(3) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = random.below(256) as u8,
                _ => bytes[at..at + 8].copy_from_slice(&limits[random.below(limits.len())].to_le_bytes()),
            }
            std::fs::write(&path, bytes).unwrap();
            match try_out(&path) {
                Ok(()) => accepted += 1,
                Err(_) => refused += 1,
            }
        }
    }
    assert!(accepted > 100 && refused > 100, "{accepted} accepted, {refused} refused");
}
