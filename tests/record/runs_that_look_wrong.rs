//! Warnings of a run by itself: none of right runs, and a stale buffer is named.

use crate::planted::{Fault, Planted};
use crate::running::{ids, json, open, prompt};
use crate::support::families;
use crate::traces::trace_of;
use actrace::backend::{CpuBackend, Semantics};
use actrace::compare::{Suspicion, Warning};
use actrace::model::Model;
use actrace::open::RunRef;

fn backend() -> CpuBackend {
    CpuBackend::new(Semantics::DequantizeF32, 2).unwrap()
}

fn run(model: &Model, tokens: &[u32]) -> RunRef {
    trace_of(model, Semantics::DequantizeF32, backend(), tokens, 4)
}

#[test]
fn right_runs_of_every_family_get_no_warning() {
    let tokens = ids(&json("families/prompt.json")["token_ids"]);
    for name in families::names() {
        assert_eq!(Warning::of(&run(&families::folder(&name), &tokens)).unwrap(), [], "{name}");
    }
    for name in ["tiny-qwen2.safetensors", "tiny-gpt2.safetensors"] {
        assert_eq!(Warning::of(&run(&open(name), &prompt())).unwrap(), [], "{name}");
        // One key alone, and one token again and again.
        assert_eq!(Warning::of(&run(&open(name), &[609])).unwrap(), [], "{name}");
        assert_eq!(Warning::of(&run(&open(name), &[609; 6])).unwrap(), [], "{name}");
    }
}

#[test]
fn a_stale_buffer_is_named_with_the_layer_whose_rows_it_holds() {
    let model = open("tiny-qwen2.safetensors");
    let stale = Planted::new(backend(), Fault::StaleBuffer, 3, "ffn_out");
    let run = trace_of(&model, Semantics::DequantizeF32, stale, &prompt(), 1);
    let warnings = Warning::of(&run).unwrap();
    let found: Vec<_> = warnings.iter().map(|found| (found.suspicion, found.layer, found.point.as_deref())).collect();
    assert_eq!(found, [(Suspicion::Stale, Some(3), Some("ffn_out"))]);
    let rows = prompt().len();
    assert!(
        warnings[0].text.starts_with(&format!("{rows} of {rows} rows are those of layer 2")),
        "{}",
        warnings[0].text
    );
}
