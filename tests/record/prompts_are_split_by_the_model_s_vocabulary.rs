//! A GGUF or .apr file that holds a vocabulary needs no tokenizer.json: it splits a prompt as the tokenizer that it was
//! made from, and the identity of the run says what was used.

use crate::command::Ground;
use crate::running::json;
use crate::support::{apr, fixture, model, package};
use actrace::model::{Model, Tokenizer};
use actrace::open::{Trace, hex};
use actrace::record::RunV1;
use std::path::Path;

/// Texts that are hard to split.
fn texts() -> Vec<String> {
    let expected = json("tokenizer/vocabularies.json");
    expected["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn own(path: &Path) -> Tokenizer {
    let model = Model::open(path).unwrap();
    Tokenizer::of_vocabulary(&model.vocabulary().unwrap().unwrap(), path).unwrap()
}

/// llama.cpp's converter and the apr tool wrote the vocabularies; the shipped tokenizer.json is what they read.
#[test]
fn converted_vocabularies_split_as_the_tokenizer_they_came_from() {
    for (name, folder) in [("tiny-qwen2.q4_k_m", "tiny-qwen2"), ("tiny-gpt2.q8_0", "tiny-gpt2")] {
        let original = Tokenizer::open(&model(&format!("{folder}.safetensors")).join("tokenizer.json")).unwrap();
        let converted = own(&model(name));
        for text in texts() {
            let ids = original.encode(&text).unwrap();
            assert_eq!(converted.encode(&text).unwrap(), ids, "{name}: {text:?}");
            assert_eq!(converted.decode(&ids).unwrap(), original.decode(&ids).unwrap(), "{name}: {text:?}");
        }
    }
    let (gguf, apr) = (own(&model("tiny-qwen2.q4_k_m")), own(&apr::rebuilt("tiny-qwen2.q4_k_m").0));
    assert_eq!(hex(&gguf.hash()), hex(&apr.hash()), "one vocabulary, in whatever format, has one hash");
}

/// The identity of the last run in the file.
fn identity(ground: &Ground) -> RunV1 {
    Trace::open(&ground.path("out")).unwrap().runs().last().unwrap().identity.as_ref().clone()
}

fn extra(identity: &RunV1) -> Vec<String> {
    identity.extra.iter().map(|pair| format!("{} = {} ({})", pair.key, pair.value, pair.source)).collect()
}

#[test]
fn a_prompt_as_text_needs_no_tokenizer_file() {
    let ground = Ground::new();
    let pieces = fixture("tokenizer/sentence_piece.gguf");
    let args = |more: &[&str]| {
        let common = ["--model", pieces.to_str().unwrap(), "--out", "{out}"];
        common.iter().chain(more).map(|arg| (*arg).to_owned()).collect::<Vec<_>>()
    };
    let record = |more: &[&str]| {
        let args = args(more);
        let finished = ground.record(&args.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(finished.status, 0, "{}", finished.stderr);
        (finished.stdout, identity(&ground))
    };
    let text = "<|user|>Größe 中文\n";
    let (stdout, own_run) = record(&["--prompt", text, "--generate", "2"]);
    assert!(stdout.contains("text: "), "{stdout}");
    assert_eq!(own_run.prompt_tokens, own(&pieces).encode(text).unwrap());
    assert_eq!(own_run.tokenizer_hash, own(&pieces).hash());
    insta::assert_snapshot!(extra(&own_run).join("\n"), @r#"
    tokenizer = vocabulary of the model file (file)
    tokenizer.model = llama (file)
    tokenizer.add_space_prefix = true (file)
    tokenizer.add_bos = true (file)
    tokenizer.add_eos = false (file)
    "#);

    // The tokenizer that is named wins.
    let named = fixture("tokenizer/llama2.json");
    let named = named.to_str().unwrap();
    let (_, named_run) = record(&["--prompt", text, "--tokenizer", named]);
    assert_eq!(named_run.tokenizer_hash, Tokenizer::open(Path::new(named)).unwrap().hash());
    assert_ne!(named_run.prompt_tokens, own_run.prompt_tokens);
    assert_eq!(extra(&named_run), ["tokenizer = tokenizer.json (file)"]);

    let (_, ids_run) = record(&["--tokens", "1,2,3"]);
    assert_eq!(ids_run.tokenizer_hash, own_run.tokenizer_hash, "what is generated is shown by it");
}

/// The .apr file that was imported from safetensors does not say how its tokenizer cuts text.
#[test]
fn a_vocabulary_that_cannot_be_used_is_told() {
    let ground = Ground::new();
    let path = apr::rebuilt("tiny-qwen2.bf16").0;
    let path = path.to_str().unwrap();
    let refused = ground.refused("text", &["--model", path, "--prompt", "one", "--out", "{out}"]);
    // The build folder lies in the package or elsewhere.
    let folder = Path::new(path).parent().unwrap().to_str().unwrap();
    let folder = &folder.replace(package().to_str().unwrap(), "[package]");
    insta::assert_snapshot!(refused.replace(folder, "[models]"), @"text: error: [models]/tiny-qwen2.bf16.apr: a prompt as text needs a tokenizer, and the file's own vocabulary cannot be used: add --tokenizer tokenizer.json, or give token ids with --tokens: [models]/tiny-qwen2.bf16.apr: the vocabulary has no tokenizer.pre_type, so how text is cut into words is not known; known are default, gpt-2, phi-2, mpt, olmo, jais, exaone4, gigachat, mellum, starcoder, smollm, refact, command-r, codeshell, exaone, minerva-7b, falcon, qwen2, deepseek-r1-qwen, stablelm2, megrez, qwen35, llama-bpe, llama3, llama-v3, falcon3, pixtral, lfm2, dbrx, smaug-bpe, glm4, chatglm-bpe, deepseek-llm, deepseek-coder, deepseek-v3");
    let finished = ground.record(&["--model", path, "--tokens", "1,2", "--generate", "1", "--out", "{out}"]);
    assert_eq!(finished.status, 0);
    assert!(finished.stderr.contains("tokenizer: none ("), "{}", finished.stderr);
    assert!(!finished.stdout.contains("text: "), "{}", finished.stdout);
    assert_eq!(identity(&ground).tokenizer_hash, [0; 32]);
}
