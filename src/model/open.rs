//! An open model: files, family, hyper-parameters, weights.

use super::apr;
use super::config::Config;
use super::fact::Facts;
use super::family::{Family, Naming};
use super::gguf::{self, Metadata, Split};
use super::stored::Tensors;
use super::{
    Architecture, Bytes, Fact, HyperParameters, Overrides, TensorType, Vocabulary, Weight, WeightKey, safetensors,
};
use crate::error::{Error, ErrorKind, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Format of a model's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// A GGUF file, or the parts of a split one.
    Gguf,
    /// A folder of config.json and safetensors files.
    Safetensors,
    /// An .apr file, version 2.
    Apr,
}

impl Format {
    /// The name in records: `gguf`, `safetensors`, `apr`.
    pub fn name(self) -> &'static str {
        match self {
            Format::Gguf => "gguf",
            Format::Safetensors => "safetensors",
            Format::Apr => "apr",
        }
    }
}

/// One file of a model, as it was when the model was opened.
#[derive(Debug, Clone)]
pub struct ModelFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its name without the folder.
    pub name: String,
    /// Length in bytes.
    pub size: u64,
    /// When it was last written.
    pub modified: SystemTime,
    pub(super) bytes: Bytes,
}

/// Hashes of a model's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelHash {
    /// blake3 of each file, in the order of [`Model::files`].
    pub files: Vec<[u8; 32]>,
    /// blake3 over those hashes in the order of the files' names.
    pub model: [u8; 32],
}

/// An open model.
#[derive(Debug)]
pub struct Model {
    path: PathBuf,
    format: Format,
    contents: Contents,
    described: Described,
    files: Vec<ModelFile>,
}

/// Metadata that may hold a vocabulary.
#[derive(Debug)]
enum Described {
    Gguf(Metadata),
    Apr(apr::Metadata),
    /// A safetensors folder keeps its tokenizer in a file of its own.
    Apart,
}

/// What the bytes of a model say, wherever they come from.
#[derive(Debug)]
pub(super) struct Contents {
    architecture: Architecture,
    hyper: HyperParameters,
    facts: Vec<Fact>,
    weights: BTreeMap<WeightKey, Weight>,
}

impl Contents {
    /// Joins GGUF metadata with the tensors of the model's files.
    pub(super) fn of_gguf(metadata: &Metadata, tensors: &Tensors, overrides: &Overrides) -> Result<Contents> {
        let architecture = metadata.architecture()?;
        let family = Family::new(architecture, Naming::Gguf, tensors);
        let mut facts = Facts::new(overrides);
        let hyper = metadata.hyper(family.shapes(tensors)?, &mut facts);
        let hyper = facts.judge(hyper)?;
        let weights = family.assemble(&hyper, tensors)?;
        Ok(Contents { architecture, hyper, facts: facts.into_vec(), weights })
    }

    /// Joins a configuration with the tensors of its safetensors files.
    pub(super) fn of_safetensors(config: &Config, tensors: &Tensors, overrides: &Overrides) -> Result<Contents> {
        let architecture = config.architecture();
        let tensors = &*config.scaled(tensors)?;
        let family = Family::new(architecture, Naming::HuggingFace, tensors);
        let mut facts = Facts::new(overrides);
        let hyper = config.hyper(family.shapes(tensors)?, &mut facts);
        let hyper = facts.judge(hyper)?;
        let weights = family.assemble(&hyper, tensors)?;
        config.check_biases(hyper.layers, |key| weights.contains_key(&key))?;
        Ok(Contents { architecture, hyper, facts: facts.into_vec(), weights })
    }

    /// Joins the metadata of the .apr file at `path` with its tensors, which have Hugging Face's names.
    pub(super) fn of_apr(
        metadata: &apr::Metadata,
        path: &Path,
        tensors: &Tensors,
        overrides: &Overrides,
    ) -> Result<Contents> {
        let config = metadata.config(path, tensors, overrides)?;
        let mut contents = Contents::of_safetensors(&config, tensors, overrides)?;
        metadata.order_heads(contents.hyper.head_dim, contents.weights.values_mut())?;
        Ok(contents)
    }

