//! CUDA against the processor. On a host without a card each test prints `skipped: no CUDA`.

use crate::planted_faults_show::every_fault_is_named;
use crate::running::{Capture, capture, json, open, place, prompt, untraced};
use crate::support::rel_l2;
use actrace::backend::cuda::{ComputeType, CudaBackend, FORMATS};
use actrace::backend::{Backend, Batch, Captured, CpuBackend, Semantics};
use actrace::forward::{Forward, Observer, Request, StepReport, Wanted};
use actrace::graph::{Operation, RowAxes, Site, SiteId};
use actrace::model::{Layout, Model, Role, TensorType, Weight, WeightKey, quant};
use actrace::stats::RowStatistics;
use std::ops::Range;
use std::path::Path;

/// The limit that a point keeps over all positions of a run on another device, in f32. Sums in another order reach a few
/// 1e-6; a fault in any operation is far above it. Scores of tiny-gpt2 reach 5000, where one unit of an f32 is 5e-4 and
/// softmax makes a relative error of it: a single row of its attn_probs may be 3e-4 off between two right runs.
pub const TOLERANCE: f64 = 1e-4;

pub const FILES: [&str; 8] = [
    "tiny-qwen2.safetensors",
    "tiny-qwen2.f16",
    "tiny-qwen2.q8_0",
    "tiny-qwen2.q4_k_m",
    "tiny-gpt2.safetensors",
    "tiny-gpt2.f16",
    "tiny-gpt2.q8_0",
    "tiny-gpt2.q4_k_m",
];

/// A card, where this host has one. Where it has, everything else that is missing is a failure.
pub fn card(compute: ComputeType) -> Option<CudaBackend> {
    if !Path::new("/dev/nvidiactl").exists() {
        println!("skipped: no CUDA");
        return None;
    }
    Some(CudaBackend::new(0, compute, 2).unwrap())
}

/// Runs `model` on both, everything captured: greedy tokens are equal, and points beyond the tolerance are added to
/// `beyond`. Returns the tokens.
pub fn both(name: &str, model: &Model, tokens: &[u32], generate: usize, beyond: &mut Vec<String>) -> Vec<u32> {
    let processor = CpuBackend::new(Semantics::DequantizeF32, 2).unwrap();
    let (expected, on_processor) = capture(&mut Forward::new(model, processor).unwrap(), tokens, generate);
    let mut forward = Forward::new(model, card(ComputeType::F32).unwrap()).unwrap();
    let (shown, generation) = capture(&mut forward, tokens, generate);
    assert_eq!(generation.tokens, on_processor.tokens, "{name}");
    assert_eq!(expected.rows.len(), shown.rows.len());
    let steps = 0..generate.max(1) as u32;
    let mut worst = (0f64, String::new());
    for site in &forward.graph().sites {
        let whole = |run: &Capture| steps.clone().flat_map(|step| run.values(step, site.id)).collect::<Vec<_>>();
        let error = rel_l2(&whole(&expected), &whole(&shown));
        let at = format!("{} #{}", place(site), site.occurrence);
        if error.is_nan() || error > TOLERANCE {
            beyond.push(format!("{name}: {error:e} at {at}"));
        }
        if error > worst.0 {
            worst = (error, at);
        }
    }
    println!("{name}: worst of {} points {:.1e} at {}", forward.graph().sites.len(), worst.0, worst.1);
    generation.tokens
}

#[test]
fn every_point_of_every_file_agrees_with_the_processor() {
    let Some(first) = card(ComputeType::F32) else { return };
    println!(
        "device: {} · driver {} · CUDA {}",
        first.identity().device_name,
        first.identity().driver,
        first.identity().cuda
    );
    let continuations = &json("reference/prompt.json")["greedy_continuation_hf_f32"];
    let mut beyond = Vec::new();
    for file in FILES {
        let tokens = both(file, &open(file), &prompt(), 24, &mut beyond);
        if let Some(name) = file.strip_suffix(".safetensors") {
            assert_eq!(tokens, crate::running::ids(&continuations[name]), "{file}");
        }
    }
    assert!(beyond.is_empty(), "{} points beyond {TOLERANCE:e}: {beyond:#?}", beyond.len());
}

