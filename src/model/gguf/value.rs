//! Metadata values.

use crate::error::{Error, Result};
use crate::model::cursor::Cursor;

/// How deep arrays may nest. Files in the field nest once.
const DEEPEST: u32 = 4;

/// A metadata value. Of an array only the length is kept: no hyper-parameter of a known family is an array.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    Array(u64),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Unsigned(number) => write!(f, "{number}"),
            Value::Signed(number) => write!(f, "{number}"),
            Value::Float(number) => write!(f, "{number}"),
            Value::Bool(flag) => write!(f, "{flag}"),
            Value::Text(text) => write!(f, "{text:?}"),
            Value::Array(length) => write!(f, "an array of {length}"),
        }
    }
}

/// Reads a type number and the value behind it.
pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Value> {
    let kind = cursor.u32()?;
    read_kind(cursor, kind, 0)
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
        7 => Value::Bool(cursor.u8()? != 0),
        8 => Value::Text(String::from_utf8_lossy(cursor.counted()?).into_owned()),
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
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        8 | 10..=12 => 8,
        _ => 12,
    };
    cursor.expect(length, size)?;
    for _ in 0..length {
        match kind {
            8 => {
                cursor.counted()?;
            }
            _ => {
                read_kind(cursor, kind, depth + 1)?;
            }
        }
    }
    Ok(Value::Array(length))
}
