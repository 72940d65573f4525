//! Token ids against those of the Python packages.

use super::*;
use crate::model::Model;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Expected {
    texts: Vec<String>,
    ids: BTreeMap<String, Vec<Vec<u32>>>,
    decoded: BTreeMap<String, Vec<String>>,
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizer").join(name)
}

#[test]
fn hard_texts_get_the_ids_of_the_python_package() {
    let expected: Expected = serde_json::from_slice(&std::fs::read(fixture("expected.json")).unwrap()).unwrap();
    assert_eq!(expected.ids.len(), 3);
    for (name, rows) in &expected.ids {
        let tokenizer = Tokenizer::open(&fixture(&format!("{name}.json"))).unwrap();
        for (i, text) in expected.texts.iter().enumerate() {
            assert_eq!(tokenizer.encode(text).unwrap(), rows[i], "{name}: {text:?}");
            assert_eq!(tokenizer.decode(&rows[i]).unwrap(), expected.decoded[name][i], "{name}: {text:?}");
        }
    }
}

#[test]
fn the_shipped_tokenizers_give_the_reference_prompt_s_ids() {
    #[derive(Deserialize)]
    struct Prompt {
        text: String,
        token_ids: Vec<u32>,
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let json = std::fs::read(root.join("tests/fixtures/reference/prompt.json")).unwrap();
    let prompt: Prompt = serde_json::from_slice(&json).unwrap();
    for model in ["tiny-qwen2", "tiny-gpt2"] {
        let tokenizer = Tokenizer::open(&root.join("models").join(model).join("tokenizer.json")).unwrap();
        assert_eq!(tokenizer.encode(&prompt.text).unwrap(), prompt.token_ids, "{model}");
    }
}

#[test]
fn a_prompt_is_never_cut_or_padded() {
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(fixture("qwen2.json")).unwrap()).unwrap();
    json["truncation"] =
        serde_json::json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    json["padding"] = serde_json::json!({"strategy": {"Fixed": 9}, "direction": "Right",
        "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "<|end|>"});
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, json.to_string()).unwrap();
    let whole = Tokenizer::open(&fixture("qwen2.json")).unwrap();
    let tokenizer = Tokenizer::open(&path).unwrap();
    assert_eq!(tokenizer.encode("one two three").unwrap(), whole.encode("one two three").unwrap());
    assert_ne!(tokenizer.hash(), whole.hash());
}

#[test]
fn a_file_that_is_no_tokenizer_is_named() {
    let error = Tokenizer::open(&fixture("expected.json")).unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Malformed);
    assert_eq!(error.file(), Some(fixture("expected.json").as_path()));
}

/// Texts, and for each way of using a vocabulary the ids that another program gives them.
#[derive(Deserialize)]
struct Vocabularies {
    texts: Vec<String>,
    byte_level: BTreeMap<String, Vec<Vec<u32>>>,
    sentence_piece: BTreeMap<String, Vec<Vec<u32>>>,
}

fn vocabularies() -> Vocabularies {
    let packed = std::fs::read(fixture("vocabularies.json.zst")).unwrap();
    serde_json::from_slice(&zstd::decode_all(packed.as_slice()).unwrap()).unwrap()
}

fn vocabulary(name: &str) -> Vocabulary {
    Model::open(&fixture(name)).unwrap().vocabulary().unwrap().unwrap()
}

fn built(vocabulary: &Vocabulary) -> Result<Tokenizer> {
    Tokenizer::of_vocabulary(vocabulary, Path::new("m.gguf"))
}

#[test]
fn byte_level_vocabularies_give_the_ids_of_the_package() {
    let Vocabularies { texts, byte_level, .. } = vocabularies();
    let mut vocabulary = vocabulary("byte_level.gguf");
    let mut rows_seen = std::collections::BTreeSet::new();
    for (name, rows) in byte_level {
        vocabulary.pre = Some(name.clone());
        let tokenizer = built(&vocabulary).unwrap();
        for (text, row) in texts.iter().zip(&rows) {
            assert_eq!(tokenizer.encode(text).unwrap(), *row, "{name}: {text:?}");
            let begin = if name == "llama-bpe" { "<|begin|>" } else { "" };
            assert_eq!(tokenizer.decode(row).unwrap(), format!("{begin}{text}"), "{name}");
        }
        rows_seen.insert(rows);
    }
    assert_eq!(rows_seen.len(), 11, "each way of cutting shows in the ids");
}

#[test]
fn sentence_pieces_are_those_of_the_package() {
    let Vocabularies { texts, sentence_piece, .. } = vocabularies();
    let mut vocabulary = vocabulary("sentence_piece.gguf");
    for (name, rows) in sentence_piece {
        vocabulary.add_space_prefix = Some(name == "prefix");
        let tokenizer = built(&vocabulary).unwrap();
        for (text, row) in texts.iter().zip(&rows) {
            assert_eq!(tokenizer.encode(text).unwrap(), *row, "{name}: {text:?}");
            // Without its first token; the space that follows a special token inside the text is not told from its own.
            let whole = !text.contains("<|user|>") && !text.contains("<s>") && !text.contains('\u{2581}');
            if whole {
                assert_eq!(tokenizer.decode(&row[1..]).unwrap(), *text, "{name}");
            }
        }
    }
}

