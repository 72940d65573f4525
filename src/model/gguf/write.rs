//! Writing GGUF version 3: first the table of what the file will hold, then the bytes of each tensor in turn.
//!
//! The format is that of the ggml project's `docs/gguf.md`. A file is written under a temporary name beside its own
//! and renamed once it is whole, so that nobody ever opens half a model; no tensor is held in memory.

use super::{DEFAULT_ALIGNMENT, MAGIC, MOST_AXES, ggml_type};
use crate::error::{Error, Result};
use crate::model::TensorType;
use crate::model::stored::size_of;
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The version written.
const VERSION: u32 = 3;

/// A tensor's name has fewer bytes than this in ggml.
const LONGEST_NAME: usize = 64;

/// A key has at most this many bytes.
const LONGEST_KEY: usize = 65_535;

/// Temporary names that are tried: a killed process may have left some behind.
const MOST_LEFT_BEHIND: u32 = 64;

/// A metadata value to write.
#[derive(Debug, Clone, PartialEq)]
pub enum GgufValue {
    /// `UINT32`.
    U32(u32),
    /// `UINT64`.
    U64(u64),
    /// `INT32`.
    I32(i32),
    /// `FLOAT32`.
    F32(f32),
    /// `BOOL`.
    Bool(bool),
    /// `STRING`.
    Text(String),
    /// `ARRAY` of `STRING`.
    Texts(Vec<String>),
    /// `ARRAY` of `INT32`.
    I32s(Vec<i32>),
    /// `ARRAY` of `FLOAT32`.
    F32s(Vec<f32>),
    /// `ARRAY` of `BOOL`.
    Flags(Vec<bool>),
}

impl GgufValue {
    /// Appends type number and value.
    fn write(&self, out: &mut Vec<u8>) {
        let kind: u32 = match self {
            GgufValue::U32(_) => 4,
            GgufValue::I32(_) => 5,
            GgufValue::F32(_) => 6,
            GgufValue::Bool(_) => 7,
            GgufValue::Text(_) => 8,
            GgufValue::Texts(_) | GgufValue::I32s(_) | GgufValue::F32s(_) | GgufValue::Flags(_) => 9,
            GgufValue::U64(_) => 10,
        };
        out.extend(kind.to_le_bytes());
        match self {
            GgufValue::U32(number) => out.extend(number.to_le_bytes()),
            GgufValue::U64(number) => out.extend(number.to_le_bytes()),
            GgufValue::I32(number) => out.extend(number.to_le_bytes()),
            GgufValue::F32(number) => out.extend(number.to_le_bytes()),
            GgufValue::Bool(flag) => out.push(u8::from(*flag)),
            GgufValue::Text(text) => write_text(text, out),
            GgufValue::Texts(texts) => {
                write_array(8, texts.len(), out);
                texts.iter().for_each(|text| write_text(text, out));
            }
            GgufValue::I32s(numbers) => {
                write_array(5, numbers.len(), out);
                numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
            }
            GgufValue::F32s(numbers) => {
                write_array(6, numbers.len(), out);
                numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
            }
            GgufValue::Flags(flags) => {
                write_array(7, flags.len(), out);
                out.extend(flags.iter().map(|flag| u8::from(*flag)));
            }
        }
    }
}

