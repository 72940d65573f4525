//! Builders of small model files, so that a test can break one field.

use crate::model::TensorType;
use serde_json::{Value, json};

/// ggml's numbers of the element types (`enum ggml_type` in ggml.h).
pub const KINDS: [(u32, TensorType); 16] = [
    (0, TensorType::F32),
    (2, TensorType::Q4_0),
    (3, TensorType::Q4_1),
    (6, TensorType::Q5_0),
    (7, TensorType::Q5_1),
    (8, TensorType::Q8_0),
    (10, TensorType::Q2K),
    (11, TensorType::Q3K),
    (1, TensorType::F16),
    (12, TensorType::Q4K),
    (13, TensorType::Q5K),
    (14, TensorType::Q6K),
    (20, TensorType::Iq4Nl),
    (23, TensorType::Iq4Xs),
    (30, TensorType::Bf16),
    (39, TensorType::Mxfp4),
];

/// Elements that differ from each other: element `i` of a tensor is `i`.
fn counting(elements: u64) -> Vec<u8> {
    (0..elements as u32).flat_map(|i| (i as f32).to_le_bytes()).collect()
}

#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    /// Outermost axis first.
    pub shape: Vec<u64>,
    pub kind: u32,
    pub offset: Option<u64>,
    pub data: Vec<u8>,
}

#[derive(Clone)]
pub struct Gguf {
    pub version: u32,
    pub tensor_count: Option<u64>,
    /// Key, type number, bytes.
    pub pairs: Vec<(String, u32, Vec<u8>)>,
    pub tensors: Vec<Tensor>,
}

