//! Configurations and safetensors files that break one rule each.

use super::build::{gpt2_config, gpt2_tensors, llama_config, llama_tensors, parts, safetensors, with_header};
use super::refused;
use crate::ErrorKind::{Malformed, Unsupported};
use crate::model::Activation;
use crate::model::config::Config;
use crate::model::open::Contents;
use crate::model::stored::Tensors;
use crate::model::{Bytes, Overrides, Role, RopeParameters, RopeScaling, WeightKey};
use serde_json::{Value, json};
use std::path::Path;

pub(super) fn open(config: &[u8], file: Vec<u8>) -> crate::Result<Contents> {
    let config = Config::parse(config, Path::new("config.json"))?;
    let mut tensors = Tensors::default();
    crate::model::safetensors::read(&Bytes::from(file), 0, &mut tensors)?;
    tensors.check_overlap()?;
    Contents::of_safetensors(&config, &tensors, &Overrides::default())
}

fn llama_with(change: impl FnOnce(&mut Value)) -> crate::Result<Contents> {
    let mut config = llama_config();
    change(&mut config);
    open(config.to_string().as_bytes(), safetensors(&llama_tensors("model.")))
}

fn row(contents: &Contents, role: Role, row: usize) -> Vec<f32> {
    let weight = contents.weight(WeightKey::in_layer(0, role)).unwrap();
    let mut out = vec![f32::NAN; weight.columns];
    weight.dequantize_row(row, &mut out).unwrap();
    out
}

#[test]
fn both_spellings_of_rope_and_both_prefixes_are_read() {
    let old = llama_with(|_| {}).unwrap();
    let new = llama_with(|c| {
        c["rope_theta"] = Value::Null;
        c["rope_parameters"] = json!({"rope_theta": 500.0, "rope_type": "default"});
    });
    assert_eq!(old.hyper(), new.unwrap().hyper());
    assert_eq!(old.hyper().rope.unwrap().base, 500.0);
    let config = llama_config().to_string();
    open(config.as_bytes(), safetensors(&llama_tensors(""))).unwrap();
}

/// Transformers 4 and 5 name the type in which they would compute; the files say in which type weights are stored.
#[test]
fn the_type_to_compute_in_is_passed_over() {
    let plain = llama_with(|_| {}).unwrap();
    for key in ["torch_dtype", "dtype"] {
        assert_eq!(llama_with(|c| c[key] = json!("bfloat16")).unwrap().hyper(), plain.hyper());
    }
}

fn rope_of(config: Value) -> crate::Result<RopeParameters> {
    llama_with(|c| c.as_object_mut().unwrap().extend(config.as_object().unwrap().clone()))
        .map(|contents| contents.hyper().rope.unwrap())
}

#[test]
fn the_context_before_it_was_stretched_may_stand_in_three_places() {
    let scaling = |original: Value| {
        json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": original})
    };
    let original = |config: Value| match rope_of(config).unwrap().scaling {
        RopeScaling::Llama3 { original_context, .. } => original_context,
        other => panic!("{other}"),
    };
    assert_eq!(original(json!({"rope_scaling": scaling(json!(16))})), 16);
    assert_eq!(original(json!({"rope_parameters": scaling(json!(16)), "original_max_position_embeddings": 16})), 16);
    assert_eq!(original(json!({"rope_parameters": scaling(json!(null)), "original_max_position_embeddings": 8})), 8);
    assert_eq!(original(json!({"rope_parameters": scaling(json!(null))})), 32, "max_position_embeddings");
    let two = json!({"rope_scaling": scaling(json!(16)), "original_max_position_embeddings": 8});
    refused(rope_of(two), Malformed, "original_max_position_embeddings is 8, and in rope_scaling it is 16");
    refused(rope_of(json!({"rope_scaling": scaling(json!(-1))})), Malformed, "is -1, and should be a count");
}

/// One object for all layers, or one for each type of them; the base inside wins over the one outside.
#[test]
fn rope_may_differ_by_type_of_layer() {
    let both = json!({"full_attention": {"rope_type": "linear", "factor": 2.0}, "sliding_attention": null});
    let rope = rope_of(json!({"rope_parameters": both})).unwrap();
    assert_eq!((rope.base, rope.scaling), (500.0, RopeScaling::Linear { factor: 2.0 }));
    let inside = json!({"full_attention": {"rope_type": "default", "rope_theta": 7.0}});
    assert_eq!(rope_of(json!({"rope_parameters": inside})).unwrap().base, 7.0);
}

#[test]
fn absent_fields_take_the_family_s_defaults() {
    let contents = llama_with(|c| {
        let fields = c.as_object_mut().unwrap();
        for key in ["num_key_value_heads", "head_dim", "rope_theta", "rms_norm_eps", "hidden_act"] {
            fields.remove(key);
        }
        // Without the field every query head has its own key head, and the tensors here have one for two.
        fields.insert("num_key_value_heads".into(), json!(1));
    });
    let hyper = contents.unwrap().hyper().clone();
    assert_eq!((hyper.head_dim, hyper.rope.unwrap().base, hyper.norm_epsilon), (4, 10_000.0, 1e-6));
    refused(llama_with(|c| c["num_key_value_heads"] = Value::Null), Malformed, "ask for [8, 8]");
}

