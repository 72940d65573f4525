//! A fault is named by layer and point, whatever it is and wherever it is, or the comparison says that it cannot tell.

use crate::faults::{all, files, original, prompt, run_of, run_with, tokens};
use crate::tampering::Place;
use actrace::audit::{AtHand, judge};
use actrace::backend::Semantics;
use actrace::compare::{Comparison, Judge, Verdict};
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
        for (at, case) in all(model, &layers).iter().enumerate().filter(|(at, _)| at % 6 == number) {
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

/// The same comparison, judged by an audit, with the model files where the runs say they are.
fn audited(reference: &RunRef, target: &RunRef) -> Comparison {
    let mut comparison = compared(reference, target);
    let at_hand = |run: &RunRef| AtHand::of(&run.view().identity, None);
    judge(&mut comparison, &at_hand(target), &at_hand(reference), &|| ()).unwrap();
    comparison
}

/// Against f32, a baseline that is a twin names the place; without one the comparison names nothing wrong; the audit
/// names the place.
#[test]
fn against_f32_the_place_is_right_or_not_told() {
    let folder = tempfile::tempdir().unwrap();
    for (number, model) in files().iter().enumerate() {
        let reference = run_of(&original(model), &prompt());
        let (clean, other) = (run_of(model, &prompt()), run_with(model, Semantics::DequantizeF32, &prompt()));
        let mut counts = [0; 4];
        for (at, case) in all(model, &[0, 2, 3]).iter().enumerate().filter(|(at, _)| at % 25 == number) {
            let broken = case.run(model, &prompt(), folder.path());
            let place = format!("{} {at} {} in {:?}", model.path().display(), case.name, case.expected.0);
            let expected = Some(owned(case.expected));
            let plain = compared(&reference, &broken);
            let by_twin = compared(&reference, &broken).with_baseline(&clean).unwrap();
            let by_other = compared(&reference, &broken).with_baseline(&other).unwrap();
            let audited = audited(&reference, &broken);
            if by_twin.verdict == Verdict::Diverged {
                assert_eq!(named(&by_twin), expected, "{place}: {}", by_twin.reason);
                assert_eq!(by_twin.judged_by, Some(Judge::Twins), "{place}");
            }
            for (count, judged) in counts.iter_mut().zip([&plain, &by_twin, &by_other, &audited]) {
                let found = named(judged);
                assert!(found.is_none() || found == expected, "{place}: {found:?} {}", judged.reason);
                *count += usize::from(found.is_some());
            }
        }
        println!("{}: named alone, by twin, by another, by audit {counts:?}", model.path().display());
    }
}

/// A run without a fault has no culprit, whatever it is compared with and however long it is.
#[test]
fn what_is_right_has_no_culprit() {
    for count in [1, 2, 12, 100, 480, 624] {
        let tokens = tokens(count);
        let chosen = files();
        // Long prompts cost seconds each: one file of each model.
        for model in chosen.iter().skip(usize::from(count > 100)).step_by(if count > 100 { 3 } else { 1 }) {
            let reference = run_of(&original(model), &tokens);
            let (clean, other) = (run_of(model, &tokens), run_with(model, Semantics::DequantizeF32, &tokens));
            let judged = [
                compared(&reference, &clean),
                compared(&reference, &other),
                compared(&clean, &other),
                compared(&reference, &clean).with_baseline(&clean).unwrap(),
                compared(&reference, &clean).with_baseline(&other).unwrap(),
                compared(&reference, &other).with_baseline(&clean).unwrap(),
            ];
            for (number, comparison) in judged.iter().enumerate() {
                let place = format!("{} of {count} tokens, {number}: {}", model.path().display(), comparison.reason);
                assert_eq!(comparison.first_divergence, None, "{place}");
                assert_ne!(comparison.verdict, Verdict::Diverged, "{place}");
            }
        }
    }
}
