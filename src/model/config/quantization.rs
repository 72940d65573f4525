//! Matrices of 8-bit floats whose factors lie in tensors beside them: quantization_config with `quant_method` `fp8`, as
//! DeepSeek's and Qwen's files have it (blocks), and as vLLM's have it (one factor for each matrix).
//!
//! What the configuration says about activations is for kernels that multiply in 8 bits. Here weights are dequantised, as
//! transformers does it without such a kernel.

use super::Config;
use crate::error::{Error, Result};
use crate::model::stored::Tensors;
use crate::model::{Scales, TensorType};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// Rows and columns of a block where the configuration is silent: transformers' default.
const BLOCK: [usize; 2] = [128, 128];

/// What stands behind the name of a matrix in that of its factors. Both are multiplied, whatever the name.
const SUFFIXES: [&str; 2] = ["_scale_inv", "_scale"];

/// Fields with the only values that are built.
const BUILT: [(&str, &str); 5] = [
    ("quant_method", "fp8"),
    ("activation_scheme", "dynamic"),
    ("fmt", "e4m3"),
    ("scale_fmt", "float"),
    ("expert_dtype", "fp8"),
];

/// Fields that say which matrices are stored so: the tensors' own types say it too.
const SILENT: [&str; 3] = ["modules_to_not_convert", "ignored_layers", "dequantize"];

/// How 8-bit floats are stored.
struct Fp8 {
    /// Rows and columns of a block; `None` where a matrix is one.
    block: Option<[usize; 2]>,
}

impl Config {
    /// The tensors with each matrix of 8-bit floats beside its factors.
    ///
    /// # Errors
    /// Unsupported for another quantisation, and for 8-bit floats that the configuration does not speak of; malformed for
    /// factors that are missing or do not fit.
    pub(in crate::model) fn scaled<'a>(&self, tensors: &'a Tensors) -> Result<Cow<'a, Tensors>> {
        let fp8 = self.fp8().map_err(|error| error.in_file(&self.path))?;
        let stored = tensors.iter().filter(|(_, tensor)| tensor.tensor_type == TensorType::F8E4M3);
        let names: Vec<String> = stored.map(|(name, _)| name.to_owned()).collect();
        match (fp8, names.first()) {
            (None, None) => Ok(Cow::Borrowed(tensors)),
            (None, Some(name)) => Err(Error::unsupported(
                "its elements are F8_E4M3, and config.json has no quantization_config that says how they are scaled",
            )
            .of(name)),
            (Some(_), None) => {
                let message = "quantization_config says fp8, and no tensor is F8_E4M3";
                Err(Error::malformed(message).in_file(&self.path))
            }
            (Some(fp8), Some(_)) => {
                let mut tensors = tensors.clone();
                names.iter().try_for_each(|name| fp8.pair(name, &mut tensors).map_err(|error| error.of(name)))?;
                Ok(Cow::Owned(tensors))
            }
        }
    }

    fn fp8(&self) -> Result<Option<Fp8>> {
        let Some(value) = self.get("quantization_config") else { return Ok(None) };
        let fields = value
            .as_object()
            .ok_or_else(|| Error::malformed(format!("quantization_config is {value}, and should be an object")))?;
        Fp8::new(fields).map(Some)
    }
}

impl Fp8 {
    fn new(fields: &Map<String, Value>) -> Result<Fp8> {
        if fields.get("quant_method").and_then(Value::as_str) != Some("fp8") {
            let method = fields.get("quant_method").and_then(Value::as_str).unwrap_or("unnamed");
            return Err(Error::unsupported(format!("quantization_config ({method}) is not supported, only fp8 is")));
        }
        let mut block = Some(BLOCK);
        for (key, value) in fields {
            match (BUILT.iter().find(|(known, _)| known == key), key.as_str()) {
                (Some((_, built)), _) if value.is_null() || value == built => {}
                (None, "weight_block_size") => block = block_size(value)?,
                (None, key) if value.is_null() || SILENT.contains(&key) => {}
                _ => return Err(Error::unsupported(format!("quantization_config: {key} = {value} is not supported"))),
            }
        }
        Ok(Fp8 { block })
    }

    /// Takes the factors of matrix `name` from the tensors and puts them beside it.
    fn pair(&self, name: &str, tensors: &mut Tensors) -> Result<()> {
        let mut found = SUFFIXES.iter().filter_map(|suffix| tensors.remove(&format!("{name}{suffix}")));
        let factors = match (found.next(), found.next()) {
            (Some(factors), None) => factors,
            (Some(_), Some(_)) => return Err(Error::malformed("it has both a _scale and a _scale_inv")),
            (None, _) => {
                return Err(Error::malformed(
                    "its elements are F8_E4M3, and neither a _scale nor a _scale_inv is there",
                ));
            }
        };
        let tensor = tensors.get_mut(name).ok_or_else(|| Error::internal("a listed tensor is gone"))?;
        let &[rows, columns] = tensor.shape.as_slice() else {
            return Err(Error::unsupported(format!(
                "F8_E4M3 of shape {:?} is not supported, only matrices",
                tensor.shape
            )));
        };
        // A lone number belongs to all elements, whatever the size of blocks elsewhere.
        let lone = factors.shape.is_empty() || factors.shape == [1];
        let whole = [rows.max(1), columns.max(1)];
        let block = self.block.filter(|_| !lone).unwrap_or(whole);
        let scales = Scales::read(&factors, [rows, columns], block);
        tensor.scales = Some(scales.map_err(|error| error.of(&format!("factors of {name}")))?);
        Ok(())
    }
}

/// Rows and columns of a block; null says that there are none.
fn block_size(value: &Value) -> Result<Option<[usize; 2]>> {
    if value.is_null() {
        return Ok(None);
    }
    let numbers = value.as_array().map(|list| list.iter().map(Value::as_u64).collect::<Option<Vec<_>>>());
    let sizes = numbers.flatten().and_then(|numbers| <[u64; 2]>::try_from(numbers).ok());
    let sizes = sizes.filter(|sizes| !sizes.contains(&0)).map(|sizes| sizes.map(usize::try_from));
    match sizes {
        Some([Ok(rows), Ok(columns)]) => Ok(Some([rows, columns])),
        _ => Err(Error::malformed(format!(
            "quantization_config: weight_block_size is {value}, and should be the rows and columns of a block"
        ))),
    }
}
