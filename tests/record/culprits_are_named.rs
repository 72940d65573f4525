//! A fault is named by layer and point, whatever it is and wherever it is, or the comparison says that it cannot tell.

use crate::audited_files::without_biases;
use crate::faults::{all, files, original, prompt, run_of, run_with, tampered, tokens};
use crate::running::open;
use crate::support::fixture;
use crate::support::plant::{Copy, tiny_qwen2};
use crate::support::quantise::Q8_0;
use crate::support::safetensors::{read, write};
use crate::tampering::{Place, Tampered, Tampering};
use crate::traces::trace_selected;
use actrace::audit::{AtHand, judge};
use actrace::backend::{CpuBackend, Semantics};
use actrace::capture::{Layers, Names, Positions, Selection};
use actrace::compare::{Comparison, Judge, Relation, Verdict};
use actrace::model::Model;
use actrace::open::RunRef;
use actrace::record::RunV1;

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
        for (at, case) in all(model, &layers).iter().enumerate().filter(|(at, _)| at % 10 == number) {
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
        for (at, case) in all(model, &[0, 2, 3]).iter().enumerate().filter(|(at, _)| at % 60 == number) {
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
        // Long prompts cost seconds each: one file of each model, of another type at each length.
        let (first, step) = if count > 100 { (count % 3 + count / 600, 3) } else { (0, 1) };
        for model in chosen.iter().skip(first).step_by(step) {
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

/// The worst element with both values, the head and the channel: known, because the row was changed there.
#[test]
fn the_worst_element_head_and_channel_are_told() {
    let model = open("tiny-qwen2.q8_0");
    let clean = run_of(&model, &prompt());
    let worst = |tampering: Tampering, place: Place| {
        let comparison = compared(&clean, &tampered(&model, tampering, place));
        let found = comparison.first_divergence.unwrap();
        assert_eq!((found.layer, found.point.as_str()), place);
        (found.position, found.first_position, found.worst.unwrap())
    };
    let one = Tampering::Rows(|made| {
        if made.position == 6 {
            made.row[70] += 1.0;
        }
    });
    for (point, head) in [("q", Some(1)), ("attn_ctx", Some(1)), ("ffn_up", None)] {
        let (position, first, worst) = worst(one, (Some(3), point));
        assert_eq!((position, first), (Some(6), Some(6)), "{point}");
        assert_eq!((worst.position, worst.index, worst.channel, worst.head), (6, 70, Some(70), head), "{point}");
        assert!((worst.target - worst.reference - 1.0).abs() < 1e-5, "{worst:?}");
    }
    // Rows of scores are as wide as their keys are many: no column is one channel, and a head is a fourth of each.
    let head = Tampering::Rows(|made| made.head(2).iter_mut().for_each(|x| *x += 0.5));
    let (_, first, scores) = worst(head, (Some(1), "attn_scores"));
    assert_eq!((first, scores.head, scores.channel), (Some(0), Some(2), None));
    let (_, _, nan) = worst(Tampering::Rows(|made| made.row[5] = f32::NAN), (Some(0), "ffn_norm"));
    assert!((nan.index, nan.channel) == (5, Some(5)) && nan.target.is_nan() && nan.reference.is_finite());
}

/// A file without a bias has another operation at the point, and no product before it that could be compared.
#[test]
fn a_bias_that_the_file_lacks_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (original, whole) = (fixture("llama/biased"), folder.path().join("whole"));
    std::fs::create_dir(&whole).unwrap();
    std::fs::copy(original.join("config.json"), whole.join("config.json")).unwrap();
    write(&whole.join("model.safetensors"), &read(&original.join("model.safetensors")));
    let whole = Model::open(&whole).unwrap();
    let tokens = [3, 5, 7, 11];
    let comparison = compared(&run_of(&whole, &tokens), &run_of(&without_biases(folder.path()), &tokens));
    assert_eq!(comparison.relation, Relation::Twins, "{:?} {}", comparison.unlike, comparison.reason);
    let found = comparison.first_divergence.unwrap();
    assert_eq!((found.layer, found.point.as_str()), (Some(0), "q"), "{}", comparison.reason);
    assert!(found.unseen.is_empty() && found.note.contains("mat_mul (reference: bias)"), "{found:?}");
}

#[test]
fn a_layer_that_the_file_lacks_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut copy = Copy::of(&tiny_qwen2(), |_| &Q8_0);
    let run = |copy: &Copy, name: &str| {
        let path = folder.path().join(name);
        copy.write(&path, &[], "");
        run_of(&Model::open(&path).unwrap(), &prompt())
    };
    let whole = run(&copy, "whole.gguf");
    copy.tensors.retain(|tensor| !tensor.name.starts_with("blk.5."));
    copy.numbers.counts[0].1 = 5;
    let lacking = run(&copy, "lacking.gguf");
    for (reference, target) in [(&whole, &lacking), (&lacking, &whole)] {
        let comparison = compared(reference, target);
        assert_eq!(named(&comparison), Some((Some(5), "attn_norm".to_owned())), "{}", comparison.reason);
        assert!(comparison.reason.contains("final_norm differs for it"), "{}", comparison.reason);
    }
}

/// Where points before the culprit were not recorded, they are told: the fault may be in any of them.
#[test]
fn points_that_were_not_recorded_are_told() {
    let model = open("tiny-qwen2.q8_0");
    let points = |points: &str| Names::parse(points).unwrap();
    let recorded = |backend| {
        let selection = Selection {
            points: points("attn_norm,ffn_glu,resid_post"),
            layers: Layers::parse("all").unwrap(),
            positions: Positions::All,
            tensors: points("none"),
        };
        trace_selected(&model, Semantics::Ggml, backend, (&prompt(), 1), &selection, |_| ())
    };
    let backend = || CpuBackend::new(Semantics::Ggml, 2).unwrap();
    let fault = Tampering::Rows(|made| made.row.iter_mut().for_each(|x| *x *= 1.5));
    let clean = recorded(Tampered::new(backend(), &[]));
    let broken = recorded(Tampered::new(backend(), &[(fault, (Some(2), "attn_ctx"))]));
    let comparison = compared(&clean, &broken);
    let found = comparison.first_divergence.as_ref().unwrap();
    assert_eq!((found.layer, found.point.as_str()), (Some(2), "ffn_glu"), "{}", comparison.reason);
    assert!(found.unseen.contains(&"layers.2.attn_ctx".to_owned()), "{:?}", found.unseen);
    assert!(
        !found.unseen.iter().any(|name| name.ends_with("attn_norm") || name.starts_with("layers.1")),
        "{:?}",
        found.unseen
    );
    assert!(comparison.evidence().starts_with("statistics alone") && found.worst.is_none());
}

/// What a run says of itself in place of the truth.
type Say = fn(&mut RunV1);

/// One bit is proof between runs of one arithmetic only: whatever else they say of themselves, they are no twins.
#[test]
fn only_runs_of_one_arithmetic_are_twins() {
    let model = open("tiny-qwen2.q8_0");
    let all = || Names::parse("all").unwrap();
    let selection =
        Selection { points: all(), layers: Layers::parse("0").unwrap(), positions: Positions::All, tensors: all() };
    let run = |say: Say| {
        let backend = CpuBackend::new(Semantics::Ggml, 1).unwrap();
        trace_selected(&model, Semantics::Ggml, backend, (&prompt()[..2], 1), &selection, say)
    };
    let own = run(|_| ());
    let others: [(&str, Say); 10] = [
        ("engine", |run| run.engine = "llama.cpp".into()),
        ("engine version", |run| run.engine_version = "10".into()),
        ("device", |run| run.device_kind = "cuda".into()),
        ("kernel path", |run| run.kernel_path = "cpu/scalar".into()),
        ("instruction set", |run| run.instruction_set = "scalar".into()),
        ("semantics", |run| run.semantics = "dequantize-f32".into()),
        ("compute type", |run| run.compute_type = "bf16".into()),
        ("cache type", |run| run.kv_type = "f16".into()),
        ("attention", |run| run.attention = "flash".into()),
        ("fused operations", |run| run.fused.clear()),
    ];
    assert_eq!(compared(&own, &run(|_| ())).relation, Relation::Twins);
    for (name, other) in others {
        let comparison = compared(&own, &run(other));
        assert_eq!(comparison.relation, Relation::Unlike, "{name}");
        assert!(comparison.unlike.len() == 1 && comparison.unlike[0].starts_with(name), "{:?}", comparison.unlike);
    }
    assert_eq!(compared(&own, &run(|run| run.kind = "import".into())).relation, Relation::Unlike);
    // A driver counts on a card, where it has a part.
    assert_eq!(compared(&own, &run(|run| run.driver = "999".into())).relation, Relation::Twins);
    let card = run(|run| run.device_kind = "cuda".into());
    let other = run(|run| (run.device_kind, run.driver) = ("cuda".into(), "999".into()));
    assert_eq!(compared(&card, &card).relation, Relation::Twins);
    assert_eq!(compared(&card, &other).relation, Relation::Unlike);
}

/// Where the runs diverge and the target is right, the reference is audited too; without files nothing is claimed.
#[test]
fn a_fault_in_the_reference_is_told_as_its_own() {
    let (model, whole) = (open("tiny-qwen2.q8_0"), open("tiny-qwen2.safetensors"));
    let zero = Tampering::Rows(|made| made.row.fill(0.0));
    let broken = tampered(&whole, zero, (Some(3), "attn_ctx"));
    let right = run_of(&model, &prompt());
    let by_audit = audited(&broken, &right);
    assert_eq!(named(&by_audit), Some((Some(3), "attn_ctx".to_owned())), "{}", by_audit.reason);
    assert_eq!((by_audit.verdict, by_audit.judged_by), (Verdict::Diverged, Some(Judge::Audit)));
    assert!(by_audit.first_divergence.unwrap().note.starts_with("in the reference"));
    let by_audit = audited(&right, &right);
    assert_eq!(
        (by_audit.verdict, by_audit.first_divergence),
        (Verdict::Equal, None),
        "an audit makes nothing less equal"
    );
    let mut without = compared(&run_of(&whole, &prompt()), &right);
    let gone = || AtHand::Absent("its file is gone".to_owned());
    judge(&mut without, &gone(), &gone(), &|| ()).unwrap();
    assert_eq!((without.verdict, without.judged_by), (Verdict::WithinTolerance, Some(Judge::Floor)));
    assert!(without.reason.contains("only an audit can decide; an audit needs its file is gone"), "{}", without.reason);
}

/// A run of the last position alone is audited as far as its inputs reach: its cache lacks the rows before.
#[test]
fn a_run_of_one_position_is_audited() {
    let (model, whole) = (open("tiny-qwen2.q8_0"), open("tiny-qwen2.safetensors"));
    let all = || Names::parse("all").unwrap();
    let selection = Selection {
        points: all(),
        layers: Layers::parse("all").unwrap(),
        positions: Positions::parse("last").unwrap(),
        tensors: all(),
    };
    let backend = CpuBackend::new(Semantics::Ggml, 2).unwrap();
    let last = trace_selected(&model, Semantics::Ggml, backend, (&prompt(), 1), &selection, |_| ());
    let comparison = audited(&run_of(&whole, &prompt()), &last);
    assert_eq!((comparison.verdict, comparison.judged_by), (Verdict::WithinTolerance, Some(Judge::Audit)));
    // Scores and contexts of six layers read the keys and values of positions that were not recorded.
    assert!(comparison.reason.contains("130 operations right, 12 not judged"), "{}", comparison.reason);
}
