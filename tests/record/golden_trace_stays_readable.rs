//! A file of a released version stays readable for ever: this one is committed, and every value in it is known.

use crate::running::forward;
use crate::support::fixture;
use crate::support::trace::*;
use actrace::backend::Captured;
use actrace::backend::Semantics;
use actrace::capture::{Layers, Names, Plan, Positions, Selection};
use actrace::file::Writer;
use actrace::forward::{Observer, Phase, StepReport};
use actrace::model::Model;
use actrace::open::{Input, State, Trace, hex, verify};
use actrace::record::{RunV1, StatsV1};
use actrace::recorder::{Outcome, Recorder};
use actrace::tensor::{Extent, Rows};
use std::sync::Arc;

/// Root of the seal at the end of the golden trace.
const ROOT: &str = "88fe76349de25989c3a6e079f1296b195e535c72700ad7d157c5ccec8ea5d7b3";
/// Content root of the recording that [`content_root`] makes.
const CONTENT_ROOT: &str = "5f0cd37fd540c207464702f6cb7c411c313f796a5feb9db9ec050f4169f94153";

#[test]
fn it_verifies_and_has_its_root() {
    let found = verify(&Input::open(&fixture("golden/v1.actrace")).unwrap(), |_, _| {}).unwrap();
    assert_eq!((found.state, &found.faults[..]), (State::Sealed, &[][..]));
    assert_eq!(hex(&found.root.unwrap()), ROOT);
}

#[test]
fn every_record_says_what_was_written() {
    let trace = Trace::open(&fixture("golden/v1.actrace")).unwrap();
    assert_eq!((trace.state(), *trace.header()), (State::Sealed, HEADER));
    let labels: Vec<_> = trace.runs().iter().map(|run| run.identity.label.as_str()).collect();
    assert_eq!(labels, ["golden", "again"]);
    for view in trace.runs() {
        assert_eq!(*view.identity, RunV1 { label: view.identity.label.clone(), run_id: view.identity.run_id, ..run() });
        assert_eq!(*view.plan, plan());
        assert_eq!(view.end, Some(end()));
        assert_eq!(trace.coverage(view).unwrap(), coverage());
        assert_eq!(trace.losses(view).unwrap(), [loss()]);
        assert_eq!(view.weights.iter().map(|frame| trace.weight(frame).unwrap()).collect::<Vec<_>>(), [weight()]);
        assert_eq!(view.steps.len(), 2);
        for (number, frames) in (0..).zip(&view.steps) {
            assert_eq!(trace.step(&frames.commit).unwrap(), step(number));
            let found = trace.stats(&frames.stats[0]).unwrap();
            let found = rkyv::deserialize::<StatsV1, rkyv::rancor::BoxedError>(found.record()).unwrap();
            let first = 1 + 2 * u64::from(number);
            assert_eq!(found, StatsV1 { payload: vec![first, first + 1], ..stats(number) });
        }
    }
}

#[test]
fn every_payload_has_its_values() {
    let trace = Trace::open(&fixture("golden/v1.actrace")).unwrap();
    for step in 0..2u32 {
        let smooth = trace.payload(1 + 2 * u64::from(step)).unwrap();
        let expected: Vec<f32> = (0..512).map(|i| (i + step) as f32 * 0.01).collect();
        assert_eq!((smooth.rows(), smooth.row(0).unwrap()), (1, &expected[..]));
        let odd = trace.payload(2 + 2 * u64::from(step)).unwrap();
        let lengths: Vec<usize> = (0..odd.rows()).map(|row| odd.row(row).unwrap().len()).collect();
        assert_eq!(lengths, if step == 0 { [0, 6] } else { [2, 4] });
    }
    let odd = trace.payload(2).unwrap();
    let row = odd.row(1).unwrap();
    assert!(row[0].is_nan() && row[1].to_bits() == (-0.0f32).to_bits() && row[2] == f32::INFINITY);
    assert_eq!(row[4..], [0.0, 1.0]);
}

/// Reading everything and writing it again gives the same bytes: no field is lost or invented on the way.
#[test]
fn writing_it_again_gives_the_same_bytes() {
    let golden = std::fs::read(fixture("golden/v1.actrace")).unwrap();
    let trace = Trace::open(&fixture("golden/v1.actrace")).unwrap();
    let memory = Memory::default();
    let mut writer = Writer::create(memory.clone(), *trace.header()).unwrap();
    trace.runs().iter().for_each(|run| write_run(&mut writer, &run.identity).unwrap());
    assert!(memory.bytes() == golden, "the writer's bytes changed: see `How it evolves` in schema/trace-file.md");
}

/// Records rows that are given, not computed, so that only the recorder decides the root.
fn content_root() -> [u8; 32] {
    let model = Model::open(&fixture("llama/biased.f32.gguf")).unwrap();
    let graph = forward(&model, Semantics::DequantizeF32);
    let selection = Selection {
        points: Names::parse("resid_post").unwrap(),
        layers: Layers::parse("0").unwrap(),
        positions: Positions::All,
        tensors: Names::parse("all").unwrap(),
    };
    let plan = Plan::new(&model, graph.graph(), &selection, 2, 2).unwrap();
    let site = plan.record().sites.iter().find(|site| site.status == 0).unwrap().site;
    let width = plan.record().sites[site as usize].width as usize;
    let values: Vec<f32> = (0..2 * width).map(|i| (i as f32 - 7.0) * 0.25).collect();
    let rows = Rows::new(Arc::new(values), Extent::Width(width), 2).unwrap();
    let mut recorder = Recorder::begin(Writer::create(Memory::default(), HEADER).unwrap(), &run(), plan, 1).unwrap();
    recorder.capture(0, site, 0, Captured::Host(rows)).unwrap();
    let report = StepReport {
        step: 0,
        phase: Phase::Prefill,
        first_position: 0,
        tokens: vec![3, 4],
        next_token: 5,
        logits_fingerprint: 6,
        elapsed: std::time::Duration::ZERO,
    };
    recorder.step(&report).unwrap();
    recorder.finish(&Outcome::Finished).unwrap().content_root
}

#[test]
fn a_content_root_is_the_same_on_every_machine_and_in_every_version() {
    assert_eq!(hex(&content_root()), CONTENT_ROOT);
}
