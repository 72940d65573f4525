//! What was not captured is not held, whatever the falsifier returns.

use super::recording::{Wanted, checked, outcomes, right};
use crate::support::families;
use actrace::backend::Semantics::DequantizeF32;
use actrace::contract::{Outcome, shipped};

/// Each obligation that is not held, with what it lacks.
fn lacking(wanted: &Wanted<'_>) -> String {
    let model = families::folder("llama3");
    let outcomes = outcomes(&checked(&[right("run", &model, DequantizeF32, wanted)], &shipped().unwrap()));
    let line = |((obligation, runs), outcome): (&(String, String), &Outcome)| match outcome {
        Outcome::Held => Some(format!("{obligation}: held\n")),
        Outcome::Unmeasured(reasons) if !runs.is_empty() => Some(format!("{obligation}: {}\n", reasons.join("; "))),
        Outcome::Unmeasured(_) | Outcome::NotApplicable(_) => None,
        Outcome::Broken(found) => panic!("{obligation}: {found:?}"),
    };
    outcomes.iter().filter_map(line).collect()
}

#[test]
fn points_that_were_not_selected_leave_what_needs_them_unmeasured() {
    insta::assert_snapshot!(lacking(&Wanted { points: "embed,ffn_up,ffn_act,logits", tensors: "all", weights: false }));
}

#[test]
fn values_that_were_not_kept_leave_what_needs_them_unmeasured() {
    insta::assert_snapshot!(lacking(&Wanted { points: "all", tensors: "resid_mid", weights: false }));
}