/// Integers are equal; f64 sums of distances differ by roundings of the largest partial sum.
pub fn agree(host: &RowStatistics, card: &RowStatistics, what: &str) {
    let counts = |s: &RowStatistics| (s.count, s.nan, s.pos_inf, s.neg_inf, s.zero, s.subnormal, s.fingerprint);
    assert_eq!(counts(host), counts(card), "{what}");
    let bits = |s: &RowStatistics| {
        let extremes = s.extremes.map(|e| [e.min, e.max, e.absmax].map(|(value, index)| (value.to_bits(), index)));
        (extremes, s.abs_smallest.map(f64::to_bits), s.moments.count)
    };
    assert_eq!(bits(host), bits(card), "{what}");
    // Each sum is of n terms no larger than this, rounded n times at most.
    let largest = host.extremes.map_or(0.0, |extremes| extremes.absmax.0);
    let n = f64::from(host.count);
    let close = |a: f64, b: f64, scale: f64| (a - b).abs() <= 4.0 * f64::EPSILON * n * scale.max(f64::MIN_POSITIVE);
    assert!(close(host.moments.mean, card.moments.mean, largest), "{what}: mean");
    assert!(close(host.l1, card.l1, n * largest), "{what}: l1");
    assert!(close(host.moments.m2, card.moments.m2, n * 4.0 * largest * largest), "{what}: m2");
}

#[test]
fn statistics_of_the_card_are_those_of_the_host() {
    let Some(backend) = card(ComputeType::F32) else { return };
    let model = open("tiny-gpt2.safetensors");
    let mut forward = Forward::new(&model, backend).unwrap();
    let (shown, _) = capture(&mut forward, &prompt(), 3);
    let mut rows = 0;
    for (key, statistics) in &shown.statistics {
        let values = shown.rows[key].iter().flat_map(|rows| (0..rows.len()).map(|row| rows.row(row)));
        for (row, statistics) in values.zip(statistics) {
            agree(&RowStatistics::of(row), statistics, &format!("{key:?}"));
            rows += 1;
        }
    }
    println!("statistics of {rows} rows agree");
    assert!(rows > 1000);
}

pub fn weight(role: Role, tensor_type: TensorType, rows: usize, columns: usize, data: Vec<u8>) -> Weight {
    Weight {
        scales: None,
        stored_name: "planted".into(),
        key: WeightKey::outside(role),
        tensor_type,
        rows,
        columns,
        layout: Layout::Rows { first: 0 },
        file: 0,
        offset: 0,
        data: data.into(),
    }
}

/// What `operation` makes of rows on `backend`: `inputs` are values and widths.
pub fn made<B: Backend>(
    backend: &mut B,
    operation: Operation,
    inputs: &[(&[f32], usize)],
    weights: &[Weight],
    width: usize,
    rows: usize,
) -> Vec<f32> {
    let tokens: Vec<u32> = (0..rows as u32).collect();
    let batch = Batch { tokens: &tokens, first_position: 0 };
    backend.reset_cache(&[], rows).unwrap();
    backend.begin(batch).unwrap();
    let mut load = |weight: &Weight| backend.load(weight).unwrap();
    // Weights outlive the launches that read them, which a card may put off.
    let weights: Vec<B::Weight> = weights.iter().map(&mut load).collect();
    let tables: Vec<B::Weight> = inputs
        .iter()
        .map(|(values, width)| {
            let stored = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            load(&weight(Role::TokenEmbedding, TensorType::F32, rows, *width, stored))
        })
        .collect();
    let mut row = |(table, (_, width)): (&B::Weight, &(&[f32], usize))| {
        backend.execute(&site(Operation::TokenEmbedding, *width as u32), &[], &[table], batch).unwrap()
    };
    let inputs: Vec<B::Tensor> = tables.iter().zip(inputs).map(&mut row).collect();
    let (inputs, weights): (Vec<_>, Vec<_>) = (inputs.iter().collect(), weights.iter().collect());
    let out = backend.execute(&site(operation, width as u32), &inputs, &weights, batch).unwrap();
    let captured = backend.capture(&out, 0..rows, true).unwrap();
    backend.choose(&out).unwrap();
    captured.land().unwrap().values.unwrap().values().to_vec()
}

