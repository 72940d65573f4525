//! Names of tensors with places for numbers: `Qcur-{layer}#{n}:ROPE`.

use std::collections::BTreeMap;

/// A name that stands for as many names as it has numbers to fill in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// `{layer}`: the number of the layer.
    Layer,
    /// `{n}`: any number.
    Number,
}

/// What a name is to a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// The layer, where the pattern has one.
    pub layer: Option<u32>,
}

/// Names that words expand to, in all.
const MOST_NAMES: usize = 1000;

impl Pattern {
    /// Every pattern that `text` stands for: `{word}` is each of the texts that `words` has for it, which may have
    /// words in turn.
    ///
    /// # Errors
    /// In words: what is wrong with the text.
    pub fn expand(text: &str, words: &BTreeMap<String, Vec<String>>) -> Result<Vec<Pattern>, String> {
        let (mut open, mut done) = (vec![text.to_owned()], Vec::new());
        while let Some(text) = open.pop() {
            if open.len() + done.len() >= MOST_NAMES {
                return Err(format!("its words make more than {MOST_NAMES} names"));
            }
            match first_word(&text)? {
                None => done.push(Pattern::parse(&text)?),
                Some((before, word, behind)) => {
                    let known = words
                        .get(word)
                        .ok_or_else(|| format!("{{{word}}} is neither {{layer}}, {{n}} nor a word of [words]"))?;
                    open.extend(known.iter().map(|meant| format!("{before}{meant}{behind}")));
                    // A word within itself never ends; every honest name is far shorter.
                    if open.last().is_some_and(|longest| longest.len() > 4096) {
                        return Err(format!("the word {{{word}}} does not come to an end"));
                    }
                }
            }
        }
        Ok(done)
    }

    fn parse(text: &str) -> Result<Pattern, String> {
        let mut parts: Vec<Part> = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (text, number) = match rest.split_once('{') {
                None => (std::mem::take(&mut rest), None),
                Some((text, behind)) => {
                    let (name, behind) = behind.split_once('}').ok_or("a { without its }")?;
                    rest = behind;
                    (text, Some(if name == "layer" { Part::Layer } else { Part::Number }))
                }
            };
            let after_number = matches!(parts.last(), Some(Part::Layer | Part::Number));
            if after_number && (text.is_empty() || text.starts_with(|c: char| c.is_ascii_digit())) {
                return Err("a number directly behind {layer} or {n} has no beginning".to_owned());
            }
            if !text.is_empty() {
                parts.push(Part::Text(text.to_owned()));
            }
            parts.extend(number);
        }
        match parts.iter().filter(|part| **part == Part::Layer).count() {
            _ if parts.is_empty() => Err("an empty name".to_owned()),
            0 | 1 => Ok(Pattern { parts }),
            _ => Err("{layer} stands there twice".to_owned()),
        }
    }

    /// Whether names have a layer.
    pub fn has_layer(&self) -> bool {
        self.parts.contains(&Part::Layer)
    }

    /// Whether `name` is one of the names, and which layer it says.
    pub fn matches(&self, name: &str) -> Option<Match> {
        let (mut rest, mut layer) = (name, None);
        for part in &self.parts {
            match part {
                Part::Text(text) => rest = rest.strip_prefix(text.as_str())?,
                Part::Layer | Part::Number => {
                    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                    let (number, behind) = rest.split_at(digits);
                    let number = number.parse().ok()?;
                    if *part == Part::Layer {
                        layer = Some(number);
                    }
                    rest = behind;
                }
            }
        }
        rest.is_empty().then_some(Match { layer })
    }
}

/// The first `{word}` that is no number, and what stands around it.
fn first_word(text: &str) -> Result<Option<(&str, &str, &str)>, String> {
    let mut from = 0;
    while let Some(open) = text[from..].find('{').map(|at| from + at) {
        let close = text[open..].find('}').map(|at| open + at).ok_or("a { without its }")?;
        let word = &text[open + 1..close];
        if word != "layer" && word != "n" {
            return Ok(Some((&text[..open], word, &text[close + 1..])));
        }
        from = close + 1;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> BTreeMap<String, Vec<String>> {
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        [("block".to_owned(), list(&["model.layers.{layer}", "h.{layer}"])), ("loop".to_owned(), list(&["{loop}x"]))]
            .into()
    }

    fn layer(patterns: &[Pattern], name: &str) -> Option<Option<u32>> {
        patterns.iter().find_map(|pattern| pattern.matches(name)).map(|found| found.layer)
    }

    #[test]
    fn numbers_fill_in_and_everything_else_is_literal() {
        let patterns = Pattern::expand("Qcur-{layer}#{n}:ROPE", &words()).unwrap();
        assert_eq!(layer(&patterns, "Qcur-12#3:ROPE"), Some(Some(12)));
        for other in ["Qcur-12#3:ADD", "Qcur-#3:ROPE", "Qcur-1#3:ROPEX", "xQcur-1#3:ROPE", "Qcur-99999999999#3:ROPE"] {
            assert_eq!(layer(&patterns, other), None, "{other}");
        }
    }

    #[test]
    fn words_stand_for_each_of_their_texts() {
        let patterns = Pattern::expand("{block}.mlp", &words()).unwrap();
        assert_eq!(layer(&patterns, "h.3.mlp"), Some(Some(3)));
        assert_eq!(layer(&patterns, "model.layers.07.mlp"), Some(Some(7)));
        assert_eq!(patterns.len(), 2);
    }

    #[test]
    fn names_without_meaning_are_refused() {
        for text in ["", "{layer", "{layer}{n}", "{layer}0", "{layer}.{layer}", "{depth}.q", "{loop}"] {
            assert!(Pattern::expand(text, &words()).is_err(), "{text}");
        }
    }
}