/// What an array begins with: the type number of its elements, and how many there are.
fn write_array(kind: u32, length: usize, out: &mut Vec<u8>) {
    out.extend(kind.to_le_bytes());
    out.extend((length as u64).to_le_bytes());
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// A tensor that the file will hold.
#[derive(Debug, Clone)]
struct Declared {
    name: String,
    tensor_type: TensorType,
    /// Outermost axis first.
    shape: Vec<usize>,
    /// From the start of the data.
    offset: u64,
    bytes: u64,
}

/// What a GGUF file will hold: metadata, and tensors in the order of their data.
#[derive(Debug, Default)]
pub struct GgufContents {
    /// Keys with type number and value.
    pairs: Vec<(String, Vec<u8>)>,
    tensors: Vec<Declared>,
    /// Keys and tensor names so far.
    taken: BTreeSet<(bool, String)>,
    /// Bytes of data, padded after every tensor.
    data_bytes: u64,
    alignment: Option<u32>,
}

impl GgufContents {
    /// Adds a metadata pair. `general.alignment` also sets the alignment, and has to come before the first tensor.
    ///
    /// # Errors
    /// Usage for a key that is there already, is empty or too long, and for an alignment that cannot be.
    pub fn set(&mut self, key: &str, value: GgufValue) -> Result<()> {
        if key == "general.alignment" {
            self.alignment = Some(self.checked_alignment(&value)?);
        }
        let mut bytes = Vec::new();
        value.write(&mut bytes);
        self.push(key, bytes)
    }

    /// Adds a pair of another file: `value` is its type number and value as that file has them. The alignment is set, not
    /// copied.
    ///
    /// # Errors
    /// Usage for a key that is there already, is empty or too long.
    pub(in crate::model) fn copy(&mut self, key: &str, value: &[u8]) -> Result<()> {
        self.push(key, value.to_vec())
    }

    fn push(&mut self, key: &str, value: Vec<u8>) -> Result<()> {
        if key.is_empty() || key.len() > LONGEST_KEY {
            return Err(Error::usage(format!("a metadata key has 1 to {LONGEST_KEY} bytes, not {}", key.len())));
        }
        if !self.taken.insert((false, key.to_owned())) {
            return Err(Error::usage(format!("metadata key {key} is set twice")));
        }
        self.pairs.push((key.to_owned(), value));
        Ok(())
    }

    fn checked_alignment(&self, value: &GgufValue) -> Result<u32> {
        match value {
            _ if !self.tensors.is_empty() => Err(Error::usage("general.alignment is set after the first tensor")),
            GgufValue::U32(alignment) if alignment.is_power_of_two() && *alignment >= 8 => Ok(*alignment),
            other => Err(Error::usage(format!("general.alignment is a power of two from 8 on, not {other:?}"))),
        }
    }

    /// Adds a tensor of `shape`, outermost axis first.
    ///
    /// # Errors
    /// Usage for a name that is there already, is empty or too long for ggml, and for a number of axes that ggml has
    /// not; malformed where rows are no whole blocks or the size overflows.
    pub fn add(&mut self, name: &str, tensor_type: TensorType, shape: &[usize]) -> Result<()> {
        if name.is_empty() || name.len() >= LONGEST_NAME {
            return Err(Error::usage(format!("a tensor's name has 1 to {} bytes", LONGEST_NAME - 1)).of(name));
        }
        if shape.is_empty() || shape.len() > MOST_AXES as usize {
            return Err(
                Error::usage(format!("it has {} axes, and ggml's tensors 1 to {MOST_AXES}", shape.len())).of(name)
            );
        }
        if !self.taken.insert((true, name.to_owned())) {
            return Err(Error::usage("a tensor of this name is there already").of(name));
        }
        let bytes = size_of(tensor_type, shape).map_err(|error| error.of(name))? as u64;
        let offset = self.data_bytes;
        let end = offset.checked_add(bytes).and_then(|end| end.checked_next_multiple_of(self.alignment()));
        self.data_bytes = end.ok_or_else(|| Error::usage("with it the file is too large").of(name))?;
        let (name, shape) = (name.to_owned(), shape.to_vec());
        self.tensors.push(Declared { name, tensor_type, shape, offset, bytes });
        Ok(())
    }

    fn alignment(&self) -> u64 {
        self.alignment.map_or(DEFAULT_ALIGNMENT, u64::from)
    }

    /// Length of the whole file in bytes.
    ///
    /// # Errors
    /// Usage where that overflows; unsupported for an element type without a number in ggml.
    pub fn file_bytes(&self) -> Result<u64> {
        let header = self.header()?.len() as u64;
        header.checked_add(self.data_bytes).ok_or_else(|| Error::usage("the file is too large"))
    }

    /// Everything before the data, padded.
    pub(in crate::model) fn header(&self) -> Result<Vec<u8>> {
        let mut out = MAGIC.to_vec();
        out.extend(VERSION.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.pairs.len() as u64).to_le_bytes());
        for (key, value) in &self.pairs {
            write_text(key, &mut out);
            out.extend(value);
        }
        for tensor in &self.tensors {
            write_text(&tensor.name, &mut out);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            // The file's first axis is the fastest one; ours is the slowest.
            tensor.shape.iter().rev().for_each(|axis| out.extend((*axis as u64).to_le_bytes()));
            out.extend(ggml_type::number(tensor.tensor_type).map_err(|error| error.of(&tensor.name))?.to_le_bytes());
            out.extend(tensor.offset.to_le_bytes());
        }
        let padded = (out.len() as u64).next_multiple_of(self.alignment());
        out.resize(padded as usize, 0);
        Ok(out)
    }

    /// Begins the file `path`. Something of that name stays as it is until the whole file takes its place.
    ///
    /// # Errors
    /// Usage where something of that name exists that may not be replaced; Environment.
    pub fn create(self, path: &Path, replace: Replace) -> Result<GgufWriter> {
        check_target(path, replace)?;
        let header = self.header()?;
        let partial = Partial::beside(path)?;
        let alignment = self.alignment();
        let mut writer = GgufWriter {
            tensors: self.tensors.into_iter(),
            current: None,
            alignment,
            written: 0,
            partial,
            path: path.to_path_buf(),
            replace,
        };
        writer.put(&header)?;
        Ok(writer)
    }
}

/// What happens to a file that has the name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// It is kept, and the new one refused.
    No,
    /// The new one takes its place.
    Yes,
}

fn check_target(path: &Path, replace: Replace) -> Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(Error::io("look at", path, cause)),
        // Putting a file in the place of a link, folder or device is never what was meant.
        Ok(metadata) if !metadata.is_file() => {
            Err(Error::usage("this exists and is no regular file: name another file").in_file(path))
        }
        Ok(_) if replace == Replace::No => Err(exists(path)),
        Ok(_) => Ok(()),
    }
}

