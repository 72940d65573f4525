//! Right runs that a coarser falsifier would break, and wrong ones that it would hold.

use super::recording::{ALL, Records, Wanted, checked, contract, edited, outcomes, recorded, right};
use crate::planted::RowFault;
use crate::support::{families, trace::frames};
use actrace::backend::{CpuBackend, Semantics::DequantizeF32};
use actrace::contract::{Contract, Outcome};
use actrace::file::Kind;

/// What `contract` says of `files`: the outcome of `obligation`, by labels.
fn outcome(files: &[Vec<u8>], contract: Contract, obligation: &str, labels: &str) -> Outcome {
    let key = (format!("{}/{obligation}", contract.id.value), labels.to_owned());
    outcomes(&checked(files, &[contract])).remove(&key).unwrap_or_else(|| panic!("{key:?} is not judged"))
}

fn llama(label: &str) -> Vec<u8> {
    right(label, &families::folder("llama3"), DequantizeF32, &ALL)
}

fn slightly_off(label: &str, point: &'static str) -> Vec<u8> {
    let backend = RowFault::SlightlyOff.planted(CpuBackend::new(DequantizeF32, 2).unwrap(), 1, point);
    recorded(label, &families::folder("llama3"), DequantizeF32, backend, &ALL)
}

/// Why `outcome` is unmeasured, in one text.
fn lacks(outcome: Outcome) -> String {
    match outcome {
        Outcome::Unmeasured(reasons) => reasons.join("; "),
        other => panic!("{other:?}"),
    }
}

/// Two runs of one file that were made with other hyper-parameters have other canonical weights.
#[test]
fn a_norm_is_held_to_the_weights_of_its_own_run() {
    let one = llama("one");
    let mut hash = [0; 32];
    let one = edited(&one, |r| hash = r.run.model_hash);
    let other = right("other", &families::folder("qwen3"), DequantizeF32, &ALL);
    let other = edited(&other, |r| r.run.model_hash = hash);
    let files = [one, other];
    for label in ["one", "other"] {
        let judged = outcome(&files, contract("norm-algebra"), "norms-are-the-recorded-weights", label);
        assert!(matches!(judged, Outcome::Held), "{label}: {judged:?}");
    }
    let bare = right("bare", &families::folder("llama3"), DequantizeF32, &Wanted { weights: false, ..ALL });
    let [_, other] = files;
    let judged = outcome(&[bare, other], contract("norm-algebra"), "norms-are-the-recorded-weights", "bare");
    assert!(lacks(judged).contains("no values of the norms' weights are recorded"));
}

#[test]
fn a_bias_that_is_not_recorded_is_missing_and_not_wrong() {
    let file = right("run", &families::folder("gpt_neox"), DequantizeF32, &ALL);
    let file = edited(&file, |r| {
        // Another weight, of which no norm's values are kept.
        let other = r.site(0, "ffn_up").weights[0];
        r.site(0, "attn_norm").weights[1] = other;
    });
    let judged = outcome(&[file], contract("norm-algebra"), "norms-are-the-recorded-weights", "run");
    assert!(lacks(judged).contains("no values of the norms' weights are recorded"));
}

/// The planted row is 2e-5 off, and all rows of its tensor together less than 1e-5.
#[test]
fn a_card_is_judged_by_whole_tensors() {
    let card = edited(&slightly_off("two", "resid_post"), |r| r.run.device_kind = "cuda".to_owned());
    let files = [llama("one"), card];
    let of = |limit| {
        let mut contract = contract("device-parity");
        contract.tolerances.get_mut("device").unwrap().value.value = limit;
        outcome(&files, contract, "rows-agree", "one two")
    };
    assert!(matches!(of(1e-5), Outcome::Held), "{:?}", of(1e-5));
    assert!(matches!(of(1e-6), Outcome::Broken(_)), "{:?}", of(1e-6));
}

