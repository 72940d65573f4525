//! Where the file takes bytes more slowly than the model gives them, the model waits; nothing is dropped and memory
//! stays within its budget.

use crate::running::forward;
use crate::support::fixture;
use crate::support::trace::{HEADER, run};
use actrace::backend::Captured;
use actrace::backend::Semantics;
use actrace::capture::{Layers, Names, Plan, Positions, Selection};
use actrace::file::{Storage, Writer};
use actrace::forward::{Observer, Phase, StepReport};
use actrace::model::Model;
use actrace::recorder::{Outcome, Recorder, Summary};
use actrace::tensor::{Extent, Rows};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Takes one append a permit; any number once nobody gives permits any more.
struct Gated {
    permits: Receiver<()>,
    appended: Sender<usize>,
}

impl Storage for Gated {
    fn append(&mut self, parts: &[&[u8]]) -> std::io::Result<()> {
        let _ = self.permits.recv();
        let _ = self.appended.send(parts.iter().map(|part| part.len()).sum());
        Ok(())
    }
    fn sync(&mut self) -> std::io::Result<()> {
        Ok(())
    }
    fn path(&self) -> &Path {
        Path::new("gated")
    }
}

/// Width of the embedding of the small llama model, site 0.
const WIDTH: usize = 64;
/// Rows of one tensor.
const ROWS: usize = 8;
const TENSOR_BYTES: usize = ROWS * WIDTH * 4;

fn tensor(seed: usize) -> Rows {
    let values: Vec<f32> = (0..ROWS * WIDTH).map(|i| (seed * 1000 + i) as f32).collect();
    Rows::new(Arc::new(values), Extent::Width(WIDTH), ROWS).unwrap()
}

/// The report that commits a prefill of `positions` tokens.
fn prefill(positions: usize) -> StepReport {
    StepReport {
        step: 0,
        phase: Phase::Prefill,
        first_position: 0,
        tokens: vec![1; positions],
        next_token: 1,
        logits_fingerprint: 0,
        elapsed: std::time::Duration::ZERO,
    }
}

fn recorder(budget: usize, storage: Gated) -> Recorder<Gated> {
    let model = Model::open(&fixture("llama/plain")).unwrap();
    let graph = forward(&model, Semantics::DequantizeF32).graph().clone();
    let all = || Names::parse("all").unwrap();
    let selection = Selection { points: all(), layers: Layers::ALL, positions: Positions::All, tensors: all() };
    let plan = Plan::new(&model, &graph, &selection, 1000, 1000).unwrap();
    assert_eq!(plan.record().sites[0].width as usize, WIDTH);
    let writer = Writer::create(storage, HEADER).unwrap();
    Recorder::begin_within(budget, writer, &run(), plan, 2).unwrap()
}

#[test]
fn what_is_handed_over_never_outgrows_the_budget() {
    const FIT: usize = 4;
    const TENSORS: usize = 20;
    let (permit, permits) = channel();
    let (appended, _appends) = channel();
    // Header, RUN and PLAN.
    (0..3).for_each(|_| permit.send(()).unwrap());
    let mut recorder = recorder(FIT * TENSOR_BYTES, Gated { permits, appended });
    let (handed, handed_over) = channel();
    let model = std::thread::spawn(move || {
        for number in 0..TENSORS {
            recorder.capture(0, 0, number * ROWS, Captured::Host(tensor(number))).unwrap();
            handed.send(()).unwrap();
        }
        recorder
    });
    (0..FIT).for_each(|_| handed_over.recv().unwrap());
    for _ in FIT..TENSORS {
        assert!(handed_over.try_recv().is_err(), "more than the budget is in flight");
        permit.send(()).unwrap(); // one payload frame
        handed_over.recv().unwrap();
    }
    drop(permit);
    let mut recorder = model.join().unwrap();
    recorder.step(&prefill(TENSORS * ROWS)).unwrap();
    let summary = recorder.finish(&Outcome::Finished).unwrap();
    assert_eq!((summary.payloads, summary.rows), (TENSORS as u64, (TENSORS * ROWS) as u64), "nothing is dropped");
}

/// A budget of which so few tensors, of one layer, travel together.
fn gathering(tensors: usize) -> usize {
    1024 * tensors * TENSOR_BYTES
}

fn recorded(budget: usize, tensors: Vec<Rows>) -> (Summary, usize) {
    let (permit, permits) = channel();
    let (appended, appends) = channel();
    drop(permit);
    let mut recorder = recorder(budget, Gated { permits, appended });
    let positions = tensors.len() * ROWS;
    for (number, rows) in tensors.into_iter().enumerate() {
        recorder.capture(0, 0, number * ROWS, Captured::Host(rows)).unwrap();
    }
    recorder.step(&prefill(positions)).unwrap();
    let summary = recorder.finish(&Outcome::Finished).unwrap();
    (summary, appends.into_iter().sum())
}

#[test]
fn the_content_root_follows_from_the_values_alone() {
    let tensors = || (0..6).map(tensor).collect::<Vec<_>>();
    let mut one_bit = tensor(3).values().to_vec();
    one_bit[77] = f32::from_bits(one_bit[77].to_bits() ^ 1);
    let mut changed = tensors();
    changed[3] = Rows::new(Arc::new(one_bit), Extent::Width(WIDTH), ROWS).unwrap();
    let mut exchanged = tensors();
    exchanged.swap(1, 2);
    for budget in [TENSOR_BYTES, gathering(4)] {
        let (first, bytes) = recorded(budget, tensors());
        let (again, _) = recorded(budget, tensors());
        assert_eq!(first.content_root, again.content_root);
        assert_eq!(first.file_bytes, bytes as u64, "every byte went to the storage");
        assert_ne!(recorded(budget, changed.clone()).0.content_root, first.content_root);
        assert_ne!(recorded(budget, exchanged.clone()).0.content_root, first.content_root);
    }
}

#[test]
fn equal_tensors_are_one_payload_in_whatever_order_the_packers_meet_them() {
    let alternating = || (0..40).map(|number| tensor(number % 2)).collect();
    // Alone; and as 20 groups, the rows of which are those of two tensors.
    for (budget, payloads) in [(TENSOR_BYTES, 2), (gathering(2), 1)] {
        let (summary, _) = recorded(budget, alternating());
        assert_eq!((summary.payloads, summary.rows), (payloads, 40 * ROWS as u64));
        assert_eq!(summary.tensor_bytes, 40 * TENSOR_BYTES as u64, "shared rows count as kept");
    }
}
