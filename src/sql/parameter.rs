//! Values of named parameters.

use datafusion::common::ScalarValue;

/// A value for a `$name` in SQL.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text; a run is its id.
    Text(String),
    /// A number.
    Number(f64),
    /// No value: NULL.
    Missing,
}

impl Value {
    /// As DataFusion takes it. A whole number is an integer, so that it fits LIMIT.
    pub(super) fn scalar(&self) -> ScalarValue {
        match self {
            Value::Text(text) => ScalarValue::Utf8(Some(text.clone())),
            // 2^53: whole numbers up to there are exact in f64.
            Value::Number(number) if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 => {
                ScalarValue::Int64(Some(*number as i64))
            }
            Value::Number(number) => ScalarValue::Float64(Some(*number)),
            Value::Missing => ScalarValue::Float64(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_integers_and_others_floats() {
        assert_eq!(Value::Number(3.0).scalar(), ScalarValue::Int64(Some(3)));
        assert_eq!(Value::Number(0.5).scalar(), ScalarValue::Float64(Some(0.5)));
        assert_eq!(Value::Number(f64::NAN).scalar().to_string(), "NaN");
    }
}
