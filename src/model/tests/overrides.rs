//! Hyper-parameters of the user's in place of the files'.

use super::build::{Gguf, gpt2_config, gpt2_tensors, llama_config, llama_tensors, safetensors, text};
use super::refused;
use crate::ErrorKind::{Malformed, Unsupported, Usage};
use crate::model::config::Config;
use crate::model::fact::Facts;
use crate::model::family::Shapes;
use crate::model::{Activation, HyperParameters, Model, Overrides, Source};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// The same llama as a GGUF file and as a folder.
fn models() -> (tempfile::TempDir, [std::path::PathBuf; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let (file, inner) = (folder.path().join("m.gguf"), folder.path().join("m"));
    fs::write(&file, Gguf::llama().bytes()).unwrap();
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("config.json"), llama_config().to_string()).unwrap();
    fs::write(inner.join("model.safetensors"), safetensors(&llama_tensors("model."))).unwrap();
    (folder, [file, inner])
}

#[test]
fn what_is_set_takes_the_place_of_what_the_files_say() {
    let (_folder, paths) = models();
    let settings = ["context=16", "norm_epsilon=0.5", "rope_base=7", "activation=gelu_new"];
    let overrides = Overrides::parse(settings).unwrap();
    for path in paths {
        let (plain, set) = (Model::open(&path).unwrap(), Model::open_with(&path, &overrides).unwrap());
        let hyper = set.hyper();
        assert_eq!((hyper.context, hyper.norm_epsilon, hyper.activation), (16, 0.5, Activation::GeluTanh));
        assert_eq!((hyper.rope.unwrap().base, hyper.layers), (7.0, 1));
        for (before, after) in plain.facts().iter().zip(set.facts()) {
            let setting =
                settings.iter().find_map(|setting| setting.split_once('=').filter(|(key, _)| *key == after.key));
            match setting {
                Some((_, value)) => {
                    assert_eq!((after.value.as_str(), after.source.name()), (value, "override"));
                    assert_ne!(before.source, Source::CommandLine);
                }
                None => assert_eq!(before, after),
            }
        }
    }
}

#[test]
fn senseless_settings_are_refused() {
    for settings in [["heads"], ["=4"], ["heads="], [""]] {
        refused(Overrides::parse(settings), Usage, "sets nothing");
    }
    let (_folder, paths) = models();
    for path in paths {
        let set = |setting| Model::open_with(&path, &Overrides::parse([setting]).unwrap());
        refused(set("heads=-1"), Usage, "heads is set to `-1`, and should be a count");
        refused(set("gated=1"), Usage, "should be true or false");
        refused(set("activation=relu"), Usage, "should be one of silu, gelu, gelu_new");
        refused(set("kv_head=1"), Usage, "did you mean `kv_heads`?");
        refused(set("sampling=greedy"), Usage, "it has layers, hidden, heads");
        refused(set("layers=2"), Malformed, "needs it as attn_norm");
        refused(set("layers=0"), Malformed, "layers is 0");
        refused(set("ffn=8"), Malformed, "hyper-parameters ask for");
        refused(set("rope_base=nan"), Malformed, "base of NaN");
        refused(set("rotary_dim=2"), Unsupported, "partial RoPE");
    }
}

fn with(config: &Value, settings: &[&str]) -> crate::Result<HyperParameters> {
    let config = Config::parse(config.to_string().as_bytes(), Path::new("config.json")).unwrap();
    let shapes = Shapes { vocabulary: 10, has_output: true, has_rope_factors: false, tensors: 1000 };
    let mut facts = Facts::new(&Overrides::parse(settings.iter().copied()).unwrap());
    let hyper = config.hyper(shapes, &mut facts);
    facts.judge(hyper)
}

#[test]
fn the_numbers_of_one_family_alone_can_be_set_too() {
    let gemma = json!({
        "model_type": "gemma3_text", "head_dim": 4, "hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2,
        "num_hidden_layers": 2, "num_key_value_heads": 1, "max_position_embeddings": 64, "sliding_window": 32,
        "layer_types": ["sliding_attention", "full_attention"], "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}
    });
    let plain = with(&gemma, &[]).unwrap();
    let settings = [
        "window=7",
        "local_rope_base=5",
        "rope_base=6",
        "attn_softcap=3",
        "logit_softcap=2",
        "embedding_scale=9",
        "norm_weight_offset=0.5",
        "attn_scale=0.25",
        "activation=quick_gelu",
    ];
    let set = with(&gemma, &settings).unwrap();
    let mut expected = plain.clone();
    let window = expected.window.as_mut().unwrap();
    (window.positions, window.rope.as_mut().unwrap().base) = (7, 5.0);
    expected.rope.as_mut().unwrap().base = 6.0;
    (expected.attn_softcap, expected.logit_softcap) = (Some(3.0), Some(2.0));
    (expected.embedding_scale, expected.norm_weight_offset) = (Some(9.0), 0.5);
    (expected.attn_scale, expected.activation) = (0.25, Activation::GeluQuick);
    assert_eq!(set, expected);
    for key in ["window_layers", "rope_scaling"] {
        let words = format!("{key} stands for several numbers of the file and cannot be set");
        refused(with(&gemma, &[&format!("{key}=0")]), Usage, &words);
    }
    refused(with(&gemma, &["window=0"]), Malformed, "window is 0");
    refused(with(&gemma, &["local_rotary_dim=2"]), Unsupported, "partial RoPE (2 of 4");

    let experts = json!({
        "model_type": "qwen2_moe", "hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2,
        "num_hidden_layers": 2, "num_key_value_heads": 1, "max_position_embeddings": 64, "num_experts": 8,
        "num_experts_per_tok": 2, "moe_intermediate_size": 4, "shared_expert_intermediate_size": 12
    });
    let settings =
        ["experts=6", "experts_used=3", "expert_ffn=5", "shared_expert_ffn=7", "expert_weights_normalised=true"];
    let set = with(&experts, &settings).unwrap().experts.unwrap();
    assert_eq!((set.count, set.used, set.ffn, set.shared_ffn, set.normalised), (6, 3, 5, 7, true));
}

#[test]
fn another_family_has_other_names() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), gpt2_config().to_string()).unwrap();
    fs::write(folder.path().join("model.safetensors"), safetensors(&gpt2_tensors(""))).unwrap();
    let set = |setting| Model::open_with(folder.path(), &Overrides::parse([setting]).unwrap());
    assert_eq!(set("norm_epsilon=0.25").unwrap().hyper().norm_epsilon, 0.25);
    refused(set("rope_base=1e4"), Usage, "no hyper-parameter `rope_base`; it has layers");
    let mut file = Gguf::llama();
    file.set("general.architecture", 8, text("mamba"));
    fs::write(folder.path().join("m.gguf"), file.bytes()).unwrap();
    let mamba = Model::open_with(&folder.path().join("m.gguf"), &Overrides::parse(["heads=x"]).unwrap());
    refused(mamba, Unsupported, "mamba");
}
