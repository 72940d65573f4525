//! Tensors that another engine wrote: safetensors and .npy files, mapped and never copied whole.

use super::npy;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Bytes, safetensors_entries};
use crate::tensor::Dtype;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Element type of a stored tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Element {
    /// One that token rows can have.
    Known(Dtype),
    /// Another, by the name that its format has for it.
    Other(String),
}

/// A file of a dump.
#[derive(Debug, Clone)]
pub struct DumpFile {
    /// Where it is.
    pub path: PathBuf,
    bytes: Bytes,
}

impl DumpFile {
    /// blake3 of the file.
    pub fn blake3(&self) -> [u8; 32] {
        blake3::Hasher::new().update_rayon(&self.bytes).finalize().into()
    }
}

/// A tensor of a dump.
#[derive(Debug, Clone)]
pub struct DumpTensor {
    /// Element type.
    pub element: Element,
    /// Axes as indexed, outermost first.
    pub shape: Vec<usize>,
    /// Whether the first axis is the innermost in memory.
    pub first_axis_innermost: bool,
    /// The values.
    pub data: Bytes,
    /// Which file of [`Dump::files`].
    pub file: usize,
    /// Where the values begin in it.
    pub offset: u64,
}

impl DumpTensor {
    /// Elements that the shape says; `None` where they are more than can be counted.
    fn elements(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |all, axis| all.checked_mul(*axis))
    }

    /// Whether shape and bytes agree. Of an unknown type that cannot be said, and nothing of it is read.
    fn check(&self) -> Result<()> {
        let Element::Known(dtype) = self.element else { return Ok(()) };
        let bytes = self.elements().and_then(|elements| elements.checked_mul(dtype.size()));
        if bytes == Some(self.data.len()) {
            return Ok(());
        }
        let shape = &self.shape;
        Err(Error::malformed(format!("{} bytes do not hold {shape:?} of {}", self.data.len(), dtype.name())))
    }
}

/// Every tensor of some files.
#[derive(Debug, Default)]
pub struct Dump {
    files: Vec<DumpFile>,
    tensors: BTreeMap<String, DumpTensor>,
}

impl Dump {
    /// Opens safetensors files, .npy files (a tensor each, named as the file without `.npy`), and folders of both.
    ///
    /// # Errors
    /// Environment where a path cannot be read; foreign for a file of another kind; malformed where a file breaks its
    /// format, tensors share bytes, or two tensors have one name.
    pub fn open(paths: &[PathBuf]) -> Result<Dump> {
        let mut dump = Dump::default();
        for path in paths {
            let metadata = std::fs::metadata(path).map_err(|cause| Error::io("open the dump", path, cause))?;
            if metadata.is_dir() {
                listed(path)?.iter().try_for_each(|file| dump.add(file))?;
            } else {
                dump.add(path)?;
            }
        }
        Ok(dump)
    }

    /// Its files, in the order they were opened.
    pub fn files(&self) -> &[DumpFile] {
        &self.files
    }

    /// Its tensors by name.
    pub fn tensors(&self) -> &BTreeMap<String, DumpTensor> {
        &self.tensors
    }

    /// Says of an error of a tensor where that is.
    pub(super) fn placed(&self, error: Error, name: &str, tensor: &DumpTensor) -> Error {
        let error = error.of(name).at(tensor.offset);
        match self.files.get(tensor.file) {
            Some(file) => error.in_file(&file.path),
            None => error,
        }
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let Some(kind) = Kind::of(path) else {
            let message = "no dump: .safetensors and .npy files are, and folders of them";
            return Err(Error::new(ErrorKind::Foreign, message).in_file(path));
        };
        // Asked before opening: a pipe would be waited for.
        if !std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) {
            return Err(Error::new(ErrorKind::Environment, "no regular file: a dump is mapped").in_file(path));
        }
        let file = File::open(path).map_err(|cause| Error::io("open the dump", path, cause))?;
        let bytes = Bytes::map(&file, path)?;
        let number = self.files.len();
        let tensors = match kind {
            Kind::Safetensors => safetensors(&bytes, number),
            Kind::Npy => npy(&bytes, number, path).map(|tensor| vec![tensor]),
        };
        self.files.push(DumpFile { path: path.to_owned(), bytes });
        for (name, tensor) in tensors.map_err(|error| error.in_file(path))? {
            tensor.check().map_err(|error| self.placed(error, &name, &tensor))?;
            if let Some(other) = self.tensors.get(&name) {
                let other = self.files.get(other.file).map_or(path, |file| &file.path).display();
                let error = Error::malformed(format!("two tensors have this name; the other is in {other}"));
                return Err(self.placed(error, &name, &tensor));
            }
            self.tensors.insert(name, tensor);
        }
        Ok(())
    }
}

