//! Models in several GGUF files: whole sets open from any part, sets that do not fit together are refused.

use super::build::{Gguf, text};
use super::refused;
use crate::ErrorKind::{Environment, Foreign, Malformed};
use crate::model::{Model, WeightKey};
use std::fs;
use std::path::PathBuf;

/// The model of [`Gguf::llama`] in three parts, as gguf-split leaves it: the metadata in the first, the tensors in all.
struct Set {
    folder: tempfile::TempDir,
    parts: Vec<Gguf>,
}

impl Set {
    fn new() -> Set {
        let whole = Gguf::llama();
        let mut parts: Vec<Gguf> = whole
            .tensors
            .chunks(4)
            .map(|tensors| Gguf { version: 3, tensor_count: None, pairs: Vec::new(), tensors: tensors.to_vec() })
            .collect();
        parts[0].pairs.clone_from(&whole.pairs);
        for (number, part) in (0u16..).zip(&mut parts) {
            part.set("split.no", 2, number.to_le_bytes().to_vec());
            part.set("split.count", 2, 3u16.to_le_bytes().to_vec());
            part.set("split.tensors.count", 5, (whole.tensors.len() as i32).to_le_bytes().to_vec());
        }
        Set { folder: tempfile::tempdir().unwrap(), parts }
    }

    fn path(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("llama-0000{number}-of-00003.gguf"))
    }

    fn write(&self) {
        for (number, part) in (1..).zip(&self.parts) {
            fs::write(self.path(number), part.bytes()).unwrap();
        }
    }

    fn open(&self) -> crate::Result<Model> {
        self.write();
        Model::open(&self.path(1))
    }
}

#[test]
fn any_part_opens_the_whole_model() {
    let set = Set::new();
    set.write();
    let whole = set.folder.path().join("whole.gguf");
    fs::write(&whole, Gguf::llama().bytes()).unwrap();
    let whole = Model::open(&whole).unwrap();
    let hash = Model::open(&set.path(1)).unwrap().hash().unwrap();
    for number in 1..=3 {
        let model = Model::open(&set.path(number)).unwrap();
        let names: Vec<PathBuf> = model.files().iter().map(|file| file.path.clone()).collect();
        assert_eq!(names, (1..=3).map(|number| set.path(number)).collect::<Vec<_>>());
        assert_eq!((model.path(), model.hyper()), (set.path(number).as_path(), whole.hyper()));
        assert_eq!(model.hash().unwrap(), hash);
        assert_eq!(model.weights().count(), whole.weights().count());
        for weight in whole.weights() {
            let part = model.weight(weight.key).unwrap();
            assert_eq!((&part.stored_name, &*part.data), (&weight.stored_name, &*weight.data));
            let bytes = fs::read(&model.files()[part.file].path).unwrap();
            assert_eq!(&bytes[part.offset as usize..][..part.data.len()], &*part.data);
        }
    }
}

#[test]
fn the_hash_covers_every_part() {
    let mut set = Set::new();
    let hash = set.open().unwrap().hash().unwrap();
    assert_eq!(hash.files.len(), 3);
    let last = set.parts[2].tensors.last_mut().unwrap();
    last.data[0] ^= 1;
    let other = set.open().unwrap().hash().unwrap();
    assert_eq!(hash.files[..2], other.files[..2]);
    assert_ne!((hash.files[2], hash.model), (other.files[2], other.model));
}

#[test]
fn a_part_that_changed_is_named() {
    let set = Set::new();
    let model = set.open().unwrap();
    fs::write(set.path(3), [set.parts[2].bytes(), vec![0]].concat()).unwrap();
    refused(model.check_unchanged(), Environment, "llama-00003-of-00003.gguf: the model file changed");
}

#[test]
fn a_missing_part_is_named() {
    for missing in 1..=3 {
        let set = Set::new();
        set.write();
        fs::remove_file(set.path(missing)).unwrap();
        let words = format!("llama-0000{missing}-of-00003.gguf: a part of the model is missing; all 3 must lie");
        for number in (1..=3).filter(|number| *number != missing) {
            refused(Model::open(&set.path(number)), Environment, &words);
        }
    }
}

/// Words of the error, and the change of the second part that causes it.
type Case = (&'static str, fn(&mut Gguf));

#[test]
fn parts_that_do_not_fit_together_are_malformed() {
    let cases: [Case; 9] = [
        ("split.count is 4, and should be 3", |part| part.set("split.count", 2, 4u16.to_le_bytes().to_vec())),
        ("split.no is 2, and should be 1", |part| part.set("split.no", 2, 2u16.to_le_bytes().to_vec())),
        ("split.tensors.count is 12", |part| part.set("split.tensors.count", 5, 12i32.to_le_bytes().to_vec())),
        ("split.tensors.count is -1", |part| part.set("split.tensors.count", 5, (-1i32).to_le_bytes().to_vec())),
        ("no split.no", |part| part.pairs.retain(|(key, ..)| key != "split.no")),
        ("no split.count", |part| part.pairs.retain(|(key, ..)| key != "split.count")),
        ("split.no is \"1\"", |part| part.set("split.no", 8, text("1"))),
        ("llama.block_count is 2", |part| part.set_u32("llama.block_count", 2)),
        ("tensor token_embd.weight: two tensors", |part| part.tensors[0].name = "token_embd.weight".into()),
    ];
    for (words, change) in cases {
        let mut set = Set::new();
        change(&mut set.parts[1]);
        let error = set.open().unwrap_err();
        assert_eq!(error.file(), Some(set.path(2).as_path()), "{error}");
        refused(set.open(), Malformed, words);
    }
}

#[test]
fn a_tensor_too_few_is_malformed() {
    let mut set = Set::new();
    set.parts[2].tensors.pop();
    refused(set.open(), Malformed, "split.tensors.count is 11, and the 3 parts have 10 tensors");
}

#[test]
fn a_part_that_is_no_gguf_is_named() {
    let set = Set::new();
    set.write();
    fs::write(set.path(2), b"PK\x03\x04 and more").unwrap();
    refused(Model::open(&set.path(1)), Foreign, "llama-00002-of-00003.gguf: not a model file");
}

#[test]
fn a_part_under_another_name_is_refused() {
    let set = Set::new();
    set.write();
    for name in ["llama.gguf", "llama-00002-of-00003.gguf", "llama-1-of-3.gguf"] {
        let path = set.folder.path().join(name);
        fs::write(&path, set.parts[0].bytes()).unwrap();
        refused(Model::open(&path), Malformed, "it is part 1 of 3, so its name must end in -00001-of-00003.gguf");
    }
    let mut part = set.parts[0].clone();
    part.set("split.no", 2, 3u16.to_le_bytes().to_vec());
    fs::write(set.path(1), part.bytes()).unwrap();
    refused(Model::open(&set.path(1)), Malformed, "split.no is 3, and the model has 3 parts");
}

/// Merging leaves the keys there, with a count of 0.
#[test]
fn a_merged_file_is_a_whole_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("merged.gguf");
    for count in [0u16, 1] {
        let mut file = Gguf::llama();
        file.set("split.no", 2, 0u16.to_le_bytes().to_vec());
        file.set("split.count", 2, count.to_le_bytes().to_vec());
        file.set("split.tensors.count", 5, 11i32.to_le_bytes().to_vec());
        fs::write(&path, file.bytes()).unwrap();
        let model = Model::open(&path).unwrap();
        assert_eq!(model.files().len(), 1);
        assert!(model.get(WeightKey::in_layer(0, crate::model::Role::Q)).is_some());
    }
}