pub fn site(operation: Operation, width: u32) -> Site {
    let axes = RowAxes::Flat { width };
    Site { id: 0, layer: None, point: "tok_embed", occurrence: 0, operation, inputs: vec![], weights: vec![], axes }
}

/// The bits of a small generator (xorshift64).
pub fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

/// Rows with every kind of value, of widths from one element to several units, at every alignment.
#[test]
fn statistics_of_wild_rows_are_those_of_the_host() {
    let Some(mut backend) = card(ComputeType::F32) else { return };
    let mut next = random(7);
    for width in [4usize, 8, 36, 252, 1020, 4096, 32768, 32772, 152_064] {
        let rows = 6;
        let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-40, -1e-40, f32::MAX, f32::MIN];
        let values: Vec<f32> = (0..rows * width)
            .map(|i| match i / width {
                0 => f32::from_bits(next() as u32),
                1 => special[next() as usize % special.len()],
                2 => f32::NAN,
                3 => 8192.0 + (next() % 3) as f32,
                4 => -0.0,
                _ => (next() as i32) as f32 / 1e9,
            })
            .collect();
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let weight = backend.load(&weight(Role::TokenEmbedding, TensorType::F32, rows, width, data)).unwrap();
        backend.reset_cache(&[], rows).unwrap();
        let tokens: Vec<u32> = (0..rows as u32).collect();
        // All rows at once, then a few: both ways that a batch takes.
        for tokens in [&tokens[..], &tokens[2..4]] {
            let batch = Batch { tokens, first_position: 0 };
            backend.begin(batch).unwrap();
            let tensor =
                backend.execute(&site(Operation::TokenEmbedding, width as u32), &[], &[&weight], batch).unwrap();
            let captured = backend.capture(&tensor, 0..tokens.len(), true).unwrap();
            let choice = backend.choose(&tensor).unwrap();
            let landed = captured.land().unwrap();
            let shown = landed.values.unwrap();
            for (row, token) in tokens.iter().enumerate() {
                let expected = &values[*token as usize * width..][..width];
                let bits = |row: &[f32]| row.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(shown.row(row)), bits(expected), "row {token} of width {width}");
                agree(&RowStatistics::of(expected), &landed.statistics[row], &format!("row {token} of width {width}"));
            }
            let last = &values[tokens[tokens.len() - 1] as usize * width..][..width];
            assert_eq!(choice, actrace::backend::Choice::of(last), "width {width}");
        }
    }
}

