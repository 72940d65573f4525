//! The tensor index: name, element type, shape, offset and size of every tensor, sorted by name.

use super::header::Header;
use super::{ALIGNMENT, dtype};
use crate::error::{Error, Result};
use crate::model::cursor::Cursor;
use crate::model::stored::{StoredTensor, Tensors, size_of};
use crate::model::{Bytes, TensorType};

/// The most axes of a tensor.
const MOST_AXES: u8 = 8;

/// The least bytes of an entry: length of the name, type, axes, offset, size.
const SHORTEST_ENTRY: u64 = 20;

/// The output head. Where it is the token embedding, it may stand in the index without data of its own.
const OUTPUT: &str = "lm_head.weight";

struct Entry {
    name: String,
    dtype: u8,
    shape: Vec<usize>,
    /// From the start of the data.
    offset: u64,
    size: u64,
}

/// Adds the tensors of the file, but for a head without data. Gives where the last tensor ends.
pub(super) fn read(bytes: &Bytes, header: &Header, file: usize, tensors: &mut Tensors) -> Result<usize> {
    let (start, end) = header.index;
    let mut cursor = Cursor::starting(bytes.get(..end).unwrap_or_default(), start);
    cursor.expect(header.tensors.into(), SHORTEST_ENTRY)?;
    let mut last = String::new();
    let mut data_end = header.data;
    for _ in 0..header.tensors {
        let at = cursor.position();
        let entry = read_entry(&mut cursor)?;
        if entry.name <= last {
            let message = format!("the names of the index do not rise: {} follows {last}", entry.name);
            return Err(Error::malformed(message).at(at));
        }
        if let Some(tensor) = resolve(&entry, bytes, header.data, file).map_err(|e| e.at(at).of(&entry.name))? {
            data_end = data_end.max(tensor.offset as usize + tensor.data.len());
            tensors.insert(entry.name.clone(), tensor)?;
        }
        last = entry.name;
    }
    let padding = bytes.get(cursor.position() as usize..end).unwrap_or_default();
    if padding.len() >= ALIGNMENT || padding.iter().any(|byte| *byte != 0) {
        return Err(Error::malformed("the index has more bytes than its entries").at(cursor.position()));
    }
    Ok(data_end)
}

fn read_entry(cursor: &mut Cursor<'_>) -> Result<Entry> {
    let at = cursor.position();
    let length = cursor.u16()?;
    let name = std::str::from_utf8(cursor.take(length.into())?)
        .map_err(|cause| Error::malformed("a name is no UTF-8").at(at).because(cause))?
        .to_owned();
    let (dtype, axes) = (cursor.u8()?, cursor.u8()?);
    if axes > MOST_AXES {
        return Err(Error::malformed(format!("{axes} axes, and .apr has at most {MOST_AXES}")).at(at).of(&name));
    }
    let mut shape = Vec::new();
    for _ in 0..axes {
        let axis = usize::try_from(cursor.u64()?);
        shape.push(axis.map_err(|cause| Error::malformed("an axis is too long").at(at).of(&name).because(cause))?);
    }
    Ok(Entry { name, dtype, shape, offset: cursor.u64()?, size: cursor.u64()? })
}

fn resolve(entry: &Entry, bytes: &Bytes, data_start: usize, file: usize) -> Result<Option<StoredTensor>> {
    let tensor_type = dtype::supported(entry.dtype)?;
    check_rows(tensor_type, &entry.shape)?;
    let size = size_of(tensor_type, &entry.shape)?;
    // Its offset means nothing: it is 0 in real files, where another tensor begins.
    if entry.size == 0 && size > 0 && entry.name == OUTPUT {
        return Ok(None);
    }
    if entry.size != size as u64 {
        return Err(Error::malformed(format!(
            "its size is {}, and {:?} of {} are {size} bytes",
            entry.size,
            entry.shape,
            tensor_type.name()
        )));
    }
    let start = usize::try_from(entry.offset).ok().and_then(|offset| data_start.checked_add(offset));
    let stretch = start.and_then(|start| Some((start, bytes.slice(start..start.checked_add(size)?)?)));
    let (start, data) = stretch.ok_or_else(|| {
        Error::malformed(format!(
            "the file is cut short: {size} bytes from {} of its data end beyond its {} bytes",
            entry.offset,
            bytes.len()
        ))
    })?;
    Ok(Some(StoredTensor { tensor_type, shape: entry.shape.clone(), file, offset: start as u64, data, scales: None }))
}

/// apr fills rows that are no whole blocks with zeros when it quantises; such rows have no place in a [`StoredTensor`].
fn check_rows(tensor_type: TensorType, shape: &[usize]) -> Result<()> {
    let (columns, block) = (shape.last().copied().unwrap_or(1), tensor_type.block_elements());
    if columns.is_multiple_of(block) {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "rows of {columns} elements are no whole number of {} blocks of {block}, and rows filled up to one are not supported",
        tensor_type.name()
    )))
}
