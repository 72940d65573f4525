//! GGUF files as they are written: the bytes of another writer, no half files, nothing overwritten by accident.

use super::refused;
use crate::ErrorKind::{Internal, Malformed, Usage};
use crate::model::stored::Tensors;
use crate::model::{Bytes, GgufContents, GgufValue, GgufWriter, Replace, TensorType, gguf};
use std::path::Path;

/// What the fixture holds, in its order; element bytes count up from 0 in each tensor.
const TENSORS: [(&str, TensorType, &[usize], usize); 5] = [
    ("vector", TensorType::F32, &[5], 20),
    ("matrix.f16", TensorType::F16, &[3, 7], 42),
    ("matrix.q8_0", TensorType::Q8_0, &[2, 96], 204),
    ("cube.q4_k", TensorType::Q4K, &[2, 1, 256], 288),
    ("bf16", TensorType::Bf16, &[1, 1], 2),
];

fn counting(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|byte| byte as u8).collect()
}

fn text(text: &str) -> GgufValue {
    GgufValue::Text(text.into())
}

fn contents() -> GgufContents {
    let mut contents = GgufContents::default();
    for (key, value) in [
        ("general.architecture", text("llama")),
        ("a.u32", GgufValue::U32(4_000_000_000)),
        ("a.u64", GgufValue::U64(1 << 40)),
        ("a.i32", GgufValue::I32(-7)),
        ("a.f32", GgufValue::F32(1e-6)),
        ("a.bool", GgufValue::Bool(true)),
        ("a.text", text("größer")),
        ("a.texts", GgufValue::Texts(vec!["one".into(), String::new(), "drei".into()])),
    ] {
        contents.set(key, value).unwrap();
    }
    for (name, tensor_type, shape, _) in TENSORS {
        contents.add(name, tensor_type, shape).unwrap();
    }
    contents
}

fn write_tensors(writer: &mut GgufWriter) {
    for (name, _, _, bytes) in TENSORS {
        writer.begin(name).unwrap();
        // In two parts: a tensor comes in pieces of any length.
        let whole = counting(bytes);
        let (first, second) = whole.split_at(bytes / 3);
        writer.append(first).unwrap();
        writer.append(second).unwrap();
    }
}

fn names(folder: &Path) -> Vec<String> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn the_bytes_are_those_of_the_gguf_package() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let expected = include_bytes!("../../../tests/fixtures/gguf/written.gguf");
    assert_eq!(contents().file_bytes().unwrap(), expected.len() as u64);
    let mut writer = contents().create(&path, Replace::No).unwrap();
    write_tensors(&mut writer);
    assert!(!path.exists(), "the name stands for a whole file only");
    assert_eq!(writer.finish().unwrap(), expected.len() as u64);
    assert_eq!(std::fs::read(&path).unwrap(), expected);
    assert_eq!(names(folder.path()), ["m.gguf"]);
}

#[test]
fn our_reader_finds_every_tensor_also_under_another_alignment() {
    let folder = tempfile::tempdir().unwrap();
    for alignment in [8, 32, 256] {
        let mut contents = GgufContents::default();
        contents.set("general.alignment", GgufValue::U32(alignment)).unwrap();
        for (name, tensor_type, shape, _) in TENSORS {
            contents.add(name, tensor_type, shape).unwrap();
        }
        let path = folder.path().join("m.gguf");
        let mut writer = contents.create(&path, Replace::Yes).unwrap();
        write_tensors(&mut writer);
        writer.finish().unwrap();
        let bytes = Bytes::from(std::fs::read(&path).unwrap());
        let mut tensors = Tensors::default();
        gguf::read(&bytes, 0, &mut tensors).unwrap();
        for (name, tensor_type, shape, length) in TENSORS {
            let tensor = tensors.get(name).unwrap();
            assert_eq!((tensor.tensor_type, tensor.shape.as_slice()), (tensor_type, shape), "{name}");
            assert_eq!(*tensor.data, *counting(length), "{name}");
            assert!(tensor.offset.is_multiple_of(alignment.into()));
        }
    }
}

