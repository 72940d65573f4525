//! Storage fails at every operation in turn, once or for good, with nothing or a part written, or the disk is full. The
//! error reaches the caller, the writer writes nothing more, nothing pretends to be sealed, and what was whole stays.

use crate::support::faulty::{Fault, Faulty};
use crate::support::trace::{HEADER, frames, loss, sample, verified, write_run, write_sample};
use crate::traces::record;
use actrace::ErrorKind;
use actrace::file::{Kind, Writer};
use actrace::open::State;

/// Every fault that storage can have while it is given what `operations` operations write.
fn faults(operations: usize) -> impl Iterator<Item = Fault> {
    let ways =
        [(false, 0), (true, 0), (false, 1), (true, 63), (false, 64), (true, 65), (true, 300), (false, usize::MAX)];
    (0..operations).flat_map(move |at| ways.map(|(lasting, written)| Fault { at, lasting, written }))
}

/// The image holds the first bytes of the sound file, and reads as exactly the whole frames among them.
fn assert_whole_frames_stay(image: &[u8], what: &str) {
    let sound = sample();
    assert_eq!(image, &sound[..image.len()], "{what}");
    let frames = frames(&sound);
    let whole = frames.iter().take_while(|frame| frame.end() <= image.len() as u64).collect::<Vec<_>>();
    let Ok(found) = verified(image.to_vec()) else {
        return assert!(image.len() < 64, "{what}: unreadable");
    };
    assert_eq!((found.frames, found.faults), (whole.len() as u64, Vec::new()), "{what}");
    let ends_with_a_seal = whole.last().is_some_and(|last| last.kind == Kind::Seal && last.end() == image.len() as u64);
    assert_eq!(found.state == State::Sealed, ends_with_a_seal, "{what}");
}

#[test]
fn every_operation_fails_once_or_for_good() {
    let sound = Faulty::default();
    write_sample(sound.clone()).unwrap();
    for fault in faults(sound.operations()) {
        let storage = Faulty::failing(fault);
        let error = write_sample(storage.clone()).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Environment, "{fault:?}");
        assert!(error.to_string().contains("a planted fault"), "{fault:?}: {error}");
        assert_whole_frames_stay(&storage.image.bytes(), &format!("{fault:?}"));
    }
}

/// A fault that passes leaves a hole in what was written: a writer that went on behind it would seal a broken file.
#[test]
fn a_writer_that_failed_writes_nothing_more() {
    let whole = Faulty::default();
    write_sample(whole.clone()).unwrap();
    for at in 1..whole.operations() {
        let storage = Faulty::failing(Fault { at, lasting: false, written: 70 });
        let mut writer = Writer::create(storage.clone(), HEADER).unwrap_or_else(|_| {
            // Creating is one or two operations; a file without a header needs no poison.
            Writer::create(Faulty::default(), HEADER).unwrap()
        });
        if storage.operations() == at + 1 {
            continue;
        }
        while write_run(&mut writer, &crate::support::trace::run()).is_ok() {}
        let image = storage.image.bytes();
        for outcome in [writer.record(0, 0, &loss()), writer.sync(), writer.seal(), writer.record(0, 0, &loss())] {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Environment, "operation {at}");
        }
        assert_eq!(storage.image.bytes(), image, "operation {at}: bytes behind a failed write");
    }
}

#[test]
fn a_disk_full_at_every_byte() {
    for capacity in 0..sample().len() {
        let storage = Faulty::with_capacity(capacity);
        let error = write_sample(storage.clone()).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Environment, "{capacity} bytes");
        assert_eq!(storage.image.bytes().len(), capacity);
        if capacity % 61 == 0 {
            assert_whole_frames_stay(&storage.image.bytes(), &format!("{capacity} bytes"));
        }
    }
}

/// The recorder writes on another thread: its faults reach whoever waits for the recording.
#[test]
fn a_recording_whose_storage_fails_is_an_error() {
    let sound = Faulty::default();
    record(sound.clone()).unwrap();
    for at in 0..sound.operations() {
        for lasting in [false, true] {
            let storage = Faulty::failing(Fault { at, lasting, written: 100 });
            let error = record(storage.clone()).unwrap_err();
            assert!(error.to_string().contains("a planted fault"), "operation {at}: {error}");
            let image = storage.image.bytes();
            if image.len() > 64 {
                let found = verified(image).unwrap();
                assert_eq!(found.faults, [], "operation {at}");
                let sealing = at + 1 == sound.operations();
                assert_eq!(found.state == State::Sealed, sealing, "operation {at} of {}", sound.operations());
            }
        }
    }
}
