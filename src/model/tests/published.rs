//! The numbers of models in daily use, as their configurations publish them: none is refused, and each comes out as
//! its family computes it. Sources: config.json of the models named.

use crate::model::config::Config;
use crate::model::fact::Facts;
use crate::model::family::Shapes;
use crate::model::{Activation, HyperParameters, RopeScaling};
use serde_json::{Value, json};
use std::path::Path;

fn hyper(config: &Value) -> HyperParameters {
    read(config).unwrap()
}

fn read(config: &Value) -> crate::Result<HyperParameters> {
    let vocabulary = u32::try_from(config["vocab_size"].as_u64().unwrap()).unwrap();
    let config = Config::parse(config.to_string().as_bytes(), Path::new("config.json")).unwrap();
    let shapes = Shapes { vocabulary, has_output: true, has_rope_factors: false, tensors: 1000 };
    config.hyper(shapes, &mut Facts::default())
}

#[test]
fn llama_3_2_1b() {
    let hyper = hyper(&json!({
        "model_type": "llama", "attention_bias": false, "attention_dropout": 0.0, "head_dim": 64, "hidden_act": "silu",
        "hidden_size": 2048, "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": false,
        "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8, "pretraining_tp": 1,
        "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
        "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3"},
        "transformers_version": "4.45.0.dev0", "use_cache": true, "vocab_size": 128256
    }));
    let scaling = RopeScaling::Llama3 { factor: 32.0, low: 1.0, high: 4.0, original_context: 8192 };
    assert_eq!((hyper.rope.unwrap().scaling, hyper.window, hyper.tied_embeddings), (scaling, None, true));
}

#[test]
fn phi_3_mini_4k() {
    let hyper = hyper(&json!({
        "model_type": "phi3", "attention_bias": false, "hidden_act": "silu", "hidden_size": 3072,
        "intermediate_size": 8192, "max_position_embeddings": 4096, "num_attention_heads": 32, "num_hidden_layers": 32,
        "num_key_value_heads": 32, "original_max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
        "rope_scaling": null, "rope_theta": 10000.0, "sliding_window": 2047, "tie_word_embeddings": false,
        "torch_dtype": "bfloat16", "vocab_size": 32064
    }));
    assert_eq!((hyper.head_dim, hyper.rope.unwrap().rotary_dim), (96, 96));
    assert!((0..32).all(|layer| hyper.window_of(layer) == Some(2047)));
}

#[test]
fn pythia_14m() {
    let hyper = hyper(&json!({
        "model_type": "gpt_neox", "attention_bias": true, "hidden_act": "gelu", "hidden_size": 128,
        "intermediate_size": 512, "layer_norm_eps": 1e-5, "max_position_embeddings": 2048, "num_attention_heads": 4,
        "num_hidden_layers": 6, "rope_scaling": null, "rotary_emb_base": 10000, "rotary_pct": 0.25,
        "tie_word_embeddings": false, "use_parallel_residual": true, "vocab_size": 50304
    }));
    assert_eq!((hyper.head_dim, hyper.rope.unwrap().rotary_dim, hyper.activation), (32, 8, Activation::GeluErf));
    assert!(hyper.parallel_residual && !hyper.gated);
}

#[test]
fn gemma_2_2b_and_3_1b() {
    let mut fields = json!({
        "model_type": "gemma2", "attention_bias": false, "attn_logit_softcapping": 50.0, "cache_implementation": "hybrid",
        "final_logit_softcapping": 30.0, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2304, "intermediate_size": 9216,
        "max_position_embeddings": 8192, "num_attention_heads": 8, "num_hidden_layers": 26, "num_key_value_heads": 4,
        "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "sliding_window": 4096,
        "vocab_size": 256000, "tie_word_embeddings": true
    });
    let two = hyper(&fields);
    assert_eq!((two.attn_softcap, two.logit_softcap, two.attn_scale), (Some(50.0), Some(30.0), 0.0625));
    assert_eq!((two.window_of(0), two.window_of(1), two.embedding_scale), (Some(4096), None, Some(48.0)));
    for key in
        ["attn_logit_softcapping", "final_logit_softcapping", "sliding_window", "query_pre_attn_scalar", "head_dim"]
    {
        fields.as_object_mut().unwrap().remove(key);
    }
    assert_eq!(hyper(&fields), two, "the family's defaults");

    let three = hyper(&json!({
        "model_type": "gemma3_text", "attention_bias": false, "attn_logit_softcapping": null, "head_dim": 256,
        "final_logit_softcapping": null, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152,
        "intermediate_size": 6912, "max_position_embeddings": 32768, "num_attention_heads": 4, "num_hidden_layers": 26,
        "num_key_value_heads": 1, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-6, "rope_local_base_freq": 10000,
        "rope_scaling": null, "rope_theta": 1000000, "sliding_window": 512, "sliding_window_pattern": 6,
        "vocab_size": 262144, "tie_word_embeddings": true
    }));
    assert_eq!((three.attn_softcap, three.logit_softcap), (None, None));
    let global: Vec<u32> = (0..26).filter(|layer| three.window_of(*layer).is_none()).collect();
    assert_eq!(global, [5, 11, 17, 23]);
    assert_eq!((three.rope_of(4).unwrap().base, three.rope_of(5).unwrap().base), (1e4, 1e6));
}

