//! A trace is evidence: whatever happens to its bytes after it was sealed, `verify` says so.
//!
//! Every attack runs over a small file with every kind of record, and over one that the recorder made.

use crate::support::trace::{frames, sample, verified};
use crate::traces::recorded;
use actrace::file::Kind;
use actrace::open::{State, hex};
use rayon::prelude::*;

const BLOCK: usize = 64;

/// Asserts that no damaged image verifies as sealed, which is what it was.
fn assert_detected<T: Sync + Send + std::fmt::Debug>(
    damages: impl ParallelIterator<Item = T>,
    damage: impl Fn(&T) -> Vec<u8> + Sync,
) {
    let accepted = |image| verified(image).is_ok_and(|found| found.state == State::Sealed);
    let missed: Vec<T> = damages.filter(|case| accepted(damage(case))).collect();
    assert!(missed.is_empty(), "{} undetected, among them {:?}", missed.len(), missed.first());
}

/// The file before any damage: sealed, without a fault.
fn sound(image: Vec<u8>) -> Vec<u8> {
    let found = verified(image.clone()).unwrap();
    assert_eq!((found.state, found.faults, found.loose_bytes), (State::Sealed, Vec::new(), 0));
    image
}

fn images() -> [Vec<u8>; 2] {
    [sound(sample()), sound(recorded())]
}

#[test]
fn the_small_file_has_every_kind_of_frame() {
    let found: Vec<u16> = frames(&sample()).iter().map(|frame| frame.kind.code()).collect();
    let missing: Vec<Kind> =
        (1..=12).filter(|code| !found.contains(code)).map(Kind::from_code).filter(|kind| *kind != Kind::Sync).collect();
    assert_eq!(missing, []);
}

#[test]
fn every_flipped_bit() {
    for image in images() {
        assert_detected((0..image.len() * 8).into_par_iter(), |bit| {
            let mut image = image.clone();
            image[bit / 8] ^= 1 << (bit % 8);
            image
        });
    }
}

/// A cut file holds exactly the whole frames before the cut; cut behind an earlier seal it is that earlier file, and
/// only its root tells.
#[test]
fn a_cut_at_every_offset() {
    for image in images() {
        let frames = frames(&image);
        let root = verified(image.clone()).unwrap().root;
        (0..image.len()).into_par_iter().for_each(|cut| {
            let Ok(found) = verified(image[..cut].to_vec()) else {
                return assert!(cut < BLOCK, "a cut at {cut} makes the file unreadable");
            };
            let whole = frames.iter().take_while(|frame| frame.end() <= cut as u64).count();
            assert_eq!((found.frames, found.faults.len()), (whole as u64, 0), "cut at {cut}");
            let last = whole.checked_sub(1).map(|last| &frames[last]);
            let earlier_file = last.is_some_and(|last| last.kind == Kind::Seal && last.end() == cut as u64);
            assert_eq!(found.state == State::Sealed, earlier_file, "cut at {cut}");
            assert_ne!(found.root, root, "cut at {cut}");
        });
    }
}

#[test]
fn every_block_zeroed() {
    for image in images() {
        let blocks = (0..image.len() / BLOCK).into_par_iter();
        let changed = blocks.filter(|block| image[block * BLOCK..][..BLOCK] != [0; BLOCK]);
        assert_detected(changed, |block| {
            let mut image = image.clone();
            image[block * BLOCK..][..BLOCK].fill(0);
            image
        });
    }
}

#[test]
fn every_block_dropped() {
    for image in images() {
        // Without its last block the file is cut, and a cut has its own test.
        assert_detected((0..image.len() / BLOCK - 1).into_par_iter(), |block| {
            let mut image = image.clone();
            image.drain(block * BLOCK..(block + 1) * BLOCK);
            image
        });
    }
}

