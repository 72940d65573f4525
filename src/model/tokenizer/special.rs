//! Special tokens in a prompt: their texts are cut out before anything else, the longest first, as llama.cpp does.

use crate::model::Vocabulary;
use crate::model::vocabulary::TokenKind;

/// A part of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fragment<'a> {
    Text(&'a str),
    Token(u32),
}

#[derive(Debug)]
pub(super) struct Special {
    /// The longest first, then by id.
    tokens: Vec<(String, u32)>,
}

impl Special {
    /// Control, user-defined and unknown tokens.
    pub(super) fn of(vocabulary: &Vocabulary) -> Special {
        let special = |kind| matches!(kind, TokenKind::Control | TokenKind::UserDefined | TokenKind::Unknown);
        let all = (0..).zip(vocabulary.tokens.iter().zip(&vocabulary.kinds));
        let mut tokens: Vec<(String, u32)> = all
            .filter(|(_, (token, kind))| special(**kind) && !token.is_empty())
            .map(|(id, (token, _))| (token.clone(), id))
            .collect();
        tokens.sort_by(|(one, a), (other, b)| other.len().cmp(&one.len()).then(a.cmp(b)));
        Special { tokens }
    }

    /// The parts of a prompt, none of them an empty text.
    pub(super) fn fragments<'a>(&self, text: &'a str) -> Vec<Fragment<'a>> {
        let mut fragments = vec![Fragment::Text(text)];
        // Most texts have few of the tokens; only those are worth a walk over the fragments.
        for (token, id) in self.tokens.iter().filter(|(token, _)| text.contains(token.as_str())) {
            let mut finer = Vec::with_capacity(fragments.len());
            for fragment in fragments {
                match fragment {
                    Fragment::Text(text) => cut_out(text, token, *id, &mut finer),
                    Fragment::Token(_) => finer.push(fragment),
                }
            }
            fragments = finer;
        }
        fragments.retain(|fragment| *fragment != Fragment::Text(""));
        fragments
    }
}

fn cut_out<'a>(text: &'a str, token: &str, id: u32, fragments: &mut Vec<Fragment<'a>>) {
    for (number, between) in text.split(token).enumerate() {
        if number > 0 {
            fragments.push(Fragment::Token(id));
        }
        fragments.push(Fragment::Text(between));
    }
}

#[cfg(test)]
mod tests {
    use super::Fragment::{Text, Token};
    use super::*;

    fn special(tokens: &[&str]) -> Special {
        let mut tokens: Vec<(String, u32)> = tokens.iter().map(|token| (*token).to_owned()).zip(0..).collect();
        tokens.sort_by_key(|(token, _)| std::cmp::Reverse(token.len()));
        Special { tokens }
    }

    #[test]
    fn the_longest_token_is_cut_out_first() {
        let special = special(&["<s>", "<s><s>", "ab"]);
        assert_eq!(special.fragments("x<s><s><s>y"), [Text("x"), Token(1), Token(0), Text("y")]);
        assert_eq!(special.fragments("abab"), [Token(2), Token(2)]);
        assert_eq!(special.fragments("plain"), [Text("plain")]);
        assert_eq!(special.fragments(""), []);
    }
}
