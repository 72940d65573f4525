//! Runs in memory, right ones and ones with a fault, and what contracts say of them.

use crate::support::trace::{Memory, frames, run};
use actrace::backend::{Backend, CpuBackend, Semantics};
use actrace::capture::{Layers, Names, Plan, Positions, Selection};
use actrace::contract::{Checked, Contract, Outcome, check, find};
use actrace::file::{FileHeader, Kind, Writer};
use actrace::forward::{Forward, Request};
use actrace::model::{Fact, Model};
use actrace::open::{Input, Trace, TraceSet};
use actrace::record::*;
use actrace::recorder::{self, Recorder, Weights};
use actrace::sql::{DEFAULT_MEMORY, Session};
use std::collections::BTreeMap;
use std::path::Path;

/// A prompt that every model has the tokens of.
pub const TOKENS: [u32; 7] = [11, 40, 9, 7, 3, 25, 19];

/// Tokens that are generated: the first comes of the prefill, the others of decode steps.
const GENERATE: usize = 4;

/// What to record of a run.
pub struct Wanted<'a> {
    pub points: &'a str,
    pub tensors: &'a str,
    /// Whether weights are recorded with their values.
    pub weights: bool,
}

/// Everything.
pub const ALL: Wanted<'static> = Wanted { points: "all", tensors: "all", weights: true };

fn id(label: &str) -> [u8; 16] {
    let mut id = [0; 16];
    id.copy_from_slice(&blake3::hash(label.as_bytes()).as_bytes()[..16]);
    id
}

fn pair(fact: &Fact) -> PairV1 {
    PairV1 { key: fact.key.to_owned(), value: fact.value.clone(), source: fact.source.name().to_owned() }
}

fn identity<B: Backend>(
    label: &str,
    model: &Model,
    forward: &Forward<B>,
    semantics: Semantics,
    wanted: &Wanted<'_>,
) -> RunV1 {
    let backend = forward.identity();
    RunV1 {
        run_id: id(label),
        kind: "record".to_owned(),
        label: label.to_owned(),
        device_kind: backend.device_kind,
        device_name: backend.device_name,
        instruction_set: backend.instruction_set,
        kernel_path: backend.kernel_path,
        fused: backend.fused,
        attention: backend.attention,
        semantics: semantics.name().to_owned(),
        compute_type: backend.compute_type,
        kv_type: backend.kv_type,
        prompt_tokens: TOKENS.to_vec(),
        generate: GENERATE as u32,
        model_hash: model.hash().unwrap().model,
        model_format: model.format().name().to_owned(),
        weight_type: model.weight_type().name().to_owned(),
        architecture: model.architecture().name().to_owned(),
        hyper_parameters: model.facts().iter().map(pair).collect(),
        selection: vec![PairV1 { key: "points".to_owned(), value: wanted.points.to_owned(), source: String::new() }],
        ..run()
    }
}

/// The file that `backend` makes of a run of `model`.
pub fn recorded<B: Backend>(
    label: &str,
    model: &Model,
    semantics: Semantics,
    backend: B,
    wanted: &Wanted<'_>,
) -> Vec<u8> {
    let mut forward = Forward::new(model, backend).unwrap();
    let selection = Selection {
        points: Names::parse(wanted.points).unwrap(),
        layers: Layers::ALL,
        positions: Positions::All,
        tensors: Names::parse(wanted.tensors).unwrap(),
    };
    let plan = Plan::new(model, forward.graph(), &selection, TOKENS.len(), TOKENS.len() + GENERATE - 1).unwrap();
    let run = identity(label, model, &forward, semantics, wanted);
    let memory = Memory::default();
    let writer = Writer::create(memory.clone(), FileHeader { uuid: id(label), created_us: 0 }).unwrap();
    let mut recorder = if wanted.weights {
        let weights = Weights { model, keep_values: true, progress: &mut |_| Ok(()) };
        Recorder::begin_with(weights, writer, &run, plan, 2).unwrap()
    } else {
        Recorder::begin(writer, &run, plan, 2).unwrap()
    };
    forward.generate(&Request { tokens: &TOKENS, generate: GENERATE, stop_at: &[] }, &mut recorder).unwrap();
    recorder.finish(&recorder::Outcome::Finished).unwrap();
    memory.bytes()
}

/// The same on the processor, which makes no fault.
pub fn right(label: &str, model: &Model, semantics: Semantics, wanted: &Wanted<'_>) -> Vec<u8> {
    recorded(label, model, semantics, CpuBackend::new(semantics, 2).unwrap(), wanted)
}