pub fn text(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

impl Gguf {
    /// One layer, 2 query heads of 4 on one key head, hidden 8, FFN 16, 10 tokens.
    pub fn llama() -> Gguf {
        let mut file = Gguf { version: 3, tensor_count: None, pairs: Vec::new(), tensors: Vec::new() };
        file.set("general.architecture", 8, text("llama"));
        for (key, value) in [
            ("block_count", 1u32),
            ("embedding_length", 8),
            ("attention.head_count", 2),
            ("attention.head_count_kv", 1),
            ("feed_forward_length", 16),
            ("context_length", 32),
        ] {
            file.set(&format!("llama.{key}"), 4, value.to_le_bytes().to_vec());
        }
        file.set("llama.attention.layer_norm_rms_epsilon", 6, 1e-5f32.to_le_bytes().to_vec());
        for (name, shape) in [
            ("token_embd.weight", vec![10, 8]),
            ("output_norm.weight", vec![8]),
            ("blk.0.attn_norm.weight", vec![8]),
            ("blk.0.attn_q.weight", vec![8, 8]),
            ("blk.0.attn_k.weight", vec![4, 8]),
            ("blk.0.attn_v.weight", vec![4, 8]),
            ("blk.0.attn_output.weight", vec![8, 8]),
            ("blk.0.ffn_norm.weight", vec![8]),
            ("blk.0.ffn_gate.weight", vec![16, 8]),
            ("blk.0.ffn_up.weight", vec![16, 8]),
            ("blk.0.ffn_down.weight", vec![8, 16]),
        ] {
            file.add(name, shape);
        }
        file
    }

    /// [`Gguf::llama`] with rows of 256, so that they are whole blocks of every type: 64 query heads of 4 on one key
    /// head. Its eight matrices have the types `kinds` in turn, and bytes that differ from each other.
    pub fn of_types(kinds: &[(u32, TensorType)]) -> Gguf {
        let mut file = Gguf::llama();
        for (key, value) in [("embedding_length", 256), ("attention.head_count", 64), ("feed_forward_length", 256)] {
            file.set_u32(&format!("llama.{key}"), value);
        }
        let mut kinds = kinds.iter().cycle();
        for tensor in &mut file.tensors {
            let rows = |rows: u64| if rows == 4 || rows == 10 { rows } else { 256 };
            let tensor_type = match tensor.shape.as_mut_slice() {
                [outputs, inputs] => {
                    let (kind, tensor_type) = kinds.next().unwrap();
                    (*outputs, *inputs, tensor.kind) = (rows(*outputs), 256, *kind);
                    *tensor_type
                }
                vector => {
                    vector.fill(256);
                    TensorType::F32
                }
            };
            let rows: u64 = tensor.shape[..tensor.shape.len() - 1].iter().product();
            let bytes = rows as usize * tensor_type.row_bytes(256).unwrap();
            tensor.data = (0..bytes).map(|i| (i * 37 % 251) as u8).collect();
        }
        file
    }

    pub fn set(&mut self, key: &str, kind: u32, value: Vec<u8>) {
        self.pairs.retain(|(known, ..)| known != key);
        self.pairs.push((key.into(), kind, value));
    }

    pub fn set_u32(&mut self, key: &str, value: u32) {
        self.set(key, 4, value.to_le_bytes().to_vec());
    }

    pub fn add(&mut self, name: &str, shape: Vec<u64>) {
        let data = counting(shape.iter().product());
        self.tensors.push(Tensor { name: name.into(), shape, kind: 0, offset: None, data });
    }

    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap()
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend((self.pairs.len() as u64).to_le_bytes());
        for (key, kind, value) in &self.pairs {
            out.extend(text(key));
            out.extend(kind.to_le_bytes());
            out.extend(value);
        }
        let mut data = Vec::new();
        for tensor in &self.tensors {
            data.resize(data.len().next_multiple_of(32), 0);
            out.extend(text(&tensor.name));
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().rev().for_each(|axis| out.extend(axis.to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(&tensor.data);
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(data);
        out
    }
}

/// The same llama as configuration and safetensors, untied.
pub fn llama_config() -> Value {
    json!({
        "model_type": "llama", "num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2,
        "num_key_value_heads": 1, "intermediate_size": 16, "max_position_embeddings": 32, "rms_norm_eps": 1e-5,
        "hidden_act": "silu", "vocab_size": 10, "tie_word_embeddings": false, "head_dim": null, "rope_theta": 500.0
    })
}

pub fn llama_tensors(prefix: &str) -> Vec<(String, Vec<u64>)> {
    let layer = format!("{prefix}layers.0.");
    vec![
        (format!("{prefix}embed_tokens.weight"), vec![10, 8]),
        (format!("{prefix}norm.weight"), vec![8]),
        ("lm_head.weight".into(), vec![10, 8]),
        (format!("{layer}input_layernorm.weight"), vec![8]),
        (format!("{layer}self_attn.q_proj.weight"), vec![8, 8]),
        (format!("{layer}self_attn.k_proj.weight"), vec![4, 8]),
        (format!("{layer}self_attn.v_proj.weight"), vec![4, 8]),
        (format!("{layer}self_attn.o_proj.weight"), vec![8, 8]),
        (format!("{layer}post_attention_layernorm.weight"), vec![8]),
        (format!("{layer}mlp.gate_proj.weight"), vec![16, 8]),
        (format!("{layer}mlp.up_proj.weight"), vec![16, 8]),
        (format!("{layer}mlp.down_proj.weight"), vec![8, 16]),
    ]
}

pub fn gpt2_config() -> Value {
    json!({
        "model_type": "gpt2", "n_layer": 1, "n_embd": 8, "n_head": 2, "n_inner": null, "n_positions": 32,
        "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new", "vocab_size": 10
    })
}

pub fn gpt2_tensors(prefix: &str) -> Vec<(String, Vec<u64>)> {
    let layer = format!("{prefix}h.0.");
    let mut tensors = vec![
        (format!("{prefix}wte.weight"), vec![10, 8]),
        (format!("{prefix}wpe.weight"), vec![32, 8]),
        (format!("{layer}attn.c_attn.weight"), vec![8, 24]),
        (format!("{layer}attn.c_attn.bias"), vec![24]),
        (format!("{layer}attn.c_proj.weight"), vec![8, 8]),
        (format!("{layer}mlp.c_fc.weight"), vec![8, 32]),
        (format!("{layer}mlp.c_fc.bias"), vec![32]),
        (format!("{layer}mlp.c_proj.weight"), vec![32, 8]),
    ];
    for name in ["ln_1.weight", "ln_1.bias", "ln_2.weight", "ln_2.bias", "attn.c_proj.bias", "mlp.c_proj.bias"] {
        tensors.push((format!("{layer}{name}"), vec![8]));
    }
    for name in ["ln_f.weight", "ln_f.bias"] {
        tensors.push((format!("{prefix}{name}"), vec![8]));
    }
    tensors
}

/// The header and the bytes behind it; a test may change the header before [`with_header`].
pub fn parts(tensors: &[(String, Vec<u64>)]) -> (Value, Vec<u8>) {
    let mut header = json!({"__metadata__": {"format": "pt"}});
    let mut data = Vec::new();
    for (name, shape) in tensors {
        let start = data.len();
        data.extend(counting(shape.iter().product()));
        header[name] = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
    }
    (header, data)
}

pub fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.extend(data);
    out
}

pub fn safetensors(tensors: &[(String, Vec<u64>)]) -> Vec<u8> {
    let (header, data) = parts(tensors);
    with_header(&header.to_string(), &data)
}

/// An .apr file; sums are right unless a test breaks them.
#[derive(Clone)]
pub struct Apr {
    pub magic: [u8; 4],
    pub version: [u8; 2],
    pub flags: u16,
    pub metadata: Value,
    /// Of tensors, in place of the right one.
    pub count: Option<u32>,
    pub tensors: Vec<AprTensor>,
    /// Offsets of metadata, index and data in place of the right ones.
    pub sections: [Option<u64>; 3],
}

#[derive(Clone)]
pub struct AprTensor {
    pub name: String,
    pub shape: Vec<u64>,
    pub dtype: u8,
    pub offset: Option<u64>,
    pub size: Option<u64>,
    pub data: Vec<u8>,
}

impl Apr {
    /// The llama of [`llama_config`] with a head of its own.
    pub fn llama() -> Apr {
        let metadata = json!({
            "architecture": "llama", "hidden_size": 8, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1,
            "intermediate_size": 16, "max_position_embeddings": 32, "rope_theta": 500.0, "rope_type": 2,
            "rms_norm_eps": 1e-5, "vocab_size": 10, "name": "small"
        });
        let mut tensors: Vec<AprTensor> = llama_tensors("model.")
            .into_iter()
            .map(|(name, shape)| {
                let data = counting(shape.iter().product());
                AprTensor { name, shape, dtype: 0, offset: None, size: None, data }
            })
            .collect();
        tensors.sort_by(|one, other| one.name.cmp(&other.name));
        Apr { magic: *b"APR\0", version: [2, 0], flags: 0x400, metadata, count: None, tensors, sections: [None; 3] }
    }

    pub fn tensor(&mut self, name: &str) -> &mut AprTensor {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap()
    }

    pub fn bytes(&self) -> Vec<u8> {
        let pad = |bytes: &mut Vec<u8>| bytes.resize(bytes.len().next_multiple_of(64), 0);
        let (mut index, mut data) = (Vec::new(), Vec::new());
        for tensor in &self.tensors {
            pad(&mut data);
            index.extend((tensor.name.len() as u16).to_le_bytes());
            index.extend(tensor.name.as_bytes());
            index.extend([tensor.dtype, tensor.shape.len() as u8]);
            tensor.shape.iter().for_each(|axis| index.extend(axis.to_le_bytes()));
            index.extend(tensor.offset.unwrap_or(data.len() as u64).to_le_bytes());
            index.extend(tensor.size.unwrap_or(tensor.data.len() as u64).to_le_bytes());
            data.extend(&tensor.data);
        }
        pad(&mut data);
        pad(&mut index);
        let json = self.metadata.to_string();
        let index_at = (64 + json.len()).next_multiple_of(64) as u64;
        let right = [64, index_at, index_at + index.len() as u64];
        let [metadata_at, index_at, data_at] = std::array::from_fn(|i| self.sections[i].unwrap_or(right[i]));
        let mut out = self.magic.to_vec();
        out.extend(self.version);
        out.extend(self.flags.to_le_bytes());
        out.extend(self.count.unwrap_or(self.tensors.len() as u32).to_le_bytes());
        out.extend(metadata_at.to_le_bytes());
        out.extend((json.len() as u32).to_le_bytes());
        out.extend(index_at.to_le_bytes());
        out.extend(data_at.to_le_bytes());
        out.resize(64, 0);
        out.extend(json.as_bytes());
        pad(&mut out);
        out.extend(index);
        out.extend(data);
        out.extend([0; 4]);
        Apr::seal(&mut out);
        out
    }

    /// Writes the sums that the bytes ask for.
    pub fn seal(bytes: &mut [u8]) {
        if bytes.len() < 68 {
            return;
        }
        let header = crc32fast::hash(&[&bytes[..40], &bytes[44..64]].concat());
        bytes[40..44].copy_from_slice(&header.to_le_bytes());
        let end = bytes.len() - 4;
        let whole = crc32fast::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(&whole.to_le_bytes());
    }
}
