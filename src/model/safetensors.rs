//! Safetensors: an 8-byte header length, a JSON header, tensor bytes. One file, or shards under an index.

use super::stored::{StoredTensor, Tensors, size_of};
use super::{Bytes, TensorType};
use crate::error::{Error, Result};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

/// The longest header that is read, as in the format's own reader.
const LONGEST_HEADER: usize = 100_000_000;

/// Adds the tensors of file number `file`.
///
/// # Errors
/// Malformed for a header that breaks the format; unsupported for an element type.
pub(super) fn read(bytes: &Bytes, file: usize, tensors: &mut Tensors) -> Result<()> {
    let (header, data_start) = header(bytes)?;
    for (name, entry) in header.0 {
        let Entry::Tensor(info) = entry else { continue };
        let tensor = info.resolve(bytes, file, data_start).map_err(|error| error.of(&name))?;
        tensors.insert(name, tensor)?;
    }
    Ok(())
}

/// A tensor as the header of a safetensors file has it.
#[derive(Debug)]
pub struct SafetensorsEntry {
    /// Name.
    pub name: String,
    /// Element type by the format's name: `F32`, `I64`.
    pub dtype: String,
    /// Outermost axis first.
    pub shape: Vec<usize>,
    /// Its bytes, which the file has.
    pub place: Range<usize>,
}

/// Every tensor of a safetensors file, of whatever element type. Whether type, shape and length agree is not checked.
///
/// # Errors
/// Malformed for a header that breaks the format.
pub fn safetensors_entries(bytes: &Bytes) -> Result<Vec<SafetensorsEntry>> {
    let (header, data_start) = header(bytes)?;
    let tensors = header.0.into_iter().filter_map(|(name, entry)| match entry {
        Entry::Metadata => None,
        Entry::Tensor(info) => Some((name, info)),
    });
    let entry = |(name, info): (String, Info)| {
        let place = info.place(bytes, data_start).and_then(|place| Ok((place, info.shape()?)));
        let (place, shape) = place.map_err(|error| error.of(&name))?;
        Ok(SafetensorsEntry { name, dtype: info.dtype, shape, place })
    };
    tensors.map(entry).collect()
}

/// Which file of a sharded model holds each tensor.
///
/// # Errors
/// Malformed where the index is no such map, or names a file outside its folder.
pub(super) fn index(json: &[u8]) -> Result<BTreeMap<String, String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let index: Index = serde_json::from_slice(json)
        .map_err(|cause| Error::malformed("not an index of safetensors files").because(cause))?;
    let outside = |file: &&String| file.is_empty() || file.contains(['/', '\\']) || file.starts_with('.');
    if let Some(file) = index.weight_map.values().find(outside) {
        return Err(Error::malformed(format!("the index names {file:?}, which is no file of its own folder")));
    }
    if index.weight_map.is_empty() {
        return Err(Error::malformed("the index names no tensor"));
    }
    Ok(index.weight_map)
}

fn header(bytes: &Bytes) -> Result<(Header, usize)> {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(Error::malformed("the file is cut short: a safetensors file begins with a length of 8 bytes"));
    };
    let length = u64::from_le_bytes(*length);
    let json = usize::try_from(length).ok().filter(|length| *length <= LONGEST_HEADER);
    let json = json.and_then(|length| rest.get(..length)).ok_or_else(|| {
        Error::malformed(format!(
            "no safetensors file, or cut short: the header should have {length} bytes, {} follow",
            rest.len()
        ))
    })?;
    let header = serde_json::from_slice(json)
        .map_err(|cause| Error::malformed("the safetensors header is no proper JSON").at(8).because(cause))?;
    Ok((header, 8 + json.len()))
}

/// Header entries in file order; the same name twice is an error, which a plain map would hide.
struct Header(Vec<(String, Entry)>);

enum Entry {
    Metadata,
    Tensor(Info),
}

#[derive(Deserialize)]
struct Info {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from tensor names to dtype, shape and data_offsets")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    let entry = if name == "__metadata__" {
                        map.next_value::<BTreeMap<String, String>>()?;
                        Entry::Metadata
                    } else {
                        Entry::Tensor(map.next_value()?)
                    };
                    entries.push((name, entry));
                }
                Ok(Header(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl Info {
    fn resolve(&self, bytes: &Bytes, file: usize, data_start: usize) -> Result<StoredTensor> {
        let tensor_type = match self.dtype.as_str() {
            "F32" => TensorType::F32,
            "F16" => TensorType::F16,
            "BF16" => TensorType::Bf16,
            "F8_E4M3" => TensorType::F8E4M3,
            other => {
                return Err(Error::unsupported(format!(
                    "element type {other} is not supported in safetensors files; known are F32, F16, BF16, F8_E4M3"
                )));
            }
        };
        let shape = self.shape()?;
        let size = size_of(tensor_type, &shape)?;
        let (start, end) = self.data_offsets;
        if end.checked_sub(start) != Some(size as u64) {
            return Err(Error::malformed(format!(
                "data_offsets {start}..{end} do not hold {shape:?} of {}, which are {size} bytes",
                self.dtype
            )));
        }
        let place = self.place(bytes, data_start)?;
        let offset = place.start as u64;
        let data = bytes.slice(place).ok_or_else(|| Error::internal("a checked place is outside the file"))?;
        Ok(StoredTensor { tensor_type, shape, file, offset, data, scales: None })
    }

    fn shape(&self) -> Result<Vec<usize>> {
        let shape = self.shape.iter().map(|axis| usize::try_from(*axis)).collect::<Result<Vec<_>, _>>();
        shape.map_err(|cause| Error::malformed("its shape is too large").because(cause))
    }

    /// Where its bytes are in the file, all of which are there.
    fn place(&self, bytes: &Bytes, data_start: usize) -> Result<Range<usize>> {
        let (start, end) = self.data_offsets;
        if start > end {
            return Err(Error::malformed(format!("data_offsets {start}..{end} end before they begin")));
        }
        let at = |offset: u64| usize::try_from(offset).ok().and_then(|offset| data_start.checked_add(offset));
        let place = at(start).zip(at(end)).map(|(start, end)| start..end);
        place.filter(|place| place.end <= bytes.len()).ok_or_else(|| {
            Error::malformed(format!(
                "the file is cut short: data_offsets {start}..{end} end beyond its {} bytes",
                bytes.len()
            ))
        })
    }
}