fn exists(path: &Path) -> Error {
    Error::usage("this exists already and is not overwritten: name another file, or add --force").in_file(path)
}

/// A GGUF file being written. Dropped before [`GgufWriter::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct GgufWriter {
    /// Tensors that are to come.
    tensors: std::vec::IntoIter<Declared>,
    /// The tensor under way, and how many of its bytes are still to come.
    current: Option<(Declared, u64)>,
    alignment: u64,
    /// Bytes of the file so far.
    written: u64,
    partial: Partial,
    path: PathBuf,
    replace: Replace,
}

impl GgufWriter {
    /// Begins the next tensor; `name` must be its name.
    ///
    /// # Errors
    /// Internal where the tensor before lacks bytes or another one is next.
    pub fn begin(&mut self, name: &str) -> Result<()> {
        self.end_tensor()?;
        match self.tensors.next() {
            Some(next) if next.name == name => {
                let bytes = next.bytes;
                self.current = Some((next, bytes));
                Ok(())
            }
            Some(next) => Err(self.wrong(name, &format!("tensor {} is next", next.name))),
            None => Err(self.wrong(name, "all tensors of the file are written")),
        }
    }

    /// Appends bytes of the tensor that was begun.
    ///
    /// # Errors
    /// Internal where no tensor was begun or these are more bytes than it has; Environment.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let Some((tensor, left)) = &mut self.current else {
            return Err(Error::internal("bytes before the first tensor").in_file(&self.path));
        };
        match left.checked_sub(bytes.len() as u64) {
            Some(rest) => *left = rest,
            None => {
                let message = format!("{} bytes where {left} are left of its {}", bytes.len(), tensor.bytes);
                return Err(Error::internal(message).of(&tensor.name).in_file(&self.path));
            }
        }
        self.put(bytes)
    }

    /// Syncs the file and gives it its name; gives its length in bytes.
    ///
    /// # Errors
    /// Internal where tensors or bytes are missing; usage where the name was taken meanwhile; Environment.
    pub fn finish(mut self) -> Result<u64> {
        self.end_tensor()?;
        if let Some(missing) = self.tensors.next() {
            return Err(self.wrong(&missing.name, "it was never written"));
        }
        // The name stands for a whole file, also after a power loss.
        self.partial.file.sync_all().map_err(|cause| Error::io("sync", &self.path, cause))?;
        self.partial.rename(&self.path, self.replace)?;
        Ok(self.written)
    }

    /// Checks that the tensor under way is whole, and pads it.
    fn end_tensor(&mut self) -> Result<()> {
        match self.current.take() {
            Some((tensor, left)) if left > 0 => {
                Err(self.wrong(&tensor.name, &format!("{left} of its {} bytes are missing", tensor.bytes)))
            }
            _ => {
                let padding = self.written.next_multiple_of(self.alignment) - self.written;
                self.put(&vec![0; padding as usize])
            }
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.partial.file.write_all(bytes).map_err(|cause| Error::io("write", &self.path, cause))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn wrong(&self, tensor: &str, message: &str) -> Error {
        Error::internal(message).of(tensor).in_file(&self.path)
    }
}

/// A file under a temporary name; it goes away unless it gets its own.
#[derive(Debug)]
struct Partial {
    file: File,
    path: PathBuf,
    renamed: bool,
}

impl Partial {
    /// A new file in the folder of `path`: a rename within a folder is atomic.
    fn beside(path: &Path) -> Result<Partial> {
        let name = path.file_name().ok_or_else(|| Error::usage("this names no file").in_file(path))?;
        let mut number = 0;
        loop {
            let mut partial_name = name.to_owned();
            partial_name.push(format!(".partial-{}-{number}", std::process::id()));
            let partial = path.with_file_name(partial_name);
            match OpenOptions::new().write(true).create_new(true).open(&partial) {
                Ok(file) => return Ok(Partial { file, path: partial, renamed: false }),
                Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists && number < MOST_LEFT_BEHIND => number += 1,
                Err(cause) => return Err(Error::io("create", &partial, cause)),
            }
        }
    }

    fn rename(&mut self, to: &Path, replace: Replace) -> Result<()> {
        let renamed = match replace {
            Replace::Yes => std::fs::rename(&self.path, to),
            Replace::No => self.rename_to_free(to),
        };
        renamed.map_err(|cause| match cause.kind() {
            io::ErrorKind::AlreadyExists => exists(to),
            _ => Error::io("give the written file its name", to, cause),
        })?;
        self.renamed = true;
        let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|cause| Error::io("sync", folder, cause))
    }

    /// Renames where the name is free, and nothing can come between.
    fn rename_to_free(&self, to: &Path) -> io::Result<()> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, &self.path, CWD, to, RenameFlags::NOREPLACE) {
            // Some network file systems cannot: a link is refused where the name is taken, too.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                std::fs::hard_link(&self.path, to).and_then(|()| std::fs::remove_file(&self.path))
            }
            renamed => renamed.map_err(io::Error::from),
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.renamed {
            // Where that fails, the name says what it is.
            drop(std::fs::remove_file(&self.path));
        }
    }
}
