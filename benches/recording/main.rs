//! What recording costs, on real activations of the small model: `cargo bench --bench recording`.
//!
//! Rates are per core, in bytes of f32 values; the recorder's pipeline (`-- pipeline` for that alone) and the runs at the
//! end use every core.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a benchmark, a panic is the report")]

mod pipeline;

use actrace::backend::{Captured, CpuBackend, Semantics};
use actrace::codec::Encoder;
use actrace::forward::{Forward, Observer, Request, StepReport, Wanted};
use actrace::graph::SiteId;
use actrace::model::Model;
use actrace::record::Shape;
use actrace::stats::{RowStatistics, row_fingerprint};
use actrace::tensor::{Dtype, Rows};
use pipeline::Pipeline;
use std::hint::black_box;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Prompt tokens: rows of attention are as long as the rows of everything else.
const TOKENS: u32 = 480;
/// Of which the best counts: a shared machine only ever slows a round down.
const ROUNDS: u32 = 5;

#[derive(Default)]
struct Everything(Vec<Rows>);

impl Observer for Everything {
    fn wants(&mut self, _: SiteId, positions: Range<usize>) -> Option<Wanted> {
        Some(Wanted { rows: 0..positions.len(), values: true })
    }
    fn capture(&mut self, _: u32, _: SiteId, _: usize, rows: Captured) -> actrace::Result<()> {
        self.0.extend(rows.land()?.values);
        Ok(())
    }
    fn step(&mut self, _: &StepReport) -> actrace::Result<()> {
        Ok(())
    }
}

fn tokens() -> Vec<u32> {
    (0..TOKENS).map(|i| i * 37 % 2000).collect()
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny-qwen2");
    let model = Model::open(&path).unwrap();
    let backend = CpuBackend::new(Semantics::DequantizeF32, 0).unwrap();
    let mut forward = Forward::new(&model, backend).unwrap();
    let mut seen = Everything::default();
    let tokens = tokens();
    forward.generate(&Request { tokens: &tokens, generate: 0, stop_at: &[] }, &mut seen).unwrap();
    let bytes: usize = seen.0.iter().map(|rows| size_of_val(rows.values())).sum();
    println!("{} tensors, {:.1} MB of values", seen.0.len(), bytes as f64 / 1e6);
    let pipeline = || Pipeline::new(&model, forward.graph(), &seen.0, &words).print();
    if words.first().is_some_and(|word| word == "pipeline") {
        return pipeline();
    }
    parts(&seen.0, bytes);
    pipeline();
    whole_runs(&path);
}

/// Best of a few rounds, in GB/s.
fn rate(what: &str, bytes: usize, mut work: impl FnMut()) {
    let seconds = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    });
    println!("{what:28} {:6.2} GB/s", bytes as f64 / 1e9 / seconds.fold(f64::INFINITY, f64::min));
}

fn parts(tensors: &[Rows], bytes: usize) {
    let each_row = |work: &dyn Fn(&[f32])| {
        tensors.iter().for_each(|rows| (0..rows.len()).for_each(|row| work(rows.row(row))));
    };
    rate("RowStatistics::of", bytes, || each_row(&|row| _ = black_box(RowStatistics::of(row))));
    rate("row_fingerprint", bytes, || each_row(&|row| _ = black_box(row_fingerprint(row))));
    let raw: Vec<Vec<u8>> =
        tensors.iter().map(|rows| rows.values().iter().flat_map(|value| value.to_le_bytes()).collect()).collect();
    rate("content hash", bytes, || {
        for raw in &raw {
            let shape = Shape { captured: Dtype::F32, stored: Dtype::F32, rows: 1, width: 0, offsets: &[] };
            black_box(shape.content_hash(raw));
        }
    });
    let mut encoder = Encoder::new().unwrap();
    let (mut out, mut stored) = (Vec::new(), 0);
    rate("Encoder::encode", bytes, || {
        stored = 0;
        for raw in &raw {
            encoder.encode(Dtype::F32, raw, &mut out).unwrap();
            stored += out.len();
        }
    });
    println!("{:28} {:6.3} of raw", "ratio", stored as f64 / bytes as f64);
}

fn whole_runs(model: &Path) {
    let ids = tokens().iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let out: PathBuf = std::env::temp_dir().join(format!("actrace-bench-{}.actrace", std::process::id()));
    let run = |more: &[&str]| {
        let start = Instant::now();
        let mut command = Command::new(env!("CARGO_BIN_EXE_actrace"));
        command.arg("record").arg("--model").arg(model).args(["--tokens", &ids, "--generate", "2"]).args(more);
        assert!(command.output().unwrap().status.success());
        start.elapsed().as_secs_f64()
    };
    let target = out.to_str().unwrap();
    for (what, more) in [
        ("untraced", &["--untraced"][..]),
        ("statistics only", &["--tensors", "none", "--out", target]),
        ("all tensors", &["--out", target]),
        ("all tensors, again", &["--out", target]),
    ] {
        let seconds = (0..ROUNDS).map(|_| {
            if !what.ends_with("again") {
                let _ = std::fs::remove_file(&out);
            }
            run(more)
        });
        let seconds = seconds.fold(f64::INFINITY, f64::min);
        let size = std::fs::metadata(&out).map_or(0, |metadata| metadata.len());
        println!("{what:28} {:8.0} tokens/s  {:7.1} MB", f64::from(TOKENS) / seconds, size as f64 / 1e6);
    }
    std::fs::remove_file(&out).unwrap();
}
