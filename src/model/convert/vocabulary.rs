//! tokenizer.json as `tokenizer.ggml.*`: byte-level BPE, where GGUF can say exactly what the file says.
//!
//! GGUF has no expressions for how text is cut into words, only names that llama.cpp knows (`src/llama-vocab.cpp`), and no
//! post-processor, only flags. A tokenizer of which either cannot be said is refused. Keys, token types and the filling
//! of ids without a token are those of llama.cpp's converter.

use super::TokenizerFrom;
use crate::error::{Error, Result};
use crate::model::gguf::GgufValue;
use crate::model::{Format, Model};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How Qwen 2 cuts text into words.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How Llama 3 does.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// `llama_token_type`.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

type Pairs = Vec<(String, GgufValue)>;

/// The metadata of the tokenizer of a model that is no GGUF file.
///
/// # Errors
/// Usage where there is no tokenizer to take; environment and malformed for the file; unsupported for what GGUF cannot
/// say.
pub(super) fn pairs(model: &Model, tokenizer: TokenizerFrom<'_>) -> Result<Pairs> {
    let path = match tokenizer {
        TokenizerFrom::Nowhere => {
            return Ok(vec![("tokenizer.ggml.model".to_owned(), GgufValue::Text("no_vocab".to_owned()))]);
        }
        TokenizerFrom::File(path) => path.to_path_buf(),
        TokenizerFrom::Model => beside(model)?,
    };
    let bytes = std::fs::read(&path).map_err(|cause| Error::io("open the tokenizer", &path, cause))?;
    of_json(&bytes, model.hyper().vocabulary, &named_ids(model)?).map_err(|error| error.in_file(&path))
}

fn beside(model: &Model) -> Result<PathBuf> {
    let path = model.path().join("tokenizer.json");
    match model.format() == Format::Safetensors && path.exists() {
        true => Ok(path),
        false => Err(Error::usage(
            "the model has no tokenizer.json: name one by --tokenizer, or write a file without by --no-tokenizer",
        )
        .in_file(model.path())),
    }
}

/// Ids that config.json gives a name: begin, end and filling of a text.
fn named_ids(model: &Model) -> Result<BTreeMap<&'static str, u32>> {
    let Some(config) = model.files().iter().find(|file| file.name == "config.json") else { return Ok(BTreeMap::new()) };
    let fields: Value = serde_json::from_slice(&config.bytes)
        .map_err(|cause| Error::malformed("no JSON").in_file(&config.path).because(cause))?;
    // Lists of several ids, and null, name none.
    let ids = ["bos", "eos", "pad"].into_iter().filter_map(|name| {
        let id = fields.get(format!("{name}_token_id"))?.as_u64()?;
        u32::try_from(id).ok().filter(|id| *id < model.hyper().vocabulary).map(|id| (name, id))
    });
    Ok(ids.collect())
}

/// The fields that are looked at; what a tokenizer.json may have besides does not change its ids.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    model: Bpe,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    special: bool,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
}

#[derive(Deserialize)]
struct Bpe {
    vocab: BTreeMap<String, u32>,
    #[serde(default)]
    merges: Vec<Merge>,
    #[serde(default)]
    ignore_merges: bool,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

/// A pair; older files write it as one text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Text(String),
    Pair(String, String),
}

