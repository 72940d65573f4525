//! Every fault that the tests know, in first, middle and last layer of every shipped model and type: how many runs a
//! comparison with the unbroken run of the same type names right, how many stay below the tolerance, how many it names
//! wrong; then a sample of them against the safetensors, by a baseline of each kind, by an audit, and by nothing.
//! Usage: cargo bench --no-default-features --features record --bench named_faults [SAMPLE, a case in SAMPLE is run; 1]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a measurement that fails ends there")]
#![allow(dead_code, reason = "tests use the rest")]

#[path = "../tests/record/faults.rs"]
mod faults;
#[path = "../tests/record/running.rs"]
mod running;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "../tests/record/tampering.rs"]
mod tampering;
#[path = "../tests/record/traces.rs"]
mod traces;

use actrace::audit::{AtHand, judge};
use actrace::backend::Semantics;
use actrace::compare::{Comparison, Verdict};
use actrace::open::RunRef;
use faults::{all, files, original, prompt, run_of, run_with};
use std::collections::BTreeMap;

/// Cases named right, not named, below the tolerance, named wrong.
type Counts = [usize; 4];

fn counted(comparison: &Comparison, expected: (Option<u32>, &str), counts: &mut Counts) -> bool {
    let named = comparison.first_divergence.as_ref().map(|found| (found.layer, found.point.as_str()));
    let which = match (named, comparison.verdict) {
        (Some(place), _) if place == expected => 0,
        (Some(_), _) => 3,
        (None, Verdict::Equal | Verdict::WithinTolerance) => 2,
        (None, _) => 1,
    };
    counts[which] += 1;
    which != 3
}

fn compared(reference: &RunRef, target: &RunRef) -> Comparison {
    Comparison::new(reference.clone(), target.clone(), None, false).unwrap()
}

fn main() {
    let sample: usize = std::env::args().skip(1).find_map(|text| text.parse().ok()).unwrap_or(1);
    let folder = tempfile::tempdir().unwrap();
    let ways = ["twins", "f32, alone", "f32, baseline a twin", "f32, other baseline", "f32, audit"];
    for model in files() {
        let file = model.path().file_stem().unwrap().to_string_lossy().into_owned();
        let last = model.hyper().layers - 1;
        let (clean, reference) = (run_of(&model, &prompt()), run_of(&original(&model), &prompt()));
        let other = run_with(&model, Semantics::DequantizeF32, &prompt());
        let mut by_way: BTreeMap<&str, Counts> = BTreeMap::new();
        let mut by_fault: BTreeMap<String, Counts> = BTreeMap::new();
        for (at, case) in all(&model, &[0, last / 2, last]).iter().enumerate().filter(|(at, _)| at % sample == 0) {
            let broken = case.run(&model, &prompt(), folder.path());
            let mut audited = compared(&reference, &broken);
            let mut judged = vec![compared(&clean, &broken)];
            // An audit and two baselines cost ten times as much as the run: every tenth case.
            if at % (10 * sample) == 0 {
                judged.push(compared(&reference, &broken));
                judged.push(compared(&reference, &broken).with_baseline(&clean).unwrap());
                judged.push(compared(&reference, &broken).with_baseline(&other).unwrap());
                let at_hand = |run: &RunRef| AtHand::of(&run.view().identity, None);
                judge(&mut audited, &at_hand(&broken), &at_hand(&reference), &|| ()).unwrap();
                judged.push(audited);
            }
            counted(&judged[0], case.expected, by_fault.entry(case.name.clone()).or_default());
            for (way, comparison) in ways.iter().zip(&judged) {
                if !counted(comparison, case.expected, by_way.entry(way).or_default()) {
                    println!("WRONG {file} {way} {} {:?}: {}", case.name, case.expected, comparison.reason);
                }
            }
        }
        for (fault, [named, open, below, wrong]) in by_fault {
            println!("{file:20} {fault:50} named {named:3}  not named {open:3}  below {below:3}  wrong {wrong:3}");
        }
        for (way, [named, open, below, wrong]) in by_way {
            println!("{file:20} = {way:48} named {named:3}  not named {open:3}  below {below:3}  wrong {wrong:3}");
        }
    }
}