/// An error of 2e-5 breaks f32 (`broken.rs`), and is below the rounding of 16-bit types.
#[test]
fn values_of_16_bit_types_are_allowed_their_rounding() {
    let cases = [
        ("ffn_act", "trace-ffn-sub-block", "activation-follows"),
        ("attn_probs", "attention-rows", "heads-sum-to-1"),
        ("attn_probs", "attention-rows", "probabilities-follow"),
        ("attn_norm", "norm-algebra", "norms-are-the-recorded-weights"),
        ("attn_norm", "norm-algebra", "rms-norms-have-one-weight"),
    ];
    for (point, name, obligation) in cases {
        let file = slightly_off("run", point);
        let half = edited(&file, |r| r.plan.sites.iter_mut().for_each(|site| site.dtype = "bf16".to_owned()));
        let judged = outcome(&[half], contract(name), obligation, "run");
        assert!(matches!(judged, Outcome::Held), "{name}/{obligation}: {judged:?}");
        let judged = outcome(&[file], contract(name), obligation, "run");
        assert!(matches!(judged, Outcome::Broken(_)), "{name}/{obligation}: {judged:?}");
    }
}

#[test]
fn a_layer_has_the_window_that_the_run_says() {
    let file = right("run", &families::folder("qwen2-window"), DequantizeF32, &ALL);
    let of = |edit: fn(&mut Records)| {
        outcome(&[edited(&file, edit)], contract("attention-rows"), "a-row-has-the-visible-keys", "run")
    };
    assert!(matches!(of(|_| {}), Outcome::Held));
    let layers = |r: &mut Records| {
        let pair = r.run.hyper_parameters.iter_mut().find(|pair| pair.key == "window_layers").unwrap();
        pair.value = "99".to_owned();
    };
    assert!(matches!(of(layers), Outcome::Broken(_)), "a layer without the window has rows as narrow as one");
    let judged = of(|r| r.run.hyper_parameters.retain(|pair| pair.key != "window_layers"));
    assert!(lacks(judged).contains("not its window_layers"));
}

#[test]
fn what_the_run_does_not_say_is_unmeasured() {
    let without = |family: &str, name: &str, obligation: &str, key: &str| {
        let file = right("run", &families::folder(family), DequantizeF32, &ALL);
        let file = edited(&file, |r| r.run.hyper_parameters.retain(|pair| pair.key != key));
        lacks(outcome(&[file], contract(name), obligation, "run"))
    };
    let cases = [
        ("llama3", "norm-algebra", "norms-are-the-recorded-weights", "norm_epsilon"),
        ("llama3", "norm-algebra", "rms-norms-have-one-weight", "norm_epsilon"),
        ("gpt_neox", "norm-algebra", "layer-norms-have-one-weight", "norm_epsilon"),
        ("mixtral", "trace-ffn-sub-block", "width-is-the-ffn", "expert_ffn"),
    ];
    for (family, name, obligation, key) in cases {
        let said = without(family, name, obligation, key);
        assert!(said.contains(key), "{name}/{obligation}: {said}");
    }
}

#[test]
fn rows_of_some_positions_say_nothing_of_every_token() {
    let file = edited(&llama("run"), |r| {
        let gate = r.number(1, "ffn_gate");
        (r.coverage.rows_expected[gate], r.coverage.rows_captured[gate]) = (1, 1);
    });
    let judged = outcome(&[file], contract("trace-ffn-sub-block"), "gated-ffn-is-shown", "run");
    assert_eq!(lacks(judged), "ffn_gate (layer 1): rows of 1 of 10 positions were selected");
}

