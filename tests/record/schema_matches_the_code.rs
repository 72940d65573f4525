//! schema/ is the format's contract: a changed struct, kind or header fails here until the documents say so.

use crate::support::package;
use crate::support::trace::record_table;
use actrace::file::{FileHeader, FrameHeader, Kind};

fn schema(name: &str) -> String {
    std::fs::read_to_string(package().join("schema").join(name)).unwrap()
}

/// Cells of the table rows below a heading of trace-file.md, without the table's head.
fn table(heading: &str) -> Vec<Vec<String>> {
    let document = schema("trace-file.md");
    let (_, section) = document.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
    let cells = |line: &str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
    let lines = section.lines().take_while(|line| !line.starts_with('#'));
    lines.filter(|line| line.starts_with('|')).skip(2).map(cells).collect()
}

#[test]
fn archived_sizes_and_fingerprints() {
    assert_eq!(
        schema("records.toml"),
        record_table(),
        "a record changed: see `How it evolves` in schema/trace-file.md"
    );
}

/// Struct, then its fields with type and meaning, as the source has them.
fn structs() -> Vec<(String, Vec<Vec<String>>)> {
    let source = std::fs::read_to_string(package().join("src/record/v1.rs")).unwrap();
    let (mut structs, mut comment) = (Vec::new(), String::new());
    for line in source.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("/// ") {
            comment = format!("{comment} {text}");
        } else if let Some(name) = line.strip_prefix("pub struct ") {
            structs.push((name.trim_end_matches(" {").to_owned(), Vec::new()));
            comment.clear();
        } else if let Some((name, kind)) = line.strip_prefix("pub ").and_then(|field| field.split_once(": ")) {
            let (_, fields) = structs.last_mut().unwrap();
            let field = [name, kind.trim_end_matches(','), comment.trim()];
            fields.push(field.map(str::to_owned).to_vec());
            comment.clear();
        }
    }
    structs
}

#[test]
fn every_field_of_every_record() {
    let structs = structs();
    assert!(structs.len() >= 12);
    for (name, fields) in structs {
        assert_eq!(table(&format!("### {name}")), fields, "{name}");
    }
}

#[test]
fn every_kind() {
    let rows = table("## Kinds");
    for (row, code) in rows.iter().zip(1..) {
        let kind = Kind::from_code(code);
        assert_eq!((row[0].as_str(), row[1].as_str()), (code.to_string().as_str(), kind.name()));
    }
    assert_eq!(Kind::from_code(rows.len() as u16 + 1), Kind::Other(rows.len() as u16 + 1));
}

/// The bytes at the place that the document gives a field; fields lie side by side and fill 64 bytes.
fn field<'a>(rows: &[Vec<String>], bytes: &'a [u8; 64], name: &str) -> &'a [u8] {
    let mut end = 0;
    let mut found = None;
    for row in rows {
        let (offset, width): (usize, usize) = (row[0].parse().unwrap(), row[1].parse().unwrap());
        assert_eq!(offset, end, "{row:?}");
        end += width;
        if row[2] == name {
            found = Some(&bytes[offset..end]);
        }
    }
    assert_eq!(end, 64);
    found.unwrap_or_else(|| panic!("no field {name}"))
}

#[test]
fn file_header_fields_are_where_the_document_puts_them() {
    let bytes = FileHeader { uuid: *b"sixteen letters!", created_us: -5 }.encode();
    let rows = table("## File header");
    let field = |name| field(&rows, &bytes, name);
    assert_eq!(field("magic"), b"\xABactr\r\n\x1A");
    assert_eq!(field("layout"), 1u16.to_le_bytes());
    assert_eq!(field("uuid"), b"sixteen letters!");
    assert_eq!(field("created_us"), (-5i64).to_le_bytes());
    assert_eq!(field("crc"), crc32c::crc32c(&bytes[..60]).to_le_bytes());
    for row in rows.iter().filter(|row| row[2] == "reserved" || row[2].ends_with("compatible")) {
        let offset: usize = row[0].parse().unwrap();
        assert!(bytes[offset..offset + row[1].parse::<usize>().unwrap()].iter().all(|byte| *byte == 0), "{row:?}");
    }
}

#[test]
fn frame_header_fields_are_where_the_document_puts_them() {
    let header = FrameHeader {
        kind: Kind::Coverage,
        version: 0x0102,
        seq: 0x1112_1314_1516_1718,
        offset: 0x2122_2324_2526_2740,
        stored_length: 0x3132_3334,
        raw_length: 0x3536_3738,
        run: 0x4142_4344,
        step: 0x5152_5354,
        codec: 1,
        critical: true,
        payload: 0x6162_6364_6566_6768,
        body_crc: 0x7172_7374,
    };
    let uuid = [9; 16];
    let bytes = header.encode(&uuid);
    let rows = table("## Frame header");
    let field = |name| field(&rows, &bytes, name);
    assert_eq!(field("sync"), b"\xF7trc");
    assert_eq!(field("kind"), 6u16.to_le_bytes());
    assert_eq!(field("version"), header.version.to_le_bytes());
    assert_eq!(field("seq"), header.seq.to_le_bytes());
    assert_eq!(field("offset"), header.offset.to_le_bytes());
    assert_eq!(field("stored_length"), header.stored_length.to_le_bytes());
    assert_eq!(field("raw_length"), header.raw_length.to_le_bytes());
    assert_eq!(field("run"), header.run.to_le_bytes());
    assert_eq!(field("step"), header.step.to_le_bytes());
    assert_eq!((field("codec"), field("flags")), (&[1][..], &[1][..]));
    assert_eq!(field("reserved"), [0; 6]);
    assert_eq!(field("payload"), header.payload.to_le_bytes());
    assert_eq!(field("body_crc"), header.body_crc.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&uuid), &bytes[..60]);
    assert_eq!(field("header_crc"), crc.to_le_bytes());
}
