//! Each operation of the graph on a card against the processor, for a few rows and for many: the kernels are not the same.
//! On a host without a card each test prints `skipped: no CUDA`.

use crate::cards_agree_with_the_processor::{agree, blocks, card, made, random, same_bits, site, weight};
use crate::support::rel_l2;
use actrace::backend::cuda::{ComputeType, FORMATS};
use actrace::backend::{Backend, Batch, CpuBackend, Landed, Semantics};
use actrace::graph::{Operation, RowAxes, Site};
use actrace::model::{Activation, Role, TensorType, Weight};
use actrace::stats::RowStatistics;
use std::ops::Range;

/// Sums of some hundred f32 terms in two orders, and functions that are a few units of the last place off.
const TOLERANCE: f64 = 5e-6;

fn processor() -> CpuBackend {
    CpuBackend::new(Semantics::DequantizeF32, 2).unwrap()
}

fn values(count: usize, next: &mut impl FnMut() -> u64) -> Vec<f32> {
    (0..count).map(|_| (next() as i32) as f32 / 2f32.powi(29)).collect()
}

fn floats(role: Role, rows: usize, columns: usize, next: &mut impl FnMut() -> u64) -> Weight {
    let data = values(rows * columns, next).iter().flat_map(|value| value.to_le_bytes()).collect();
    weight(role, TensorType::F32, rows, columns, data)
}

/// An operation, its inputs with their widths, its weights, and the width of its result.
type Case<'a> = (Operation, Vec<(&'a [f32], usize)>, Vec<Weight>, usize);

#[test]
fn operations_of_elements_and_rows() {
    let Some(mut backend) = card(ComputeType::F32) else { return };
    let (width, outputs) = (512usize, 36usize);
    for rows in [3, 37] {
        let mut next = random(rows as u64);
        let [a, b, c] = [0; 3].map(|_| values(rows * width, &mut next));
        let (gain, bias) = (floats(Role::QNorm, 1, 128, &mut next), floats(Role::QBias, 1, outputs, &mut next));
        let matrix = floats(Role::Q, outputs, width, &mut next);
        let gate = floats(Role::SharedRouter, 1, width, &mut next);
        let one = || vec![(a.as_slice(), width)];
        let two = || vec![(a.as_slice(), width), (b.as_slice(), width)];
        let three = || vec![(a.as_slice(), width), (b.as_slice(), width), (c.as_slice(), width)];
        let head_norm = |weight_offset, groups| Operation::RmsNorm { epsilon: 1e-6, weight_offset, groups };
        let cases: Vec<Case<'_>> = vec![
            (Operation::Sum, three(), vec![], width),
            (Operation::Scale { factor: 5.65625 }, one(), vec![], width),
            (Operation::SoftCap { cap: 2.5 }, one(), vec![], width),
            (Operation::Activate(Activation::Silu), one(), vec![], width),
            (Operation::Activate(Activation::GeluTanh), one(), vec![], width),
            (Operation::Activate(Activation::GeluErf), one(), vec![], width),
            (Operation::Activate(Activation::GeluQuick), one(), vec![], width),
            (head_norm(0.0, 4), one(), vec![gain.clone()], width),
            (head_norm(1.0, 4), one(), vec![gain], width),
            (Operation::Linear, one(), vec![matrix.clone(), bias], outputs),
            (Operation::GatedMatMul, two(), vec![matrix, gate], outputs),
            (Operation::RowSoftmax, one(), vec![], width),
        ];
        for (operation, inputs, weights, width) in cases {
            let expected = made(&mut processor(), operation, &inputs, &weights, width, rows);
            let shown = made(&mut backend, operation, &inputs, &weights, width, rows);
            let error = rel_l2(&expected, &shown);
            println!("{} of {rows} rows: {error:.1e}", operation.name());
            assert!(error <= TOLERANCE, "{} of {rows} rows: {error:e}", operation.name());
        }
    }
}

