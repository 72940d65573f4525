//! Every obligation that is shipped is broken by a fault that is planted for it.

use super::recording::{ALL, Records, TOKENS, Wanted, checked, edited, outcomes, recorded, right};
use crate::planted::RowFault;
use crate::support::families;
use actrace::backend::{CpuBackend, Semantics::DequantizeF32};
use actrace::contract::{Outcome, find, shipped};
use actrace::model::Model;
use actrace::record::{LossV1, PairV1};
use std::collections::BTreeSet;

/// Everything but weights.
const ROWS: Wanted<'static> = Wanted { weights: false, ..ALL };

/// The number of `failed` in a file.
const FAILED: u8 = 4;
/// The number of `filtered`.
const FILTERED: u8 = 2;

/// A run with a fault in the rows of one operation.
fn planted(
    label: &str,
    model: &Model,
    fault: RowFault,
    layer: u32,
    point: &'static str,
    wanted: &Wanted<'_>,
) -> Vec<u8> {
    let backend = fault.planted(CpuBackend::new(DequantizeF32, 2).unwrap(), layer, point);
    recorded(label, model, DequantizeF32, backend, wanted)
}

/// Obligations that wrong values break, with the run that has them.
fn wrong_values() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let [gated, plain, experts] = ["llama3", "gpt_neox-sequential", "mixtral"].map(families::folder);
    let off = |model: &Model, point| vec![planted("off", model, RowFault::SlightlyOff, 1, point, &ROWS)];
    let not_a_number = planted("nan", &gated, RowFault::NotANumber, 0, "ffn_act", &ROWS);
    let damaged = planted("damaged", &gated, RowFault::DamagedChannel, 1, "attn_norm", &ALL);
    let lost = planted("lost", &gated, RowFault::LostRow, 0, "ffn_gate", &ROWS);
    vec![
        ("trace-ffn-sub-block/activation-follows", off(&gated, "ffn_act")),
        ("trace-ffn-sub-block/activation-follows", off(&plain, "ffn_act")),
        ("trace-ffn-sub-block/activation-follows", off(&experts, "moe_act")),
        ("trace-ffn-sub-block/activation-follows", vec![not_a_number]),
        ("trace-ffn-sub-block/product-follows", off(&gated, "ffn_glu")),
        ("residual-algebra/stream-follows", off(&gated, "resid_mid")),
        ("residual-algebra/stream-follows", off(&families::folder("gpt_neox"), "resid_post")),
        ("residual-algebra/stream-follows", off(&families::folder("gemma2"), "resid_post")),
        ("residual-algebra/sum-of-experts-follows", off(&experts, "ffn_out")),
        ("norm-algebra/norms-are-the-recorded-weights", vec![damaged]),
        ("norm-algebra/rms-norms-have-one-weight", off(&gated, "attn_norm")),
        ("norm-algebra/rms-norms-have-one-weight", off(&families::folder("qwen3"), "q_norm")),
        ("norm-algebra/layer-norms-have-one-weight", off(&plain, "ffn_norm")),
        ("attention-rows/probabilities-follow", off(&gated, "attn_probs")),
        ("attention-rows/heads-sum-to-1", off(&gated, "attn_probs")),
        ("capture-completeness/no-row-is-all-zero", vec![lost]),
    ]
}