/// The records of a file with one run; payloads and weights stay as they are.
pub struct Records {
    pub run: RunV1,
    pub plan: PlanV1,
    pub stats: Vec<StatsV1>,
    pub steps: Vec<StepV1>,
    pub losses: Vec<LossV1>,
    pub coverage: CoverageV1,
    pub end: EndV1,
    /// Whether coverage and end are written; a run that was killed has neither, nor a seal.
    pub ended: bool,
    pub sealed: bool,
}

impl Records {
    /// The site of `point` in `layer`.
    pub fn site(&mut self, layer: i32, point: &str) -> &mut SiteV1 {
        self.plan.sites.iter_mut().find(|site| site.layer == layer && site.point == point).unwrap()
    }

    /// Its number in the plan and in the coverage.
    pub fn number(&mut self, layer: i32, point: &str) -> usize {
        self.site(layer, point).site as usize
    }
}

/// The file written anew with its records changed by `edit`.
pub fn edited(image: &[u8], edit: impl FnOnce(&mut Records)) -> Vec<u8> {
    fn of<R: Record>(bodies: &[(Kind, Vec<u8>)], kind: Kind) -> Vec<R> {
        let bodies = bodies.iter().filter(|(of, _)| *of == kind);
        bodies.map(|(_, body)| R::decode(&aligned(body)).unwrap()).collect()
    }
    let input = Input::of(image.to_vec(), Path::new("image")).unwrap();
    let bodies = frames(image).into_iter().map(|frame| (frame.kind, input.body(&frame).unwrap().to_vec()));
    let bodies: Vec<(Kind, Vec<u8>)> = bodies.collect();
    let mut records = Records {
        run: of(&bodies, Kind::Run).remove(0),
        plan: of(&bodies, Kind::Plan).remove(0),
        stats: of(&bodies, Kind::Stats),
        steps: of(&bodies, Kind::Step),
        losses: of(&bodies, Kind::Loss),
        coverage: of(&bodies, Kind::Coverage).remove(0),
        end: of(&bodies, Kind::End).remove(0),
        ended: true,
        sealed: true,
    };
    edit(&mut records);
    let memory = Memory::default();
    let mut writer =
        Writer::create(memory.clone(), FileHeader { uuid: id(&records.run.label), created_us: 0 }).unwrap();
    let number = writer.begin_run(&records.run).unwrap();
    writer.record(number, 0, &records.plan).unwrap();
    let (mut stats, mut steps) = (records.stats.iter(), records.steps.iter());
    let mut step = 0;
    for (kind, body) in &bodies {
        match kind {
            Kind::Payload => {
                writer.payload(number, step, PayloadV1::decode(&aligned(body)).unwrap()).unwrap();
            }
            Kind::Weight => writer.record(number, 0, &WeightV1::decode(&aligned(body)).unwrap()).unwrap(),
            Kind::Stats => writer.stats(number, stats.next().unwrap()).unwrap(),
            Kind::Step => {
                let Some(record) = steps.next() else { continue };
                writer.record(number, record.step, record).unwrap();
                step = record.step + 1;
            }
            _ => {}
        }
    }
    records.losses.iter().for_each(|loss| writer.record(number, 0, loss).unwrap());
    if !records.ended {
        return memory.bytes();
    }
    writer.record(number, 0, &records.coverage).unwrap();
    writer.record(number, 0, &records.end).unwrap();
    if records.sealed {
        writer.seal().unwrap();
    }
    memory.bytes()
}

fn aligned(body: &[u8]) -> rkyv::util::AlignedVec<64> {
    let mut aligned = rkyv::util::AlignedVec::new();
    aligned.extend_from_slice(body);
    aligned
}

/// What `contracts` say of the runs of `files`.
pub fn checked(files: &[Vec<u8>], contracts: &[Contract]) -> Vec<Checked> {
    let trace = |(number, file): (usize, &Vec<u8>)| {
        Trace::of(Input::of(file.clone(), Path::new(&format!("file-{number}"))).unwrap()).unwrap()
    };
    let set = TraceSet::new(files.iter().enumerate().map(trace).collect()).unwrap();
    let session = Session::in_batches_of(128, set, DEFAULT_MEMORY).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    runtime.block_on(check(&session, contracts, 3)).unwrap()
}

/// The outcome of each obligation, `contract/obligation` and labels of its runs.
pub fn outcomes(checked: &[Checked]) -> BTreeMap<(String, String), Outcome> {
    let mut outcomes = BTreeMap::new();
    for contract in checked {
        for judged in &contract.judged {
            let labels: Vec<&str> = judged.runs.iter().map(|(label, _)| label.as_str()).collect();
            let key = (format!("{}/{}", contract.id, judged.id), labels.join(" "));
            outcomes.insert(key, judged.outcome.clone());
        }
    }
    outcomes
}

/// The shipped contract `name`.
pub fn contract(name: &str) -> Contract {
    find(name).unwrap()
}