#[test]
fn what_no_file_can_hold_is_refused() {
    type Case = (crate::ErrorKind, &'static str, fn(&mut GgufContents) -> crate::Result<()>);
    let cases: [Case; 12] = [
        (Usage, "a.u32 is set twice", |c| c.set("a.u32", GgufValue::U32(1))),
        (Usage, "1 to 65535 bytes, not 0", |c| c.set("", GgufValue::U32(1))),
        (Usage, "not 65536", |c| c.set(&"k".repeat(65536), GgufValue::U32(1))),
        (Usage, "after the first tensor", |c| c.set("general.alignment", GgufValue::U32(64))),
        (Usage, "power of two", |_| GgufContents::default().set("general.alignment", GgufValue::U32(48))),
        (Usage, "power of two", |_| GgufContents::default().set("general.alignment", GgufValue::U32(4))),
        (Usage, "tensor vector: a tensor of this name", |c| c.add("vector", TensorType::F32, &[1])),
        (Usage, "1 to 63 bytes", |c| c.add(&"n".repeat(64), TensorType::F32, &[1])),
        (Usage, "5 axes", |c| c.add("x", TensorType::F32, &[1; 5])),
        (Usage, "0 axes", |c| c.add("x", TensorType::F32, &[])),
        (Malformed, "tensor x: a row of 255 elements", |c| c.add("x", TensorType::Q4K, &[2, 255])),
        (Malformed, "too large", |c| c.add("x", TensorType::F32, &[usize::MAX / 2, 4])),
    ];
    for (kind, words, change) in cases {
        refused(change(&mut contents()), kind, words);
    }
    let mut contents = GgufContents::default();
    contents.add("a", TensorType::Bf16, &[usize::MAX / 4]).unwrap();
    refused(contents.add("b", TensorType::Bf16, &[usize::MAX / 4]), Usage, "tensor b: with it the file is too large");
}

/// A writer that is fed wrongly gives no file, and leaves nothing behind.
#[test]
fn tensors_come_whole_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    type Case = (&'static str, fn(GgufWriter) -> crate::Result<()>);
    let cases: [Case; 7] = [
        ("bytes before the first tensor", |mut w| w.append(&[0])),
        ("tensor matrix.f16: tensor vector is next", |mut w| w.begin("matrix.f16")),
        ("21 bytes where 20 are left of its 20", |mut w| w.begin("vector").and_then(|()| w.append(&[0; 21]))),
        ("tensor vector: 1 of its 20 bytes are missing", |mut w| {
            w.begin("vector")?;
            w.append(&[0; 19])?;
            w.begin("matrix.f16")
        }),
        ("tensor vector: it was never written", |w| w.finish().map(drop)),
        ("tensor vector: 20 of its 20 bytes are missing", |mut w| {
            w.begin("vector")?;
            w.finish().map(drop)
        }),
        ("all tensors of the file are written", |mut w| {
            write_tensors(&mut w);
            w.begin("another")
        }),
    ];
    for (words, feed) in cases {
        let writer = contents().create(&folder.path().join("m.gguf"), Replace::No).unwrap();
        refused(feed(writer), Internal, words);
        assert!(names(folder.path()).is_empty(), "{words}");
    }
}

#[test]
fn a_name_that_is_taken_is_kept_unless_it_may_be_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let whole = |replace| {
        let mut writer = contents().create(&path, replace)?;
        write_tensors(&mut writer);
        writer.finish()
    };
    // Taken before, and taken while the file was written.
    std::fs::write(&path, "precious").unwrap();
    refused(whole(Replace::No), Usage, "not overwritten");
    std::fs::remove_file(&path).unwrap();
    let mut writer = contents().create(&path, Replace::No).unwrap();
    write_tensors(&mut writer);
    std::fs::write(&path, "precious").unwrap();
    refused(writer.finish(), Usage, "not overwritten");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    assert_eq!(names(folder.path()), ["m.gguf"]);
    // Replaced as a whole or not at all.
    let mut writer = contents().create(&path, Replace::Yes).unwrap();
    writer.begin("vector").unwrap();
    drop(writer);
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    assert_eq!(whole(Replace::Yes).unwrap(), std::fs::metadata(&path).unwrap().len());
}

#[test]
fn only_files_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    for path in [folder.path(), &link, Path::new("/dev/null")] {
        refused(contents().create(path, Replace::Yes), Usage, "no regular file");
    }
    refused(contents().create(&folder.path().join("no/m.gguf"), Replace::No), crate::ErrorKind::Environment, "create");
    assert_eq!(names(folder.path()), ["link"]);
}

/// A process that was killed cannot take its temporary file along; the next one takes another name.
#[test]
fn a_partial_file_that_was_left_behind_is_in_nobody_s_way() {
    let folder = tempfile::tempdir().unwrap();
    let left = folder.path().join(format!("m.gguf.partial-{}-0", std::process::id()));
    std::fs::write(&left, "half").unwrap();
    let mut writer = contents().create(&folder.path().join("m.gguf"), Replace::No).unwrap();
    write_tensors(&mut writer);
    writer.finish().unwrap();
    assert_eq!(std::fs::read(&left).unwrap(), b"half");
    assert_eq!(names(folder.path()).len(), 2);
}