/// Obligations that wrong records break: what a run says of itself, its plan, its statistics, its coverage.
fn wrong_records() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let [gated, plain, experts] = ["llama3", "gpt_neox-sequential", "mixtral"]
        .map(|name| right("edited", &families::folder(name), DequantizeF32, &ROWS));
    let with = |image: &[u8], edit: fn(&mut Records)| vec![edited(image, edit)];
    let covered = |edit: fn(&mut Records, usize)| {
        vec![edited(&gated, move |records| {
            let number = records.number(1, "ffn_gate");
            edit(records, number);
        })]
    };
    vec![
        ("trace-ffn-sub-block/gated-ffn-is-shown", covered(|r, gate| r.coverage.rows_captured[gate] -= 1)),
        ("trace-ffn-sub-block/plain-ffn-is-shown", with(&plain, |r| fail(r, 0, "ffn_up"))),
        (
            "trace-ffn-sub-block/plain-ffn-has-no-gate",
            with(&plain, |r| {
                let gate = r.number(0, "ffn_gate");
                r.coverage.status[gate] = 0;
            }),
        ),
        ("trace-ffn-sub-block/width-is-the-ffn", with(&gated, |r| hyper(r, "ffn", "31"))),
        ("trace-ffn-sub-block/activation-is-the-model-s", with(&gated, |r| hyper(r, "activation", "gelu"))),
        ("capture-completeness/every-row-is-there", covered(|r, gate| r.coverage.rows_captured[gate] -= 1)),
        (
            "capture-completeness/every-gap-has-a-reason",
            with(&gated, |r| {
                let norm = r.number(0, "q_norm");
                r.coverage.reason[norm].clear();
            }),
        ),
        ("capture-completeness/nothing-failed", with(&gated, |r| fail(r, 1, "q"))),
        (
            "capture-completeness/every-layer-is-planned",
            with(&gated, |r| {
                r.site(1, "shared_out").layer = 0;
            }),
        ),
        (
            "capture-completeness/values-that-were-asked-for-are-there",
            covered(|r, gate| r.coverage.rows_with_tensor[gate] = 0),
        ),
        (
            "capture-completeness/nothing-stands-for-what-is-missing",
            covered(|r, gate| r.coverage.status[gate] = FILTERED),
        ),
        (
            "capture-completeness/no-point-is-all-zero",
            with(&gated, |r| {
                let gate = r.site(1, "ffn_gate").site;
                rows(r, gate, |stats, row| stats.zero[row] = stats.count[row]);
            }),
        ),
        ("residual-algebra/stream-goes-on", with(&gated, |r| reads(r, 1, "attn_norm", &[(-1, "embed")]))),
        ("residual-algebra/stream-goes-on", with(&gated, |r| reads(r, 1, "attn_norm", &[(0, "ffn_out")]))),
        (
            "residual-algebra/attention-is-added",
            with(&gated, |r| reads(r, 0, "resid_mid", &[(-1, "embed"), (0, "attn_ctx")])),
        ),
        (
            "residual-algebra/ffn-is-added",
            with(&gated, |r| reads(r, 0, "resid_post", &[(0, "resid_mid"), (0, "ffn_norm")])),
        ),
        ("residual-algebra/experts-are-added", with(&experts, |r| reads(r, 1, "ffn_out", &[(1, "ffn_norm")]))),
        (
            "attention-rows/a-row-has-the-visible-keys",
            with(&gated, |r| {
                let (scores, heads) = (r.site(0, "attn_scores").site, r.site(0, "attn_scores").heads);
                rows(r, scores, |stats, row| stats.count[row] += heads);
            }),
        ),
        (
            "attention-rows/probabilities-are-numbers-from-0-to-1",
            with(&gated, |r| {
                let probs = r.site(0, "attn_probs").site;
                rows(r, probs, |stats, row| stats.min[row] = -0.5);
            }),
        ),
        ("no-observer-effect/untraced-logits-are-equal", with(&gated, |r| r.end.untraced = 2)),
        ("trace-integrity/run-is-finished", with(&gated, |r| r.end.status = 1)),
        ("trace-integrity/file-is-sealed", with(&gated, |r| r.sealed = false)),
        (
            "trace-integrity/nothing-was-lost",
            with(&gated, |r| {
                r.losses.push(LossV1 { what: "rows".to_owned(), rows: 3, why: "a hole".to_owned() });
            }),
        ),
        ("trace-integrity/steps-follow-each-other", with(&gated, |r| r.steps[1].position[0] += 1)),
        ("trace-integrity/every-token-was-made", with(&gated, |r| r.run.generate = 9)),
        ("trace-integrity/rows-are-those-of-the-coverage", covered(|r, gate| r.coverage.rows_with_tensor[gate] -= 1)),
        (
            "trace-integrity/rows-are-those-of-the-coverage",
            covered(|r, gate| {
                r.coverage.rows_captured[gate] += 1;
                r.coverage.rows_expected[gate] += 1;
            }),
        ),
    ]
}

fn fail(records: &mut Records, layer: i32, point: &str) {
    let number = records.number(layer, point);
    records.coverage.status[number] = FAILED;
    records.coverage.reason[number] = "the run ended early".to_owned();
}

fn hyper(records: &mut Records, key: &str, value: &str) {
    records.run.hyper_parameters.iter_mut().find(|pair| pair.key == key).unwrap().value = value.to_owned();
}

fn reads(records: &mut Records, layer: i32, point: &str, inputs: &[(i32, &str)]) {
    let inputs = inputs.iter().map(|(layer, point)| records.site(*layer, point).site).collect();
    records.site(layer, point).inputs = inputs;
}

