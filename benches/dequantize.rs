//! How fast blocks become f32, a core: `cargo bench --bench dequantize`.
//!
//! One row of each type is converted again and again, from cache to cache. The rate is that of the f32 values written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a benchmark, a panic is the report")]

use actrace::model::TensorType;
use actrace::model::quant::dequantize;
use std::hint::black_box;
use std::time::Instant;

/// Elements of the row: its values fill half of a common L1 cache.
const COLUMNS: usize = 4096;
const REPEATS: usize = 4096;
/// Of which the best counts: a shared machine only ever slows a round down.
const ROUNDS: usize = 7;

fn main() {
    for tensor_type in TensorType::ALL {
        let bytes = tensor_type.row_bytes(COLUMNS).unwrap();
        // No NaN among the scales, whose arithmetic could take longer: every byte is below 0x7c.
        let packed: Vec<u8> = (0..bytes).map(|i| (i * 37 % 124) as u8).collect();
        let mut values = vec![0f32; COLUMNS];
        let mut best = f64::MAX;
        for _ in 0..ROUNDS {
            let start = Instant::now();
            for _ in 0..REPEATS {
                dequantize(tensor_type, black_box(&packed), black_box(&mut values)).unwrap();
            }
            best = best.min(start.elapsed().as_secs_f64());
        }
        println!("{:>7} {:6.2} GB/s", tensor_type.name(), (REPEATS * COLUMNS * 4) as f64 / best / 1e9);
    }
}