/// The chosen are the same, whatever stands in the row: equals, infinities, NaN.
#[test]
fn routers_choose_the_same_experts() {
    let Some(mut backend) = card(ComputeType::F32) else { return };
    let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 0.25, 0.5];
    for (experts, used) in [(8usize, 2usize), (60, 4), (128, 8), (300, 12), (4, 4)] {
        for rows in [2, 40] {
            let mut next = random(experts as u64);
            let value = |i: usize| match i / experts % 4 {
                0 => (next() as i32) as f32 / 2f32.powi(31),
                1 => special[next() as usize % special.len()],
                2 => 1.0 / experts as f32,
                _ => (next() % 5) as f32,
            };
            let x: Vec<f32> = (0..rows * experts).map(value).collect();
            let top = Operation::TopK { count: used as u32 };
            let chosen = made(&mut processor(), top, &[(&x, experts)], &[], used, rows);
            let shown = made(&mut backend, top, &[(&x, experts)], &[], used, rows);
            same_bits(&chosen, &shown, &format!("{used} of {experts} in {rows} rows"));
            for normalised in [false, true] {
                if !used.is_multiple_of(4) {
                    continue;
                }
                let operation = Operation::ExpertWeights { normalised };
                let inputs = [(x.as_slice(), experts), (chosen.as_slice(), used)];
                let expected = made(&mut processor(), operation, &inputs, &[], used, rows);
                let shown = made(&mut backend, operation, &inputs, &[], used, rows);
                same_bits(&expected, &shown, &format!("weights of {used} of {experts} in {rows} rows"));
            }
        }
    }
}

/// Sixteen experts, each in another type; rows of one tensor belong to different ones.
#[test]
fn experts_of_every_type() {
    let Some(mut backend) = card(ComputeType::F32) else { return };
    let (n, k, used) = (61usize, 256 * 5, 4usize);
    let mut next = random(3);
    let matrices: Vec<Weight> = FORMATS
        .into_iter()
        .map(|tensor_type| {
            let data = blocks(tensor_type, n * k, &mut next);
            let mut matrix = weight(Role::ExpertUp, tensor_type, n, k, data);
            matrix.key.expert = Some(0);
            matrix
        })
        .collect();
    for rows in [4, 37] {
        let x = values(rows * k, &mut next);
        let chosen: Vec<f32> = (0..rows * used).map(|i| ((i * 5 + i / used) % matrices.len()) as f32).collect();
        for slot in 0..used as u32 {
            let operation = Operation::ExpertMatMul { slot };
            let inputs = [(x.as_slice(), k), (chosen.as_slice(), used)];
            let expected = made(&mut processor(), operation, &inputs, &matrices, n, rows);
            let shown = made(&mut backend, operation, &inputs, &matrices, n, rows);
            for (row, (expected, shown)) in expected.chunks_exact(n).zip(shown.chunks_exact(n)).enumerate() {
                let error = rel_l2(expected, shown);
                let expert = matrices[chosen[row * used + slot as usize] as usize].tensor_type.name();
                assert!(error <= TOLERANCE, "row {row} of {rows} in slot {slot}, {expert}: {error:e}");
            }
        }
    }
}

/// More slots than one launch takes; sums are in order, so bits are equal.
#[test]
fn weighted_sums_of_slots() {
    let Some(mut backend) = card(ComputeType::F32) else { return };
    let (width, used) = (260usize, 12usize);
    for rows in [3, 37] {
        let mut next = random(rows as u64 + 1);
        let weights = values(rows * used, &mut next);
        let slots: Vec<Vec<f32>> = (0..used).map(|_| values(rows * width, &mut next)).collect();
        let mut inputs = vec![(weights.as_slice(), used)];
        inputs.extend(slots.iter().map(|slot| (slot.as_slice(), width)));
        let expected = made(&mut processor(), Operation::ExpertSum, &inputs, &[], width, rows);
        let shown = made(&mut backend, Operation::ExpertSum, &inputs, &[], width, rows);
        same_bits(&expected, &shown, &format!("{rows} rows"));
    }
}

const HEADS: u32 = 6;
const KV_HEADS: u32 = 2;
const HEAD_DIM: u32 = 20;
const POSITIONS: usize = 153;