#[test]
fn models_with_experts() {
    let mixtral = hyper(&json!({
        "model_type": "mixtral", "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336,
        "max_position_embeddings": 32768, "num_attention_heads": 32, "num_experts_per_tok": 2, "num_hidden_layers": 32,
        "num_key_value_heads": 8, "num_local_experts": 8, "output_router_logits": false, "rms_norm_eps": 1e-5,
        "rope_theta": 1000000.0, "router_aux_loss_coef": 0.02, "sliding_window": null, "tie_word_embeddings": false,
        "vocab_size": 32000
    }));
    let experts = mixtral.experts.unwrap();
    assert_eq!((experts.count, experts.used, experts.ffn, experts.normalised), (8, 2, 14336, true));
    assert!(mixtral.window.is_none());

    let shared = hyper(&json!({
        "model_type": "qwen2_moe", "decoder_sparse_step": 1, "hidden_act": "silu", "hidden_size": 2048,
        "intermediate_size": 5632, "max_position_embeddings": 8192, "max_window_layers": 21,
        "moe_intermediate_size": 1408, "norm_topk_prob": false, "num_attention_heads": 16, "num_experts": 60,
        "num_experts_per_tok": 4, "num_hidden_layers": 24, "num_key_value_heads": 16, "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0, "shared_expert_intermediate_size": 5632, "sliding_window": 32768,
        "tie_word_embeddings": false, "use_sliding_window": false, "vocab_size": 151936
    }));
    let experts = shared.experts.unwrap();
    assert_eq!((experts.count, experts.used, experts.ffn, experts.shared_ffn), (60, 4, 1408, 5632));
    assert!(!experts.normalised && shared.window.is_none());

    let many = hyper(&json!({
        "model_type": "qwen3_moe", "attention_bias": false, "decoder_sparse_step": 1, "head_dim": 128,
        "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 6144, "max_position_embeddings": 40960,
        "max_window_layers": 48, "mlp_only_layers": [], "moe_intermediate_size": 768, "norm_topk_prob": true,
        "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48,
        "num_key_value_heads": 4, "rms_norm_eps": 1e-6, "rope_scaling": null, "rope_theta": 1000000.0,
        "sliding_window": null, "tie_word_embeddings": false, "use_sliding_window": false, "vocab_size": 151936
    }));
    let experts = many.experts.unwrap();
    assert_eq!((experts.count, experts.used, experts.ffn, experts.shared_ffn), (128, 8, 768, 0));
    assert!(experts.normalised && experts.layers.iter().all(|has| *has) && experts.layers.len() == 48);
}

/// The same model as transformers 4 and 5 write it.
#[test]
fn spellings_of_versions_4_and_5() {
    let four = json!({
        "model_type": "qwen3_moe", "hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2, "head_dim": null,
        "num_hidden_layers": 1, "num_key_value_heads": 1, "max_position_embeddings": 64, "num_experts": 4,
        "num_experts_per_tok": 2, "moe_intermediate_size": 4, "vocab_size": 10, "rope_theta": 5e5,
        "rope_scaling": {"type": "linear", "factor": 4.0}, "torch_dtype": "bfloat16"
    });
    let mut five = four.clone();
    let fields = five.as_object_mut().unwrap();
    for key in ["num_experts", "rope_theta", "rope_scaling", "torch_dtype", "head_dim"] {
        fields.remove(key);
    }
    fields.insert("num_local_experts".into(), json!(4));
    fields.insert("dtype".into(), json!("bfloat16"));
    fields.insert("rope_parameters".into(), json!({"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5}));
    assert_eq!(hyper(&four), hyper(&five));
    five["num_experts"] = json!(5);
    super::refused(read(&five), crate::ErrorKind::Malformed, "num_experts is 5, and num_local_experts 4");

    let pythia = json!({
        "model_type": "gpt_neox", "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2,
        "num_hidden_layers": 1, "max_position_embeddings": 64, "vocab_size": 10
    });
    let with = |key: &str, value: Value| {
        let mut config = pythia.clone();
        config[key] = value;
        hyper(&config).rope.unwrap()
    };
    assert_eq!(with("rotary_pct", json!(0.5)).rotary_dim, 16);
    assert_eq!(with("partial_rotary_factor", json!(0.5)).rotary_dim, 16);
    assert_eq!(with("rope_parameters", json!({"rope_type": "default", "partial_rotary_factor": 0.5})).rotary_dim, 16);
    assert_eq!(hyper(&pythia).rope.unwrap().rotary_dim, 8);
}
