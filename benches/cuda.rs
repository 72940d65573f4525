//! What tracing costs on a card: a large model untraced, with statistics of every point, with all tensors.
//!
//! `cargo bench --no-default-features --features record --bench cuda -- MODEL.gguf [FOLDER [COMPUTE..]]` on a host
//! with a card; FOLDER is where traces are written, COMPUTE is among f32, f16 and bf16.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a program for developers")]

#[path = "../tests/support/trace.rs"]
#[allow(dead_code, reason = "a benchmark uses a part of it")]
mod trace;

use actrace::backend::cuda::{ComputeType, CudaBackend};
use actrace::backend::{Backend, Captured};
use actrace::capture::{Layers, Names, Plan, Positions, Selection};
use actrace::codec::Encoder;
use actrace::file::{Durability, FileStorage, Storage, Writer};
use actrace::forward::{Forward, Observer, Phase, Request, StepReport, Wanted};
use actrace::graph::SiteId;
use actrace::model::{Model, WeightKey};
use actrace::record::RunV1;
use actrace::recorder::{Outcome, Recorder};
use actrace::tensor::Dtype;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const PROMPT: usize = 512;
const DECODED: usize = 64;
const ROUNDS: usize = 3;
/// The bus: page-locked copies to the host, GB/s.
const BUS: f64 = 55.0;

/// What is wanted of every site while times are taken.
#[derive(Default)]
struct Watch {
    prefill: Duration,
    decode: Duration,
}

impl Observer for Watch {
    fn wants(&mut self, _: SiteId, _: Range<usize>) -> Option<Wanted> {
        None
    }
    fn capture(&mut self, _: u32, _: SiteId, _: usize, _: Captured) -> actrace::Result<()> {
        Ok(())
    }
    fn step(&mut self, report: &StepReport) -> actrace::Result<()> {
        *(if report.phase == Phase::Prefill { &mut self.prefill } else { &mut self.decode }) += report.elapsed;
        Ok(())
    }
}

/// A recorder whose steps are timed.
struct Timed<S: Storage + 'static> {
    recorder: Recorder<S>,
    watch: Watch,
    /// The site of which the last row alone is wanted.
    last_of: Option<SiteId>,
}

impl<S: Storage + 'static> Observer for Timed<S> {
    fn wants(&mut self, site: SiteId, positions: Range<usize>) -> Option<Wanted> {
        let wanted = self.recorder.wants(site, positions.clone())?;
        let rows = if self.last_of == Some(site) { positions.len() - 1..positions.len() } else { wanted.rows };
        Some(Wanted { rows, ..wanted })
    }
    fn capture(&mut self, step: u32, site: SiteId, first: usize, rows: Captured) -> actrace::Result<()> {
        self.recorder.capture(step, site, first, rows)
    }
    fn step(&mut self, report: &StepReport) -> actrace::Result<()> {
        self.watch.step(report)?;
        self.recorder.step(report)
    }
}

/// Takes everything and keeps nothing.
struct Nowhere;

