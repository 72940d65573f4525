//! Traces that the recorder makes of a fixture's model.

use crate::running::{forward, ids, json};
use crate::support::fixture;
use crate::support::trace::{HEADER, Memory, run};
use actrace::backend::{Backend, Semantics};
use actrace::capture::{Layers, Names, Plan, Positions, Selection};
use actrace::file::{Storage, Writer};
use actrace::forward::{Forward, Request};
use actrace::model::{Fact, Model};
use actrace::open::{Input, RunRef, Trace, TraceSet};
use actrace::record::{PairV1, RunV1};
use actrace::recorder::{Outcome, Recorder, Summary};

/// Records a prefill of three tokens and a decode step of a small llama, two capture points of its first layer.
pub fn record<S: Storage + 'static>(storage: S) -> actrace::Result<Summary> {
    let model = Model::open(&fixture("llama/biased.f32.gguf")).unwrap();
    let mut forward = forward(&model, Semantics::DequantizeF32);
    let tokens = &ids(&json("llama/prompt.json")["token_ids"])[..3];
    let selection = Selection {
        points: Names::parse("attn_probs,resid_post").unwrap(),
        layers: Layers::parse("0").unwrap(),
        positions: Positions::All,
        tensors: Names::parse("all").unwrap(),
    };
    let plan = Plan::new(&model, forward.graph(), &selection, tokens.len(), tokens.len() + 1).unwrap();
    let mut recorder = Recorder::begin(Writer::create(storage, HEADER)?, &run(), plan, 1)?;
    let generated = forward.generate(&Request { tokens, generate: 2, stop_at: &[] }, &mut recorder);
    let outcome = generated.as_ref().map_or_else(|error| Outcome::Failed(error.to_string()), |_| Outcome::Finished);
    let sealed = recorder.finish(&outcome);
    generated.and(sealed)
}

fn pair(fact: &Fact) -> PairV1 {
    PairV1 { key: fact.key.to_owned(), value: fact.value.clone(), source: fact.source.name().to_owned() }
}

/// That recording as an image.
pub fn recorded() -> Vec<u8> {
    let memory = Memory::default();
    record(memory.clone()).unwrap();
    memory.bytes()
}

/// The run that `backend` makes of `tokens` and `generate` tokens behind them, every point and tensor recorded.
pub fn trace_of<B: Backend>(
    model: &Model,
    semantics: Semantics,
    backend: B,
    tokens: &[u32],
    generate: usize,
) -> RunRef {
    let all = || Names::parse("all").unwrap();
    let selection =
        Selection { points: all(), layers: Layers::parse("all").unwrap(), positions: Positions::All, tensors: all() };
    trace_selected(model, semantics, backend, (tokens, generate), &selection, |_| ())
}

/// The same, of what `selection` selects, with an identity that `say` may change.
pub fn trace_selected<B: Backend>(
    model: &Model,
    semantics: Semantics,
    backend: B,
    (tokens, generate): (&[u32], usize),
    selection: &Selection,
    say: impl FnOnce(&mut RunV1),
) -> RunRef {
    let mut forward = Forward::new(model, backend).unwrap();
    let positions = tokens.len() + generate.saturating_sub(1);
    let plan = Plan::new(model, forward.graph(), selection, tokens.len(), positions).unwrap();
    let identity = forward.identity();
    let mut run = RunV1 {
        kind: "record".to_owned(),
        semantics: semantics.name().to_owned(),
        kernel_path: identity.kernel_path,
        instruction_set: identity.instruction_set,
        device_kind: identity.device_kind,
        compute_type: identity.compute_type,
        kv_type: identity.kv_type,
        prompt_tokens: tokens.to_vec(),
        model_path: model.path().display().to_string(),
        model_files: Vec::new(),
        model_hash: model.hash().unwrap().model,
        weight_type: model.weight_type().name().to_owned(),
        architecture: model.architecture().name().to_owned(),
        hyper_parameters: model.facts().iter().map(pair).collect(),
        ..run()
    };
    say(&mut run);
    let memory = Memory::default();
    let mut recorder = Recorder::begin(Writer::create(memory.clone(), HEADER).unwrap(), &run, plan, 2).unwrap();
    forward.generate(&Request { tokens, generate, stop_at: &[] }, &mut recorder).unwrap();
    recorder.finish(&Outcome::Finished).unwrap();
    let trace = Trace::of(Input::of(memory.bytes(), "memory".as_ref()).unwrap()).unwrap();
    TraceSet::new(vec![trace]).unwrap().runs().next().unwrap()
}