/// Scores, probabilities and context of consecutive batches over one cache; query, keys and values are rows of tables.
/// Scores, probabilities and context of every batch; the value of position `spoilt` is not a number.
fn attended<B: Backend>(
    backend: &mut B,
    cap: Option<f32>,
    window: Option<u32>,
    spoilt: Option<usize>,
    batches: &[Range<usize>],
) -> Vec<Landed> {
    let (heads, kv_heads, head_dim) = (HEADS, KV_HEADS, HEAD_DIM);
    let (q_width, kv_width) = (heads * head_dim, kv_heads * head_dim);
    let keys = RowAxes::Keys { heads, window };
    let flat = |width| RowAxes::Flat { width };
    let scores = Operation::AttnScores { heads, kv_heads, head_dim, scale: 0.25, softcap: cap, window };
    let steps: [(Operation, &[u32], RowAxes); 8] = [
        (Operation::TokenEmbedding, &[], flat(q_width)),
        (Operation::TokenEmbedding, &[], flat(kv_width)),
        (Operation::TokenEmbedding, &[], flat(kv_width)),
        (Operation::CacheStore, &[1], flat(kv_width)),
        (Operation::CacheStore, &[2], flat(kv_width)),
        (scores, &[0, 3], keys),
        (Operation::Softmax { heads, window }, &[5], keys),
        (Operation::AttnContext { heads, kv_heads, head_dim, window }, &[6, 4], flat(q_width)),
    ];
    let sites: Vec<Site> = (0..)
        .zip(steps)
        .map(|(id, (operation, inputs, axes))| Site { id, inputs: inputs.to_vec(), axes, ..site(operation, 1) })
        .collect();
    let mut next = random(9);
    let mut table = |width: u32, spoilt: Option<usize>| {
        let mut table = values(POSITIONS * width as usize, &mut next);
        if let Some(row) = spoilt {
            table[row * width as usize..][..width as usize].fill(f32::NAN);
        }
        let data = table.iter().flat_map(|value| value.to_le_bytes()).collect();
        backend.load(&weight(Role::TokenEmbedding, TensorType::F32, POSITIONS, width as usize, data)).unwrap()
    };
    let tables = [table(q_width, None), table(kv_width, None), table(kv_width, spoilt)];
    backend.reset_cache(&sites, POSITIONS).unwrap();
    let mut landed = Vec::new();
    for positions in batches {
        let tokens: Vec<u32> = positions.clone().map(|position| position as u32).collect();
        let batch = Batch { tokens: &tokens, first_position: positions.start };
        backend.begin(batch).unwrap();
        let mut made: Vec<B::Tensor> = Vec::new();
        let mut captured = Vec::new();
        for (number, site) in sites.iter().enumerate() {
            let inputs: Vec<&B::Tensor> = site.inputs.iter().map(|id| &made[*id as usize]).collect();
            let weights: Vec<&B::Weight> = tables.get(number).into_iter().collect();
            let tensor = backend.execute(site, &inputs, &weights, batch).unwrap();
            if number >= 5 {
                captured.push(backend.capture(&tensor, 0..tokens.len(), true).unwrap());
            }
            made.push(tensor);
        }
        backend.choose(&made[7]).unwrap();
        landed.extend(captured.into_iter().map(|captured| captured.land().unwrap()));
    }
    landed
}

/// Windows shorter and longer than a tile, as long as the prompt, and none; many rows, then some that follow, then few.
#[test]
fn attention_in_windows_and_under_caps() {
    let Some(mut backend) = card(ComputeType::F32) else { return };
    let batches = [0..140, 140..147, 147..150, 150..151, 151..152, 152..153];
    let points = ["scores", "probabilities", "context"];
    for window in [None, Some(1), Some(5), Some(70), Some(140), Some(1 << 20)] {
        for cap in [None, Some(3.0)] {
            let expected = attended(&mut processor(), cap, window, None, &batches);
            let shown = attended(&mut backend, cap, window, None, &batches);
            for (number, (expected, shown)) in expected.iter().zip(&shown).enumerate() {
                let what =
                    format!("{} of {:?}, window {window:?}, cap {cap:?}", points[number % 3], batches[number / 3]);
                let (expected, rows) = (expected.values.as_ref().unwrap(), shown.values.as_ref().unwrap());
                let error = rel_l2(expected.values(), rows.values());
                assert!(error <= TOLERANCE, "{what}: {error:e}");
                for row in 0..rows.len() {
                    assert_eq!(expected.row(row).len(), rows.row(row).len(), "{what}");
                    agree(&RowStatistics::of(rows.row(row)), &shown.statistics[row], &what);
                }
            }
        }
    }
}

