//! Metadata of the new file: copied from a GGUF source, or written from the hyper-parameters and read back.

use super::tensor::Tensor;
use super::{TokenizerFrom, vocabulary};
use crate::error::{Error, Result};
use crate::model::fact::{Facts, Source};
use crate::model::family::Shapes;
use crate::model::gguf::{self, GgufContents, GgufValue};
use crate::model::stored::Tensors;
use crate::model::{Bytes, HyperParameters, Model, Role, RopeParameters, RopeScaling, TensorType};

/// The key of the file's type as a whole.
const FILE_TYPE: &str = "general.file_type";

/// Keys in their order.
pub(super) type Pairs = Vec<(String, Value)>;

/// A value to write.
#[derive(Debug)]
pub(super) enum Value {
    New(GgufValue),
    /// Type number and value as the source has them.
    Copied(Vec<u8>),
}

/// Metadata without tensors.
pub(super) fn contents(pairs: &Pairs) -> Result<GgufContents> {
    let mut contents = GgufContents::default();
    for (key, value) in pairs {
        match value {
            Value::New(value) => contents.set(key, value.clone())?,
            Value::Copied(bytes) => contents.copy(key, bytes)?,
        }
    }
    Ok(contents)
}

/// The metadata of a GGUF model, byte for byte but for the file's type, and without those that say how it was split, if it
/// was.
///
/// # Errors
/// Usage where the tokenizer or a hyper-parameter shall not be the model's own.
pub(super) fn copied(model: &Model, tensor_type: TensorType, tokenizer: TokenizerFrom<'_>) -> Result<Pairs> {
    if !matches!(tokenizer, TokenizerFrom::Model) {
        return Err(Error::usage("a GGUF file's tokenizer is copied with its other metadata: leave the option out")
            .in_file(model.path()));
    }
    if let Some(set) = model.facts().iter().find(|fact| fact.source == Source::CommandLine) {
        return Err(Error::usage(format!("a GGUF file's metadata are copied as they are: {} cannot be set", set.key))
            .in_file(model.path()));
    }
    let [first, others @ ..] = model.files() else { return Err(Error::internal("a model of no files")) };
    let mut pairs = Pairs::new();
    let mut file_type = Some(Value::New(GgufValue::U32(gguf::file_type(tensor_type))));
    for (key, value) in gguf::pairs(&first.bytes).map_err(|error| error.in_file(&first.path))? {
        if key == FILE_TYPE {
            pairs.extend(file_type.take().map(|value| (key, value)));
        } else if key == "general.alignment" {
            pairs.push((key, alignment(value)?));
        } else if others.is_empty() || !key.starts_with("split.") {
            pairs.push((key, Value::Copied(value.to_vec())));
        }
    }
    pairs.extend(file_type.map(|value| (FILE_TYPE.to_owned(), value)));
    Ok(pairs)
}

/// The alignment, which the writer has to know.
fn alignment(value: &[u8]) -> Result<Value> {
    match value {
        [4, 0, 0, 0, bytes @ ..] if bytes.len() == 4 => {
            let bytes = bytes.iter().rev();
            Ok(Value::New(GgufValue::U32(bytes.fold(0, |number, byte| number << 8 | u32::from(*byte)))))
        }
        _ => Err(Error::unsupported("general.alignment is no UINT32")),
    }
}

/// The metadata of a model of another format, from its hyper-parameters, and what is lost in them.
///
/// # Errors
/// Unsupported where they would not describe the model exactly, or not its tokenizer.
pub(super) fn described(
    model: &Model,
    tensor_type: TensorType,
    tensors: &[Tensor<'_>],
    tokenizer: TokenizerFrom<'_>,
) -> Result<(Pairs, Option<&'static str>)> {
    let text = |text: &str| GgufValue::Text(text.to_owned());
    let mut pairs = vec![
        ("general.architecture".to_owned(), text(model.architecture().gguf())),
        ("general.type".to_owned(), text("model")),
    ];
    let path = std::fs::canonicalize(model.path()).map_err(|cause| Error::io("find", model.path(), cause))?;
    let name = path.file_stem().filter(|_| path.is_file()).or(path.file_name());
    pairs.extend(name.map(|name| ("general.name".to_owned(), text(&name.to_string_lossy()))));
    pairs.push((FILE_TYPE.to_owned(), GgufValue::U32(gguf::file_type(tensor_type))));
    // The blocks are those that ggml has since it counts its quantisations' versions to 2.
    pairs.push(("general.quantization_version".to_owned(), GgufValue::U32(2)));
    pairs.extend(gguf::describe(model.architecture(), model.hyper()));
    let (vocabulary, loss) = vocabulary::pairs(model, tokenizer)?;
    pairs.extend(vocabulary);
    let pairs = pairs.into_iter().map(|(key, value)| (key, Value::New(value))).collect();
    read_back(model, tensors, &pairs).map_err(|error| error.in_file(model.path()))?;
    Ok((pairs, loss))
}

/// Reads the metadata as any GGUF file's, and compares what they say with the model.
fn read_back(model: &Model, tensors: &[Tensor<'_>], pairs: &Pairs) -> Result<()> {
    let family = model.architecture().gguf();
    let refused = || format!("GGUF files of {family} cannot describe this model");
    let header = contents(pairs)?.header()?;
    let metadata = gguf::read(&Bytes::from(header), 0, &mut Tensors::default())?;
    let has = |role: Role| tensors.iter().any(|tensor| tensor.role == role);
    let shapes = Shapes {
        vocabulary: model.hyper().vocabulary,
        has_output: has(Role::Output),
        has_rope_factors: has(Role::RopeFactors),
        tensors: tensors.len(),
    };
    let said = metadata.hyper(shapes, &mut Facts::default());
    let said = said.map_err(|cause| Error::unsupported(refused()).because(cause))?;
    match expected(model.hyper(), has(Role::RopeFactors)).difference(&said) {
        None => Ok(()),
        Some(number) => Err(Error::unsupported(format!("{}: they have no words for its {number}", refused()))),
    }
}

/// The hyper-parameters as a GGUF file has them: the 1 of Gemma's norms is in the weights, and llama3's scaling of
/// rotary frequencies is a tensor.
fn expected(hyper: &HyperParameters, rope_factors: bool) -> HyperParameters {
    let mut hyper = HyperParameters { norm_weight_offset: 0.0, ..hyper.clone() };
    if rope_factors {
        hyper.rope = hyper.rope.map(|rope| RopeParameters { scaling: RopeScaling::Stored, ..rope });
    }
    hyper
}
