//! A file may be written to hurt its reader. Whatever it holds, reading ends with an answer or an error: no panic, and
//! no more memory than the file's own content takes.
//!
//! The first test is a share of what `examples/attack.rs` does by the million. The others are attacks that need several
//! fields to agree, which chance does not find.

use crate::support::attack::{attack_all, read_everything};
use crate::support::forge::{append, encoded, fix_checksums, fix_seal, input, uncompressed};
use crate::support::memory::peak;
use crate::support::package;
use crate::support::trace::{HEADER, frames, payload, run, sample, verified};
use actrace::file::{FrameHeader, Kind};
use actrace::open::{Payload, State, Trace, append as go_on, recover};
use actrace::record::*;
use actrace::tensor::Dtype;

/// A few seconds on two cores.
const INPUTS: u64 = 40_000;

/// Room for buffers, contexts and the small file itself.
const SMALL: usize = 512 << 10;

#[test]
fn mutated_inputs_neither_panic_nor_fill_memory() {
    let (tally, failures) = attack_all(package(), 0..INPUTS, 2);
    assert_eq!(failures, Vec::<String>::new());
    for (group, (inputs, accepted, _)) in tally {
        // Recover keeps going past everything but a broken file header.
        let all = group == "recover" || accepted < inputs;
        assert!(0 < accepted && all, "{accepted} of {inputs} in {group}: too weak or too strong");
    }
}

