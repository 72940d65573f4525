//! Conversion of models that other programs' files are unlike: split ones, other alignments, weights without a place.

use super::build::{Gguf, gpt2_config, gpt2_tensors, llama_config, llama_tensors, safetensors, text};
use super::refused;
use crate::ErrorKind::{Unsupported, Usage};
use crate::model::convert::{Conversion, TokenizerFrom};
use crate::model::{GgufValue, Model, Overrides, Replace, TensorType, gguf};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// The metadata of the file at `path`.
fn pairs(path: &Path) -> Vec<(String, Vec<u8>)> {
    let bytes = fs::read(path).unwrap().into();
    gguf::pairs(&bytes).unwrap().into_iter().map(|(key, value)| (key, value.to_vec())).collect()
}

fn convert(from: &Path, tensor_type: TensorType, tokenizer: TokenizerFrom<'_>) -> crate::Result<PathBuf> {
    let source = Model::open(from)?;
    let to = from.with_extension("converted");
    Conversion::new(&source, tensor_type, tokenizer)?.write(&to, Replace::Yes, |_| Ok(()))?;
    Model::open(&to).map(|_| to)
}

fn written(folder: &Path, file: &Gguf) -> PathBuf {
    let path = folder.join("m.gguf");
    fs::write(&path, file.bytes()).unwrap();
    path
}

/// Type number and value.
fn value(kind: u32, value: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], value].concat()
}

#[test]
fn metadata_of_every_type_are_copied_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = Gguf::llama();
    file.version = 2;
    file.set("general.file_type", 5, 7i32.to_le_bytes().to_vec());
    file.set(
        "a.nested",
        9,
        [&9u32.to_le_bytes()[..], &1u64.to_le_bytes(), &value(7, &2u64.to_le_bytes()), &[1, 0]].concat(),
    );
    file.set("a.f64", 12, 0.1f64.to_le_bytes().to_vec());
    file.set("a.text", 8, [&3u64.to_le_bytes()[..], &[0xFF, 0, 0xC3]].concat());
    file.set("a.byte", 0, vec![200]);
    let path = written(folder.path(), &file);
    let before = pairs(&path);
    let after = pairs(&convert(&path, TensorType::F16, TokenizerFrom::Model).unwrap());
    assert_eq!(before.len(), after.len());
    for (before, after) in before.iter().zip(after) {
        match before.0.as_str() {
            "general.file_type" => assert_eq!(after, (before.0.clone(), value(4, &1u32.to_le_bytes()))),
            _ => assert_eq!(*before, after),
        }
    }
}

#[test]
fn a_file_without_a_type_gets_one_and_the_alignment_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = Gguf::llama();
    // The builder aligns to 32, which is a multiple of this.
    file.set_u32("general.alignment", 16);
    let to = convert(&written(folder.path(), &file), TensorType::Bf16, TokenizerFrom::Model).unwrap();
    let after = pairs(&to);
    assert_eq!(after.last().unwrap(), &("general.file_type".to_owned(), value(4, &32u32.to_le_bytes())));
    assert!(after.contains(&("general.alignment".to_owned(), value(4, &16u32.to_le_bytes()))));
    file.set("general.alignment", 10, 32u64.to_le_bytes().to_vec());
    let path = written(folder.path(), &file);
    refused(convert(&path, TensorType::Bf16, TokenizerFrom::Model), Unsupported, "general.alignment is no UINT32");
}

#[test]
fn a_split_model_becomes_one_file_that_does_not_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let whole = Gguf::llama();
    let path = |number: usize| folder.path().join(format!("m-0000{number}-of-00002.gguf"));
    for (number, tensors) in (0u16..).zip(whole.tensors.chunks(6)) {
        let pairs = if number == 0 { whole.pairs.clone() } else { Vec::new() };
        let mut part = Gguf { version: 3, tensor_count: None, pairs, tensors: tensors.to_vec() };
        part.set("split.no", 2, number.to_le_bytes().to_vec());
        part.set("split.count", 2, 2u16.to_le_bytes().to_vec());
        part.set("split.tensors.count", 5, (whole.tensors.len() as i32).to_le_bytes().to_vec());
        fs::write(path(usize::from(number) + 1), part.bytes()).unwrap();
    }
    let from_parts = convert(&path(2), TensorType::F16, TokenizerFrom::Model).unwrap();
    let from_whole = convert(&written(folder.path(), &whole), TensorType::F16, TokenizerFrom::Model).unwrap();
    assert_eq!(fs::read(from_parts).unwrap(), fs::read(from_whole).unwrap());
}