impl Storage for Nowhere {
    fn append(&mut self, _: &[&[u8]]) -> std::io::Result<()> {
        Ok(())
    }
    fn sync(&mut self) -> std::io::Result<()> {
        Ok(())
    }
    fn path(&self) -> &Path {
        Path::new("nowhere")
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let model = arguments.next().expect("the path of a model: see actrace synth");
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let computes: Vec<String> = arguments.collect();
    let model = Model::open(Path::new(&model)).unwrap();
    for compute in [ComputeType::F32, ComputeType::F16, ComputeType::Bf16] {
        if computes.is_empty() && compute != ComputeType::F16 || computes.iter().any(|name| name == compute.name()) {
            bench(&model, compute, &folder);
        }
    }
}

fn bench(model: &Model, compute: ComputeType, folder: &Path) {
    let start = Instant::now();
    let backend = CudaBackend::new(0, compute, threads()).unwrap();
    println!("{} · {} · driver {}", compute.name(), backend.identity().device_name, backend.identity().driver);
    println!("  card opened in {:.2} s", start.elapsed().as_secs_f64());
    let start = Instant::now();
    let mut forward = Forward::new(model, backend).unwrap();
    println!("  weights loaded in {:.2} s", start.elapsed().as_secs_f64());
    let tokens: Vec<u32> = (0..PROMPT as u32).map(|i| i * 7919 % model.hyper().vocabulary).collect();
    let request = Request { tokens: &tokens, generate: DECODED + 1, stop_at: &[] };
    let untraced = best(|| {
        let mut watch = Watch::default();
        forward.generate(&request, &mut watch).unwrap();
        watch
    });
    report("untraced", &untraced, &untraced);
    let bound = weight_bytes(model, &forward) as f64 / bandwidth(&forward);
    println!(
        "  decode reads {:.3} GB of weights a token: {:.3} ms at {:.2} TB/s; {:.0} % of that bound",
        weight_bytes(model, &forward) as f64 / 1e9,
        bound * 1e3,
        bandwidth(&forward) / 1e12,
        100.0 * bound * DECODED as f64 / untraced.decode.as_secs_f64()
    );
    // Unobserved, the logits of the last token alone are computed: what the others cost is not what tracing costs.
    for (what, logits) in [("statistics, last logits", false), ("statistics, all logits", true)] {
        let statistics = best(|| recorded(model, &mut forward, &request, ("none", logits), Nowhere).0);
        report(what, &statistics, &untraced);
    }
    tensors(model, &mut forward, &request, folder);
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// All tensors: into nowhere, where bus and codec are the bounds, and into a file.
fn tensors<B: Backend>(model: &Model, forward: &mut Forward<B>, request: &Request<'_>, folder: &Path) {
    let (watch, bytes, wall) = recorded(model, forward, request, ("all", true), Nowhere);
    let gb = bytes as f64 / 1e9;
    println!(
        "  all tensors, not written: {gb:.2} GB in {:.2} s, {:.2} GB/s (prefill {:.3} s, decode {:.3} s)",
        wall.as_secs_f64(),
        gb / wall.as_secs_f64(),
        watch.prefill.as_secs_f64(),
        watch.decode.as_secs_f64()
    );
    let path = folder.join("bench.actrace");
    let _ = std::fs::remove_file(&path);
    // A disk is not the same from one second to the next: it is measured on both sides.
    let before = disk(&path, bytes);
    let storage = FileStorage::create(&path).unwrap();
    let (watch, bytes, wall) = recorded(model, forward, request, ("all", true), storage);
    let file = std::fs::metadata(&path).unwrap().len();
    println!(
        "  all tensors, in a file: {:.2} GB of values, {:.2} GB of file in {:.2} s, {:.2} GB/s of values (prefill {:.3} s, decode {:.3} s)",
        bytes as f64 / 1e9,
        file as f64 / 1e9,
        wall.as_secs_f64(),
        bytes as f64 / 1e9 / wall.as_secs_f64(),
        watch.prefill.as_secs_f64(),
        watch.decode.as_secs_f64()
    );
    let _ = std::fs::remove_file(&path);
    let (after, codec) = (disk(&path, file), codec(&sample(forward, request)));
    let disk = (before + after) / 2.0;
    let of_values = disk * bytes as f64 / file as f64;
    let rate = bytes as f64 / 1e9 / wall.as_secs_f64();
    println!(
        "  bounds: bus {BUS} GB/s, codec {codec:.2} GB/s of values, disk {before:.2} and {after:.2} GB/s of file, {of_values:.2} GB/s of values; {:.0} % of the slowest",
        100.0 * rate / BUS.min(codec).min(of_values)
    );
}

/// Some of what was captured, to measure the codec with.
fn sample<B: Backend>(forward: &mut Forward<B>, request: &Request<'_>) -> Vec<Vec<f32>> {
    struct Sample(Vec<Captured>, Vec<Vec<f32>>);
    impl Observer for Sample {
        fn wants(&mut self, site: SiteId, positions: Range<usize>) -> Option<Wanted> {
            // Every point of one layer in the middle, more or less.
            (200..225).contains(&site).then(|| Wanted { rows: 0..positions.len().min(48), values: true })
        }
        fn capture(&mut self, _: u32, _: SiteId, _: usize, rows: Captured) -> actrace::Result<()> {
            self.0.push(rows);
            Ok(())
        }
        fn step(&mut self, _: &StepReport) -> actrace::Result<()> {
            for rows in self.0.drain(..) {
                self.1.push(rows.land()?.values.unwrap().values().to_vec());
            }
            Ok(())
        }
    }
    let mut sample = Sample(Vec::new(), Vec::new());
    forward.generate(&Request { generate: 1, ..*request }, &mut sample).unwrap();
    sample.1
}

/// Statistics are the card's; the host hashes and packs. GB/s of values on all threads, the best of some rounds.
fn codec(values: &[Vec<f32>]) -> f64 {
    let raw: Vec<Vec<u8>> = values.iter().map(|v| v.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    let bytes: usize = raw.iter().map(Vec::len).sum();
    let passes = 8;
    let rate = || {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..threads() {
                scope.spawn(|| {
                    let mut encoder = Encoder::new().unwrap();
                    for raw in std::iter::repeat_n(&raw, passes).flatten() {
                        let mut out = Vec::with_capacity(raw.len());
                        std::hint::black_box(blake3::hash(raw));
                        encoder.encode(Dtype::F32, raw, &mut out).unwrap();
                        std::hint::black_box(out);
                    }
                });
            }
        });
        (bytes * passes * threads()) as f64 / 1e9 / start.elapsed().as_secs_f64()
    };
    (0..ROUNDS).map(|_| rate()).fold(0.0, f64::max)
}

/// Sequential writing of `bytes` bytes to the folder of `path`, GB/s, while another thread syncs all the time: what the disk
/// can do where it never waits for bytes. A trace is on the disk when it is sealed, so this is too.
fn disk(path: &Path, bytes: u64) -> f64 {
    let probe = path.with_extension("probe");
    let mut file = std::fs::File::create(&probe).unwrap();
    // Nothing that a disk could store as a repetition.
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state ^ state >> 29
    };
    let block: Vec<u8> = (0..32 << 20).flat_map(|_| next().to_le_bytes()).collect();
    let blocks = bytes.div_ceil(block.len() as u64);
    let (written, synced) = (AtomicBool::new(false), file.try_clone().unwrap());
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !written.load(Ordering::Acquire) {
                synced.sync_data().unwrap();
            }
        });
        let mut pieces = std::iter::repeat_n(block.chunks(4 << 20), blocks as usize).flatten();
        let all = pieces.try_for_each(|piece| file.write_all(piece));
        written.store(true, Ordering::Release);
        all.unwrap();
    });
    file.sync_all().unwrap();
    let rate = (block.len() as u64 * blocks) as f64 / 1e9 / start.elapsed().as_secs_f64();
    let _ = std::fs::remove_file(&probe);
    rate
}

