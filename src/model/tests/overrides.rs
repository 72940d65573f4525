//! Hyper-parameters of the user's in place of the files'.

use super::build::{Gguf, gpt2_config, gpt2_tensors, llama_config, llama_tensors, safetensors, text};
use super::refused;
use crate::ErrorKind::{Malformed, Unsupported, Usage};
use crate::model::{Activation, Model, Overrides, Source};
use std::fs;

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
        refused(set("activation=relu"), Usage, "should be one of silu, gelu_new");
        refused(set("kv_head=1"), Usage, "did you mean `kv_heads`?");
        refused(set("sampling=greedy"), Usage, "it has layers, hidden, heads");
        refused(set("layers=2"), Malformed, "needs it as attn_norm");
        refused(set("layers=0"), Malformed, "layers is 0");
        refused(set("ffn=8"), Malformed, "hyper-parameters ask for");
        refused(set("rope_base=nan"), Malformed, "base of NaN");
        refused(set("rotary_dim=2"), Unsupported, "partial RoPE");
    }
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
