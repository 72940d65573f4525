//! Broken copies of tiny-qwen2: GGUF files in any type of blocks, with one fault in a weight or a number.
//!
//! Weights are broken before they are quantised, as a bad converter does it, or in their blocks, as a bad disk does.

use super::quantise::Format;
use super::safetensors::{Tensor, read};
use std::collections::BTreeMap;
use std::path::Path;

/// A tensor of a GGUF file: ggml's number of its type, and its bytes.
#[derive(Clone)]
pub struct Stored {
    pub name: String,
    pub shape: Vec<usize>,
    pub number: u32,
    pub data: Vec<u8>,
}

/// Numbers of a qwen2 model by their keys without the architecture.
#[derive(Clone, Copy)]
pub struct Numbers {
    pub counts: [(&'static str, u32); 6],
    pub floats: [(&'static str, f32); 2],
}

pub const TINY_QWEN2: Numbers = Numbers {
    counts: [
        ("block_count", 6),
        ("context_length", 2048),
        ("embedding_length", 256),
        ("feed_forward_length", 768),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
    ],
    floats: [("attention.layer_norm_rms_epsilon", 1e-6), ("rope.freq_base", 10_000.0)],
};

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// A GGUF file of version 3.
pub fn file(tensors: &[Stored], numbers: &Numbers) -> Vec<u8> {
    let pairs = 1 + numbers.counts.len() + numbers.floats.len();
    let mut out = [b"GGUF".as_slice(), &3u32.to_le_bytes(), &(tensors.len() as u64).to_le_bytes()].concat();
    out.extend((pairs as u64).to_le_bytes());
    out.extend([text("general.architecture"), 8u32.to_le_bytes().to_vec(), text("qwen2")].concat());
    for (key, value) in numbers.counts {
        out.extend([&text(&format!("qwen2.{key}"))[..], &4u32.to_le_bytes(), &value.to_le_bytes()].concat());
    }
    for (key, value) in numbers.floats {
        out.extend([&text(&format!("qwen2.{key}"))[..], &6u32.to_le_bytes(), &value.to_le_bytes()].concat());
    }
    let mut data = Vec::new();
    for tensor in tensors {
        data.resize(data.len().next_multiple_of(32), 0);
        out.extend(text(&tensor.name));
        out.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().rev().for_each(|axis| out.extend((*axis as u64).to_le_bytes()));
        out.extend(tensor.number.to_le_bytes());
        out.extend((data.len() as u64).to_le_bytes());
        data.extend(&tensor.data);
    }
    out.resize(out.len().next_multiple_of(32), 0);
    out.extend(data);
    out
}

/// Names of Hugging Face as those of GGUF.
pub fn renamed(name: &str) -> String {
    let parts = [
        ("model.embed_tokens.", "token_embd."),
        ("model.norm.", "output_norm."),
        ("model.layers.", "blk."),
        ("input_layernorm.", "attn_norm."),
        ("post_attention_layernorm.", "ffn_norm."),
        ("self_attn.o_proj.", "attn_output."),
        ("self_attn.", "attn_"),
        ("mlp.", "ffn_"),
        ("_proj.", "."),
    ];
    parts.iter().fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
}

/// The weights of tiny-qwen2 by their GGUF names.
pub fn tiny_qwen2() -> BTreeMap<String, Tensor> {
    let weights = read(&super::model("tiny-qwen2.safetensors").join("model.safetensors"));
    weights.into_iter().map(|(name, tensor)| (renamed(&name), tensor)).collect()
}

/// A tensor as it is stored: matrices in the format's blocks, vectors in F32.
pub fn stored(name: &str, tensor: &Tensor, format: &Format) -> Stored {
    let (mut number, mut data) = (0, Vec::new());
    if tensor.shape.len() == 2 {
        number = format.number;
        let blocks = tensor.values.chunks_exact(format.block_elements);
        blocks.for_each(|block| data.extend((format.quantise)(block).0));
    } else {
        data.extend(tensor.values.iter().flat_map(|value| value.to_le_bytes()));
    }
    Stored { name: name.to_owned(), shape: tensor.shape.clone(), number, data }
}

/// A whole model with each matrix in the format that `format` names for it.
pub struct Copy {
    pub tensors: Vec<Stored>,
    pub numbers: Numbers,
}

impl Copy {
    pub fn of(weights: &BTreeMap<String, Tensor>, format: impl Fn(&str) -> &'static Format) -> Self {
        let tensors = weights.iter().map(|(name, tensor)| stored(name, tensor, format(name))).collect();
        Copy { tensors, numbers: TINY_QWEN2 }
    }

    /// Writes the model with `changed` in the place of the tensors of those names.
    pub fn write(&self, path: &Path, changed: &[Stored], without: &str) {
        let of = |tensor: &Stored| changed.iter().find(|new| new.name == tensor.name).unwrap_or(tensor).clone();
        let tensors: Vec<Stored> = self.tensors.iter().filter(|tensor| tensor.name != without).map(of).collect();
        std::fs::write(path, file(&tensors, &self.numbers)).unwrap();
    }
}

/// What is done to a matrix before it is quantised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Damage {
    /// Row `r` has the values of row `r + 1`, the last those of the first.
    PermutedRows,
    /// Rows and columns of a square matrix are exchanged.
    Transposed,
    /// The first two blocks of 64 rows are exchanged.
    ExchangedHeads,
    /// A row times 1.5.
    Row,
    /// A column times 1.5.
    Column,
    /// 32 elements of a row times 2.
    Block,
    /// A row of zeros.
    ZeroRow,
    /// A row with its signs turned.
    NegatedRow,
    /// The first two blocks of 32 elements of a row exchanged.
    ExchangedBlocks,
    /// The whole matrix times a factor.
    Scale(f32),
}

impl Damage {
    pub const ALL: [Damage; 12] = [
        Damage::PermutedRows,
        Damage::Transposed,
        Damage::ExchangedHeads,
        Damage::Row,
        Damage::Column,
        Damage::Block,
        Damage::ZeroRow,
        Damage::NegatedRow,
        Damage::ExchangedBlocks,
        Damage::Scale(1.03),
        Damage::Scale(1.05),
        Damage::Scale(0.95),
    ];

    /// A damaged copy; row 5, column 7 and the second block of a row where one is to be chosen.
    pub fn of(self, tensor: &Tensor) -> Tensor {
        let [rows, columns] = tensor.shape[..] else { panic!("a matrix of shape {:?}", tensor.shape) };
        let mut values = tensor.values.clone();
        let scaled = |values: &mut [f32], factor: f32| values.iter_mut().for_each(|value| *value *= factor);
        let row = 5 * columns..6 * columns;
        match self {
            Damage::PermutedRows => values.rotate_left(columns),
            Damage::Transposed => {
                assert_eq!(rows, columns);
                let at = |i: usize| tensor.values[i % columns * columns + i / columns];
                values = (0..rows * columns).map(at).collect();
            }
            Damage::ExchangedHeads => values[..128 * columns].rotate_left(64 * columns),
            Damage::Row => scaled(&mut values[row], 1.5),
            Damage::Column => values.iter_mut().skip(7).step_by(columns).for_each(|value| *value *= 1.5),
            Damage::Block => scaled(&mut values[row][32..64], 2.0),
            Damage::ZeroRow => values[row].fill(0.0),
            Damage::NegatedRow => scaled(&mut values[row], -1.0),
            Damage::ExchangedBlocks => values[row][..64].rotate_left(32),
            Damage::Scale(factor) => scaled(&mut values, factor),
        }
        Tensor { shape: tensor.shape.clone(), values }
    }
}