/// One recorded run; its times, the raw bytes of its tensors, and the time until everything was handed to storage.
fn recorded<B: Backend, S: Storage + 'static>(
    model: &Model,
    forward: &mut Forward<B>,
    request: &Request<'_>,
    (tensors, all_logits): (&str, bool),
    storage: S,
) -> (Watch, u64, Duration) {
    let selection = Selection {
        points: Names::parse("all").unwrap(),
        layers: Layers::parse("all").unwrap(),
        positions: Positions::parse("all").unwrap(),
        tensors: Names::parse(tensors).unwrap(),
    };
    let positions = request.tokens.len() + request.generate - 1;
    let plan = Plan::new(model, forward.graph(), &selection, request.tokens.len(), positions).unwrap();
    let writer = Writer::create(storage, trace::HEADER).unwrap().with_durability(Durability::default());
    let run = RunV1 { label: "bench".into(), ..trace::run() };
    let start = Instant::now();
    let recorder = Recorder::begin(writer, &run, plan, threads()).unwrap();
    let last_of = forward.graph().sites.last().map(|site| site.id).filter(|_| !all_logits);
    let mut timed = Timed { recorder, watch: Watch::default(), last_of };
    forward.generate(request, &mut timed).unwrap();
    let summary = timed.recorder.finish(&Outcome::Finished).unwrap();
    (timed.watch, summary.tensor_bytes, start.elapsed())
}

fn best(mut run: impl FnMut() -> Watch) -> Watch {
    let rounds = (0..ROUNDS).map(|_| run());
    rounds.reduce(|a, b| Watch { prefill: a.prefill.min(b.prefill), decode: a.decode.min(b.decode) }).unwrap()
}

fn report(what: &str, watch: &Watch, untraced: &Watch) {
    let percent = |a: Duration, b: Duration| 100.0 * (a.as_secs_f64() / b.as_secs_f64() - 1.0);
    println!(
        "  {what}: prefill {:.1} ms, {:.0} tokens/s ({:+.1} %); decode {:.3} ms a token, {:.1} tokens/s ({:+.1} %)",
        watch.prefill.as_secs_f64() * 1e3,
        PROMPT as f64 / watch.prefill.as_secs_f64(),
        percent(watch.prefill, untraced.prefill),
        watch.decode.as_secs_f64() * 1e3 / DECODED as f64,
        DECODED as f64 / watch.decode.as_secs_f64(),
        percent(watch.decode, untraced.decode)
    );
}

/// Stored bytes of the weights that a decoded token multiplies with.
fn weight_bytes<B: Backend>(model: &Model, forward: &Forward<B>) -> usize {
    let products = forward.graph().sites.iter().filter(|site| site.operation.name() == "mat_mul");
    let bytes = |key: &WeightKey| {
        let weight = model.weight(*key).unwrap();
        weight.rows * weight.tensor_type.row_bytes(weight.columns).unwrap()
    };
    products.flat_map(|site| &site.weights).map(bytes).sum()
}

/// The card's nominal memory bandwidth in bytes/s.
fn bandwidth(forward: &Forward<CudaBackend>) -> f64 {
    forward.backend().memory_bandwidth()
}
