//! The one error type of the library: what went wrong, where, and why.

use std::fmt;
use std::path::{Path, PathBuf};

/// Shorthand for a result of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of trouble an [`Error`] is. Programs turn it into an exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller asked for something that makes no sense (an unknown name, a bad range).
    Usage,
    /// The operating system said no (missing file, full disk, no permission).
    Environment,
    /// Well-formed and known, but not something that this version can do.
    Unsupported,
    /// Input that claims to be of a known format and breaks that format's rules.
    Malformed,
    /// A file that is of another format altogether.
    Foreign,
    /// A trace file whose bytes are not the bytes that were written.
    Damaged,
    /// Two things that must not be compared.
    NotComparable,
    /// The work was done, and something was lost on the way.
    Loss,
    /// A signal asked for an end.
    Interrupted,
    /// A rule of this program was broken by this program: a bug.
    Internal,
}

/// An error with its kind, its place (file, offset, tensor) and its cause.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    file: Option<PathBuf>,
    offset: Option<u64>,
    tensor: Option<String>,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` that says `message`: what is wrong and what to do about it.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, message: message.into(), file: None, offset: None, tensor: None, cause: None }))
    }

    /// The caller asked for something that makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Usage, message)
    }

    /// A known thing that this version refuses by name.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Unsupported, message)
    }

    /// Input that breaks the rules of its own format.
    pub fn malformed(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Malformed, message)
    }

    /// A trace whose bytes changed after they were written.
    pub fn damaged(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Damaged, message)
    }

    /// A broken rule of this program.
    pub fn internal(message: impl Into<String>) -> Self {
        Error::new(ErrorKind::Internal, message)
    }

    /// An operating system error met while doing `what` (an infinitive: "open", "write").
    pub fn io(what: &str, path: &Path, cause: std::io::Error) -> Self {
        Error::new(ErrorKind::Environment, format!("cannot {what}")).in_file(path).because(cause)
    }

    /// Names the file; an inner file that is already named stays.
    #[must_use]
    pub fn in_file(mut self, path: &Path) -> Self {
        self.0.file.get_or_insert_with(|| path.to_path_buf());
        self
    }

    /// Names the byte offset in the file; an offset that is already named stays.
    #[must_use]
    pub fn at(mut self, offset: u64) -> Self {
        self.0.offset.get_or_insert(offset);
        self
    }

    /// Names the tensor; a tensor that is already named stays.
    #[must_use]
    pub fn of(mut self, tensor: &str) -> Self {
        self.0.tensor.get_or_insert_with(|| tensor.to_owned());
        self
    }

    /// Adds the cause beneath.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// What sort of trouble this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The file it happened in, where there is one.
    pub fn file(&self) -> Option<&Path> {
        self.0.file.as_deref()
    }

    /// The byte offset in that file, where there is one.
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// The tensor concerned, where there is one.
    pub fn tensor(&self) -> Option<&str> {
        self.0.tensor.as_deref()
    }
}

impl fmt::Display for Error {
    /// One line: `FILE: tensor NAME: at byte N: message: cause`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.0.file {
            write!(f, "{}: ", file.display())?;
        }
        if let Some(tensor) = &self.0.tensor {
            write!(f, "tensor {tensor}: ")?;
        }
        if let Some(offset) = self.0.offset {
            write!(f, "at byte {offset}: ")?;
        }
        f.write_str(&self.0.message)?;
        if let Some(cause) = &self.0.cause {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.cause.as_ref().map(|cause| cause.as_ref() as _)
    }
}

/// The entry of `known` nearest to `name`, for "did you mean" in messages.
///
/// Near means at most a third of the letters wrong (Levenshtein distance).
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (edit_distance(name, candidate), candidate))
        .filter(|(distance, candidate)| distance * 3 <= name.len().max(candidate.len()))
        .min()
        .map(|(_, candidate)| candidate)
}

fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_puts_place_before_message_and_cause_after() {
        let error = Error::malformed("the header is cut short")
            .in_file(Path::new("m.gguf"))
            .at(24)
            .of("output.weight")
            .because("expected 8 bytes");
        assert_eq!(
            error.to_string(),
            "m.gguf: tensor output.weight: at byte 24: the header is cut short: expected 8 bytes"
        );
    }

    #[test]
    fn the_innermost_place_wins() {
        let error = Error::damaged("x").at(1).at(2).in_file(Path::new("a")).in_file(Path::new("b"));
        assert_eq!((error.offset(), error.file()), (Some(1), Some(Path::new("a"))));
    }

    #[test]
    fn nearest_suggests_a_small_slip_and_nothing_for_another_word() {
        let names = ["attn_norm", "ffn_norm", "logits"];
        assert_eq!(nearest("atn_norm", names), Some("attn_norm"));
        assert_eq!(nearest("logit", names), Some("logits"));
        assert_eq!(nearest("embedding", names), None);
    }
}