/// Random blocks whose values are ordinary: scales of 2^-10 or so.
pub fn blocks(tensor_type: TensorType, elements: usize, next: &mut impl FnMut() -> u64) -> Vec<u8> {
    let mut bytes = vec![0u8; tensor_type.row_bytes(elements).unwrap()];
    if tensor_type.block_elements() == 1 {
        for value in bytes.chunks_exact_mut(tensor_type.block_bytes()) {
            let x = (next() as i32) as f32 / 2f32.powi(32);
            match tensor_type {
                TensorType::F32 => value.copy_from_slice(&x.to_le_bytes()),
                TensorType::F16 => value.copy_from_slice(&half::f16::from_f32(x).to_le_bytes()),
                _ => value.copy_from_slice(&half::bf16::from_f32(x).to_le_bytes()),
            }
        }
        return bytes;
    }
    let size = tensor_type.block_bytes();
    for block in bytes.chunks_exact_mut(size) {
        block.iter_mut().for_each(|byte| *byte = next() as u8);
        let scales: &[usize] = match tensor_type {
            TensorType::Q4_1 | TensorType::Q5_1 | TensorType::Q4K | TensorType::Q5K => &[0, 2],
            TensorType::Q2K => &[80, 82],
            TensorType::Q3K => &[108],
            TensorType::Q6K => &[208],
            TensorType::Mxfp4 => &[],
            _ => &[0],
        };
        for at in scales {
            let scale = half::f16::from_f32(2f32.powi(-10) * (1.0 + (next() % 64) as f32 / 64.0));
            block[*at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
        if tensor_type == TensorType::Mxfp4 {
            // An exponent instead: half of 2^(117 - 127).
            block[0] = 117;
        }
    }
    bytes
}

pub fn same_bits(expected: &[f32], shown: &[f32], what: &str) {
    assert_eq!(expected.len(), shown.len(), "{what}");
    let differ = |(a, b): &(&f32, &f32)| a.to_bits() != b.to_bits() && !(a.is_nan() && b.is_nan());
    let first = expected.iter().zip(shown).enumerate().find(|(_, pair)| differ(pair));
    assert!(first.is_none(), "{what}: {first:?}");
}

/// A product of `m` rows with a weight of each type against f64 sums, weights converted by the library's own tables
/// (which are held against the `gguf` package). Neither side is a multiple of any tile, and the weight is not square.
#[test]
fn products_of_every_type_agree_with_f64_sums() {
    let (n, k) = (61usize, 256 * 5);
    for (compute, m) in [
        (ComputeType::F32, 1),
        (ComputeType::F32, 3),
        (ComputeType::F32, 37),
        (ComputeType::F16, 37),
        (ComputeType::Bf16, 37),
    ] {
        let Some(mut backend) = card(compute) else { return };
        for tensor_type in FORMATS {
            let mut next = random(tensor_type as u64 + 11);
            let data = blocks(tensor_type, n * k, &mut next);
            let mut w = vec![0f32; n * k];
            quant::dequantize(tensor_type, &data, &mut w).unwrap();
            let x: Vec<f32> = (0..m * k).map(|_| (next() as i32) as f32 / 2f32.powi(31)).collect();
            let w_weight = weight(Role::Q, tensor_type, n, k, data);
            let shown = made(&mut backend, Operation::MatMul, &[(&x, k)], &[w_weight], n, m);
            let round = |x: f32| match compute {
                ComputeType::F32 => f64::from(x),
                ComputeType::F16 => half::f16::from_f32(x).to_f64(),
                ComputeType::Bf16 => half::bf16::from_f32(x).to_f64(),
            };
            let expected: Vec<f32> = (0..m * n)
                .map(|i| {
                    let (x, w) = (&x[i / n * k..][..k], &w[i % n * k..][..k]);
                    x.iter().zip(w).map(|(x, w)| round(*x) * round(*w)).sum::<f64>() as f32
                })
                .collect();
            // f32 sums of 1280 terms: a few roundings of the sum of magnitudes, which cancellation makes about sqrt(k)
            // larger than the result.
            let error = rel_l2(&expected, &shown);
            assert!(error <= 5e-6, "{} {m} rows in {}: {error:e}", tensor_type.name(), compute.name());
            println!("{} {m} rows in {}: {error:.1e}", tensor_type.name(), compute.name());
        }
    }
}

/// Wants what a selection may ask for.
struct Selected {
    values: bool,
    every: SiteId,
    landed: Vec<Captured>,
}

impl Observer for Selected {
    fn wants(&mut self, site: SiteId, positions: Range<usize>) -> Option<Wanted> {
        site.is_multiple_of(self.every).then(|| Wanted { rows: 0..positions.len(), values: self.values })
    }
    fn capture(&mut self, _: u32, _: SiteId, _: usize, rows: Captured) -> actrace::Result<()> {
        self.landed.push(rows);
        Ok(())
    }
    fn step(&mut self, _: &StepReport) -> actrace::Result<()> {
        self.landed.drain(..).try_for_each(|rows| rows.land().map(drop))
    }
}

#[test]
fn observing_a_card_changes_nothing() {
    for compute in [ComputeType::F32, ComputeType::Bf16] {
        for file in ["tiny-qwen2.q4_k_m", "tiny-gpt2.safetensors"] {
            let Some(backend) = card(compute) else { return };
            let model = open(file);
            let mut forward = Forward::new(&model, backend).unwrap();
            let expected = untraced(&mut forward, &prompt(), 12);
            let (_, everything) = capture(&mut forward, &prompt(), 12);
            assert_eq!(everything, expected, "{file}: all tensors");
            for (values, every) in [(false, 1), (true, 3), (false, 7)] {
                let mut observer = Selected { values, every, landed: Vec::new() };
                let request = Request { tokens: &prompt(), generate: 12, stop_at: &[] };
                let generation = forward.generate(&request, &mut observer).unwrap();
                assert_eq!(generation, expected, "{file}: every {every}th site, values {values}");
            }
        }
    }
}

/// A long prompt, so that tiles of attention are full and ragged rows long; in one chunk and in several.
#[test]
fn long_prompts_agree_with_the_processor() {
    let Some(backend) = card(ComputeType::F32) else { return };
    let model = open("tiny-qwen2.safetensors");
    let tokens: Vec<u32> = (0..301).map(|i| i * 37 % 2000).collect();
    let processor = CpuBackend::new(Semantics::DequantizeF32, 4).unwrap();
    let (expected, _) = capture(&mut Forward::new(&model, processor).unwrap(), &tokens, 2);
    let mut forward = Forward::new(&model, backend).unwrap();
    for chunk in [1 << 30, 1 << 20] {
        forward = forward.with_chunk_bytes(chunk);
        let (shown, _) = capture(&mut forward, &tokens, 2);
        for (step, site) in expected.rows.keys() {
            let error = rel_l2(&expected.values(*step, *site), &shown.values(*step, *site));
            let at = place(&forward.graph().sites[*site as usize]);
            assert!(error <= TOLERANCE, "{error:e} at {at} of step {step}, chunks of {chunk}");
        }
    }
}

#[test]
fn faults_planted_on_a_card_are_named() {
    if card(ComputeType::F32).is_none() {
        return;
    }
    every_fault_is_named(&open("tiny-qwen2.safetensors"), TOLERANCE, || card(ComputeType::F32).unwrap());
}

#[test]
fn memory_that_is_not_there_is_refused_with_what_is_free() {
    let Some(mut backend) = card(ComputeType::F32) else { return };
    let store = site(Operation::CacheStore, 1 << 20);
    let error = backend.reset_cache(&[store], 1 << 28).unwrap_err().to_string();
    assert!(error.contains("out of memory: the KV cache needs") && error.contains("MiB are free"), "{error}");
    let model = open("tiny-gpt2.safetensors");
    let generation = untraced(&mut Forward::new(&model, backend).unwrap(), &prompt(), 1);
    assert_eq!(generation.tokens.len(), 1, "and the card goes on");
}

/// Rows that wait for a batch that never comes are told so.
#[test]
fn a_batch_that_is_given_up_leaves_nobody_waiting() {
    let Some(mut backend) = card(ComputeType::F32) else { return };
    let table = backend.load(&weight(Role::TokenEmbedding, TensorType::F32, 1, 4, vec![0; 16])).unwrap();
    backend.reset_cache(&[], 1).unwrap();
    let batch = Batch { tokens: &[0], first_position: 0 };
    backend.begin(batch).unwrap();
    let tensor = backend.execute(&site(Operation::TokenEmbedding, 4), &[], &[&table], batch).unwrap();
    let captured = backend.capture(&tensor, 0..1, false).unwrap();
    drop(backend);
    assert!(captured.land().unwrap_err().to_string().contains("given up"));
}
