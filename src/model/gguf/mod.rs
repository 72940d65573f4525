//! GGUF versions 2 and 3, little-endian: metadata, tensor table, aligned data; read, and written as version 3.
//!
//! Every length in the file is checked against the bytes that are left before anything is read or allocated.

mod describe;
mod ggml_type;
mod metadata;
mod pieces;
mod split;
mod value;
mod vocabulary;
mod write;

use super::Bytes;
use super::cursor::Cursor;
use super::stored::{StoredTensor, Tensors, size_of};
use crate::error::{Error, Result};
pub(super) use describe::{describe, file_type, type_of};
pub(super) use metadata::Metadata;
pub(super) use pieces::Pieces;
pub(super) use split::Split;
use std::collections::BTreeMap;
pub(super) use vocabulary::describe_vocabulary;
pub use write::{GgufContents, GgufValue, GgufWriter, Replace};

/// The first bytes of a GGUF file.
pub(super) const MAGIC: &[u8; 4] = b"GGUF";

/// Where tensor data begins is a multiple of this, unless the metadata say otherwise.
const DEFAULT_ALIGNMENT: u64 = 32;

/// ggml's tensors have at most four axes.
const MOST_AXES: u32 = 4;

/// The least bytes of a metadata pair: length of its key, type, a value of one byte.
const SHORTEST_PAIR: u64 = 13;

/// The least bytes of a line of the tensor table: length of the name, axes, one axis, type, offset.
const SHORTEST_INFO: u64 = 32;

/// Reads the metadata of a file, and adds its tensors to `tensors` as those of file `file`.
///
/// # Errors
/// Malformed for what breaks the format, with its offset, and for names that `tensors` has already; unsupported for
/// other versions and element types that are not built.
pub(super) fn read(bytes: &Bytes, file: usize, tensors: &mut Tensors) -> Result<Metadata> {
    let mut cursor = Cursor::new(bytes);
    let (tensor_count, pair_count) = read_counts(&mut cursor)?;
    let mut pairs = BTreeMap::new();
    for _ in 0..pair_count {
        let at = cursor.position();
        let key = cursor.text()?;
        let value = value::read(&mut cursor, bytes)?;
        if pairs.insert(key.clone(), value).is_some() {
            return Err(Error::malformed(format!("metadata key {key} stands there twice")).at(at));
        }
    }
    let metadata = Metadata::new(pairs);
    let alignment = metadata.alignment()?.unwrap_or(DEFAULT_ALIGNMENT);
    if !alignment.is_power_of_two() {
        return Err(Error::malformed(format!("an alignment of {alignment} is no power of two")));
    }
    let data = Data { bytes, file, alignment };
    read_tensors(&mut cursor, tensor_count, &data, tensors)?;
    Ok(metadata)
}

/// The metadata of a file in their order: each key, and its type number and value as the file's own bytes.
///
/// # Errors
/// Those of [`read`].
pub(super) fn pairs(bytes: &Bytes) -> Result<Vec<(String, &[u8])>> {
    let mut cursor = Cursor::new(bytes);
    let (_, pair_count) = read_counts(&mut cursor)?;
    let mut pairs = Vec::new();
    for _ in 0..pair_count {
        let key = cursor.text()?;
        let start = cursor.position() as usize;
        value::read(&mut cursor, bytes)?;
        let value = bytes.get(start..cursor.position() as usize);
        pairs.push((key, value.ok_or_else(|| Error::internal("a value was read beyond the file"))?));
    }
    Ok(pairs)
}

/// What the file begins with: how many tensors it has, and how many metadata pairs.
fn read_counts(cursor: &mut Cursor<'_>) -> Result<(u64, u64)> {
    cursor.take(MAGIC.len())?;
    check_version(cursor.u32()?)?;
    let tensor_count = cursor.u64()?;
    let pair_count = cursor.u64()?;
    cursor.expect(pair_count, SHORTEST_PAIR)?;
    Ok((tensor_count, pair_count))
}

fn check_version(version: u32) -> Result<()> {
    match version {
        2 | 3 => Ok(()),
        _ if (1..=3).contains(&version.swap_bytes()) => {
            Err(Error::unsupported("big-endian GGUF files are not supported").at(4))
        }
        _ => Err(Error::unsupported(format!("GGUF version {version} is not supported, only 2 and 3")).at(4)),
    }
}

/// A line of the tensor table.
struct Info {
    name: String,
    shape: Vec<usize>,
    type_number: u32,
    /// From the start of the data.
    offset: u64,
}

/// The file that tensors lie in.
struct Data<'a> {
    bytes: &'a Bytes,
    file: usize,
    alignment: u64,
}

fn read_tensors(cursor: &mut Cursor<'_>, count: u64, data: &Data<'_>, tensors: &mut Tensors) -> Result<()> {
    cursor.expect(count, SHORTEST_INFO)?;
    let mut infos = Vec::new();
    for _ in 0..count {
        infos.push(read_info(cursor)?);
    }
    let data_start = cursor
        .position()
        .checked_next_multiple_of(data.alignment)
        .ok_or_else(|| Error::malformed(format!("an alignment of {} is too large", data.alignment)))?;
    for info in infos {
        let tensor = resolve(&info, data_start, data).map_err(|error| error.of(&info.name))?;
        tensors.insert(info.name, tensor)?;
    }
    tensors.check_overlap()
}

fn read_info(cursor: &mut Cursor<'_>) -> Result<Info> {
    let name = cursor.text()?;
    let at = cursor.position();
    let axes = cursor.u32()?;
    if axes == 0 || axes > MOST_AXES {
        return Err(Error::malformed(format!("{axes} axes, and ggml's tensors have 1 to {MOST_AXES}"))
            .at(at)
            .of(&name));
    }
    let mut shape = Vec::new();
    for _ in 0..axes {
        let axis = usize::try_from(cursor.u64()?);
        shape.push(axis.map_err(|cause| Error::malformed("an axis is too long").at(at).of(&name).because(cause))?);
    }
    // The file's first axis is the fastest one; ours is the slowest.
    shape.reverse();
    Ok(Info { name, shape, type_number: cursor.u32()?, offset: cursor.u64()? })
}

fn resolve(info: &Info, data_start: u64, data: &Data<'_>) -> Result<StoredTensor> {
    let Data { bytes, file, alignment } = *data;
    let tensor_type = ggml_type::supported(info.type_number)?;
    let size = size_of(tensor_type, &info.shape)?;
    if !info.offset.is_multiple_of(alignment) {
        return Err(Error::malformed(format!("its offset {} is not aligned to {alignment}", info.offset)));
    }
    let stretch = data_start.checked_add(info.offset).and_then(|offset| {
        let start = usize::try_from(offset).ok()?;
        Some((offset, bytes.slice(start..start.checked_add(size)?)?))
    });
    let (offset, data) = stretch.ok_or_else(|| {
        Error::malformed(format!(
            "the file is cut short: {size} bytes from {} of its data end beyond its {} bytes",
            info.offset,
            bytes.len()
        ))
    })?;
    Ok(StoredTensor { tensor_type, shape: info.shape.clone(), file, offset, data, scales: None })
}
