//! tokenizer.json as a vocabulary: byte-level BPE, where a vocabulary can say exactly what the file says.
//!
//! GGUF has no expressions for how text is cut into words, only names that llama.cpp knows, and no post-processor, only
//! flags. A tokenizer of which either cannot be said is refused. Token kinds are those of llama.cpp's converter.

use crate::error::{Error, Result};
use crate::model::tokenizer;
use crate::model::vocabulary::{TokenKind, Vocabulary};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Ids beyond this are no vocabulary: the largest in the field has a fifth of it.
const MOST_TOKENS: u32 = 1 << 20;

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

/// The vocabulary that a tokenizer.json describes, and what it loses.
///
/// # Errors
/// Malformed where it is none; unsupported for what a vocabulary in GGUF cannot say.
pub(super) fn read(bytes: &[u8]) -> Result<(Vocabulary, Option<&'static str>)> {
    // The kind comes first: the parts of others have other shapes.
    let fields: Value = serde_json::from_slice(bytes).map_err(not_json)?;
    match fields.pointer("/model/type").and_then(Value::as_str) {
        None | Some("BPE") => {}
        Some(kind) => return Err(cannot_say(&format!("a model of type {kind}"))),
    }
    let file: File = serde_json::from_slice(bytes).map_err(not_json)?;
    file.model.check()?;
    let ends = Ends::of(&file.post_processor, &file.added_tokens)?;
    let (tokens, kinds) = tokens(&file)?;
    let loss = file.loss()?;
    let vocabulary = Vocabulary {
        model: "gpt2".to_owned(),
        pre: Some(file.way_of_cutting()?.to_owned()),
        tokens,
        kinds,
        scores: Vec::new(),
        merges: file.model.merges()?,
        bos: ends.bos,
        eos: ends.eos,
        add_bos: Some(ends.bos.is_some()),
        add_eos: Some(ends.eos.is_some()),
        add_space_prefix: None,
        pre_key: "pre_tokenizer",
        model_key: "model",
    };
    Ok((vocabulary, loss))
}

fn not_json(cause: serde_json::Error) -> Error {
    Error::malformed("not a tokenizer.json of Hugging Face tokenizers").because(cause)
}

fn cannot_say(what: &str) -> Error {
    Error::unsupported(format!(
        "the tokenizer has {what}, which GGUF cannot say or this version does not: write a file without one by \
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

    fn merges(&self) -> Result<Vec<(String, String)>> {
        let merge = |merge: &Merge| {
            let pair = match merge {
                Merge::Text(text) => text.split_once(' '),
                Merge::Pair(left, right) => Some((left.as_str(), right.as_str())),
            };
            // In GGUF a space stands between the two.
            let pair = pair.filter(|(left, right)| !left.contains(' ') && !right.contains(' '));
            let (left, right) = pair.ok_or_else(|| cannot_say("a merge of what is no two tokens without a space"))?;
            Ok((left.to_owned(), right.to_owned()))
        };
        self.merges.iter().map(merge).collect()
    }
}

impl File {
    /// The name of the way in which text is cut into words.
    fn way_of_cutting(&self) -> Result<&'static str> {
        let bytes = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": regex});
        let mut cut = self.pre_tokenizer.clone();
        without_offsets(&mut cut);
        // GPT-2's expression belongs to the byte level itself; others stand before it.
        let expression = cut.pointer("/pretokenizers/0/pattern/Regex").and_then(Value::as_str).unwrap_or_default();
        let split = json!({"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false});
        let by_expression = json!({"type": "Sequence", "pretokenizers": [split, bytes(false)]});
        let whole_pieces = self.model.ignore_merges;
        let name = if cut == bytes(true) && !whole_pieces {
            Some("gpt-2")
        } else if cut == by_expression {
            tokenizer::named_by(expression, whole_pieces)
        } else {
            None
        };
        name.ok_or_else(|| cannot_say("a way of cutting text (pre_tokenizer, ignore_merges) that has no name here"))
    }

    /// What is lost without the normalizer.
    fn loss(&self) -> Result<Option<&'static str>> {
        match &self.normalizer {
            Value::Null => Ok(None),
            normalizer if *normalizer == json!({"type": "NFC"}) => Ok(Some(
                "GGUF has no place for the tokenizer's normalizer (NFC): text with decomposed letters gets other ids from \
                 the new file; all other text gets the same",
            )),
            other => Err(cannot_say(&format!("the normalizer {other}"))),
        }
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

/// Tokens by id, and what each is. An id between that has no token gets one that no text has.
fn tokens(file: &File) -> Result<(Vec<String>, Vec<TokenKind>)> {
    let mut by_id: BTreeMap<u32, (&str, TokenKind)> = BTreeMap::new();
    let words = file.model.vocab.iter().map(|(content, id)| (*id, content.as_str(), TokenKind::Normal));
    let added = file.added_tokens.iter().map(|added| {
        let kind = if added.special { TokenKind::Control } else { TokenKind::UserDefined };
        (added.id, added.content.as_str(), kind)
    });
    for (id, content, kind) in words.chain(added) {
        match by_id.insert(id, (content, kind)) {
            Some((other, _)) if other != content => {
                return Err(Error::malformed(format!("id {id} is both {other:?} and {content:?}")));
            }
            _ if id >= MOST_TOKENS => return Err(Error::malformed(format!("token {content:?} has id {id}"))),
            _ => {}
        }
    }
    if let Some(added) = file.added_tokens.iter().find(|added| added.single_word || added.lstrip || added.rstrip) {
        return Err(cannot_say(&format!("token {:?} with single_word, lstrip or rstrip", added.content)));
    }
    let count = by_id.last_key_value().map_or(0, |(last, _)| last + 1);
    let all = (0..count).map(|id| match by_id.get(&id) {
        Some((content, kind)) => ((*content).to_owned(), *kind),
        None => (format!("[PAD{id}]"), TokenKind::Unused),
    });
    Ok(all.unzip())
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
                let parts =
                    processor.get("processors").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
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