fn of_json(bytes: &[u8], vocabulary: u32, ids: &BTreeMap<&'static str, u32>) -> Result<Pairs> {
    // The kind comes first: the parts of others have other shapes.
    let kind: Value = serde_json::from_slice(bytes).map_err(not_json)?;
    let kind = kind.pointer("/model/type").and_then(Value::as_str).unwrap_or("BPE").to_owned();
    if kind != "BPE" {
        return Err(cannot_say(&format!("a model of type {kind}")));
    }
    let file: File = serde_json::from_slice(bytes).map_err(not_json)?;
    file.model.check()?;
    let text = |text: &str| GgufValue::Text(text.to_owned());
    let ends = Ends::of(&file.post_processor, &file.added_tokens)?;
    let (tokens, kinds) = tokens(&file, vocabulary)?;
    let mut pairs = vec![
        ("model", text("gpt2")),
        ("pre", text(file.pre_tokenizer_name()?)),
        ("tokens", GgufValue::Texts(tokens)),
        ("token_type", GgufValue::I32s(kinds)),
        ("merges", GgufValue::Texts(file.model.merges()?)),
    ];
    // The tokenizer's own ends are those that its ids begin and end with.
    let own = [("bos", ends.bos), ("eos", ends.eos)].into_iter().filter_map(|(name, id)| Some((name, id?)));
    let ids: BTreeMap<&str, u32> = ids.iter().map(|(name, id)| (*name, *id)).chain(own).collect();
    for (name, key) in [("bos", "bos_token_id"), ("eos", "eos_token_id"), ("pad", "padding_token_id")] {
        pairs.extend(ids.get(name).map(|id| (key, GgufValue::U32(*id))));
    }
    pairs.push(("add_bos_token", GgufValue::Bool(ends.bos.is_some())));
    pairs.push(("add_eos_token", GgufValue::Bool(ends.eos.is_some())));
    Ok(pairs.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).collect())
}

fn not_json(cause: serde_json::Error) -> Error {
    Error::malformed("not a tokenizer.json of Hugging Face tokenizers").because(cause)
}

fn cannot_say(what: &str) -> Error {
    Error::unsupported(format!(
        "the tokenizer has {what}, which GGUF cannot say or this version does not: write the file without by \
         --no-tokenizer"
    ))
}

impl Bpe {
    /// Refuses settings that change ids and have no place in GGUF.
    fn check(&self) -> Result<()> {
        let off = |value: &Value| matches!(value, Value::Null | Value::Bool(false)) || value.as_str() == Some("");
        // The type is known by now, and no text is unknown where every byte has a token.
        let known = |name: &str| matches!(name, "type" | "fuse_unk");
        match self.others.iter().find(|(name, value)| !off(value) && !known(name)) {
            Some((name, value)) => Err(cannot_say(&format!("{name} = {value}"))),
            None => Ok(()),
        }
    }

    fn merges(&self) -> Result<Vec<String>> {
        let merge = |merge: &Merge| match merge {
            Merge::Text(text) => Ok(text.clone()),
            Merge::Pair(left, right) if left.contains(' ') || right.contains(' ') => {
                Err(cannot_say(&format!("a merge of {left:?} and {right:?} with a space inside")))
            }
            Merge::Pair(left, right) => Ok(format!("{left} {right}")),
        };
        self.merges.iter().map(merge).collect()
    }
}