#[test]
fn a_norm_is_not_held_against_itself() {
    for (family, obligation, most, said) in [
        ("llama3", "rms-norms-have-one-weight", 1, "attn_norm: one token alone has no other to be held against"),
        ("gpt_neox", "layer-norms-have-one-weight", 2, "attn_norm: a weight and a bias take three tokens"),
    ] {
        let file = right("run", &families::folder(family), DequantizeF32, &ALL);
        let file = edited(&file, |r| {
            let norm = r.site(1, "attn_norm").site;
            let mut kept = 0;
            for stats in &mut r.stats {
                for row in 0..stats.site.len() {
                    if stats.site[row] == norm {
                        kept += 1;
                        stats.payload[row] = if kept <= most { stats.payload[row] } else { 0 };
                    }
                }
            }
        });
        let reasons = lacks(outcome(&[file], contract("norm-algebra"), obligation, "run"));
        assert!(reasons.contains(said), "{reasons}");
    }
}

#[test]
fn pairs_without_a_step_or_logits_in_common_are_unmeasured() {
    let (one, two) = (llama("one"), llama("two"));
    let of = |edit: fn(&mut Records), obligation| {
        lacks(outcome(&[one.clone(), edited(&two, edit)], contract("determinism"), obligation, "one two"))
    };
    let none: fn(&mut Records) = |r| {
        r.steps.clear();
        r.ended = false;
    };
    assert!(of(none, "steps-are-equal").contains("no step in common"));
    let said = of(none, "rows-are-equal");
    assert!(!said.is_empty());
    let unseen: fn(&mut Records) = |r| {
        (r.steps[0].next_token, r.steps[0].logits_fingerprint) = (u32::MAX, 0);
    };
    assert!(of(unseen, "steps-are-equal").contains("a step has no logits_fingerprint"));
}

#[test]
fn runs_of_unlike_hyper_parameters_are_no_pair() {
    let (one, two) = (llama("one"), llama("two"));
    let judged = |name: &str, edit: fn(&mut Records)| {
        let outcomes = outcomes(&checked(&[one.clone(), edited(&two, edit)], &[contract(name)]));
        outcomes.into_keys().filter(|(_, labels)| !labels.is_empty()).count()
    };
    let card: fn(&mut Records) = |r| r.run.device_kind = "cuda".to_owned();
    let format: fn(&mut Records) = |r| (r.run.model_format, r.run.model_hash) = ("sharded".to_owned(), [9; 32]);
    assert_eq!((judged("device-parity", card), judged("format-parity", format)), (2, 2));
    fn other(r: &mut Records) {
        r.run.hyper_parameters.iter_mut().find(|pair| pair.key == "rope_base").unwrap().value = "17".to_owned();
    }
    let card: fn(&mut Records) = |r| {
        r.run.device_kind = "cuda".to_owned();
        other(r);
    };
    let format: fn(&mut Records) = |r| {
        (r.run.model_format, r.run.model_hash) = ("sharded".to_owned(), [9; 32]);
        other(r);
    };
    assert_eq!((judged("device-parity", card), judged("format-parity", format)), (0, 0));
}

/// Every payload has a changed byte: what reads values cannot be judged, and what reads none is.
#[test]
fn damage_is_an_error_of_the_obligations_that_read_it_alone() {
    let mut file = llama("run");
    for frame in frames(&file).iter().filter(|frame| frame.kind == Kind::Payload) {
        let middle = usize::try_from(frame.offset.midpoint(frame.end())).unwrap();
        file[middle] ^= 0x10;
    }
    let checked = checked(&[file], &[contract("residual-algebra"), contract("trace-integrity")]);
    let outcomes = outcomes(&checked);
    let of = |obligation: &str| &outcomes[&(obligation.to_owned(), "run".to_owned())];
    assert!(matches!(of("residual-algebra/stream-goes-on"), Outcome::Held));
    assert!(matches!(of("trace-integrity/run-is-finished"), Outcome::Held));
    let Outcome::Error(said) = of("residual-algebra/stream-follows") else { panic!("{outcomes:?}") };
    assert!(
        said.contains("contracts/residual-algebra.yaml: line ") && said.contains("stream-follows of run: "),
        "{said}"
    );
}
