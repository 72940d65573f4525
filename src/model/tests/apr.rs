//! .apr files that break one rule each.

use super::build::{Apr, AprTensor, Gguf, llama_config, llama_tensors, safetensors};
use super::{read_apr, read_apr_with, read_gguf, refused};
use crate::ErrorKind::{Malformed, Unsupported};
use crate::model::open::Contents;
use crate::model::{Overrides, Role, TensorType, Weight, WeightKey};
use serde_json::{Value, json};

/// Words of the error, and the change that causes it.
type Case = (&'static str, fn(&mut Apr));

fn open(file: &Apr) -> crate::Result<Contents> {
    read_apr(file.bytes())
}

fn values(weight: &Weight) -> Vec<f32> {
    let mut row = vec![0.0; weight.columns];
    let rows = (0..weight.rows).flat_map(|i| {
        weight.dequantize_row(i, &mut row).unwrap();
        row.clone()
    });
    rows.collect()
}

#[test]
fn llama_is_the_same_from_apr_and_safetensors() {
    let file = safetensors(&llama_tensors("model."));
    let original = super::safetensors::open(llama_config().to_string().as_bytes(), file).unwrap();
    for magic in [*b"APR\0", *b"APR2"] {
        let contents = open(&Apr { magic, ..Apr::llama() }).unwrap();
        assert_eq!(contents.hyper(), original.hyper());
        assert_eq!(contents.weights().count(), original.weights().count());
        for weight in original.weights() {
            assert_eq!(values(contents.weight(weight.key).unwrap()), values(weight), "{}", weight.key);
        }
    }
}

/// apr moves no bytes: rows that GGUF stores in pairs are stored so here too.
#[test]
fn llama_that_came_from_gguf_has_its_rows_in_pairs() {
    let gguf = read_gguf(Gguf::llama().bytes()).unwrap();
    let mut file = Apr::llama();
    file.metadata["rope_type"] = json!(0);
    file.metadata["original_format"] = json!("gguf");
    let contents = open(&file).unwrap();
    for role in [Role::Q, Role::K, Role::V] {
        let key = WeightKey::in_layer(0, role);
        let (one, other) = (gguf.weight(key).unwrap(), contents.weight(key).unwrap());
        assert_eq!((values(one), one.layout), (values(other), other.layout), "{key}");
    }
}

/// Its offset is that of another tensor in real files, and is not looked at.
#[test]
fn a_head_without_data_is_the_embedding() {
    let mut file = Apr::llama();
    let head = file.tensor("lm_head.weight");
    (head.size, head.offset) = (Some(0), Some(u64::MAX));
    head.data.clear();
    for tied in [json!(true), Value::Null] {
        file.metadata["tied_embeddings"] = tied;
        let contents = open(&file).unwrap();
        assert!(contents.hyper().tied_embeddings);
        let output = contents.weight(WeightKey::outside(Role::Output)).unwrap();
        assert_eq!(output.stored_name, "model.embed_tokens.weight");
    }
    file.metadata["tied_embeddings"] = json!(false);
    refused(open(&file), Malformed, "has no lm_head.weight");
    let norm = file.tensor("model.norm.weight");
    (norm.size, norm.data) = (Some(0), Vec::new());
    refused(open(&file), Malformed, "tensor model.norm.weight: at byte");
}

#[test]
fn a_head_that_is_written_out_must_be_the_embedding_it_is_said_to_be() {
    let mut file = Apr::llama();
    file.metadata["tied_embeddings"] = json!(true);
    assert!(open(&file).unwrap().hyper().tied_embeddings, "both count up from 0");
    file.tensor("lm_head.weight").data[0] ^= 1;
    refused(open(&file), Unsupported, "tensor lm_head.weight: the configuration ties it");
}

#[test]
fn every_type_is_read_or_refused_by_name() {
    let known = [
        (0, TensorType::F32),
        (1, TensorType::F16),
        (30, TensorType::Bf16),
        (12, TensorType::Q4K),
        (14, TensorType::Q6K),
    ];
    for (dtype, tensor_type) in known {
        let mut file = wide();
        let up = file.tensor("model.layers.0.mlp.up_proj.weight");
        up.dtype = dtype;
        up.data = vec![0; 256 * tensor_type.row_bytes(256).unwrap()];
        let contents = open(&file).unwrap();
        let weight = contents.weight(WeightKey::in_layer(0, Role::FfnUp)).unwrap();
        assert_eq!((weight.tensor_type, weight.rows, weight.columns), (tensor_type, 256, 256));
        file.tensor("model.layers.0.mlp.up_proj.weight").data.pop();
        refused(open(&file), Malformed, "its size is");
    }
    for (dtype, name) in [(3, "f64"), (4, "i32"), (5, "i64"), (6, "i8"), (7, "u8"), (128, "apr_q4"), (129, "apr_q8")] {
        let mut file = Apr::llama();
        file.tensor("model.layers.0.mlp.up_proj.weight").dtype = dtype;
        let words = format!("element type {name} is not supported in .apr files; known are f32");
        let error = open(&file).unwrap_err();
        assert_eq!(error.tensor(), Some("model.layers.0.mlp.up_proj.weight"));
        refused(Err::<(), _>(error), Unsupported, &words);
    }
}

/// Rows of 256, so that they are whole blocks.
fn wide() -> Apr {
    let mut file = Apr::llama();
    for (key, value) in [("hidden_size", 256), ("intermediate_size", 256), ("num_heads", 64), ("head_dim", 4)] {
        file.metadata[key] = json!(value);
    }
    for tensor in &mut file.tensors {
        for axis in &mut tensor.shape {
            *axis = if *axis == 4 || *axis == 10 { *axis } else { 256 };
        }
        tensor.data = vec![0; tensor.shape.iter().product::<u64>() as usize * 4];
    }
    file
}

#[test]
fn broken_structure_is_malformed() {
    let cases: [Case; 18] = [
        ("do not follow each other", |f| f.sections[0] = Some(u64::MAX)),
        ("do not follow each other", |f| f.sections[0] = Some(0)),
        ("do not follow each other", |f| f.sections[1] = Some(64)),
        ("do not follow each other", |f| f.sections[2] = Some(u64::MAX)),
        ("do not follow each other", |f| f.sections[2] = Some(64)),
        ("more bytes than its entries", |f| f.count = Some(3)),
        ("cut short", |f| f.count = Some(u32::MAX)),
        ("do not rise", |f| f.count = Some(13)),
        ("no JSON object", |f| f.metadata = json!([1])),
        ("do not rise", |f| f.tensors.swap(1, 2)),
        ("do not rise", |f| f.tensors[1].name = f.tensors[0].name.clone()),
        ("do not rise", |f| f.tensors[0].name.clear()),
        ("9 axes", |f| f.tensors[0].shape = vec![1; 9]),
        ("its size is 0", |f| f.tensors[1].size = Some(0)),
        ("its size is 18446744073709551615", |f| f.tensors[1].size = Some(u64::MAX)),
        ("too large", |f| f.tensors[1].shape = vec![u64::MAX, 8]),
        ("end beyond its", |f| f.tensors[1].offset = Some(u64::MAX)),
        ("overlaps tensor", |f| f.tensors[1].offset = f.tensors[0].offset.or(Some(0))),
    ];
    for (words, change) in cases {
        let mut file = Apr::llama();
        change(&mut file);
        refused(open(&file), Malformed, words);
    }
}

#[test]
fn contradictions_are_malformed() {
    let cases: [Case; 13] = [
        ("num_layers; give it with --set layers=VALUE", |f| f.metadata["num_layers"] = Value::Null),
        ("rope_theta; give it with --set rope_base=VALUE", |f| f.metadata["rope_theta"] = Value::Null),
        ("rms_norm_eps; give it", |f| f.metadata["rms_norm_eps"] = Value::Null),
        ("num_layers is 1 and num_hidden_layers is 2", |f| f.metadata["num_hidden_layers"] = json!(2)),
        ("rope_theta is 500.0 and model.rope_theta is 501.0", |f| f.metadata["model.rope_theta"] = json!(501.0)),
        ("num_hidden_layers is 2, and the layers that the tensors' names count are 1", |f| {
            f.metadata["num_layers"] = json!(2);
        }),
        ("add --set hidden=8", |f| f.metadata["hidden_size"] = json!(16)),
        ("add --set ffn=16", |f| f.metadata["intermediate_size"] = json!(8)),
        ("3 query heads of 2, and layers.0.self_attn.q_proj.weight has 8 rows", |f| f.metadata["num_heads"] = json!(3)),
        ("2 key heads of 4, and layers.0.self_attn.k_proj.weight has 4 rows", |f| {
            f.metadata["num_kv_heads"] = Value::Null;
        }),
        ("vocab_size is 11", |f| f.metadata["vocab_size"] = json!(11)),
        ("should be a count", |f| f.metadata["num_heads"] = json!("two")),
        ("no architecture", |f| f.metadata["architecture"] = Value::Null),
    ];
    for (words, change) in cases {
        let mut file = Apr::llama();
        change(&mut file);
        refused(open(&file), Malformed, words);
    }
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    let cases: [Case; 24] = [
        ("version 1 of .apr", |f| f.magic = *b"APR1"),
        ("APRN files", |f| f.magic = *b"APRN"),
        ("begins with \"APRX\"", |f| f.magic = *b"APRX"),
        (".apr version 3.0", |f| f.version = [3, 0]),
        (".apr version 2.1", |f| f.version = [2, 1]),
        ("LZ4 compression (flags 0x401)", |f| f.flags |= 1),
        ("zstd compression", |f| f.flags |= 2),
        ("encryption", |f| f.flags |= 4),
        ("several files", |f| f.flags |= 0x10),
        ("column-major", |f| f.flags |= 0x800),
        ("flags 0x1000", |f| f.flags |= 0x1000),
        ("checkpoints of entrenar", |f| f.metadata["format"] = json!("entrenar-checkpoint")),
        ("architecture \"gpt2\"", |f| f.metadata["architecture"] = json!("gpt2")),
        ("num_experts = 8", |f| f.metadata["num_experts"] = json!(8)),
        ("no rope_type", |f| f.metadata["rope_type"] = Value::Null),
        ("rope_type 0 of llama from another format", |f| f.metadata["rope_type"] = json!(0)),
        ("rope_type 2 of llama from GGUF", |f| f.metadata["original_format"] = json!("GGUF")),
        ("rope_type 1 of", |f| f.metadata["rope_type"] = json!(1)),
        ("sliding window of 16", |f| f.metadata["sliding_window"] = json!(16)),
        ("RoPE type \"yarn\"", |f| f.metadata["rope_scaling"] = json!({"rope_type": "yarn"})),
        ("activation \"relu\"", |f| f.metadata["hidden_act"] = json!("relu")),
        ("rows of 8 elements are no whole number of q4_k blocks", |f| {
            f.tensor("model.embed_tokens.weight").dtype = 12;
        }),
        ("it plays no part", |f| {
            let data = vec![0; 4];
            f.tensors.push(AprTensor {
                name: "other".into(),
                shape: vec![1],
                dtype: 0,
                offset: None,
                size: None,
                data,
            });
        }),
        ("quantization_config", |f| f.metadata["quantization_config"] = json!({})),
    ];
    for (words, change) in cases {
        let mut file = Apr::llama();
        change(&mut file);
        refused(open(&file), Unsupported, words);
    }
}

/// Flags and keys that real files have, and that say nothing about the forward pass.
#[test]
fn what_changes_nothing_is_no_reason_to_refuse() {
    let mut file = Apr::llama();
    file.flags = 0x8 | 0x20 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400;
    for (key, value) in [
        ("num_experts", json!(0)),
        ("model.rms_norm_eps", json!(f64::from(1e-5f32))),
        ("n_embd", json!(8)),
        ("tensor_shapes", json!({"lm_head.weight": [10, 8]})),
        ("license", Value::Null),
    ] {
        file.metadata[key] = value;
    }
    open(&file).unwrap();
}

#[test]
fn the_user_may_set_what_is_missing_or_wrong() {
    let mut file = Apr::llama();
    file.metadata["num_heads"] = json!(1);
    file.metadata["num_kv_heads"] = json!(2);
    file.metadata["rope_theta"] = Value::Null;
    let overrides = Overrides::parse(["heads=2", "kv_heads=1", "rope_base=500"]).unwrap();
    let put_right = read_apr_with(file.bytes(), &overrides).unwrap();
    assert_eq!(put_right.hyper(), open(&Apr::llama()).unwrap().hyper());
}

/// A changed bit is either in the header, whose sum comes first, or shows in the sum of the file. In the first four
/// bytes it may make another magic, in the next two another version.
#[test]
fn every_changed_byte_is_refused() {
    let whole = Apr::llama().bytes();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        let error = read_apr(bytes).err().unwrap_or_else(|| panic!("byte {at}"));
        assert!(!(6..64).contains(&at) || error.to_string().contains("checksum of the header"), "byte {at}: {error}");
    }
}

/// But for the cuts behind the last tensor, which is half of its 64 bytes, and before the sum: some files have none.
#[test]
fn every_cut_of_the_file_is_refused() {
    let whole = Apr::llama().bytes();
    for length in 0..whole.len() {
        let sound = [whole.len() - 4 - 32, whole.len() - 4].contains(&length);
        assert_eq!(read_apr(whole[..length].to_vec()).is_ok(), sound, "cut at {length}");
    }
}