#[test]
fn gpt2_splits_its_fused_and_transposed_projection() {
    for prefix in ["", "transformer."] {
        let contents = open(gpt2_config().to_string().as_bytes(), safetensors(&gpt2_tensors(prefix))).unwrap();
        let hyper = contents.hyper();
        assert_eq!((hyper.ffn, hyper.gated, hyper.activation), (32, false, Activation::GeluTanh));
        assert!(hyper.tied_embeddings && hyper.rope.is_none());
        // Stored [8, 24], element (i, o) is 24 i + o; key row 1 is output 9.
        assert_eq!(row(&contents, Role::K, 1)[..3], [9.0, 33.0, 57.0]);
        assert_eq!(row(&contents, Role::VBias, 0)[..2], [16.0, 17.0]);
        assert_eq!(row(&contents, Role::FfnDown, 2)[..2], [2.0, 10.0]);
    }
}

#[test]
fn constants_that_old_files_carry_are_no_weights() {
    let mut tensors = gpt2_tensors("");
    tensors.push(("h.0.attn.bias".into(), vec![1, 1, 32, 32]));
    open(gpt2_config().to_string().as_bytes(), safetensors(&tensors)).unwrap();
    tensors.push(("score.weight".into(), vec![2, 8]));
    let result = open(gpt2_config().to_string().as_bytes(), safetensors(&tensors));
    refused(result, Unsupported, "tensor score.weight: it plays no part");
}

#[test]
fn a_tied_head_must_be_a_copy() {
    // The head and the embedding hold the same counting values here.
    let tied = llama_with(|c| c["tie_word_embeddings"] = json!(true)).unwrap();
    assert_eq!(tied.weight(WeightKey::outside(Role::Output)).unwrap().stored_name, "model.embed_tokens.weight");
    let (header, mut data) = parts(&llama_tensors("model."));
    let head = header["lm_head.weight"]["data_offsets"][0].as_u64().unwrap() as usize;
    data[head + 3] ^= 1;
    let mut config = llama_config();
    config["tie_word_embeddings"] = json!(true);
    let result = open(config.to_string().as_bytes(), with_header(&header.to_string(), &data));
    refused(result, Unsupported, "tensor lm_head.weight");
    let mut tensors = llama_tensors("model.");
    tensors.retain(|(name, _)| name != "lm_head.weight");
    let result = open(llama_config().to_string().as_bytes(), safetensors(&tensors));
    refused(result, Malformed, "no lm_head.weight");
}

#[test]
fn features_that_are_not_built_are_refused_by_name() {
    let cases: [(&str, Value, &str); 15] = [
        (
            "model_type",
            json!("mamba"),
            "gemma2, gemma3_text, gpt2, gpt_neox, llama, mistral, mixtral, phi3, qwen2, qwen2_moe",
        ),
        ("model_type", json!("gemma3"), "architecture \"gemma3\" is not known"),
        ("hidden_act", json!("relu"), "activation \"relu\""),
        ("rope_scaling", json!({"rope_type": "yarn", "factor": 8.0}), "RoPE type \"yarn\" is not supported; known are"),
        ("rope_scaling", json!({"type": "longrope", "long_factor": [1.0]}), "RoPE type \"longrope\""),
        ("rope_scaling", json!({"rope_type": "linear", "factor": 2.0, "mrope_section": [1]}), "field mrope_section"),
        ("rope_parameters", json!({"full_attention": {}, "chunked_attention": {}}), "type chunked_attention"),
        ("partial_rotary_factor", json!(0.5), "partial RoPE (2 of 4"),
        ("sliding_window", json!(16), "sliding window of 16"),
        ("layer_types", json!(["chunked_attention"]), "layer_types"),
        ("quantization_config", json!({"quant_method": "gptq"}), "quantization_config"),
        ("scale_attn_by_inverse_layer_idx", json!(true), "scale_attn_by_inverse_layer_idx"),
        ("use_bidirectional_attention", json!(true), "use_bidirectional_attention"),
        ("attn_logit_softcapping", json!(50.0), "attn_logit_softcapping = 50"),
        ("final_logit_softcapping", json!(30.0), "final_logit_softcapping = 30"),
    ];
    for (key, value, words) in cases {
        refused(llama_with(|c| c[key] = value), Unsupported, words);
    }
    llama_with(|c| c["sliding_window"] = json!(32)).unwrap();
    llama_with(|c| c["rope_scaling"] = json!({"rope_type": "default"})).unwrap();
}

/// A configuration may promise or deny biases; the tensors here have none.
#[test]
fn biases_are_where_the_configuration_says() {
    for key in ["attention_bias", "mlp_bias"] {
        refused(llama_with(|c| c[key] = json!(true)), Malformed, "lacks the weight layers.0.");
        llama_with(|c| c[key] = json!(false)).unwrap();
    }
    let mut config = llama_config();
    config["mlp_bias"] = json!(false);
    let mut tensors = llama_tensors("model.");
    tensors.push(("model.layers.0.mlp.up_proj.bias".into(), vec![16]));
    let result = open(config.to_string().as_bytes(), safetensors(&tensors));
    refused(result, Malformed, "has the weight layers.0.ffn_up_bias");
}

