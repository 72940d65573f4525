//! Runs in one file share what is equal, and every row reads back as the bits that the model showed.

use crate::command::Ground;
use crate::running::{capture, forward, open, place};
use crate::support::model;
use actrace::backend::Semantics;
use actrace::open::{RunView, Trace};
use serde_json::Value;
use std::collections::BTreeMap;

const TOKENS: [u32; 5] = [11, 409, 7, 3, 250];

fn record(ground: &Ground, tokens: &str, label: &str, threads: &str) -> Value {
    let path = model("tiny-qwen2.q8_0");
    let args = ["--model", path.to_str().unwrap(), "--generate", "3", "--json", "--out", "{out}"];
    ground.record(&[&args[..], &["--tokens", tokens, "--label", label, "--threads", threads]].concat()).json()
}

/// Payload number and row of every row, by step, site and position.
fn places(trace: &Trace, run: &RunView) -> BTreeMap<(u32, u32, u32), (u64, u32)> {
    let mut places = BTreeMap::new();
    for step in &run.steps {
        for frame in &step.stats {
            let stats = trace.stats(frame).unwrap();
            let record = stats.record();
            for row in 0..record.site.len() {
                let key = (step.step, record.site[row].to_native(), record.position[row].to_native());
                let place = (record.payload[row].to_native(), record.payload_row[row].to_native());
                assert!(places.insert(key, place).is_none(), "a row twice");
            }
        }
    }
    places
}

#[test]
fn a_rerun_adds_no_payload_and_has_the_same_content_root() {
    let ground = Ground::new();
    let first = record(&ground, "11,409,7,3,250", "first", "3");
    let again = record(&ground, "11,409,7,3,250", "again", "1");
    let other = record(&ground, "11,409,7,3,251", "other", "2");
    assert!(first["payloads"].as_u64().unwrap() > 0);
    assert_eq!(again["payloads"], 0);
    assert_eq!((&again["content_root"], &again["rows"]), (&first["content_root"], &first["rows"]));
    assert_eq!(again["tensor_bytes"], first["tensor_bytes"], "shared rows count as kept");
    assert!(other["payloads"].as_u64().unwrap() > 0);
    assert_ne!(other["content_root"], first["content_root"]);
    let trace = Trace::open(&ground.path("out")).unwrap();
    let labels: Vec<&str> = trace.runs().iter().map(|run| run.identity.label.as_str()).collect();
    assert_eq!(labels, ["first", "again", "other"]);
    assert_eq!(places(&trace, &trace.runs()[0]), places(&trace, &trace.runs()[1]));
}

#[test]
fn every_recorded_row_has_the_bits_that_were_captured() {
    let ground = Ground::new();
    record(&ground, "11,409,7,3,250", "run", "4");
    let opened = open("tiny-qwen2.q8_0");
    let mut forward = forward(&opened, Semantics::Ggml);
    let (captured, _) = capture(&mut forward, &TOKENS, 3);
    let trace = Trace::open(&ground.path("out")).unwrap();
    let run = &trace.runs()[0];
    let places = places(&trace, run);
    let mut rows = 0;
    for ((step, site), tensors) in &captured.rows {
        let first = captured.reports[*step as usize].first_position;
        let held = tensors.iter().flat_map(|rows| (0..rows.len()).map(|row| rows.row(row)));
        for (position, row) in (first..).zip(held) {
            let (payload, place) = places[&(*step, *site, position)];
            let payload = trace.payload(payload).unwrap();
            let recorded = payload.row(place as usize).unwrap();
            let equal = recorded.iter().map(|v| v.to_bits()).eq(row.iter().map(|v| v.to_bits()));
            assert!(equal, "step {step}, position {position}, {}", self::place(&forward.graph().sites[*site as usize]));
            rows += 1;
        }
    }
    assert_eq!(rows, places.len());
}

#[test]
fn a_value_and_its_copy_in_the_cache_are_one_payload() {
    let ground = Ground::new();
    record(&ground, "11,409,7,3,250", "run", "2");
    let trace = Trace::open(&ground.path("out")).unwrap();
    let run = &trace.runs()[0];
    let site = |point: &str| run.plan.sites.iter().find(|site| site.point == point && site.layer == 2).unwrap().site;
    let places = places(&trace, run);
    for position in 0..TOKENS.len() as u32 {
        assert_eq!(places[&(0, site("v"), position)], places[&(0, site("v_cache"), position)]);
        assert_eq!(places[&(0, site("k_rope"), position)], places[&(0, site("k_cache"), position)]);
        assert_ne!(places[&(0, site("k"), position)], places[&(0, site("v"), position)]);
    }
}
