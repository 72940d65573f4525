//! What every scalar function over tensors is: tensors first, then numbers, and a value for each row.

use super::output::Output;
use super::tensors::{Tensor, TensorColumn, Values, coerced};
use crate::error::{Error, Result};
use crate::open::TraceSet;
use crate::sql::error::external;
use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float64Type};
use datafusion::error::Result as SqlResult;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// What a function makes of its arguments; `None` where it is not defined for them.
type Body<T> = Box<dyn Fn(&Call<'_>) -> Result<Option<T>> + Send + Sync>;

/// A function that gives a `T` for `tensors` tensors and some numbers.
pub struct Function<T> {
    name: &'static str,
    tensors: usize,
    numbers: &'static [&'static str],
    optional: usize,
    signature: Signature,
    body: Body<T>,
    set: Arc<TraceSet>,
}

/// The arguments of one row.
pub struct Call<'a> {
    name: &'static str,
    numbers: &'static [&'static str],
    tensors: &'a [Tensor<'a>],
    values: &'a [f64],
}

impl<T: Output> Function<T> {
    /// The function `name` of `tensors` tensors, whose references lead into `set`.
    pub fn new(
        set: &Arc<TraceSet>,
        name: &'static str,
        tensors: usize,
        body: impl Fn(&Call<'_>) -> Result<Option<T>> + Send + Sync + 'static,
    ) -> Self {
        // References are read while a query runs, not while it is planned.
        let signature = Signature::user_defined(Volatility::Stable);
        Function { name, tensors, numbers: &[], optional: 0, signature, body: Box::new(body), set: Arc::clone(set) }
    }

    /// The same with the numbers `numbers` behind the tensors, the last `optional` of which may be left out together.
    #[must_use]
    pub fn with_numbers(self, numbers: &'static [&'static str], optional: usize) -> Self {
        Function { numbers, optional, ..self }
    }

    /// As SQL knows functions.
    pub fn udf(self) -> ScalarUDF {
        ScalarUDF::from(self)
    }

    fn usage(&self, what: &str) -> Error {
        let tensors = ["a", "b", "c"].into_iter().take(self.tensors);
        let required = self.numbers.len() - self.optional;
        let mut arguments = tensors.chain(self.numbers.iter().copied().take(required)).collect::<Vec<_>>().join(", ");
        if self.optional > 0 {
            arguments.push_str(&format!(" [, {}]", self.numbers[required..].join(", ")));
        }
        Error::usage(format!("{}({arguments}): {what}", self.name))
    }

    /// The type that argument `index` of type `given` is turned into; `None` where it fits none.
    fn fitting(&self, index: usize, given: &DataType) -> Option<DataType> {
        if index < self.tensors {
            return coerced(given);
        }
        (given.is_numeric() || given.is_null()).then_some(DataType::Float64)
    }

    fn check(&self, given: &[DataType]) -> Result<()> {
        let most = self.tensors + self.numbers.len();
        if given.len() != most && given.len() != most - self.optional {
            return Err(self.usage(&format!("it is given {} arguments", given.len())));
        }
        match given.iter().enumerate().find(|(index, kind)| self.fitting(*index, kind).is_none()) {
            Some((index, kind)) if index < self.tensors => {
                Err(self.usage(&format!("{kind} is no tensor: neither a list of numbers nor a reference")))
            }
            Some((_, kind)) => Err(self.usage(&format!("{kind} is no number"))),
            None => Ok(()),
        }
    }

    fn call(&self, arguments: &ScalarFunctionArgs) -> Result<Vec<Option<T>>> {
        let arrays = ColumnarValue::values_to_arrays(&arguments.args);
        let arrays = arrays.map_err(|cause| Error::internal("arguments of unlike lengths").because(cause))?;
        let (tensors, numbers) = arrays.split_at(self.tensors.min(arrays.len()));
        let tensors = tensors.iter().map(|column| TensorColumn::new(column, &self.set)).collect::<Result<Vec<_>>>()?;
        let numbers: Vec<_> = numbers.iter().filter_map(|column| column.as_primitive_opt::<Float64Type>()).collect();
        // Arguments that do not change make one row.
        (0..arrays.first().map_or(0, |column| column.len()))
            .map(|row| {
                let tensors = tensors.iter().map(|column| column.tensor(row)).collect::<Result<Option<Vec<_>>>>()?;
                let values = numbers.iter().map(|column| column.is_valid(row).then(|| column.value(row)));
                let (Some(tensors), Some(values)) = (tensors, values.collect::<Option<Vec<_>>>()) else {
                    return Ok(None);
                };
                (self.body)(&Call { name: self.name, numbers: self.numbers, tensors: &tensors, values: &values })
            })
            .collect()
    }
}

impl<T: Output> ScalarUDFImpl for Function<T> {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> SqlResult<Vec<DataType>> {
        // What fits none stays as it is: an error here would reach the user as a guess at other functions' arguments.
        let argument = |(index, kind): (usize, &DataType)| self.fitting(index, kind).unwrap_or_else(|| kind.clone());
        Ok(given.iter().enumerate().map(argument).collect())
    }

    fn return_type(&self, given: &[DataType]) -> SqlResult<DataType> {
        self.check(given).map_err(external)?;
        Ok(T::kind())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> SqlResult<ColumnarValue> {
        let scalar = arguments.args.iter().all(|argument| matches!(argument, ColumnarValue::Scalar(_)));
        let array = self.call(&arguments).and_then(T::array).map_err(external)?;
        if scalar && array.len() == 1 {
            return Ok(ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(&array, 0)?));
        }
        Ok(ColumnarValue::Array(array))
    }
}

impl<T> fmt::Debug for Function<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A session has one function of a name, over one set.
impl<T> PartialEq for Function<T> {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.set, &other.set)
    }
}

impl<T> Eq for Function<T> {}

impl<T> Hash for Function<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl Call<'_> {
    /// The function's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The values of tensor `index`; none where the function has no such argument.
    pub fn tensor(&self, index: usize) -> Values<'_> {
        self.tensors.get(index).map_or(Values::Single(&[]), Tensor::values)
    }

    /// Number `index`; `None` where it was left out.
    pub fn number(&self, index: usize) -> Option<f64> {
        self.values.get(index).copied()
    }

    /// Number `index` as an index or a count.
    ///
    /// # Errors
    ///
    /// `Usage` for one that is no whole number from 0.
    pub fn count(&self, index: usize) -> Result<usize> {
        let number = self.number(index).unwrap_or(f64::NAN);
        if number >= 0.0 && number.fract() == 0.0 && number <= f64::from(u32::MAX) {
            return Ok(number as usize);
        }
        let name = self.numbers.get(index).unwrap_or(&"");
        Err(Error::usage(format!("{}: {name} is {number}, which is no whole number from 0", self.name)))
    }

    /// A slip in the arguments.
    pub fn usage(&self, what: &str) -> Error {
        Error::usage(format!("{}: {what}", self.name))
    }
}
