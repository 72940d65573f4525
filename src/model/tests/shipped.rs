//! Models that other programs wrote.

use crate::model::{Layout, Model, Role, Weight, WeightKey};
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama").join(name)
}

fn values(weight: &Weight) -> Vec<u32> {
    let mut row = vec![0.0; weight.columns];
    let rows = (0..weight.rows).flat_map(|i| {
        weight.dequantize_row(i, &mut row).unwrap();
        row.iter().map(|value| value.to_bits()).collect::<Vec<_>>()
    });
    rows.collect()
}

/// A GGUF file of the llama family holds q and k (and their biases) permuted; read canonically they are the
/// original's, bit for bit.
#[test]
fn llama_reads_the_same_from_gguf_and_safetensors() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["plain", "biased"] {
        let original = Model::open(&fixture(name)).unwrap();
        let packed = std::fs::read(fixture(&format!("{name}.f32.gguf.zst"))).unwrap();
        let unpacked = folder.path().join(format!("{name}.gguf"));
        std::fs::write(&unpacked, zstd::decode_all(packed.as_slice()).unwrap()).unwrap();
        let converted = Model::open(&unpacked).unwrap();
        assert_eq!(original.hyper(), converted.hyper(), "{name}");
        assert_eq!(original.weights().count(), converted.weights().count(), "{name}");
        for weight in original.weights() {
            let other = converted.weight(weight.key).unwrap();
            assert_eq!(values(weight), values(other), "{name}: {}", weight.key);
        }
        let q = converted.weight(WeightKey::in_layer(0, Role::Q)).unwrap();
        assert!(matches!(q.layout, Layout::HeadPairs { .. }), "the file permutes, or the test shows nothing");
        assert_eq!(name == "biased", original.get(WeightKey::in_layer(0, Role::KBias)).is_some());
    }
}

#[test]
fn shards_that_transformers_wrote_are_the_whole_model() {
    let (whole, sharded) = (Model::open(&fixture("plain")).unwrap(), Model::open(&fixture("sharded")).unwrap());
    assert_eq!(whole.weights().count(), sharded.weights().count());
    assert_eq!(sharded.files().iter().filter(|file| file.name.ends_with(".safetensors")).count(), 2);
}
