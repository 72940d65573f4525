//! From what the user typed to token ids.

use super::note;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Format, Model, Tokenizer};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Where the prompt comes from: exactly one of these.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct PromptSource {
    /// The prompt as text
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// A file that holds the prompt; `-` is stdin
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
    /// The prompt as token ids, for instance 609,1827,409
    #[arg(long, value_name = "IDS")]
    tokens: Option<String>,
    /// A file of token ids, separated by commas or white space; `-` is stdin
    #[arg(long, value_name = "FILE")]
    tokens_file: Option<PathBuf>,
}

/// A prompt, ready to run.
#[derive(Debug)]
pub struct Prompt {
    /// Its text, where it was given as text.
    pub text: Option<String>,
    /// Its token ids.
    pub tokens: Vec<u32>,
    /// The tokenizer, where one is at hand: for the prompt and for what is generated.
    pub tokenizer: Option<Tokenizer>,
}

impl PromptSource {
    /// Reads the prompt for `model`.
    pub fn read(&self, model: &Model, tokenizer: Option<&Path>) -> Result<Prompt> {
        let tokenizer = open_tokenizer(model, tokenizer);
        if let Some(text) = self.text()? {
            // Some tokenizers make a token of nothing; a run of that alone is asked for by --tokens.
            if text.is_empty() {
                return Err(Error::usage("the prompt is empty: give at least one token"));
            }
            let Some(tokenizer) = tokenizer.map_err(|unusable| unusable.fatal(model))? else {
                return Err(no_tokenizer(model, "a prompt as text needs a tokenizer"));
            };
            let tokens = tokenizer.encode(&text)?;
            return Ok(Prompt { text: Some(text), tokens, tokenizer: Some(tokenizer) });
        }
        let tokenizer = tokenizer.or_else(Unusable::passed_over)?;
        Ok(Prompt { text: None, tokens: self.ids()?, tokenizer })
    }

    fn text(&self) -> Result<Option<String>> {
        match (&self.prompt, &self.prompt_file) {
            (Some(text), _) => Ok(Some(text.clone())),
            (None, Some(file)) => read_text(file).map(Some),
            (None, None) => Ok(None),
        }
    }

    fn ids(&self) -> Result<Vec<u32>> {
        match (&self.tokens, &self.tokens_file) {
            (Some(ids), _) => parse_ids(ids),
            (None, Some(file)) => parse_ids(&read_text(file)?).map_err(|error| error.in_file(file)),
            (None, None) => {
                Err(Error::usage("no prompt is given: add --prompt, --prompt-file, --tokens or --tokens-file"))
            }
        }
    }
}

/// The text of a file, or of stdin.
pub(super) fn read_text(file: &Path) -> Result<String> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut text))
    };
    read.map_err(|cause| Error::io("read the prompt", file, cause))?;
    Ok(text)
}

/// Token ids out of text.
pub(super) fn parse_ids(text: &str) -> Result<Vec<u32>> {
    text.split(|c: char| c == ',' || c.is_whitespace())
        .filter(|part| !part.is_empty())
        .map(|part| {
            part.parse().map_err(|_| {
                Error::usage(format!("`{part}` is no token id: give whole numbers from 0 on, with commas between"))
            })
        })
        .collect()
}

/// Why there is no tokenizer although one should be there.
enum Unusable {
    /// A file that was named, or that lies in the model's folder.
    File(Error),
    /// The vocabulary of the model's file, which token ids do not need.
    Vocabulary(Error),
}

impl Unusable {
    fn fatal(self, model: &Model) -> Error {
        match self {
            Unusable::File(error) => error,
            Unusable::Vocabulary(error) => {
                let message = "a prompt as text needs a tokenizer, and the file's own vocabulary cannot be used";
                no_tokenizer(model, message).because(error)
            }
        }
    }

    /// Token ids can run, and what they generate is shown without text.
    fn passed_over(self) -> Result<Option<Tokenizer>> {
        match self {
            Unusable::File(error) => Err(error),
            Unusable::Vocabulary(error) => {
                note(&format!("tokenizer: none ({error})"));
                Ok(None)
            }
        }
    }
}

/// The tokenizer that was named, or else the model's own: a file in its folder, or the vocabulary in its file.
fn open_tokenizer(model: &Model, given: Option<&Path>) -> Result<Option<Tokenizer>, Unusable> {
    if let Some(path) = given {
        return Tokenizer::open(path).map(Some).map_err(Unusable::File);
    }
    let beside = model.path().join("tokenizer.json");
    if model.format() == Format::Safetensors && beside.exists() {
        return Tokenizer::open(&beside).map(Some).map_err(Unusable::File);
    }
    let vocabulary = model.vocabulary().map_err(Unusable::Vocabulary)?;
    let tokenizer = vocabulary.map(|vocabulary| Tokenizer::of_vocabulary(&vocabulary, model.path()));
    tokenizer.transpose().map_err(Unusable::Vocabulary)
}

/// A file's neighbour is not taken by itself: the wrong tokenizer is a wrong comparison. It is named instead.
fn no_tokenizer(model: &Model, message: &str) -> Error {
    let beside = model.path().with_file_name("tokenizer.json");
    let hint = if beside.exists() { beside.display().to_string() } else { "tokenizer.json".to_owned() };
    let message = format!("{message}: add --tokenizer {hint}, or give token ids with --tokens");
    Error::new(ErrorKind::Unsupported, message).in_file(model.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_separated_by_commas_or_white_space() {
        assert_eq!(parse_ids("1,2, 3\n4").unwrap(), [1, 2, 3, 4]);
        assert_eq!(
            parse_ids("1,x").unwrap_err().to_string(),
            "`x` is no token id: give whole numbers from 0 on, with commas between"
        );
        assert!(parse_ids("-1").is_err());
    }
}
