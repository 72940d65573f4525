//! A power loss keeps what was synced and any part of the rest: blocks reach the disk in any order or not at all.

use crate::support::attack::Random;
use crate::support::faulty::{Fault, Faulty};
use crate::support::forge::input;
use crate::support::trace::{frames, sample, verified, write_sample};
use actrace::file::Kind;
use actrace::open::{State, Trace};
use rayon::prelude::*;

const IMAGES: u64 = 4_000;

/// What is left of `written`, of which the first `synced` bytes are durable: each later block is there or zero, and the
/// file ends anywhere behind the durable part.
fn left(random: &mut Random, written: &[u8], synced: usize) -> Vec<u8> {
    let block = [64, 512, 4096][random.below(3)];
    let lost = [1, 5, 9][random.below(3)];
    let mut image = written.to_vec();
    for start in (synced / block * block..image.len()).step_by(block) {
        if random.below(10) < lost {
            let end = (start + block).min(image.len());
            image[start.max(synced)..end].fill(0);
        }
    }
    if random.below(2) == 0 {
        image.truncate(synced + random.below(image.len() - synced + 1));
    }
    image
}

#[test]
fn every_synced_frame_is_there_in_thousands_of_images() {
    let sound = sample();
    let all = frames(&sound);
    let whole = Faulty::default();
    write_sample(whole.clone()).unwrap();
    let holes = (0..IMAGES).into_par_iter().filter(|number| {
        let mut random = Random::new(*number);
        let at = random.below(whole.operations() - 4) + 4;
        let storage = Faulty::failing(Fault { at, lasting: true, written: random.below(600) });
        assert!(write_sample(storage.clone()).is_err());
        let synced = storage.synced();
        let image = left(&mut random, &storage.image.bytes(), synced);
        let found = verified(image.clone()).unwrap();
        let durable: Vec<_> = all.iter().filter(|frame| frame.end() <= synced as u64).collect();
        let lost: Vec<_> = found.faults.iter().filter(|fault| fault.offset < synced as u64).collect();
        assert!(lost.is_empty(), "image {number}: {lost:?} before byte {synced}");
        assert_ne!(found.state, State::Damaged, "image {number}: a power loss is no damage: {:?}", found.faults);
        assert!(found.frames >= durable.len() as u64, "image {number}");
        assert_ne!(found.state, State::Damaged, "image {number}: a lost tail is no alarm: {:?}", found.faults);
        assert!(found.state != State::Sealed || sound[..image.len()] == image[..], "image {number} pretends");

        let trace = Trace::of(input(image)).unwrap_or_else(|error| panic!("image {number} does not open: {error}"));
        let steps: Vec<_> = trace.runs().iter().flat_map(|run| &run.steps).collect();
        let committed: Vec<_> = durable.iter().filter(|frame| frame.kind == Kind::Step).collect();
        assert!(steps.len() >= committed.len(), "image {number}: a durable step is gone");
        for (step, frame) in steps.iter().zip(&committed) {
            assert_eq!(step.commit.seq, frame.seq, "image {number}");
            trace.step(&step.commit).unwrap();
            step.stats.iter().for_each(|frame| drop(trace.stats(frame).unwrap()));
        }
        for frame in durable.iter().filter(|frame| frame.kind == Kind::Payload) {
            trace.payload(frame.payload).unwrap();
        }
        !found.faults.is_empty()
    });
    let holes = holes.count();
    assert!(holes > 100, "only {holes} images have a hole before a whole frame: the loss is too weak");
}
