//! One value as text.

use super::refused;
use crate::error::Result;
use arrow::array::{Array, ArrayRef, AsArray, StructArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use std::fmt::{Display, Write};

/// Digits of a float that people get to see.
const DIGITS: usize = 6;
/// Entries of a list that people get to see.
const ENTRIES: usize = 4;

/// How exact a text must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Everything, for programs.
    Exact,
    /// Short, for people: six digits, the head of lists, no control bytes.
    Short,
}

/// The value at `row` of `column`; `None` where it is NULL.
pub fn cell(column: &ArrayRef, row: usize, detail: Detail) -> Result<Option<String>> {
    if column.is_null(row) || column.logical_nulls().is_some_and(|nulls| nulls.is_null(row)) {
        return Ok(None);
    }
    Ok(Some(match column.data_type() {
        DataType::Float64 => float(column.as_primitive::<Float64Type>().value(row), detail),
        DataType::Float32 => match detail {
            Detail::Exact => exact(column.as_primitive::<Float32Type>().value(row)),
            Detail::Short => float(f64::from(column.as_primitive::<Float32Type>().value(row)), detail),
        },
        DataType::List(_) => list(&column.as_list::<i32>().value(row), detail)?,
        DataType::Struct(_) => record(column.as_struct(), row, detail)?,
        _ => {
            let text = plain(column, row)?;
            if detail == Detail::Short { printable(&text) } else { text }
        }
    }))
}

fn plain(column: &ArrayRef, row: usize) -> Result<String> {
    let formatter = ArrayFormatter::try_new(column.as_ref(), &FormatOptions::default()).map_err(refused)?;
    let mut text = String::new();
    write!(text, "{}", formatter.value(row)).map_err(refused)?;
    Ok(text)
}

/// A list: JSON text where exact, its head where short.
fn list(values: &ArrayRef, detail: Detail) -> Result<String> {
    let shown = if detail == Detail::Short { values.len().min(ENTRIES) } else { values.len() };
    let parts = (0..shown).map(|row| part(values, row, detail)).collect::<Result<Vec<_>>>()?;
    let separator = if detail == Detail::Short { ", " } else { "," };
    let more = values.len() - shown;
    let tail = if more > 0 { format!("{separator}... {more} more") } else { String::new() };
    Ok(format!("[{}{tail}]", parts.join(separator)))
}

/// A struct: JSON text where exact, its names and values where short.
fn record(fields: &StructArray, row: usize, detail: Detail) -> Result<String> {
    let mut parts = Vec::with_capacity(fields.num_columns());
    for (name, column) in fields.column_names().into_iter().zip(fields.columns()) {
        let value = part(column, row, detail)?;
        parts.push(match detail {
            Detail::Short => format!("{name}: {value}"),
            Detail::Exact => format!("{}:{value}", serde_json::Value::from(name)),
        });
    }
    Ok(format!("{{{}}}", parts.join(if detail == Detail::Short { ", " } else { "," })))
}

/// A value within a list or a struct.
fn part(column: &ArrayRef, row: usize, detail: Detail) -> Result<String> {
    let Some(text) = cell(column, row, detail)? else { return Ok("null".to_owned()) };
    let kind = column.data_type();
    let literal = kind.is_integer() || kind.is_nested() || kind.is_floating() && !is_named(&text);
    let literal = literal || *kind == DataType::Boolean;
    Ok(if literal || detail == Detail::Short { text } else { serde_json::Value::String(text).to_string() })
}

fn is_named(text: &str) -> bool {
    matches!(text, "NaN" | "Infinity" | "-Infinity")
}

/// The name of a float that no number stands for.
pub fn nonfinite(value: f64) -> Option<&'static str> {
    if value.is_nan() {
        Some("NaN")
    } else if value.is_infinite() {
        Some(if value > 0.0 { "Infinity" } else { "-Infinity" })
    } else {
        None
    }
}

fn float(value: f64, detail: Detail) -> String {
    match (nonfinite(value), detail) {
        (Some(name), _) => name.to_owned(),
        (None, Detail::Exact) => exact(value),
        (None, Detail::Short) => short(value),
    }
}

/// The shortest text that reads back as the same number.
fn exact<T: Into<f64> + Copy + Display + std::fmt::LowerExp>(value: T) -> String {
    let wide: f64 = value.into();
    if let Some(name) = nonfinite(wide) {
        return name.to_owned();
    }
    let magnitude = wide.abs();
    if magnitude == 0.0 || (1e-5..1e15).contains(&magnitude) { value.to_string() } else { format!("{value:e}") }
}

/// Six significant digits, without zeros at the end.
fn short(value: f64) -> String {
    let magnitude = value.abs();
    if value == 0.0 {
        return "0".to_owned();
    }
    if !(1e-4..1e9).contains(&magnitude) {
        return format!("{value:.*e}", DIGITS - 1);
    }
    // The exponent of a number in this range is between -4 and 8.
    let exponent = magnitude.log10().floor() as i32;
    let decimals = usize::try_from(DIGITS as i32 - 1 - exponent).unwrap_or(0);
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Control bytes as spaces: text from a file must not steer a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_floats_keep_six_digits() {
        let shown = [1.0 / 3.0, 12_345.678_9, 1.0, 0.0, -2.5e-7, 1e12, 999_999.96].map(short);
        assert_eq!(shown, ["0.333333", "12345.7", "1", "0", "-2.50000e-7", "1.00000e12", "1000000"]);
    }

    #[test]
    fn exact_floats_read_back() {
        for value in [1.0 / 3.0, f64::MIN_POSITIVE, 1e300, -0.0, 5e-324, 123_456.789] {
            assert_eq!(exact(value).parse::<f64>().unwrap().to_bits(), value.to_bits());
        }
        assert_eq!(exact(0.1f32), "0.1");
    }
}