#[test]
fn windows_are_read_by_family() {
    let of = |kind: &str, change: fn(&mut Value)| {
        llama_with(|c| {
            c["model_type"] = json!(kind);
            change(c);
        })
    };
    let window = |contents: crate::Result<Contents>| contents.unwrap().hyper().window_of(0);
    assert_eq!(window(of("mistral", |c| c["sliding_window"] = json!(4))), Some(4));
    assert_eq!(window(of("mistral", |c| c["sliding_window"] = Value::Null)), None);
    assert_eq!(window(of("mistral", |_| {})), Some(4096), "the family's default");
    refused(of("mistral", |c| c["layer_types"] = json!(["full_attention"])), Unsupported, "all layers have the window");
    refused(of("mistral", |c| c["layer_types"] = json!([])), Malformed, "a list of 1 names");
    refused(of("mistral", |c| c["sliding_window"] = json!("wide")), Malformed, "should be a count");
    let types = |c: &mut Value| {
        c["sliding_window"] = Value::Null;
        c["layer_types"] = json!(["sliding_attention"]);
    };
    refused(of("mistral", types), Malformed, "there is no window");
}

#[test]
fn senseless_configurations_are_malformed() {
    let cases = [
        ("num_hidden_layers", json!(0), "layers is 0"),
        ("num_hidden_layers", json!(-1), "should be a count"),
        ("num_hidden_layers", json!(2), "model.layers.1.input_layernorm.weight"),
        ("hidden_size", Value::Null, "no hidden_size"),
        ("num_attention_heads", json!(0), "cannot be split"),
        ("num_key_value_heads", json!(0), "kv_heads is 0"),
        ("rms_norm_eps", json!(-1e-5), "epsilon"),
        ("rms_norm_eps", json!("small"), "should be a number"),
        ("rope_theta", json!(0), "RoPE base of 0"),
        ("vocab_size", json!(11), "has 10 rows"),
        ("tie_word_embeddings", json!("no"), "true or false"),
        ("head_dim", json!(3), "RoPE turns pairs"),
        ("rope_scaling", json!({"rope_type": "linear"}), "has no factor"),
        ("rope_scaling", json!({"rope_type": "linear", "factor": 0.0}), "factor of 0"),
        ("rope_scaling", json!([1]), "should be an object"),
        ("rope_scaling", json!({"rope_type": 3}), "RoPE type 3"),
    ];
    for (key, value, words) in cases {
        refused(llama_with(|c| c[key] = value), Malformed, words);
    }
    refused(open(b"{", vec![]), Malformed, "no JSON object");
    refused(open(b"{}", vec![]), Malformed, "no model_type");
}

#[test]
fn broken_headers_are_refused() {
    type Change = fn(&mut Value);
    let cases: [(crate::ErrorKind, &str, Change); 7] = [
        (Unsupported, "tensor model.norm.weight: element type I64", |h| h["model.norm.weight"]["dtype"] = json!("I64")),
        (Malformed, "do not hold", |h| h["model.norm.weight"]["shape"] = json!([9])),
        (Malformed, "too large", |h| h["model.norm.weight"]["shape"] = json!([u64::MAX, 8, 8])),
        (Malformed, "cut short", |h| h["model.norm.weight"]["data_offsets"] = json!([1u64 << 40, (1u64 << 40) + 32])),
        (Malformed, "do not hold", |h| h["model.norm.weight"]["data_offsets"] = json!([32, 0])),
        (Malformed, "overlaps", |h| h["model.norm.weight"]["data_offsets"] = json!([0, 32])),
        (Malformed, "no proper JSON", |h| h["model.norm.weight"]["shape"] = json!("wide")),
    ];
    for (kind, words, change) in cases {
        let (mut header, data) = parts(&llama_tensors("model."));
        change(&mut header);
        refused(open(llama_config().to_string().as_bytes(), with_header(&header.to_string(), &data)), kind, words);
    }
}

#[test]
fn a_name_that_stands_twice_is_refused() {
    let (header, data) = parts(&llama_tensors("model."));
    let entry = header["model.norm.weight"].to_string();
    let header = header.to_string().replacen('{', &format!("{{\"model.norm.weight\":{entry},"), 1);
    refused(open(llama_config().to_string().as_bytes(), with_header(&header, &data)), Malformed, "two tensors");
}

#[test]
fn data_need_not_be_aligned() {
    let (header, data) = parts(&llama_tensors("model."));
    for spaces in 0..4 {
        let header = format!("{header}{}", " ".repeat(spaces));
        let contents = open(llama_config().to_string().as_bytes(), with_header(&header, &data)).unwrap();
        assert_eq!(row(&contents, Role::Q, 1)[0], 8.0);
    }
}
