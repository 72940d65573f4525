//! How a byte-level tokenizer cuts text before it merges: by regular expressions, one after the other.
//!
//! `tokenizer.ggml.pre` names them. The expressions are those of the models' own tokenizer.json files as llama.cpp applies
//! them (`src/llama-vocab.cpp`); a name is listed here only where both agree. Each expression cuts every piece that the
//! one before left into its matches and what lies between them.

use crate::error::{Error, Result};
use fancy_regex::Regex;

/// GPT-2's own, without its last alternative: what nothing matches is a piece all the same.
const WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";

const DIGIT: &str = r"\p{N}";

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Letters with case, as DeepSeek LLM lists them.
const CASED: &str = concat!(
    r"\s?[A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF}",
    r"\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1}",
    r"\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}",
    r"\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}",
    r"\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}",
    r"\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}",
    r"\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}",
    r"\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}",
    r"\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}",
    r"\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}",
    r"\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}",
    r"\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}",
    r"\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}]+",
);

const CJK: &str = r"[\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+";

const DEEPSEEK_V3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;

/// A way of cutting, under the names that files use.
struct Known {
    names: &'static [&'static str],
    expressions: &'static [&'static str],
    /// A piece that is a token is not merged from its bytes.
    whole_pieces: bool,
    /// Whether the begin of a text is added where the file does not say.
    add_bos: bool,
}

const KNOWN: [Known; 11] = [
    plain(&["default"], &[r"[\p{P}\$\+<=>\^~\|]+", WORDS, r"\p{N}+", "[0-9][0-9][0-9]"]),
    plain(&["gpt-2", "phi-2", "mpt", "olmo", "jais", "exaone4", "gigachat", "mellum"], &[WORDS]),
    plain(&["starcoder", "smollm", "refact", "command-r", "codeshell", "exaone", "minerva-7b"], &[DIGIT, WORDS]),
    plain(&["falcon"], &[r"[\p{P}\$\+<=>\^~\|`]+", WORDS, "[0-9][0-9][0-9]"]),
    plain(&["qwen2", "deepseek-r1-qwen", "stablelm2", "megrez"], &[QWEN2]),
    plain(&["qwen35"], &[QWEN35]),
    Known {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2"],
        expressions: &[LLAMA3],
        whole_pieces: true,
        add_bos: true,
    },
    plain(&["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"], &[LLAMA3]),
    plain(
        &["deepseek-llm"],
        &[
            r"[\r\n]",
            CASED,
            r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+",
            r"\s+$",
            CJK,
            r"\p{N}+",
        ],
    ),
    plain(&["deepseek-coder"], &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK, DIGIT]),
    plain(&["deepseek-v3"], &[r"\p{N}{1,3}", r"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+", DEEPSEEK_V3]),
];

const fn plain(names: &'static [&'static str], expressions: &'static [&'static str]) -> Known {
    Known { names, expressions, whole_pieces: false, add_bos: false }
}

/// A way of cutting, ready to use.
#[derive(Debug)]
pub(super) struct Cut {
    expressions: Vec<Regex>,
    pub whole_pieces: bool,
    pub add_bos: bool,
}

/// The name of the way of cutting by one expression, where files have exactly these settings.
pub(in crate::model) fn named_by(expression: &str, whole_pieces: bool) -> Option<&'static str> {
    let found = KNOWN.iter().find(|known| known.expressions == [expression] && known.whole_pieces == whole_pieces);
    found.and_then(|known| known.names.first().copied())
}

impl Cut {
    /// The way of cutting called `name`, which key `key` of the file holds.
    ///
    /// # Errors
    /// Unsupported, with the list of the known.
    pub(super) fn named(name: Option<&str>, key: &str) -> Result<Cut> {
        let known = || KNOWN.iter().flat_map(|known| known.names).copied().collect::<Vec<_>>().join(", ");
        let refused = |what: String| Err(Error::unsupported(format!("{what}; known are {}", known())));
        let Some(name) = name else {
            return refused(format!("the vocabulary has no {key}, so how text is cut into words is not known"));
        };
        let Some(found) = KNOWN.iter().find(|known| known.names.contains(&name)) else {
            return refused(format!("{key} = {name:?} is not supported"));
        };
        let expressions = found.expressions.iter().map(|expression| Regex::new(expression)).collect::<Result<_, _>>();
        let expressions = expressions
            .map_err(|cause| Error::internal(format!("the expressions of {name} are broken")).because(cause))?;
        Ok(Cut { expressions, whole_pieces: found.whole_pieces, add_bos: found.add_bos })
    }

    /// The pieces of a text, in order and without a gap.
    ///
    /// # Errors
    /// Unsupported where an expression gives up on the text.
    pub(super) fn pieces<'a>(&self, text: &'a str) -> Result<Vec<&'a str>> {
        let mut pieces = vec![text];
        for expression in &self.expressions {
            let mut finer = Vec::with_capacity(pieces.len());
            for piece in pieces {
                cut(expression, piece, &mut finer)?;
            }
            pieces = finer;
        }
        Ok(pieces)
    }
}

fn cut<'a>(expression: &Regex, piece: &'a str, finer: &mut Vec<&'a str>) -> Result<()> {
    let mut end = 0;
    for found in expression.find_iter(piece) {
        let found =
            found.map_err(|cause| Error::unsupported("the text is too hard to cut into words").because(cause))?;
        finer.extend(piece.get(end..found.start()).filter(|between| !between.is_empty()));
        finer.extend(Some(found.as_str()).filter(|matched| !matched.is_empty()));
        end = found.end();
    }
    finer.extend(piece.get(end..).filter(|rest| !rest.is_empty()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_cutting_keeps_the_whole_text() {
        let text = "I'VE  12345\n\n\tGröße 中文かな, <|x|>   ...\u{3000}end  ";
        for known in &KNOWN {
            for name in known.names {
                let cut = Cut::named(Some(name), "pre").unwrap();
                let pieces = cut.pieces(text).unwrap();
                assert_eq!(pieces.concat(), text, "{name}");
                assert!(pieces.len() > 8, "{name}: {pieces:?}");
            }
        }
        assert_eq!(Cut::named(Some("qwen2"), "pre").unwrap().pieces("").unwrap(), [""; 0]);
    }

    #[test]
    fn letters_with_case_are_a_sorted_list() {
        let regex = Regex::new(CASED).unwrap();
        for letter in ["a", "é", "Ж", "ώ", "Ω", "K", "Ａ"] {
            assert!(regex.is_match(letter).unwrap(), "{letter}");
        }
        for other in ["1", "_", "中", "ا", "ー"] {
            assert!(!regex.is_match(other).unwrap(), "{other}");
        }
    }

    #[test]
    fn long_runs_do_not_wear_an_expression_out() {
        for known in &KNOWN {
            let cut = Cut::named(known.names.first().copied(), "pre").unwrap();
            for run in [" ", "\n", "a", "1", ".", "中", " \n"] {
                let text = run.repeat(100_000);
                assert_eq!(cut.pieces(&text).unwrap().concat(), text);
            }
        }
    }

    #[test]
    fn an_unknown_way_is_refused_with_the_known() {
        let error = Cut::named(Some("tekken"), "tokenizer.ggml.pre").unwrap_err().to_string();
        assert!(
            error.starts_with("tokenizer.ggml.pre = \"tekken\" is not supported; known are default, gpt-2"),
            "{error}"
        );
        assert!(Cut::named(None, "tokenizer.ggml.pre").unwrap_err().to_string().contains("has no tokenizer.ggml.pre"));
    }
}