/// The sample, uncompressed, whose frame of `kind` (the last of them) has its body replaced by one of equal length.
fn with_body(kind: Kind, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Vec<u8> {
    let sound = uncompressed(&sample());
    let frames = frames(&sound);
    let frame = frames.iter().rfind(|frame| frame.kind == kind).unwrap();
    let start = frame.offset as usize + 64;
    let body = start..start + frame.stored_length as usize;
    let mut image = sound.clone();
    let changed = change(sound[body.clone()].to_vec());
    image[body].copy_from_slice(&changed);
    fix_checksums(&mut image, frame.offset as usize);
    if kind == Kind::Index {
        fix_seal(&mut image, &sound, &frames);
    }
    image
}

/// Verifying and opening both end without a panic in little memory, and neither takes the file for a sealed one.
fn opened(image: &[u8]) {
    let (found, verify_peak) = peak(|| verified(image.to_vec()));
    assert!(found.is_err() || found.is_ok_and(|found| found.state != State::Sealed), "verify calls it sealed");
    let ((state, sound), open_peak) = peak(|| match Trace::of(input(image.to_vec())) {
        Ok(trace) => (Some(trace.state()), read_everything(&trace)),
        Err(_) => (None, false),
    });
    assert!(verify_peak.max(open_peak) < SMALL + 8 * image.len(), "{verify_peak} and {open_peak} bytes");
    assert!(state != Some(State::Sealed) || !sound, "it opens as sealed, and sound");
}

fn behind(kind: Kind, change: impl FnOnce(&mut FrameHeader), stored: &[u8]) -> Vec<u8> {
    let mut image = uncompressed(&sample());
    let frames = frames(&image);
    let mut header = FrameHeader { kind, seq: frames.len() as u64, run: 1, payload: 0, ..frames[0] };
    change(&mut header);
    append(&mut image, header, stored);
    image
}

#[test]
fn a_body_that_claims_a_gigabyte() {
    let packed = zstd::bulk::compress(&[0; 4096], 1).unwrap();
    let lie = |header: &mut FrameHeader| (header.codec, header.raw_length) = (1, 1 << 30);
    let image = behind(Kind::Run, lie, &packed);
    opened(&image);
    let faults = verified(image).unwrap().faults;
    assert!(faults.iter().any(|fault| fault.what.contains("cannot hold")), "{faults:?}");
}

/// 64 KiB that hold 1 GiB of zeros: real, and refused, since no writer makes a body that is so much smaller.
#[test]
fn a_body_that_holds_a_gigabyte() {
    let block = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
    let bomb = block.repeat(16);
    let lie = |header: &mut FrameHeader| (header.codec, header.raw_length) = (1, 1 << 30);
    let image = behind(Kind::Run, lie, &bomb);
    opened(&image);
    let faults = verified(image).unwrap().faults;
    assert!(faults.iter().any(|fault| fault.what.contains("cannot hold")), "{faults:?}");
}

#[test]
fn a_payload_whose_planes_cannot_hold_its_elements() {
    let mut lie = payload(Dtype::F32, 512, Vec::new(), &[0; 2048]);
    (lie.rows, lie.width, lie.raw_length) = (1 << 12, 1 << 12, 64 << 20);
    let (refused, peak) = peak(|| Payload::decode(&lie).unwrap_err());
    assert!(refused.to_string().contains("cannot hold"), "{refused}");
    assert!(peak < SMALL, "{peak} bytes");
}

#[test]
fn four_billion_rows_of_nothing() {
    let mut lie = payload(Dtype::F32, 512, Vec::new(), &[]);
    (lie.rows, lie.width) = (u32::MAX, 0);
    assert!(PayloadV1::decode(&encoded(&lie)).is_err());
}

/// A row of an index is a record to load: a small file must not list one record a million times.
#[test]
fn an_index_that_lists_one_frame_again_and_again() {
    let image = with_body(Kind::Index, |body| {
        let mut index = IndexV1::decode(&body).unwrap();
        let rows = index.seq.len();
        index.seq = vec![index.seq[1]; rows];
        index.kind = vec![Kind::Run.code(); rows];
        index.offset = vec![index.offset[1]; rows];
        encoded(&index)
    });
    opened(&image);
    assert!(verified(image).unwrap().faults.iter().any(|fault| fault.what.contains("out of order")));
}

#[test]
fn an_index_that_names_what_is_not_in_its_stretch() {
    for place in [1, 64, 1 << 40, u64::MAX] {
        let image = with_body(Kind::Index, |body| {
            encoded(&IndexV1 { payload_index: place, ..IndexV1::decode(&body).unwrap() })
        });
        opened(&image);
        assert_eq!(verified(image).unwrap().state, State::Damaged, "{place}");
    }
}

#[test]
fn an_index_chain_that_leads_in_a_circle() {
    let last = frames(&uncompressed(&sample())).iter().rfind(|frame| frame.kind == Kind::Index).unwrap().offset;
    for previous in [last, last + 64, u64::MAX] {
        let image = with_body(Kind::Index, |body| encoded(&IndexV1 { previous, ..IndexV1::decode(&body).unwrap() }));
        opened(&image);
        assert_eq!(verified(image).unwrap().state, State::Damaged, "{previous}");
    }
}

#[test]
fn payload_numbers_at_the_end_of_all_numbers() {
    for first_payload in [0, u64::MAX - 1, u64::MAX] {
        let image = with_body(Kind::PayloadIndex, |body| {
            encoded(&PayloadIndexV1 { first_payload, ..PayloadIndexV1::decode(&body).unwrap() })
        });
        opened(&image);
        assert_ne!(verified(image).unwrap().faults, [], "{first_payload}");
    }
    let body = encoded(&payload(Dtype::F32, 1, Vec::new(), &[0; 4]));
    for number in [0, 3, 6, u64::MAX] {
        let image = behind(Kind::Payload, |header| header.payload = number, &body);
        opened(&image);
        assert_ne!(verified(image).unwrap().faults, [], "{number}");
    }
}

#[test]
fn frame_numbers_at_the_end_of_all_numbers() {
    let image = behind(Kind::Run, |header| header.seq = u64::MAX, &encoded(&run()));
    opened(&image);
    assert_ne!(verified(image).unwrap().faults, []);
}

#[test]
fn a_frame_of_another_run_or_step_with_checksums_that_fit() {
    let sound = uncompressed(&sample());
    for frame in frames(&sound).iter().filter(|frame| frame.kind != Kind::Seal) {
        for change in [
            |header: &mut FrameHeader| header.run ^= 1,
            |header: &mut FrameHeader| header.step ^= 1,
            |header: &mut FrameHeader| header.version = 2,
        ] {
            let mut image = sound.clone();
            let mut header = *frame;
            change(&mut header);
            let start = frame.offset as usize;
            image[start..start + 64].copy_from_slice(&header.encode(&HEADER.uuid));
            let found = verified(image).unwrap();
            assert_eq!(found.state, State::Damaged, "{header:?}");
        }
    }
}

#[test]
fn bytes_in_reserved_places_with_checksums_that_fit() {
    let sound = sample();
    for frame in frames(&sound) {
        let start = frame.offset as usize;
        let body = start + 64 + frame.stored_length as usize;
        for at in (start + 42..start + 48).chain(body..frame.end() as usize) {
            let mut image = sound.clone();
            image[at] = 1;
            fix_checksums(&mut image, start);
            assert_ne!(verified(image).unwrap().state, State::Sealed, "byte {at}");
        }
    }
}

/// A newer version may write kinds that this one does not know: it says which of them a reader may skip.
#[test]
fn an_unknown_kind_is_skipped_unless_it_is_critical() {
    let unknown =
        |critical| behind(Kind::Other(77), |header| (header.critical, header.version) = (critical, 9), b"new");
    assert!(verified(unknown(false)).unwrap().faults.is_empty());
    assert!(verified(unknown(true)).unwrap().faults[0].what.contains("critical"));
}

/// What recover copies is checked as a whole: a lie of the input must not end as a broken output.
#[test]
fn recover_and_append_do_not_pass_lies_on() {
    let stats = StatsV1 { payload_row: vec![65, 65], ..crate::support::trace::stats(0) };
    let last = encoded(&payload(Dtype::F32, 1, Vec::new(), &[0; 4]));
    let run_number = |number| behind(Kind::Run, move |header| header.run = number, &encoded(&run()));
    let lies = [
        run_number(0),
        run_number(1),
        run_number(u32::MAX),
        behind(Kind::Stats, |_| (), &encoded(&stats)),
        behind(Kind::Payload, |header| header.payload = u64::MAX, &last),
    ];
    for (which, lie) in lies.into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from.actrace"), folder.path().join("to.actrace"));
        std::fs::write(&from, lie).unwrap();
        let recovery = recover(&from, &to, HEADER, |_, _| {}).unwrap_or_else(|error| panic!("lie {which}: {error}"));
        assert_eq!(recovery.verification.state, State::Sealed, "lie {which}");
        if let Ok((mut writer, _)) = go_on(&from, HEADER) {
            writer.seal().unwrap();
        }
    }
}