#[test]
fn every_block_doubled() {
    for image in images() {
        assert_detected((0..image.len() / BLOCK).into_par_iter(), |block| {
            let mut image = image.clone();
            let doubled = image[block * BLOCK..][..BLOCK].to_vec();
            image.splice(block * BLOCK..block * BLOCK, doubled);
            image
        });
    }
}

#[test]
fn every_two_blocks_swapped() {
    for image in images() {
        let blocks = image.len() / BLOCK;
        let block = |at: usize| &image[at * BLOCK..][..BLOCK];
        let pairs = (0..blocks).into_par_iter().flat_map_iter(|a| (a + 1..blocks).map(move |b| (a, b)));
        assert_detected(pairs.filter(|(a, b)| block(*a) != block(*b)), |(a, b)| {
            let mut image = image.clone();
            let (low, high) = image.split_at_mut(b * BLOCK);
            low[a * BLOCK..][..BLOCK].swap_with_slice(&mut high[..BLOCK]);
            image
        });
    }
}

#[test]
fn files_one_after_the_other_and_bytes_behind_the_end() {
    let [a, b] = images();
    let behind = [a.clone(), b, vec![0; BLOCK], vec![0]];
    assert_detected((0..behind.len()).into_par_iter(), |which| [&a[..], &behind[*which]].concat());
}

/// A file cut behind an earlier seal is whole: only who knows the root can tell.
#[test]
fn the_command_tells_a_file_from_an_earlier_one_of_itself() {
    let folder = tempfile::tempdir().unwrap();
    let image = sample();
    let first_seal = frames(&image).iter().find(|frame| frame.kind == Kind::Seal).unwrap().end() as usize;
    let (whole, earlier) = (folder.path().join("whole.actrace"), folder.path().join("earlier.actrace"));
    std::fs::write(&whole, &image).unwrap();
    std::fs::write(&earlier, &image[..first_seal]).unwrap();
    let root = hex(&verified(image).unwrap().root.unwrap());
    let status = |arguments: &[&std::ffi::OsStr]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_actrace"));
        command.arg("verify").args(arguments).output().unwrap().status.code()
    };
    let with = |file: &std::path::Path, root: &str| status(&[file.as_ref(), "--root".as_ref(), root.as_ref()]);
    assert_eq!(status(&[whole.as_ref()]), Some(0));
    assert_eq!(status(&[earlier.as_ref()]), Some(0));
    assert_eq!(with(&whole, &root), Some(0));
    assert_eq!(with(&whole, &root.to_uppercase()), Some(0));
    assert_eq!(with(&earlier, &root), Some(1));
    assert_eq!(with(&whole, "abc"), Some(2), "no root");
    assert_eq!(status(&[whole.as_ref(), earlier.as_ref(), "--root".as_ref(), root.as_ref()]), Some(2), "two files");
}

/// Whoever reads of a damaged frame wants to know what is lost: the point that a payload holds is named through the
/// statistics rows that name the payload.
#[test]
fn a_damaged_payload_is_named_by_its_point() {
    let ground = crate::command::Ground::new();
    let model = crate::support::fixture("llama/plain");
    let args = ["--model", model.to_str().unwrap(), "--tokens", "1,2", "--points", "ffn_out", "--out", "{out}"];
    assert_eq!(ground.record(&args).status, 0);
    let image = std::fs::read(ground.path("out")).unwrap();
    let payloads: Vec<_> = frames(&image).into_iter().filter(|frame| frame.kind == Kind::Payload).collect();
    assert_eq!(payloads.len(), 2, "one for each layer");
    for (layer, payload) in payloads.iter().enumerate() {
        let name = vec![format!("layer {layer} ffn_out")];
        let mut body = image.clone();
        body[payload.offset as usize + 70] ^= 1;
        assert_eq!(verified(body).unwrap().faults[0].points, name, "a byte of the body");
        let mut header = image.clone();
        header[payload.offset as usize] ^= 1;
        assert_eq!(verified(header).unwrap().faults[0].points, name, "a byte of the header");
    }
}
