//! A fault is named by layer and point, whatever it is and wherever it is, or the comparison says that it cannot tell.

use crate::faults::{all, files, prompt, run_of};
use crate::tampering::Place;
use actrace::compare::{Comparison, Verdict};
use actrace::open::RunRef;

/// The place that a comparison names.
fn named(comparison: &Comparison) -> Option<(Option<u32>, String)> {
    comparison.first_divergence.as_ref().map(|found| (found.layer, found.point.clone()))
}

fn owned((layer, point): Place) -> (Option<u32>, String) {
    (layer, point.to_owned())
}

fn compared(reference: &RunRef, target: &RunRef) -> Comparison {
    Comparison::new(reference.clone(), target.clone(), None, false).unwrap()
}

/// Every case in one layer of each file; layers go round.
#[test]
fn twins_name_every_fault() {
    let folder = tempfile::tempdir().unwrap();
    for (number, model) in files().iter().enumerate() {
        let clean = run_of(model, &prompt());
        let layers = [[0, 2, 3], [3, 1, 0], [1, 3, 2]][number % 3];
        let (mut named_cases, mut small) = (0, 0);
        for (at, case) in all(model, &layers).iter().enumerate().filter(|(at, _)| at % 3 == number % 3) {
            let comparison = compared(&clean, &case.run(model, &prompt(), folder.path()));
            let place = format!("{} {at} {} in {:?}", model.path().display(), case.name, case.expected.0);
            match comparison.verdict {
                Verdict::Diverged => {
                    assert_eq!(named(&comparison), Some(owned(case.expected)), "{place}: {}", comparison.reason);
                    named_cases += 1;
                }
                Verdict::Equal | Verdict::WithinTolerance => {
                    small += 1;
                    println!("below: {place} {}", comparison.reason);
                }
                other => panic!("{place}: {other:?}"),
            }
        }
        println!("{}: {named_cases} named, {small} below the tolerance", model.path().display());
    }
}
