//! Opening paths: files, folders, and what is neither.

use super::build::{Gguf, llama_config, llama_tensors, safetensors};
use super::refused;
use crate::ErrorKind::{Environment, Foreign, Malformed, Unsupported, Usage};
use crate::model::{Format, Model, Role, TensorType, WeightKey};
use serde_json::json;
use std::fs;
use std::path::Path;

fn write_folder(folder: &Path) {
    fs::write(folder.join("config.json"), llama_config().to_string()).unwrap();
    fs::write(folder.join("model.safetensors"), safetensors(&llama_tensors("model."))).unwrap();
}

/// Two shards and their index.
fn write_shards(folder: &Path) {
    fs::write(folder.join("config.json"), llama_config().to_string()).unwrap();
    let tensors = llama_tensors("model.");
    let mut map = json!({});
    for (i, shard) in tensors.chunks(6).enumerate() {
        let name = format!("model-{i}.safetensors");
        fs::write(folder.join(&name), safetensors(shard)).unwrap();
        shard.iter().for_each(|(tensor, _)| map[tensor] = json!(name));
    }
    fs::write(folder.join("model.safetensors.index.json"), json!({"weight_map": map}).to_string()).unwrap();
}

#[test]
fn paths_that_are_no_model_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    refused(Model::open(&path("absent.gguf")), Environment, "absent.gguf: cannot open the model");
    refused(Model::open(folder.path()), Foreign, "no config.json");
    for (name, bytes, kind, words) in [
        ("empty", b"".as_slice(), Malformed, "empty"),
        ("zip", b"PK\x03\x04 and more", Foreign, "begins with \"PK\\x03\\x04\""),
        ("m.apr", b"APR\0\x02\0 and more", Malformed, "no header of 64"),
        ("n.apr", b"APRN\x02\0 and more", Unsupported, "APRN files"),
        ("m.gguf", b"GGUF\x03\0\0", Malformed, "cut short"),
        ("m.safetensors", &safetensors(&llama_tensors("")), Usage, "give its folder"),
    ] {
        fs::write(path(name), bytes).unwrap();
        refused(Model::open(&path(name)), kind, words);
    }
    fs::write(path("config.json"), llama_config().to_string()).unwrap();
    refused(Model::open(folder.path()), Environment, "model.safetensors: cannot open");
}

#[test]
fn a_missing_weight_is_named() {
    let folder = tempfile::tempdir().unwrap();
    write_folder(folder.path());
    let model = Model::open(folder.path()).unwrap();
    refused(model.weight(WeightKey::in_layer(0, Role::QBias)), Malformed, "no weight layers.0.q_bias");
    assert!(model.get(WeightKey::in_layer(1, Role::Q)).is_none());
}

#[test]
fn shards_give_the_same_weights_as_one_file() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_folder(one.path());
    write_shards(two.path());
    let (one, two) = (Model::open(one.path()).unwrap(), Model::open(two.path()).unwrap());
    assert_eq!((one.files().len(), two.files().len()), (2, 4));
    assert_eq!(one.weights().count(), two.weights().count());
    for weight in one.weights() {
        let other = two.weight(weight.key).unwrap();
        assert_eq!((&weight.stored_name, &*weight.data), (&other.stored_name, &*other.data));
        let bytes = fs::read(&two.files()[other.file].path).unwrap();
        assert_eq!(&bytes[other.offset as usize..][..other.data.len()], &*other.data);
    }
}

#[test]
fn an_index_that_lies_is_refused() {
    let cases = [
        (json!({"weight_map": {"lm_head.weight": "model-1.safetensors"}}), "which does not hold it"),
        (json!({"weight_map": {"lm_head.weight": "../model-0.safetensors"}}), "no file of its own folder"),
        (json!({"weight_map": {}}), "names no tensor"),
        (json!({"weight_map": []}), "not an index"),
    ];
    for (index, words) in cases {
        let folder = tempfile::tempdir().unwrap();
        write_shards(folder.path());
        fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
        refused(Model::open(folder.path()), Malformed, words);
    }
}

#[test]
fn identity_covers_every_file() {
    let folder = tempfile::tempdir().unwrap();
    write_folder(folder.path());
    let model = Model::open(folder.path()).unwrap();
    assert_eq!((model.format(), model.weight_type()), (Format::Safetensors, TensorType::F32));
    let hash = model.hash().unwrap();
    assert_eq!(hash.files[0], *blake3::hash(llama_config().to_string().as_bytes()).as_bytes());
    assert_eq!(hash.model, *blake3::hash(hash.files.concat().as_slice()).as_bytes());
    let mut config = llama_config();
    config["rms_norm_eps"] = json!(1e-4);
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    assert_ne!(Model::open(folder.path()).unwrap().hash().unwrap().model, hash.model);
}

#[test]
fn a_file_that_changed_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let bytes = Gguf::llama().bytes();
    fs::write(&path, &bytes).unwrap();
    let model = Model::open(&path).unwrap();
    model.check_unchanged().unwrap();
    // Longer, not shorter: the mapping of a file that shrank must not be read.
    fs::write(&path, [bytes, vec![0]].concat()).unwrap();
    refused(model.check_unchanged(), Environment, "m.gguf: the model file changed");
    refused(model.hash(), Environment, "m.gguf: the model file changed");
    fs::remove_file(&path).unwrap();
    refused(model.check_unchanged(), Environment, "m.gguf: cannot find the model file again");
}