/// What a file is, by the end of its name.
#[derive(Clone, Copy)]
enum Kind {
    Safetensors,
    Npy,
}

impl Kind {
    fn of(path: &Path) -> Option<Kind> {
        match path.extension()?.to_str()? {
            "safetensors" => Some(Kind::Safetensors),
            "npy" => Some(Kind::Npy),
            _ => None,
        }
    }
}

/// The dumps in a folder, by name. Other files there are none of ours.
fn listed(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |cause| Error::io("read the folder", folder, cause);
    let entries = std::fs::read_dir(folder).map_err(failed)?.collect::<std::io::Result<Vec<_>>>().map_err(failed)?;
    let mut paths: Vec<PathBuf> =
        entries.into_iter().map(|entry| entry.path()).filter(|path| Kind::of(path).is_some()).collect();
    paths.sort();
    if paths.is_empty() {
        return Err(
            Error::new(ErrorKind::Foreign, "no .safetensors and no .npy file is in this folder").in_file(folder)
        );
    }
    Ok(paths)
}

fn safetensors(bytes: &Bytes, file: usize) -> Result<Vec<(String, DumpTensor)>> {
    let entries = safetensors_entries(bytes)?;
    let mut stretches: Vec<_> =
        entries.iter().filter(|entry| !entry.place.is_empty()).map(|entry| (&entry.place, &entry.name)).collect();
    stretches.sort_unstable_by_key(|(place, _)| (place.start, place.end));
    for pair in stretches.windows(2) {
        let [(first, name), (second, other)] = pair else { continue };
        if second.start < first.end {
            return Err(Error::malformed(format!("it overlaps tensor {name}")).at(second.start as u64).of(other));
        }
    }
    let tensor = |entry: crate::model::SafetensorsEntry| {
        let element = match entry.dtype.as_str() {
            "F32" => Element::Known(Dtype::F32),
            "F16" => Element::Known(Dtype::F16),
            "BF16" => Element::Known(Dtype::Bf16),
            _ => Element::Other(entry.dtype),
        };
        let offset = entry.place.start as u64;
        let data = bytes.slice(entry.place).ok_or_else(|| Error::internal("a checked place is outside the file"))?;
        let shape = entry.shape;
        Ok((entry.name, DumpTensor { element, shape, first_axis_innermost: false, data, file, offset }))
    };
    entries.into_iter().map(tensor).collect()
}

fn npy(bytes: &Bytes, file: usize, path: &Path) -> Result<(String, DumpTensor)> {
    let name = path.file_stem().and_then(|stem| stem.to_str());
    let name = name.ok_or_else(|| Error::usage("the name of the file is no UTF-8, and names its tensor"))?.to_owned();
    let header = npy::header(bytes)?;
    let element = match header.descr.as_str() {
        "<f4" => Element::Known(Dtype::F32),
        "<f2" => Element::Known(Dtype::F16),
        _ => Element::Other(header.descr),
    };
    let data = bytes.slice(header.data..bytes.len());
    let data = data.ok_or_else(|| Error::internal("a header ends behind its file"))?;
    let (shape, first_axis_innermost) = (header.shape, header.fortran_order);
    Ok((name, DumpTensor { element, shape, first_axis_innermost, data, file, offset: header.data as u64 }))
}
