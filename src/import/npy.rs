//! Headers of .npy files: `numpy/lib/format.py` describes versions 1.0 to 3.0.

use crate::error::{Error, Result};

const MAGIC: &[u8] = b"\x93NUMPY";

/// The longest header that is read; numpy writes some 120 bytes.
const LONGEST_HEADER: usize = 1 << 16;

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Element type as numpy writes it: `<f4`.
    pub descr: String,
    /// Whether the first axis is the innermost.
    pub fortran_order: bool,
    /// Axes, as indexed.
    pub shape: Vec<usize>,
    /// Where the values begin.
    pub data: usize,
}

/// Reads the header of a file.
///
/// # Errors
/// Malformed where it breaks the format; unsupported for another version and for structured types.
pub fn header(bytes: &[u8]) -> Result<Header> {
    let Some(rest) = bytes.strip_prefix(MAGIC) else {
        return Err(Error::malformed("no .npy file: it does not begin with \\x93NUMPY"));
    };
    let cut = || Error::malformed("the .npy header is cut short").at(bytes.len() as u64);
    let (version, rest) = rest.split_first_chunk::<2>().ok_or_else(cut)?;
    let (length, rest) = match version {
        [1, 0] => {
            let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(cut)?;
            (usize::from(u16::from_le_bytes(*length)), rest)
        }
        [2 | 3, 0] => {
            let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
            (usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX), rest)
        }
        [major, minor] => {
            return Err(Error::unsupported(format!("version {major}.{minor} of .npy is not known: 1.0 to 3.0 are")));
        }
    };
    if length > LONGEST_HEADER {
        return Err(Error::malformed(format!("a .npy header of {length} bytes is no header")));
    }
    let start = bytes.len() - rest.len();
    let text = rest.get(..length).ok_or_else(cut)?;
    let text = std::str::from_utf8(text)
        .map_err(|cause| Error::malformed("the .npy header is no text").at(start as u64).because(cause))?;
    let mut literal = Literal { rest: text };
    let dict = literal.dict().ok_or_else(|| {
        let at = start + (text.len() - literal.rest.len());
        Error::malformed("the .npy header is not {'descr': '<f4', 'fortran_order': False, 'shape': (1, 2)}")
            .at(at as u64)
    });
    let (descr, fortran_order, shape) = dict?;
    Ok(Header { descr, fortran_order, shape, data: start + length })
}

/// A Python dictionary of the three keys, in any order.
struct Literal<'a> {
    rest: &'a str,
}

impl Literal<'_> {
    fn dict(&mut self) -> Option<(String, bool, Vec<usize>)> {
        let (mut descr, mut order, mut shape) = (None, None, None);
        self.take("{")?;
        while !self.skip("}") {
            let key = self.string()?;
            self.take(":")?;
            match key.as_str() {
                "descr" if descr.is_none() => descr = Some(self.string()?),
                "fortran_order" if order.is_none() => order = Some(self.bool()?),
                "shape" if shape.is_none() => shape = Some(self.tuple()?),
                _ => return None,
            }
            if !self.skip(",") {
                self.take("}")?;
                break;
            }
        }
        self.rest.trim().is_empty().then_some((descr?, order?, shape?))
    }

    fn skip(&mut self, token: &str) -> bool {
        self.take(token).is_some()
    }

    fn take(&mut self, token: &str) -> Option<()> {
        self.rest = self.rest.trim_start();
        self.rest = self.rest.strip_prefix(token)?;
        Some(())
    }

    fn string(&mut self) -> Option<String> {
        let quote = if self.skip("'") { '\'' } else { self.take("\"").map(|()| '"')? };
        let (text, rest) = self.rest.split_once(quote)?;
        self.rest = rest;
        (!text.contains('\\')).then(|| text.to_owned())
    }

    fn bool(&mut self) -> Option<bool> {
        if self.skip("True") { Some(true) } else { self.take("False").map(|()| false) }
    }

    fn tuple(&mut self) -> Option<Vec<usize>> {
        let mut axes = Vec::new();
        self.take("(")?;
        while !self.skip(")") {
            self.rest = self.rest.trim_start();
            let digits = self.rest.len() - self.rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, rest) = self.rest.split_at(digits);
            axes.push(number.parse().ok()?);
            self.rest = rest;
            if !self.skip(",") {
                self.take(")")?;
                break;
            }
        }
        Some(axes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: [u8; 2], text: &str) -> Vec<u8> {
        let mut bytes = [MAGIC, &version[..]].concat();
        match version[0] {
            1 => bytes.extend((text.len() as u16).to_le_bytes()),
            _ => bytes.extend((text.len() as u32).to_le_bytes()),
        }
        [bytes, text.as_bytes().to_vec()].concat()
    }

    #[test]
    fn headers_of_every_version() {
        let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }    \n";
        for version in [[1, 0], [2, 0], [3, 0]] {
            let bytes = file(version, text);
            let found = header(&bytes).unwrap();
            let expected =
                Header { descr: "<f4".to_owned(), fortran_order: false, shape: vec![3, 4], data: bytes.len() };
            assert_eq!(found, expected);
        }
        let vector = "{\"shape\": (7,), \"fortran_order\": True, \"descr\": \"<f2\"}";
        let found = header(&file([1, 0], vector)).unwrap();
        assert_eq!((found.shape, found.fortran_order, found.descr.as_str()), (vec![7], true, "<f2"));
    }

    #[test]
    fn headers_that_break_the_format() {
        let good = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }";
        let broken = [
            good.replace("(3, 4)", "(-3, 4)"),
            good.replace("(3, 4)", "(3, 99999999999999999999)"),
            good.replace("(3, 4)", "(3 4)"),
            good.replace("False", "0"),
            good.replace("'<f4'", "[('a', '<f4')]"),
            good.replace("'shape': (3, 4), ", ""),
            good.replace("'shape'", "'descr'"),
            format!("{good} trailing"),
            good.trim_end_matches('}').to_owned(),
        ];
        for text in broken {
            assert!(header(&file([1, 0], &text)).is_err(), "{text}");
        }
        let whole = file([1, 0], good);
        for length in 0..whole.len() {
            assert!(header(&whole[..length]).is_err(), "cut to {length}");
        }
        assert!(header(&file([4, 0], good)).unwrap_err().to_string().contains("version 4.0"));
        let long = [MAGIC, &[2, 0, 0xff, 0xff, 0xff, 0xff]].concat();
        assert!(header(&long).unwrap_err().to_string().contains("4294967295"));
    }
}
