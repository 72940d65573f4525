//! Metadata values.

use crate::error::{Error, Result};
use crate::model::Bytes;
use crate::model::cursor::Cursor;

/// How deep arrays may nest. Files in the field nest once.
const DEEPEST: u32 = 4;

/// The type number of flags.
const FLAG: u32 = 7;

/// The type number of texts.
const TEXT: u32 = 8;

/// Bytes of an array before its elements: their type and how many there are.
const ARRAY_HEAD: usize = 12;

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    Array(Array),
}

/// An array as it lies in the file. Its elements were checked to be there; they are read when they are asked for.
#[derive(Debug, Clone)]
pub(super) struct Array {
    /// Type number of the elements.
    kind: u32,
    length: u64,
    /// The elements.
    bytes: Bytes,
}

impl PartialEq for Array {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && *self.bytes == *other.bytes
    }
}

impl Array {
    /// The elements of an array of texts.
    ///
    /// # Errors
    /// Malformed where they are something else, or no UTF-8.
    pub(super) fn texts(&self) -> Result<Vec<String>> {
        if self.kind != TEXT {
            return Err(Error::malformed("its elements are no texts"));
        }
        let mut cursor = Cursor::new(&self.bytes);
        (0..self.length).map(|_| cursor.text()).collect()
    }

    /// The elements of an array of flags.
    ///
    /// # Errors
    /// Malformed where they are something else.
    pub(super) fn flags(&self) -> Result<Vec<bool>> {
        match self.kind {
            FLAG => Ok(self.bytes.iter().map(|byte| *byte != 0).collect()),
            _ => Err(Error::malformed("its elements are no flags")),
        }
    }

    /// The elements of an array of numbers.
    ///
    /// # Errors
    /// Malformed where they are something else.
    pub(super) fn numbers(&self) -> Result<Vec<f64>> {
        let mut cursor = Cursor::new(&self.bytes);
        let number = |_| match read_kind(&mut cursor, self.kind, DEEPEST)? {
            Value::Unsigned(number) => Ok(number as f64),
            Value::Signed(number) => Ok(number as f64),
            Value::Float(number) => Ok(number),
            _ => Err(Error::malformed("its elements are no numbers")),
        };
        (0..self.length).map(number).collect()
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Unsigned(number) => write!(f, "{number}"),
            Value::Signed(number) => write!(f, "{number}"),
            Value::Float(number) => write!(f, "{number}"),
            Value::Bool(flag) => write!(f, "{flag}"),
            Value::Text(text) => write!(f, "{text:?}"),
            Value::Array(array) => write!(f, "an array of {}", array.length),
        }
    }
}

/// Reads a type number and the value behind it; `cursor` goes over the bytes of `file`.
pub(super) fn read(cursor: &mut Cursor<'_>, file: &Bytes) -> Result<Value> {
    let kind = cursor.u32()?;
    let start = cursor.position() as usize + ARRAY_HEAD;
    let mut value = read_kind(cursor, kind, 0)?;
    if let Value::Array(array) = &mut value {
        let elements = file.slice(start..cursor.position() as usize);
        array.bytes = elements.ok_or_else(|| Error::internal("an array was read past the end of its file"))?;
    }
    Ok(value)
}

fn read_kind(cursor: &mut Cursor<'_>, kind: u32, depth: u32) -> Result<Value> {
    Ok(match kind {
        0 => Value::Unsigned(cursor.u8()?.into()),
        1 => Value::Signed(cursor.u8()?.cast_signed().into()),
        2 => Value::Unsigned(cursor.u16()?.into()),
        3 => Value::Signed(cursor.u16()?.cast_signed().into()),
        4 => Value::Unsigned(cursor.u32()?.into()),
        5 => Value::Signed(cursor.u32()?.cast_signed().into()),
        6 => Value::Float(f32::from_bits(cursor.u32()?).into()),
        FLAG => Value::Bool(cursor.u8()? != 0),
        TEXT => Value::Text(String::from_utf8_lossy(cursor.counted()?).into_owned()),
        9 => read_array(cursor, depth)?,
        10 => Value::Unsigned(cursor.u64()?),
        11 => Value::Signed(cursor.u64()?.cast_signed()),
        12 => Value::Float(f64::from_bits(cursor.u64()?)),
        _ => {
            return Err(Error::malformed(format!("{kind} is no type of a metadata value")).at(cursor.position()));
        }
    })
}

fn read_array(cursor: &mut Cursor<'_>, depth: u32) -> Result<Value> {
    if depth == DEEPEST {
        return Err(Error::malformed(format!("arrays nest deeper than {DEEPEST}")).at(cursor.position()));
    }
    let kind = cursor.u32()?;
    let length = cursor.u64()?;
    // The least bytes an element takes: an array has a type and a length.
    let size = match kind {
        0 | 1 | FLAG => 1,
        2 | 3 => 2,
        4..=6 => 4,
        TEXT | 10..=12 => 8,
        _ => 12,
    };
    cursor.expect(length, size)?;
    for _ in 0..length {
        match kind {
            TEXT => {
                cursor.counted()?;
            }
            _ => {
                read_kind(cursor, kind, depth + 1)?;
            }
        }
    }
    Ok(Value::Array(Array { kind, length, bytes: Vec::new().into() }))
}