/// A folder with a configuration and weights that count up.
fn folder_of(folder: &Path, config: &Value, tensors: &[(String, Vec<u64>)]) -> PathBuf {
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    fs::write(folder.join("model.safetensors"), safetensors(tensors)).unwrap();
    folder.to_path_buf()
}

#[test]
fn what_gguf_has_no_place_or_words_for_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    // A base that f32 does not hold: the file would describe another model.
    let mut config = llama_config();
    config["rope_theta"] = json!(500.1);
    let path = folder_of(folder.path(), &config, &llama_tensors("model."));
    let result = convert(&path, TensorType::F32, TokenizerFrom::Nowhere);
    refused(result, Unsupported, "GGUF files of llama cannot describe this model: they have no words for its rotary");
    // Biases that qwen3's files do not have.
    let mut config = llama_config();
    (config["model_type"], config["attention_bias"]) = (json!("qwen3"), json!(true));
    config["head_dim"] = json!(4);
    let mut tensors = llama_tensors("model.");
    for (name, length) in [("q_norm.weight", 4), ("k_norm.weight", 4), ("q_proj.bias", 8), ("k_proj.bias", 4)] {
        tensors.push((format!("model.layers.0.self_attn.{name}"), vec![length]));
    }
    for (name, length) in [("v_proj.bias", 4), ("o_proj.bias", 8)] {
        tensors.push((format!("model.layers.0.self_attn.{name}"), vec![length]));
    }
    let path = folder_of(folder.path(), &config, &tensors);
    let result = convert(&path, TensorType::F32, TokenizerFrom::Nowhere);
    refused(result, Unsupported, "GGUF files of qwen3 have no place for this weight");
    // Rows of 8.
    let path = folder_of(folder.path(), &gpt2_config(), &gpt2_tensors("transformer."));
    let result = convert(&path, TensorType::Q8_0, TokenizerFrom::Nowhere);
    refused(
        result,
        Unsupported,
        "tensor token_embd.weight: its rows have 8 elements, which q8_0's blocks of 32 do not",
    );
    convert(&path, TensorType::F16, TokenizerFrom::Nowhere).unwrap();
    refused(convert(&path, TensorType::F16, TokenizerFrom::Model), Usage, "the model has no tokenizer");
}

/// The metadata that are copied would say something else.
#[test]
fn what_was_set_over_a_gguf_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), &Gguf::llama());
    let source = Model::open_with(&path, &Overrides::parse(["rope_base=5"]).unwrap()).unwrap();
    refused(Conversion::new(&source, TensorType::F16, TokenizerFrom::Model), Usage, "rope_base cannot be set");
    // Elsewhere it is written.
    let path = folder_of(folder.path(), &llama_config(), &llama_tensors(""));
    let source = Model::open_with(&path, &Overrides::parse(["rope_base=5"]).unwrap()).unwrap();
    let to = folder.path().join("set.gguf");
    let conversion = Conversion::new(&source, TensorType::F16, TokenizerFrom::Nowhere).unwrap();
    conversion.write(&to, Replace::No, |_| Ok(())).unwrap();
    assert_eq!(Model::open(&to).unwrap().hyper().rope.unwrap().base, 5.0);
}

#[test]
fn arrays_are_written_as_they_are_read() {
    let mut contents = crate::model::GgufContents::default();
    contents.set("a", GgufValue::I32s(vec![-1, 3])).unwrap();
    contents.set("b", GgufValue::Flags(vec![true, false])).unwrap();
    contents.set("c", GgufValue::F32s(vec![0.5])).unwrap();
    contents.set("d", GgufValue::Texts(vec!["x".to_owned()])).unwrap();
    let header = contents.header().unwrap().into();
    let array = |kind: u32, length: u64, bytes: &[u8]| {
        value(9, &[&kind.to_le_bytes()[..], &length.to_le_bytes(), bytes].concat())
    };
    let expected = [
        array(5, 2, &[255, 255, 255, 255, 3, 0, 0, 0]),
        array(7, 2, &[1, 0]),
        array(6, 1, &0.5f32.to_le_bytes()),
        array(8, 1, &text("x")),
    ];
    let found: Vec<&[u8]> = gguf::pairs(&header).unwrap().into_iter().map(|(_, value)| value).collect();
    assert_eq!(found, expected.each_ref().map(Vec::as_slice));
}
