//! GGUF files that break one rule each.

use super::build::{Gguf, KINDS, text};
use super::{read_gguf, refused};
use crate::ErrorKind::{Malformed, Unsupported};
use crate::model::open::Contents;
use crate::model::{Architecture, Layout, Role, RopeScaling, TensorType, WeightKey};

/// Words of the error, and the change that causes it.
type Case = (&'static str, fn(&mut Gguf));

fn open(file: &Gguf) -> crate::Result<Contents> {
    read_gguf(file.bytes())
}

#[test]
fn llama_is_read_with_tied_output_and_paired_heads() {
    for version in [2, 3] {
        let contents = open(&Gguf { version, ..Gguf::llama() }).unwrap();
        let hyper = contents.hyper();
        assert_eq!((hyper.layers, hyper.heads, hyper.kv_heads, hyper.head_dim), (1, 2, 1, 4));
        assert!(hyper.tied_embeddings && hyper.gated);
        let output = contents.weight(WeightKey::outside(Role::Output)).unwrap();
        assert_eq!(output.stored_name, "token_embd.weight");
        let q = contents.weight(WeightKey::in_layer(0, Role::Q)).unwrap();
        assert_eq!(q.layout, Layout::HeadPairs { head_dim: 4 });
        let mut row = [0.0; 8];
        q.dequantize_row(1, &mut row).unwrap();
        assert_eq!(row[0], 16.0, "canonical row 1 of a head of 4 is stored row 2");
    }
}

#[test]
fn all_value_types_are_passed_over() {
    let mut file = Gguf::llama();
    for (kind, size) in [(0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (6, 4), (7, 1), (10, 8), (11, 8), (12, 8)] {
        file.set(&format!("general.of_type_{kind}"), kind, vec![1; size]);
        let array = [kind.to_le_bytes().as_slice(), &3u64.to_le_bytes(), &vec![1; 3 * size]].concat();
        file.set(&format!("general.array_of_{kind}"), 9, array);
    }
    let texts = [8u32.to_le_bytes().as_slice(), &2u64.to_le_bytes(), &text("a"), &text("bc")].concat();
    file.set("tokenizer.ggml.tokens", 9, texts.clone());
    let nested = [9u32.to_le_bytes().as_slice(), &1u64.to_le_bytes(), &texts].concat();
    file.set("general.nested", 9, nested);
    open(&file).unwrap();
}

#[test]
fn broken_structure_is_malformed() {
    let cases: [Case; 10] = [
        ("cut short", |f| f.tensor_count = Some(u64::MAX)),
        ("cut short", |f| f.set("general.x", 8, u64::MAX.to_le_bytes().to_vec())),
        ("cut short", |f| {
            let array = [8u32.to_le_bytes().as_slice(), &u64::MAX.to_le_bytes()].concat();
            f.set("general.x", 9, array);
        }),
        ("nest deeper", |f| {
            let level = [9u32.to_le_bytes().as_slice(), &1u64.to_le_bytes()].concat();
            f.set("general.x", 9, level.repeat(9));
        }),
        ("no type of a metadata value", |f| f.set("general.x", 13, vec![0; 8])),
        ("stands there twice", |f| f.pairs.push(f.pairs[0].clone())),
        ("no power of two", |f| f.set_u32("general.alignment", 0)),
        ("not aligned", |f| f.tensor("output_norm.weight").offset = Some(8)),
        ("overlaps", |f| f.tensor("output_norm.weight").offset = Some(32)),
        ("0 axes", |f| f.tensor("output_norm.weight").shape.clear()),
    ];
    for (words, change) in cases {
        let mut file = Gguf::llama();
        change(&mut file);
        refused(open(&file), Malformed, words);
    }
}

#[test]
fn contradictions_are_malformed() {
    let cases: [Case; 12] = [
        ("layers is 0", |f| f.set_u32("llama.block_count", 0)),
        ("tensors that are there", |f| f.set_u32("llama.block_count", u32::MAX)),
        ("blk.1.attn_norm.weight", |f| f.set_u32("llama.block_count", 2)),
        ("should be a count", |f| f.set("llama.block_count", 6, 1f32.to_le_bytes().to_vec())),
        ("no llama.context_length", |f| f.pairs.retain(|(key, ..)| key != "llama.context_length")),
        ("vocab_size is 11", |f| f.set_u32("llama.vocab_size", 11)),
        ("epsilon of NaN", |f| {
            f.set("llama.attention.layer_norm_rms_epsilon", 6, f32::NAN.to_le_bytes().to_vec());
        }),
        ("epsilon of -1", |f| {
            f.set("llama.attention.layer_norm_rms_epsilon", 6, (-1f32).to_le_bytes().to_vec());
        }),
        ("cannot be split into 3 heads", |f| f.set_u32("llama.attention.head_count", 3)),
        ("ask for [8, 16]", |f| {
            f.set_u32("llama.attention.key_length", 8);
            f.set_u32("llama.attention.value_length", 8);
        }),
        ("needs it as ffn_up", |f| f.tensors.retain(|tensor| tensor.name != "blk.0.ffn_up.weight")),
        ("two tensors have this name", |f| f.tensor("output_norm.weight").name = "token_embd.weight".into()),
    ];
    for (words, change) in cases {
        let mut file = Gguf::llama();
        change(&mut file);
        refused(open(&file), Malformed, words);
    }
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    let cases: [Case; 16] = [
        ("architecture \"mamba\" is not known", |f| f.set("general.architecture", 8, text("mamba"))),
        ("version 4", |f| f.version = 4),
        ("big-endian", |f| f.version = 3u32.swap_bytes()),
        ("\"adapter\"", |f| f.set("general.type", 8, text("adapter"))),
        ("tensor blk.0.ffn_up.weight: element type iq2_xxs", |f| f.tensor("blk.0.ffn_up.weight").kind = 16),
        ("tensor blk.0.ffn_up.weight: element type tq1_0", |f| f.tensor("blk.0.ffn_up.weight").kind = 34),
        ("rope.scaling.type = \"yarn\"", |f| f.set("llama.rope.scaling.type", 8, text("yarn"))),
        ("rope.scaling.attn_factor = 2", |f| f.set("llama.rope.scaling.attn_factor", 6, 2f32.to_le_bytes().to_vec())),
        ("by a factor and by a tensor", |f| {
            f.set("llama.rope.scaling.factor", 6, 2f32.to_le_bytes().to_vec());
            f.add("rope_freqs.weight", vec![2]);
        }),
        ("partial RoPE (2 of 4", |f| f.set_u32("llama.rope.dimension_count", 2)),
        ("expert_gating_func = 2", |f| {
            f.set_u32("llama.expert_count", 8);
            f.set_u32("llama.expert_gating_func", 2);
        }),
        ("qwen2.attention.sliding_window = 16", |f| {
            f.set("general.architecture", 8, text("qwen2"));
            let pairs: Vec<_> = f.pairs.clone();
            for (key, kind, value) in pairs.into_iter().filter(|(key, ..)| key.starts_with("llama.")) {
                f.set(&key.replace("llama.", "qwen2."), kind, value);
            }
            f.set_u32("qwen2.attention.sliding_window", 16);
        }),
        ("differs between layers", |f| {
            let array = [4u32.to_le_bytes().as_slice(), &1u64.to_le_bytes(), &2u32.to_le_bytes()].concat();
            f.set("llama.attention.head_count", 9, array);
        }),
        ("llama.brand_new = 1", |f| f.set_u32("llama.brand_new", 1)),
        ("tensor rope_factors_long.weight: RoPE with factors for short and long", |f| {
            f.add("rope_factors_long.weight", vec![2])
        }),
        ("tensor blk.0.attn_q_norm.weight: it plays no part", |f| f.add("blk.0.attn_q_norm.weight", vec![4])),
    ];
    for (words, change) in cases {
        let mut file = Gguf::llama();
        change(&mut file);
        refused(open(&file), Unsupported, words);
    }
}

#[test]
fn features_at_their_neutral_values_are_no_reason_to_refuse() {
    let mut file = Gguf::llama();
    file.set("llama.rope.scaling.type", 8, text("linear"));
    file.set("llama.rope.scaling.factor", 6, 1f32.to_le_bytes().to_vec());
    file.set_u32("llama.attention.sliding_window", 32);
    file.set_u32("llama.expert_count", 0);
    file.set_u32("llama.rope.dimension_count", 4);
    open(&file).unwrap();
}

#[test]
fn scaled_rope_windows_and_experts_of_llama_are_read() {
    let mut file = Gguf::llama();
    file.set("llama.rope.scaling.factor", 6, 2f32.to_le_bytes().to_vec());
    file.set_u32("llama.attention.sliding_window", 16);
    let hyper = open(&file).unwrap().hyper().clone();
    assert_eq!(hyper.rope.unwrap().scaling, RopeScaling::Linear { factor: 2.0 });
    assert_eq!((hyper.window_of(0), hyper.experts), (Some(16), None));

    let mut file = Gguf::llama();
    file.add("rope_freqs.weight", vec![2]);
    let contents = open(&file).unwrap();
    assert_eq!(contents.hyper().rope.unwrap().scaling, RopeScaling::Stored);
    assert!(contents.weight(WeightKey::outside(Role::RopeFactors)).is_ok());
    refused(open(&with_experts(4, 5)), Malformed, "5 of 4 experts");
    refused(open(&with_experts(5, 2)), Malformed, "ask for [5, 8]");

    let contents = open(&with_experts(4, 2)).unwrap();
    assert_eq!(contents.architecture(), Architecture::Mixtral);
    let mut row = [0.0; 8];
    let expert = contents.weight(WeightKey::in_expert(0, 3, Role::ExpertGate)).unwrap();
    expert.dequantize_row(1, &mut row).unwrap();
    assert_eq!(row[0], f32::from(3 * 16 * 8 + 8u16), "row 1 of expert 3 is row 49 of the stack");
}

/// The file says `count` experts and `used` of them; its tensors hold four.
fn with_experts(count: u32, used: u32) -> Gguf {
    let mut file = Gguf::llama();
    file.set_u32("llama.expert_count", count);
    file.set_u32("llama.expert_used_count", used);
    file.tensors.retain(|tensor| !tensor.name.starts_with("blk.0.ffn_") || tensor.name.contains("norm"));
    file.add("blk.0.ffn_gate_inp.weight", vec![4, 8]);
    file.add("blk.0.ffn_gate_exps.weight", vec![4, 16, 8]);
    file.add("blk.0.ffn_up_exps.weight", vec![4, 16, 8]);
    file.add("blk.0.ffn_down_exps.weight", vec![4, 8, 16]);
    file
}

#[test]
fn every_cut_of_the_file_is_refused() {
    let bytes = Gguf::llama().bytes();
    for length in 0..bytes.len() {
        assert!(read_gguf(bytes[..length].to_vec()).is_err(), "cut at {length}");
    }
}

/// Every type in one file or the other: the bytes of each tensor are where its table says, and none is left over.
#[test]
fn every_type_has_the_length_of_its_blocks() {
    assert_eq!(KINDS.len() + 1, TensorType::ALL.len(), "ggml has no E4M3");
    for kinds in KINDS.chunks(8) {
        let file = Gguf::of_types(kinds);
        let contents = open(&file).unwrap();
        for (_, tensor_type) in kinds {
            assert!(contents.weights().any(|weight| weight.tensor_type == *tensor_type), "{tensor_type:?}");
        }
        for weight in contents.weights() {
            let stored = file.tensors.iter().find(|tensor| tensor.name == weight.stored_name).unwrap();
            assert_eq!(&*weight.data, stored.data.as_slice(), "{}", weight.stored_name);
        }
        let bytes = file.bytes();
        refused(read_gguf(bytes[..bytes.len() - 1].to_vec()), Malformed, "cut short");
    }
}

#[test]
fn lengths_that_no_block_has_are_malformed() {
    for (kind, tensor_type) in KINDS.into_iter().filter(|(_, tensor_type)| tensor_type.block_elements() > 1) {
        let mut file = Gguf::llama();
        let up = file.tensor("blk.0.ffn_up.weight");
        up.kind = kind;
        refused(open(&file), Malformed, &format!("no whole number of {} blocks", tensor_type.name()));
        let block = tensor_type.block_elements() as u64;
        for shape in [vec![u64::MAX / block, block], vec![2, (u64::MAX / block) * block], vec![1 << 40, 1 << 40]] {
            file.tensor("blk.0.ffn_up.weight").shape = shape;
            let error = open(&file).unwrap_err();
            assert_eq!((error.kind(), error.tensor()), (Malformed, Some("blk.0.ffn_up.weight")), "{error}");
        }
    }
}
