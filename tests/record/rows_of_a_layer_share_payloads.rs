//! What a token shows in a layer is one payload, not one for each point; a reader of a layer decodes no other's.

use crate::command::Ground;
use crate::support::model;
use actrace::compare::{Comparison, Verdict};
use actrace::layout::Kind;
use actrace::open::{Trace, TraceSet};
use std::collections::{BTreeMap, BTreeSet};

#[test]
fn a_decoded_token_has_one_payload_for_each_layer() {
    let ground = Ground::new();
    let path = model("tiny-qwen2.q8_0");
    let args = ["--model", path.to_str().unwrap(), "--tokens", "11,409,7", "--generate", "3", "--out", "{out}"];
    ground.record(&args);
    let trace = Trace::open(&ground.path("out")).unwrap();
    let run = &trace.runs()[0];
    let layers = run.plan.sites.iter().map(|site| site.layer).max().unwrap();
    for step in &run.steps[1..] {
        // Layers of the rows of each payload.
        let mut payloads = BTreeMap::new();
        for frame in &step.stats {
            let stats = trace.stats(frame).unwrap();
            let record = stats.record();
            for (site, payload) in record.site.iter().zip(record.payload.iter()) {
                let layer = run.plan.sites[site.to_native() as usize].layer;
                payloads.entry(payload.to_native()).or_insert_with(BTreeSet::new).insert(layer);
            }
        }
        assert_eq!(payloads.len() as i32, layers + 3, "layers, what stands before them, what stands behind");
        assert!(payloads.values().all(|layers| layers.len() == 1), "one layer alone: {payloads:?}");
        assert_eq!(trace.step(&step.commit).unwrap().payload_frames, payloads.len() as u32);
    }
}

#[test]
fn a_comparison_reads_each_payload_once() {
    let ground = Ground::new();
    let path = model("tiny-qwen2.q8_0");
    for semantics in ["ggml", "dequantize-f32"] {
        let args = ["--model", path.to_str().unwrap(), "--tokens", "11,409,7", "--generate", "4", "--out", "{out}"];
        ground.record(&[&args[..], &["--semantics", semantics, "--label", semantics]].concat());
    }
    let set = TraceSet::open(&[ground.path("out")]).unwrap();
    let run = |label: &str| set.resolve(label).unwrap();
    let payloads = run("ggml").trace().frames().unwrap().into_iter().filter(|frame| frame.kind == Kind::Payload);
    let stored: u64 = payloads.map(|frame| u64::from(frame.stored_length).next_multiple_of(64)).sum();
    let comparison = Comparison::new(run("ggml"), run("dequantize-f32"), None, false).unwrap();
    assert_ne!(comparison.verdict, Verdict::NotComparable, "{}", comparison.reason);
    let read = run("ggml").trace().bytes_read().0;
    assert!(stored / 2 < read && read <= stored, "{read} of {stored} bytes");
}