impl File {
    /// llama.cpp's name for the way in which text is cut into words.
    fn pre_tokenizer_name(&self) -> Result<&'static str> {
        let bytes = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": regex});
        let split = |expression: &str| {
            let split = json!({"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false});
            json!({"type": "Sequence", "pretokenizers": [split, bytes(false)]})
        };
        let nfc = json!({"type": "NFC"});
        let known = [
            ("gpt-2", Value::Null, bytes(true), false),
            ("qwen2", nfc, split(QWEN2), false),
            ("llama-bpe", Value::Null, split(LLAMA3), true),
        ];
        let mut own = self.pre_tokenizer.clone();
        without_offsets(&mut own);
        let found = known.into_iter().find(|(_, normalizer, cut, whole)| {
            *normalizer == self.normalizer && *cut == own && *whole == self.model.ignore_merges
        });
        found.map(|(name, ..)| name).ok_or_else(|| {
            cannot_say("a normalizer, pre_tokenizer or ignore_merges that is not gpt-2's, qwen2's or llama-bpe's")
        })
    }
}

/// Takes out what concerns places in the text, not ids, and writes out a default.
fn without_offsets(pre_tokenizer: &mut Value) {
    if let Some(parts) = pre_tokenizer.get_mut("pretokenizers").and_then(Value::as_array_mut) {
        parts.iter_mut().for_each(without_offsets);
    }
    if pre_tokenizer.get("type").and_then(Value::as_str) == Some("ByteLevel")
        && let Some(fields) = pre_tokenizer.as_object_mut()
    {
        fields.remove("trim_offsets");
        fields.entry("use_regex").or_insert(Value::Bool(true));
    }
}

/// Tokens by id with their types.
fn tokens(file: &File, vocabulary: u32) -> Result<(Vec<String>, Vec<i32>)> {
    let mut slots: Vec<Option<(&str, i32)>> = vec![None; vocabulary as usize];
    let mut place = |id: u32, content, kind| {
        let slot = slots.get_mut(id as usize).ok_or_else(|| {
            Error::malformed(format!("token {content:?} has id {id}, and the model's vocabulary {vocabulary}"))
        })?;
        match slot {
            Some((other, _)) if *other != content => {
                Err(Error::malformed(format!("id {id} is both {other:?} and {content:?}")))
            }
            _ => {
                *slot = Some((content, kind));
                Ok(())
            }
        }
    };
    for (content, id) in &file.model.vocab {
        place(*id, content, NORMAL)?;
    }
    for added in &file.added_tokens {
        if added.single_word || added.lstrip || added.rstrip {
            return Err(cannot_say(&format!("token {:?} with single_word, lstrip or rstrip", added.content)));
        }
        place(added.id, &added.content, if added.special { CONTROL } else { USER_DEFINED })?;
    }
    let filled = slots.into_iter().enumerate().map(|(id, slot)| match slot {
        Some((content, kind)) => (content.to_owned(), kind),
        None => (format!("[PAD{id}]"), UNUSED),
    });
    Ok(filled.unzip())
}

/// Tokens that are put around every text.
#[derive(Debug, Default, Clone, Copy)]
struct Ends {
    bos: Option<u32>,
    eos: Option<u32>,
}

impl Ends {
    fn of(processor: &Value, added: &[Added]) -> Result<Ends> {
        match processor.get("type").and_then(Value::as_str) {
            None if processor.is_null() => Ok(Ends::default()),
            // It moves offsets only.
            Some("ByteLevel") => Ok(Ends::default()),
            Some("TemplateProcessing") => Ends::of_template(processor, added),
            Some("Sequence") => {
                let parts = processor.get("processors").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                let mut ends = Ends::default();
                for part in parts {
                    let found = Ends::of(part, added)?;
                    if ends.bos.and(found.bos).or(ends.eos.and(found.eos)).is_some() {
                        return Err(cannot_say("a post_processor that adds tokens twice"));
                    }
                    ends = Ends { bos: ends.bos.or(found.bos), eos: ends.eos.or(found.eos) };
                }
                Ok(ends)
            }
            _ => Err(cannot_say("a post_processor that is neither ByteLevel nor TemplateProcessing")),
        }
    }

    /// `single`: at most one special token on each side of the text.
    fn of_template(processor: &Value, added: &[Added]) -> Result<Ends> {
        let steps = processor.get("single").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let is_text = |step: &Value| step.get("Sequence").is_some();
        let token = |step: &Value| -> Result<u32> {
            let name = step.pointer("/SpecialToken/id").and_then(Value::as_str);
            let ids = name.and_then(|name| processor.get("special_tokens")?.get(name)?.get("ids")?.as_array());
            let id = match ids.map(Vec::as_slice) {
                Some([id]) => id.as_u64().and_then(|id| u32::try_from(id).ok()),
                _ => None,
            };
            id.filter(|id| added.iter().any(|added| added.id == *id))
                .ok_or_else(|| Error::malformed(format!("post_processor: {step} is no token that was added")))
        };
        match steps {
            [text] if is_text(text) => Ok(Ends::default()),
            [bos, text] if is_text(text) => Ok(Ends { bos: Some(token(bos)?), eos: None }),
            [text, eos] if is_text(text) => Ok(Ends { bos: None, eos: Some(token(eos)?) }),
            [bos, text, eos] if is_text(text) => Ok(Ends { bos: Some(token(bos)?), eos: Some(token(eos)?) }),
            _ => Err(cannot_say("a post_processor that adds several tokens on a side")),
        }
    }
}
