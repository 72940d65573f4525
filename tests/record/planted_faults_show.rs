//! A fault in one operation of one layer, planted by a backend around the backend, is named by the first point that is
//! off.

use crate::planted::{FAULTS, Fault, Planted};
use crate::running::{Capture, capture, open, place, prompt};
use crate::support::rel_l2;
use actrace::backend::{Backend, CpuBackend, Semantics};
use actrace::forward::Forward;
use actrace::graph::Graph;
use actrace::model::Model;

/// The first point in forward order whose prefill rows are further apart than `limit`.
pub fn first_beyond(graph: &Graph, clean: &Capture, other: &Capture, limit: f64) -> Option<String> {
    let beyond = |site: &&actrace::graph::Site| {
        let error = rel_l2(&clean.values(0, site.id), &other.values(0, site.id));
        error.is_nan() || error > limit
    };
    graph.sites.iter().find(beyond).map(place)
}

/// Where a fault shows first: a weight is read by the product, whose point bears its name before the bias.
pub fn expected(fault: Fault, layer: u32, point: &str) -> String {
    match fault {
        Fault::TransposedWeight => format!("layers.{layer}.{point}_matmul"),
        _ => format!("layers.{layer}.{point}"),
    }
}

/// Runs the model with every fault on backends that `make` makes, and holds them against the clean processor run.
pub fn every_fault_is_named<B: Backend>(model: &Model, limit: f64, make: impl Fn() -> B) {
    let clean = CpuBackend::new(Semantics::DequantizeF32, 2).unwrap();
    let (clean, _) = capture(&mut Forward::new(model, clean).unwrap(), &prompt(), 0);
    let mut right = Forward::new(model, make()).unwrap();
    let (same, _) = capture(&mut right, &prompt(), 0);
    assert_eq!(first_beyond(right.graph(), &clean, &same, limit), None, "without a fault");
    for (fault, layer, point) in FAULTS {
        let mut forward = Forward::new(model, Planted::new(make(), fault, layer, point)).unwrap();
        let (faulty, _) = capture(&mut forward, &prompt(), 0);
        let found = first_beyond(forward.graph(), &clean, &faulty, limit);
        assert_eq!(found, Some(expected(fault, layer, point)), "{fault:?}");
    }
}

#[test]
fn each_fault_is_named_by_its_layer_and_point() {
    let model = open("tiny-qwen2.safetensors");
    every_fault_is_named(&model, 0.0, || CpuBackend::new(Semantics::DequantizeF32, 2).unwrap());
}

/// Everything before the fault is untouched; later tokens see it through attention, earlier ones never.
#[test]
fn a_fault_spreads_only_forward() {
    let model = open("tiny-qwen2.safetensors");
    let backend = || CpuBackend::new(Semantics::DequantizeF32, 2).unwrap();
    let (clean, expected) = capture(&mut Forward::new(&model, backend()).unwrap(), &prompt(), 0);
    let mut forward = Forward::new(&model, Planted::new(backend(), Fault::MissingBias, 2, "v")).unwrap();
    let (faulty, changed) = capture(&mut forward, &prompt(), 0);
    let fault = forward.graph().site(Some(2), "v").unwrap().id;
    for site in &forward.graph().sites {
        let same = clean.values(0, site.id) == faulty.values(0, site.id);
        assert!(same || site.id >= fault, "{}", place(site));
    }
    assert_ne!(clean.values(0, fault), faulty.values(0, fault));
    assert_ne!(changed.fingerprints, expected.fingerprints);
}
