//! Requests that make no sense get one clear sentence, and stop conditions stop.

use crate::planted::{Fault, Planted};
use crate::running::{Blind, capture, forward, open, prompt, untraced};
use actrace::ErrorKind;
use actrace::backend::{CpuBackend, Semantics};
use actrace::forward::{Forward, Request};

fn refusal(tokens: &[u32], generate: usize) -> String {
    let model = open("tiny-gpt2.safetensors");
    let mut forward = forward(&model, Semantics::DequantizeF32);
    let error = forward.generate(&Request { tokens, generate, stop_at: &[] }, &mut Blind).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    error.to_string()
}

#[test]
fn prompts_that_cannot_run() {
    assert!(refusal(&[], 4).contains("the prompt is empty"));
    let range = refusal(&[1, 2, 2048], 4);
    assert!(range.contains("2048 at position 2") && range.contains("0 to 2047"), "{range}");
    let long = refusal(&[1; 1000], 25);
    assert!(long.contains("1000") && long.contains("25") && long.contains("1024"), "{long}");
    assert!(refusal(&[1], usize::MAX).contains("1024"));
}

/// The last layer's operation is refused before the first weight is loaded.
#[test]
fn a_model_that_a_backend_has_no_kernels_for() {
    let model = open("tiny-gpt2.safetensors");
    let inner = CpuBackend::new(Semantics::DequantizeF32, 1).unwrap();
    let error = Forward::new(&model, Planted::new(inner, Fault::NoKernel, 3, "ffn_act")).map(drop).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Unsupported, "no kernel for gelu_tanh"));
}

#[test]
fn the_whole_context_is_usable() {
    let model = open("tiny-gpt2.q8_0");
    let mut forward = forward(&model, Semantics::Ggml);
    assert_eq!(untraced(&mut forward, &prompt().repeat(85), 4).tokens.len(), 4);
}

#[test]
fn zero_and_one_token_are_the_prefill_alone() {
    let model = open("tiny-qwen2.safetensors");
    let mut forward = forward(&model, Semantics::DequantizeF32);
    let (none, nothing) = capture(&mut forward, &prompt(), 0);
    let (one, first) = capture(&mut forward, &prompt(), 1);
    assert_eq!((nothing.tokens.len(), first.tokens.len()), (0, 1));
    assert_eq!((none.reports.len(), one.reports.len()), (1, 1));
    assert_eq!(none.reports[0].next_token, first.tokens[0]);
}

#[test]
fn a_stop_token_is_the_last() {
    let model = open("tiny-qwen2.safetensors");
    let mut forward = forward(&model, Semantics::DequantizeF32);
    let free = untraced(&mut forward, &prompt(), 8).tokens;
    let stop_at = [free[3]];
    let request = Request { tokens: &prompt(), generate: 8, stop_at: &stop_at };
    let stopped = forward.generate(&request, &mut Blind).unwrap().tokens;
    let end = free.iter().position(|token| *token == free[3]).unwrap();
    assert_eq!(stopped, free[..=end]);
}