/// A value that is not finite is nothing to rows that do not see its key, in the middle of a tile and at its edges.
#[test]
fn a_row_takes_nothing_from_a_key_that_it_does_not_see() {
    let Some(mut backend) = card(ComputeType::F32) else { return };
    let batches = [0..140, 140..147, 147..150, 150..151];
    for window in [None, Some(5), Some(70)] {
        let whole = attended(&mut backend, None, window, None, &batches);
        for spoilt in [0, 31, 32, 100, 146] {
            let shown = attended(&mut backend, None, window, Some(spoilt), &batches);
            for (number, positions) in batches.iter().enumerate() {
                let [whole, shown] = [&whole, &shown].map(|of| of[number * 3 + 2].values.as_ref().unwrap());
                for (row, position) in positions.clone().enumerate() {
                    let sees = spoilt <= position && window.is_none_or(|window| position - spoilt < window as usize);
                    let what = format!("row {position}, value {spoilt}, window {window:?}");
                    let spoils = shown.row(row).iter().filter(|value| value.is_nan()).count();
                    assert_eq!(spoils, if sees { shown.row(row).len() } else { 0 }, "{what}");
                    assert!(sees || shown.row(row) == whole.row(row), "{what}");
                }
            }
        }
    }
}

/// A norm and its product, each by itself or both in one launch.
fn normed(backend: &mut impl Backend, rows: usize, apart: bool) -> Vec<Vec<f32>> {
    let (width, outputs) = (2560usize, 41usize);
    let mut next = random(4);
    let weights = [
        floats(Role::TokenEmbedding, rows, width, &mut next),
        floats(Role::AttnNorm, 1, width, &mut next),
        weight(Role::Q, TensorType::Q4K, outputs, width, blocks(TensorType::Q4K, outputs * width, &mut next)),
    ];
    let tokens: Vec<u32> = (0..rows as u32).collect();
    let batch = Batch { tokens: &tokens, first_position: 0 };
    backend.reset_cache(&[], rows).unwrap();
    backend.begin(batch).unwrap();
    let [table, gain, matrix] = weights.map(|weight| backend.load(&weight).unwrap());
    let norm = Operation::RmsNorm { epsilon: 1e-6, weight_offset: 0.0, groups: 1 };
    let x = backend.execute(&site(Operation::TokenEmbedding, width as u32), &[], &[&table], batch).unwrap();
    let normed = backend.execute(&site(norm, width as u32), &[&x], &[&gain], batch).unwrap();
    let mut captured = vec![backend.capture(&normed, 0..rows, true).unwrap()];
    if apart {
        backend.choose(&normed).unwrap();
    }
    let product = backend.execute(&site(Operation::MatMul, outputs as u32), &[&normed], &[&matrix], batch).unwrap();
    captured.push(backend.capture(&product, 0..rows, true).unwrap());
    backend.choose(&product).unwrap();
    captured.into_iter().map(|rows| rows.land().unwrap().values.unwrap().values().to_vec()).collect()
}

/// What a launch takes along has the bits that it has alone: where something comes between, as a shipment does, nothing
/// changes.
#[test]
fn a_norm_has_the_same_bits_with_its_product_and_alone() {
    let Some(mut backend) = card(ComputeType::F32) else { return };
    for rows in 1..=4 {
        let [apart, together] = [true, false].map(|apart| normed(&mut backend, rows, apart));
        let expected = normed(&mut processor(), rows, false);
        for (what, point) in ["norm", "product"].iter().enumerate() {
            same_bits(&apart[what], &together[what], point);
            let error = rel_l2(&expected[what], &together[what]);
            assert!(error <= TOLERANCE, "{point} of {rows} rows: {error:e}");
        }
    }
}