#[test]
fn what_is_added_to_a_text_is_what_the_file_says() {
    let mut byte_level = vocabulary("byte_level.gguf");
    let mut pieces = vocabulary("sentence_piece.gguf");
    let facts = |tokenizer: &Tokenizer| -> Vec<String> {
        tokenizer.facts().iter().map(|fact| format!("{} {} {}", fact.key, fact.value, fact.source.name())).collect()
    };
    assert_eq!(
        facts(&built(&byte_level).unwrap()),
        [
            "tokenizer vocabulary of the model file file",
            "tokenizer.model gpt2 file",
            "tokenizer.add_bos false default",
            "tokenizer.add_eos false default",
            "tokenizer.pre gpt-2 file",
        ]
    );
    assert_eq!(
        facts(&built(&pieces).unwrap())[2..],
        ["tokenizer.add_space_prefix true file", "tokenizer.add_bos true file", "tokenizer.add_eos false file",]
    );
    let bare = built(&byte_level).unwrap().encode("a b").unwrap();
    (byte_level.add_bos, byte_level.add_eos) = (Some(true), Some(true));
    let (bos, eos) = (byte_level.bos.unwrap(), byte_level.eos.unwrap());
    let tokenizer = built(&byte_level).unwrap();
    assert_eq!(tokenizer.encode("a b").unwrap(), [&[bos], bare.as_slice(), &[eos]].concat());
    assert_eq!(tokenizer.encode("").unwrap(), [bos, eos]);
    (pieces.add_bos, pieces.add_eos) = (Some(false), Some(true));
    assert_eq!(built(&pieces).unwrap().encode("").unwrap(), [2]);
    (pieces.add_bos, pieces.bos) = (None, None);
    assert!(built(&pieces).unwrap_err().to_string().contains("needs its first token"));
}

#[test]
fn vocabularies_that_lack_something_are_refused() {
    type Break = (&'static str, fn(&mut Vocabulary));
    let breaks: [Break; 7] = [
        ("tokenizer.ggml.model = \"bert\" is not supported; known are gpt2 and llama", |v| v.model = "bert".into()),
        ("tokenizer.ggml.pre = \"tekken\" is not supported", |v| v.pre = Some("tekken".into())),
        ("has no tokenizer.ggml.pre", |v| v.pre = None),
        ("has no merges", |v| v.merges.clear()),
        ("merge 0 needs \"zzzz\", which is no token", |v| v.merges[0].0 = "zzzz".into()),
        ("merge 1 needs \"", |v| v.merges[1] = (v.tokens[5].clone(), "<|begin|>".into())),
        ("has no scores", |v| v.model = "llama".into()),
    ];
    for (words, change) in breaks {
        let mut vocabulary = vocabulary("byte_level.gguf");
        change(&mut vocabulary);
        let error = built(&vocabulary).unwrap_err().to_string();
        assert!(error.starts_with("m.gguf: ") && error.contains(words), "{error}");
    }
    let mut pieces = vocabulary("sentence_piece.gguf");
    let byte = pieces.tokens.iter().position(|token| token == "<0x01>").unwrap();
    pieces.kinds[byte] = TokenKind::Unused;
    let error = built(&pieces).unwrap().encode("a\u{1}b").unwrap_err().to_string();
    assert!(error.contains("no token for \"\\u{1}\""), "{error}");
    pieces.kinds[byte + 1] = TokenKind::Byte;
    pieces.tokens[byte + 1] = "<0xZZ>".into();
    assert!(built(&pieces).unwrap_err().to_string().contains("should name a byte"));
    let mut byte_level = vocabulary("byte_level.gguf");
    let place = byte_level.tokens.iter().position(|token| token == "Ċ").unwrap();
    byte_level.merges.retain(|(left, right)| !left.contains('Ċ') && !right.contains('Ċ'));
    byte_level.tokens[place] = String::new();
    let error = built(&byte_level).unwrap().encode("a\nb").unwrap_err().to_string();
    assert!(error.contains("no token for byte 0x0a"), "{error}");
}

#[test]
fn a_hash_covers_all_that_decides_about_ids() {
    type Change = fn(&mut Vocabulary);
    let changes: [Change; 8] = [
        |v| v.model = "llama".into(),
        |v| v.pre = Some("qwen2".into()),
        |v| v.tokens.swap(300, 301),
        |v| v.kinds[300] = TokenKind::Unused,
        |v| v.merges.swap(0, 1),
        |v| v.scores = vec![0.0; v.tokens.len()],
        |v| v.bos = Some(7),
        |v| v.add_eos = Some(false),
    ];
    let original = vocabulary("byte_level.gguf");
    let mut hashes = std::collections::BTreeSet::from([original.hash()]);
    for change in changes {
        let mut vocabulary = original.clone();
        change(&mut vocabulary);
        assert!(hashes.insert(vocabulary.hash()));
    }
    assert_eq!(vocabulary("byte_level.gguf").hash(), original.hash());
}