    pub(super) fn architecture(&self) -> Architecture {
        self.architecture
    }

    pub(super) fn hyper(&self) -> &HyperParameters {
        &self.hyper
    }

    pub(super) fn weights(&self) -> impl Iterator<Item = &Weight> {
        self.weights.values()
    }

    pub(super) fn weight(&self, key: WeightKey) -> Result<&Weight> {
        self.weights.get(&key).ok_or_else(|| Error::malformed(format!("the model has no weight {key}")))
    }
}

impl Model {
    /// Opens a GGUF file (any part of a split one opens all), an .apr file, or a folder with config.json and
    /// safetensors. Every weight's shape is checked.
    ///
    /// # Errors
    /// Environment where the path cannot be read; foreign where it is no model; malformed where a file breaks its
    /// format or contradicts itself; unsupported for an architecture, element type or feature that is not built.
    pub fn open(path: &Path) -> Result<Model> {
        Model::open_with(path, &Overrides::default())
    }

    /// The same with hyper-parameters of the user's in place of the files'.
    ///
    /// # Errors
    /// Those of [`Model::open`]; usage for settings that the model does not have or that make no sense.
    pub fn open_with(path: &Path, overrides: &Overrides) -> Result<Model> {
        let metadata = std::fs::metadata(path).map_err(|cause| Error::io("open the model", path, cause))?;
        if metadata.is_dir() { open_folder(path, overrides) } else { open_file(path, overrides) }
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files' format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The family.
    pub fn architecture(&self) -> Architecture {
        self.contents.architecture()
    }

    /// The numbers that shape it.
    pub fn hyper(&self) -> &HyperParameters {
        self.contents.hyper()
    }

    /// The same numbers as text, with their source.
    pub fn facts(&self) -> &[Fact] {
        &self.contents.facts
    }

    /// Every weight in the order of the keys; a tied output head is one of them.
    pub fn weights(&self) -> impl Iterator<Item = &Weight> {
        self.contents.weights()
    }

    /// The weight with `key`.
    ///
    /// # Errors
    /// Malformed, naming the missing weight.
    pub fn weight(&self, key: WeightKey) -> Result<&Weight> {
        self.contents.weight(key).map_err(|error| error.in_file(&self.path))
    }

    /// The weight with `key`, if the model has it.
    pub fn get(&self, key: WeightKey) -> Option<&Weight> {
        self.contents.weights.get(&key)
    }

    /// The vocabulary that the model's file holds; `None` where it holds none.
    ///
    /// # Errors
    /// Malformed where it breaks its format, and unsupported for parts that are not built; either names the key.
    pub fn vocabulary(&self) -> Result<Option<Vocabulary>> {
        let vocabulary = match &self.described {
            Described::Gguf(metadata) => metadata.vocabulary(),
            Described::Apr(metadata) => metadata.vocabulary(),
            Described::Apart => Ok(None),
        };
        vocabulary.map_err(|error| error.in_file(&self.path))
    }

    /// The type that holds most weight bytes, tied and fused tensors counted once.
    pub fn weight_type(&self) -> TensorType {
        let mut seen = BTreeSet::new();
        let mut bytes: BTreeMap<TensorType, usize> = BTreeMap::new();
        for weight in self.contents.weights() {
            if seen.insert(&weight.stored_name) {
                *bytes.entry(weight.tensor_type).or_default() += weight.data.len();
            }
        }
        bytes.into_iter().max_by_key(|(_, bytes)| *bytes).map_or(TensorType::F32, |(kind, _)| kind)
    }

    /// Every file that the model was read from.
    pub fn files(&self) -> &[ModelFile] {
        &self.files
    }

    /// Hashes every file on all cores. Reads all bytes: seconds for a large model.
    ///
    /// # Errors
    /// Those of [`Model::check_unchanged`]: the hash of a file that changed meanwhile means nothing.
    pub fn hash(&self) -> Result<ModelHash> {
        let files: Vec<[u8; 32]> =
            self.files.iter().map(|file| blake3::Hasher::new().update_rayon(&file.bytes).finalize().into()).collect();
        self.check_unchanged()?;
        let by_name: BTreeMap<&str, &[u8; 32]> = self.files.iter().map(|file| file.name.as_str()).zip(&files).collect();
        let mut whole = blake3::Hasher::new();
        for hash in by_name.values() {
            whole.update(*hash);
        }
        Ok(ModelHash { model: whole.finalize().into(), files })
    }

    /// Checks that every file still has the size and time it had when it was opened.
    ///
    /// # Errors
    /// Environment, naming the file that changed or went away.
    pub fn check_unchanged(&self) -> Result<()> {
        for file in &self.files {
            let now = std::fs::metadata(&file.path)
                .map_err(|cause| Error::io("find the model file again", &file.path, cause))?;
            if now.len() != file.size || now.modified().ok() != Some(file.modified) {
                return Err(Error::new(
                    ErrorKind::Environment,
                    "the model file changed while it was in use; run again once it is at rest",
                )
                .in_file(&file.path));
            }
        }
        Ok(())
    }
}

impl ModelFile {
    fn open(path: &Path) -> Result<ModelFile> {
        let file = File::open(path).map_err(|cause| Error::io("open", path, cause))?;
        let metadata = file.metadata().map_err(|cause| Error::io("look at", path, cause))?;
        if !metadata.is_file() {
            return Err(Error::new(ErrorKind::Foreign, "not a regular file, so not a model").in_file(path));
        }
        if metadata.len() == 0 {
            return Err(Error::malformed("the file is empty").in_file(path));
        }
        let modified = metadata.modified().map_err(|cause| Error::io("read the time of", path, cause))?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let bytes = Bytes::map(&file, path)?;
        Ok(ModelFile { path: path.to_path_buf(), name, size: metadata.len(), modified, bytes })
    }
}

fn open_file(path: &Path, overrides: &Overrides) -> Result<Model> {
    let file = ModelFile::open(path)?;
    if file.bytes.starts_with(apr::MAGIC) {
        return open_apr(file, overrides);
    }
    let (files, metadata, tensors) = read_parts(path)?;
    let contents = Contents::of_gguf(&metadata, &tensors, overrides).map_err(|error| match files.first() {
        Some(first) => error.in_file(&first.path),
        None => error,
    })?;
    Ok(Model { path: path.to_path_buf(), format: Format::Gguf, contents, described: Described::Gguf(metadata), files })
}

fn open_apr(file: ModelFile, overrides: &Overrides) -> Result<Model> {
    let path = file.path.clone();
    let mut tensors = Tensors::default();
    let read = apr::read(&file.bytes, 0, &mut tensors).and_then(|metadata| {
        let contents = Contents::of_apr(&metadata, &path, &tensors, overrides)?;
        Ok((contents, Described::Apr(metadata)))
    });
    let (contents, described) = read.map_err(|error| error.in_file(&path))?;
    Ok(Model { path, format: Format::Apr, contents, described, files: vec![file] })
}

/// The files, metadata and tensors of the model that `path` is, or is a part of.
fn read_parts(path: &Path) -> Result<(Vec<ModelFile>, Metadata, Tensors)> {
    let (mut files, mut tensors) = (Vec::new(), Tensors::default());
    let metadata = add_file(path, &mut files, &mut tensors, read_gguf)?;
    let Some(split) = Split::of(path, &metadata).map_err(|error| error.in_file(path))? else {
        return Ok((files, metadata, tensors));
    };
    // Any part may have been opened: all are read in their order.
    (files, tensors) = (Vec::new(), Tensors::default());
    let mut first = None;
    for (number, path) in (0..).zip(split.paths()) {
        split.check_present(&path)?;
        let part = add_file(&path, &mut files, &mut tensors, read_gguf)?;
        split.check_part(number, &part, first.as_ref().unwrap_or(&part)).map_err(|error| error.in_file(&path))?;
        first.get_or_insert(part);
    }
    split.check_tensors(tensors.len()).map_err(|error| error.in_file(path))?;
    Ok((files, first.unwrap_or(metadata), tensors))
}

fn read_gguf(bytes: &Bytes, file: usize, tensors: &mut Tensors) -> Result<Metadata> {
    if !bytes.starts_with(gguf::MAGIC) {
        return Err(foreign(bytes));
    }
    gguf::read(bytes, file, tensors)
}

/// Opens a file and adds it, and with `read` its tensors, to those of the model.
fn add_file<T>(
    path: &Path,
    files: &mut Vec<ModelFile>,
    tensors: &mut Tensors,
    read: impl Fn(&Bytes, usize, &mut Tensors) -> Result<T>,
) -> Result<T> {
    let file = ModelFile::open(path)?;
    let read = read(&file.bytes, files.len(), tensors).map_err(|error| error.in_file(path))?;
    files.push(file);
    Ok(read)
}

fn foreign(bytes: &[u8]) -> Error {
    let magic = &bytes[..bytes.len().min(4)];
    // A safetensors file begins with the length of its header, and the header with a brace.
    if bytes.get(8) == Some(&b'{') {
        return Error::usage("a safetensors file alone has no hyper-parameters; give its folder, with config.json");
    }
    Error::new(
        ErrorKind::Foreign,
        format!(
            "not a model file (it begins with \"{}\"); give a GGUF or .apr file, or a folder with config.json and safetensors",
            magic.escape_ascii()
        ),
    )
}

fn open_folder(path: &Path, overrides: &Overrides) -> Result<Model> {
    let config_path = path.join("config.json");
    if !config_path.exists() {
        return Err(Error::new(
            ErrorKind::Foreign,
            "the folder has no config.json, so it is no model; give a folder with config.json and safetensors, or a GGUF or .apr file",
        )
        .in_file(path));
    }
    let config_file = ModelFile::open(&config_path)?;
    let config = Config::parse(&config_file.bytes, &config_path)?;
    let (files, tensors) = read_shards(path, config_file)?;
    let contents = Contents::of_safetensors(&config, &tensors, overrides).map_err(|error| error.in_file(path))?;
    Ok(Model { path: path.to_path_buf(), format: Format::Safetensors, contents, described: Described::Apart, files })
}

/// The tensors of model.safetensors, or of the shards that model.safetensors.index.json names.
fn read_shards(folder: &Path, config: ModelFile) -> Result<(Vec<ModelFile>, Tensors)> {
    let single = folder.join("model.safetensors");
    let index_path = folder.join("model.safetensors.index.json");
    let mut files = vec![config];
    let mut tensors = Tensors::default();
    if !single.exists() && index_path.exists() {
        let index_file = ModelFile::open(&index_path)?;
        let map = safetensors::index(&index_file.bytes).map_err(|error| error.in_file(&index_path))?;
        files.push(index_file);
        for name in map.values().collect::<BTreeSet<_>>() {
            add_file(&folder.join(name), &mut files, &mut tensors, safetensors::read)?;
        }
        check_index(&map, &files, &tensors).map_err(|error| error.in_file(&index_path))?;
    } else {
        add_file(&single, &mut files, &mut tensors, safetensors::read)?;
    }
    tensors.check_overlap().map_err(|error| error.in_file(folder))?;
    Ok((files, tensors))
}

fn check_index(map: &BTreeMap<String, String>, files: &[ModelFile], tensors: &Tensors) -> Result<()> {
    for (name, file) in map {
        let holder = tensors.get(name).and_then(|tensor| files.get(tensor.file));
        if holder.is_none_or(|holder| holder.name != *file) {
            return Err(Error::malformed(format!("the index puts it into {file}, which does not hold it")).of(name));
        }
    }
    Ok(())
}
