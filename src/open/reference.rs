//! References to rows of payloads: what a query carries instead of their values.

use super::{Payload, Trace, TraceSet, hex};
use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A row of a payload of one file. As text: the file's identity in 32 hexadecimal digits, the payload and the row, with
/// slashes between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorReference {
    /// Identity of the file, from its header.
    pub file: [u8; 16],
    /// Number of the payload.
    pub payload: u64,
    /// Row of the payload.
    pub row: u32,
}

impl fmt::Display for TensorReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.file {
            write!(f, "{byte:02x}")?;
        }
        write!(f, "/{}/{}", self.payload, self.row)
    }
}

impl FromStr for TensorReference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text).ok_or_else(|| {
            Error::usage(format!("`{text}` is no reference to a tensor: the column `tensor` of activations gives them"))
        })
    }
}

fn parse(text: &str) -> Option<TensorReference> {
    let mut parts = text.split('/');
    let (file, payload, row) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || file.len() != 32 || !file.is_ascii() {
        return None;
    }
    let mut identity = [0; 16];
    for (byte, digits) in identity.iter_mut().zip(file.as_bytes().as_chunks::<2>().0) {
        let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
        *byte = u8::try_from(high? << 4 | low?).ok()?;
    }
    Some(TensorReference { file: identity, payload: payload.parse().ok()?, row: row.parse().ok()? })
}

/// A row of a decoded payload.
#[derive(Debug, Clone)]
pub struct StoredRow {
    payload: Arc<Payload>,
    row: usize,
}

impl StoredRow {
    /// Its values.
    pub fn values(&self) -> &[f32] {
        // `TraceSet::row` makes no other than one that the payload has.
        self.payload.row(self.row).unwrap_or_default()
    }
}

impl TraceSet {
    /// The row that `reference` names, decoded.
    ///
    /// # Errors
    ///
    /// `Usage` where its file is not open, or two open files have its identity; `Damaged` where the file has no such row.
    pub fn row(&self, reference: &TensorReference) -> Result<StoredRow> {
        let trace = self.owner(reference)?;
        let row = usize::try_from(reference.row).unwrap_or(usize::MAX);
        let payload = trace.payload(reference.payload)?;
        if payload.row(row).is_none() {
            let what = format!("payload {} has no row {}", reference.payload, reference.row);
            return Err(Error::damaged(what).in_file(trace.path()));
        }
        Ok(StoredRow { payload, row })
    }

    fn owner(&self, reference: &TensorReference) -> Result<&Arc<Trace>> {
        let mut owners = self.traces().iter().filter(|trace| trace.header().uuid == reference.file);
        let identity = || hex(&reference.file);
        match (owners.next(), owners.next()) {
            (Some(trace), None) => Ok(trace),
            (Some(one), Some(other)) => Err(Error::usage(format!(
                "{reference} may be a tensor of two files with the identity {}: {} and {}; open one of them",
                identity(),
                one.path().display(),
                other.path().display()
            ))),
            (None, _) => {
                Err(Error::usage(format!("{reference} is a tensor of file {}, which is not open here", identity())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_text_reads_back() {
        let reference = TensorReference { file: [0xA5; 16], payload: u64::MAX, row: 7 };
        assert_eq!(reference.to_string(), format!("{}/18446744073709551615/7", "a5".repeat(16)));
        assert_eq!(reference.to_string().parse::<TensorReference>().unwrap(), reference);
    }

    #[test]
    fn other_text_is_no_reference() {
        let file = "00".repeat(16);
        for text in ["", "a", "//", &file, &format!("{file}/1"), &format!("{file}/1/2/3"), &format!("{file}/-1/0")] {
            assert!(text.parse::<TensorReference>().is_err(), "{text}");
        }
        assert!(format!("{}ß/1/2", "0".repeat(30)).parse::<TensorReference>().is_err());
        assert!(format!("+0{}/1/2", "0".repeat(30)).parse::<TensorReference>().is_err());
    }
}
