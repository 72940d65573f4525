//! Images whose checksums are made to fit, so that an attack reaches what lies behind them.

use super::trace::frames;
use actrace::file::{FileHeader, FrameHeader, Kind, padded, seal_root};
use actrace::open::Input;
use actrace::record::{IndexV1, PayloadIndexV1, Record, SealV1};
use rkyv::util::AlignedVec;
use std::collections::BTreeMap;
use std::path::Path;

pub fn input(image: Vec<u8>) -> Input {
    Input::of(image, Path::new("image.actrace")).unwrap()
}

pub fn encoded<R: Record>(record: &R) -> Vec<u8> {
    record.encode(AlignedVec::new()).unwrap().to_vec()
}

/// Appends a frame whose place, lengths and checksums fit; `header` says the rest.
pub fn append(image: &mut Vec<u8>, header: FrameHeader, stored: &[u8]) -> FrameHeader {
    let uuid = FileHeader::decode(image).unwrap().uuid;
    let mut body = stored.to_vec();
    body.resize(padded(stored.len() as u64) as usize, 0);
    let stored_length = stored.len() as u32;
    let raw_length = if header.is_compressed() { header.raw_length } else { stored_length };
    let body_crc = crc32c::crc32c(&body);
    let header = FrameHeader { offset: image.len() as u64, stored_length, raw_length, body_crc, ..header };
    image.extend_from_slice(&header.encode(&uuid));
    image.extend_from_slice(&body);
    header
}

/// Makes both checksums of the frame at `offset` fit its bytes, where it lies within the image.
pub fn fix_checksums(image: &mut [u8], offset: usize) {
    let length = u32::from_le_bytes(image[offset + 24..offset + 28].try_into().unwrap());
    let body = offset + 64..offset + 64 + padded(u64::from(length)) as usize;
    if let Some(body) = image.get(body) {
        let crc = crc32c::crc32c(body);
        image[offset + 56..offset + 60].copy_from_slice(&crc.to_le_bytes());
    }
    let crc = crc32c::crc32c_append(crc32c::crc32c(&image[20..36]), &image[offset..offset + 60]);
    image[offset + 60..offset + 64].copy_from_slice(&crc.to_le_bytes());
}

/// Makes the seal at the end of `sound`'s changed `image` fit the last index, whatever that says now. Both are stored
/// raw.
pub fn fix_seal(image: &mut [u8], sound: &[u8], frames: &[FrameHeader]) {
    let index = frames.iter().rfind(|frame| frame.kind == Kind::Index).unwrap();
    let seal = frames.last().unwrap();
    let body = |frame: &FrameHeader| {
        let start = frame.offset as usize + 64;
        start..start + frame.stored_length as usize
    };
    let header = FileHeader::decode(sound).unwrap();
    let chain = *blake3::hash(&image[body(index)]).as_bytes();
    let mut record = SealV1::decode(&input(sound.to_vec()).body(seal).unwrap()).unwrap();
    record.root = seal_root(&header, &chain, record.frames);
    image[seal.offset as usize..].copy_from_slice(&sound[seal.offset as usize..]);
    image[body(seal)].copy_from_slice(&encoded(&record));
    fix_checksums(image, seal.offset as usize);
}

/// The same file with every body stored raw, its directories and seals made anew.
pub fn uncompressed(image: &[u8]) -> Vec<u8> {
    let input = input(image.to_vec());
    let mut out = image[..FileHeader::BYTES].to_vec();
    let mut placed: BTreeMap<u64, (FrameHeader, [u8; 32])> = BTreeMap::new();
    for frame in frames(image) {
        let body = input.body(&frame).unwrap();
        let body = match frame.kind {
            Kind::Index => encoded(&relisted(IndexV1::decode(&body).unwrap(), &placed)),
            Kind::PayloadIndex => {
                let mut index = PayloadIndexV1::decode(&body).unwrap();
                relist(&placed, &mut index.offset, &mut index.stored_length, &mut index.raw_length);
                encoded(&index)
            }
            Kind::Seal => {
                let mut seal = SealV1::decode(&body).unwrap();
                let (index, chain) = placed[&seal.index];
                seal.index = index.offset;
                seal.root = seal_root(input.header(), &chain, seal.frames);
                encoded(&seal)
            }
            _ => body.to_vec(),
        };
        let header = append(&mut out, FrameHeader { codec: 0, ..frame }, &body);
        placed.insert(frame.offset, (header, *blake3::hash(&body).as_bytes()));
    }
    out
}

fn relist(
    placed: &BTreeMap<u64, (FrameHeader, [u8; 32])>,
    offset: &mut [u64],
    stored_length: &mut [u32],
    raw_length: &mut [u32],
) {
    for ((offset, stored), raw) in offset.iter_mut().zip(stored_length).zip(raw_length) {
        let header = placed[offset].0;
        (*offset, *stored, *raw) = (header.offset, header.stored_length, header.raw_length);
    }
}

fn relisted(mut index: IndexV1, placed: &BTreeMap<u64, (FrameHeader, [u8; 32])>) -> IndexV1 {
    index.blake3 = index.offset.iter().flat_map(|offset| placed[offset].1).collect();
    relist(placed, &mut index.offset, &mut index.stored_length, &mut index.raw_length);
    if index.payload_index != 0 {
        index.payload_index = placed[&index.payload_index].0.offset;
    }
    if index.previous != 0 {
        let (previous, chain) = placed[&index.previous];
        (index.previous, index.previous_chain) = (previous.offset, chain);
    }
    index
}