/// Changes the statistics of each row of a site.
fn rows(records: &mut Records, site: u32, change: impl Fn(&mut actrace::record::StatsV1, usize)) {
    for stats in &mut records.stats {
        let of_site: Vec<usize> = (0..stats.site.len()).filter(|row| stats.site[*row] == site).collect();
        of_site.into_iter().for_each(|row| change(stats, row));
    }
}

/// Obligations of two runs, with a pair of which the second is off.
fn wrong_pairs() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let model = families::folder("llama3");
    let (one, two) = (right("one", &model, DequantizeF32, &ALL), right("two", &model, DequantizeF32, &ALL));
    let pair = |edit: fn(&mut Records)| vec![one.clone(), edited(&two, edit)];
    let other_format = |r: &mut Records| {
        // Sorts behind `safetensors`; the weights are those that were recorded.
        (r.run.model_format, r.run.model_hash) = ("sharded".to_owned(), [9; 32]);
    };
    let otherwise = |edit: fn(&mut Records)| {
        vec![
            one.clone(),
            edited(&two, move |r| {
                let value = "logits".to_owned();
                r.run.selection = vec![PairV1 { key: "points".to_owned(), value, source: String::new() }];
                edit(r);
            }),
        ]
    };
    let carded = |image: &[u8], edit: fn(&mut Records)| {
        edited(image, move |r| {
            r.run.device_kind = "cuda".to_owned();
            edit(r);
        })
    };
    let damaged = planted("two", &model, RowFault::DamagedChannel, 1, "ffn_out", &ALL);
    let formatted = |edit: fn(&mut Records)| {
        vec![
            one.clone(),
            edited(&two, move |r| {
                other_format(r);
                edit(r);
            }),
        ]
    };
    vec![
        ("determinism/rows-are-equal", pair(|r| r.stats[0].fingerprint[0] ^= 1)),
        ("determinism/steps-are-equal", pair(|r| r.steps[1].logits_fingerprint ^= 1)),
        ("format-parity/rows-are-equal", formatted(|r| r.stats[0].fingerprint[0] ^= 1)),
        ("format-parity/steps-are-equal", formatted(|r| r.steps[0].next_token ^= 1)),
        ("device-parity/rows-agree", vec![one.clone(), carded(&damaged, |_| {})]),
        ("device-parity/tokens-are-equal", vec![one.clone(), carded(&two, |r| r.steps[1].next_token ^= 1)]),
        ("no-observer-effect/selection-changes-no-logits", otherwise(|r| r.steps[1].logits_fingerprint ^= 1)),
        ("no-observer-effect/selection-changes-no-rows", otherwise(|r| r.stats[0].fingerprint[0] ^= 1)),
    ]
}

/// What `files` make of the obligation: broken, and the number of counterexamples is that of all.
fn assert_broken(obligation: &str, files: &[Vec<u8>]) {
    let contract = find(obligation.split('/').next().unwrap()).unwrap();
    let outcomes = outcomes(&checked(files, &[contract]));
    let found = outcomes.iter().filter(|((name, _), _)| name == obligation).map(|(_, outcome)| outcome);
    let broken = found.clone().any(|outcome| matches!(outcome, Outcome::Broken(found) if found.count > 0));
    assert!(broken, "{obligation}: {:?}", found.collect::<Vec<_>>());
}

#[test]
fn wrong_values_break_algebra() {
    assert!(TOKENS.len() > 5, "the faults are at position 5");
    wrong_values().iter().for_each(|(obligation, files)| assert_broken(obligation, files));
}

#[test]
fn wrong_records_break_what_they_should_say() {
    wrong_records().iter().for_each(|(obligation, files)| assert_broken(obligation, files));
}

#[test]
fn wrong_pairs_break_parity() {
    wrong_pairs().iter().for_each(|(obligation, files)| assert_broken(obligation, files));
}

#[test]
fn every_shipped_obligation_has_a_fault_that_breaks_it() {
    let contracts = shipped().unwrap();
    let obligations = contracts.iter().flat_map(|contract| {
        contract.obligations.iter().map(|obligation| format!("{}/{}", contract.id.value, obligation.id.value))
    });
    let planted = [wrong_values(), wrong_records(), wrong_pairs()];
    let planted = planted.iter().flatten().map(|(obligation, _)| (*obligation).to_owned());
    assert_eq!(planted.collect::<BTreeSet<_>>(), obligations.collect::<BTreeSet<_>>());
}
