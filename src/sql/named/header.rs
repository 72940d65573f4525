//! The header of a query file: comment lines `-- key: value` on top.

use crate::error::{Error, Result};

/// What may stand before the colon.
const KEYS: [&str; 4] = ["question", "parameter", "columns", "empty"];

/// A header, and the SQL beneath.
pub struct Header<'a> {
    /// Line number (from 1), key and value of each line that has them.
    lines: Vec<(usize, &'a str, &'a str)>,
    /// The rest of the file.
    pub sql: String,
}

impl<'a> Header<'a> {
    /// Takes `text` apart. Comment lines without a colon are comments.
    ///
    /// # Errors
    ///
    /// `Usage` for an unknown key.
    pub fn of(text: &'a str) -> Result<Self> {
        let mut lines = Vec::new();
        let mut rest = text.lines().enumerate().peekable();
        while let Some((index, line)) = rest.next_if(|(_, line)| line.starts_with("--")) {
            let Some((key, value)) = line.trim_start_matches('-').trim().split_once(": ") else { continue };
            if !KEYS.contains(&key) {
                return Err(at(index + 1, &format!("`{key}` is no key of a header; keys are {}", KEYS.join(", "))));
            }
            lines.push((index + 1, key, value.trim()));
        }
        Ok(Header { lines, sql: rest.map(|(_, line)| line).collect::<Vec<_>>().join("\n") })
    }

    /// Every value of `key`, with its line.
    pub fn values(&self, key: &str) -> impl Iterator<Item = (usize, &'a str)> {
        self.lines.iter().filter(move |(_, known, _)| *known == key).map(|(line, _, value)| (*line, *value))
    }

    /// The value of a key that stands there once at most.
    ///
    /// # Errors
    ///
    /// `Usage` where it stands there twice.
    pub fn value(&self, key: &str) -> Result<Option<&'a str>> {
        let mut values = self.values(key);
        let first = values.next();
        match values.next() {
            Some((line, _)) => Err(at(line, &format!("a second `{key}`"))),
            None => Ok(first.map(|(_, value)| value)),
        }
    }
}

/// What is wrong with line `line`.
pub fn at(line: usize, what: &str) -> Error {
    Error::usage(format!("line {line}: {what}"))
}
