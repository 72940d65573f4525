//! How long every named query takes, as a user waits for it: the whole process, from its start to its last byte.
//!
//! `cargo bench --bench named_queries` prints a line for each query: milliseconds, the median of seven runs, on
//! - small traces: `tiny-qwen2` as it is shipped, in safetensors and as q4_k_m, twelve tokens, all tensors and weights;
//! - traces of 524,716 rows of statistics a run, in a prefill and 432 decode steps, without tensors.
//!
//! Two runs are asked, or three where the question needs them. Nothing is asserted about time. With a folder behind `--`
//! the traces are written there and stay.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run should say where")]

#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/query/synthetic.rs"]
mod synthetic;

use actrace::file::{FileHeader, FileStorage, Writer};
use actrace::open::append;
use actrace::record::{PlanV1, SiteV1, StatsV1};
use actrace::sql::named::{Catalogue, Query};
use actrace::stats::{Extremes, Moments, RowStatistics};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const LAYERS: u32 = 28;
/// Points of a layer with experts, and the occurrence.
const POINTS: [(&str, u32); 20] = [
    ("attn_norm", 0),
    ("q_matmul", 0),
    ("q", 0),
    ("k", 0),
    ("v", 0),
    ("q_rope", 0),
    ("k_rope", 0),
    ("attn_scores", 0),
    ("attn_probs", 0),
    ("attn_ctx", 0),
    ("attn_out", 0),
    ("resid_mid", 0),
    ("ffn_norm", 0),
    ("moe_logits", 0),
    ("moe_topk", 0),
    ("moe_down", 0),
    ("moe_down", 1),
    ("moe_out", 0),
    ("ffn_out", 0),
    ("resid_post", 0),
];
const PROMPT: u32 = 500;
const POSITIONS: u32 = 932;
/// Positions of one statistics frame: at most 64k rows a frame.
const CHUNK: u32 = 64;
const ROUNDS: usize = 7;

/// Files to ask: of two runs, and of one more.
struct Traces {
    two: PathBuf,
    third: PathBuf,
}

fn main() {
    let kept = std::env::args().skip(1).find(|argument| !argument.starts_with("--")).map(PathBuf::from);
    let temporary = tempfile::tempdir().unwrap();
    let folder = kept.unwrap_or_else(|| temporary.path().to_owned());
    std::fs::create_dir_all(&folder).unwrap();
    let (small, large) = (small(&folder), large(&folder));
    println!("{:20}{:>10}{:>10}", "query", "small ms", "large ms");
    for query in Catalogue::shipped().all().unwrap() {
        let [small, large] = [&small, &large].map(|traces| median(&query, traces).as_secs_f64() * 1e3);
        println!("{:20}{small:>10.0}{large:>10.0}", query.name);
    }
}

fn median(query: &Query, traces: &Traces) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS).map(|_| time(query, traces)).collect();
    times.sort();
    times[ROUNDS / 2]
}

fn time(query: &Query, traces: &Traces) -> Duration {
    let mut command = Command::new(env!("CARGO_BIN_EXE_actrace-query"));
    command.args(["run", &query.name]).arg(&traces.two).stdout(Stdio::null()).stderr(Stdio::null());
    if query.parameters.iter().any(|parameter| parameter.default.as_deref() == Some("third")) {
        command.arg(&traces.third);
    }
    let begun = Instant::now();
    let status = command.status().unwrap();
    let elapsed = begun.elapsed();
    // 3: the trace has nothing that this question is about.
    assert!(matches!(status.code(), Some(0 | 3)), "{}: {status}", query.name);
    elapsed
}

fn small(folder: &Path) -> Traces {
    let [two, third] = ["small.actrace", "small-third.actrace"].map(|name| folder.join(name));
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny-qwen2");
    let quantised = models.join("tiny-qwen2.q4_k_m.gguf");
    record(&models, "safetensors", &two);
    record(&quantised, "gguf", &two);
    record(&models, "again", &third);
    Traces { two, third }
}

fn record(model: &Path, label: &str, out: &Path) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_actrace"));
    command.args(["record", "--weights", "--tokens", "5,6,7,8,9,10,11,12,13,14,15,16", "--generate", "4"]);
    let output = command.args(["--label", label, "--model"]).arg(model).arg("--out").arg(out).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn large(folder: &Path) -> Traces {
    let [two, third] = ["large.actrace", "large-third.actrace"].map(|name| folder.join(name));
    write(&two, &[("reference", 1.0), ("target", 1.2)]);
    write(&third, &[("third", 1.1)]);
    Traces { two, third }
}

fn write(path: &Path, runs: &[(&str, f64)]) {
    let (mut writer, _) = append(path, FileHeader { uuid: [3; 16], created_us: 0 }).unwrap();
    for (label, scale) in runs {
        let tokens: Vec<u32> = (0..PROMPT).collect();
        let run = writer.begin_run(&synthetic::identity(label, &tokens)).unwrap();
        writer.record(run, 0, &PlanV1 { sites: sites(), weights: vec![] }).unwrap();
        let steps = std::iter::once(0..PROMPT).chain((PROMPT..POSITIONS).map(|position| position..position + 1));
        for (step, positions) in (0..).zip(steps) {
            for first in positions.clone().step_by(CHUNK as usize) {
                let chunk = first..(first + CHUNK).min(positions.end);
                write_frame(&mut writer, run, step, chunk, *scale);
            }
            let tokens: Vec<u32> = positions.clone().collect();
            writer.record(run, step, &synthetic::step(step, positions.start, &tokens)).unwrap();
        }
        writer.record(run, 0, &synthetic::end(0)).unwrap();
    }
    writer.seal().unwrap();
}

fn sites() -> Vec<SiteV1> {
    let places = (0..LAYERS).flat_map(|layer| POINTS.map(|(point, slot)| (layer as i32, point, slot)));
    let places = std::iter::once((-1, "embed", 0)).chain(places).chain([(-1, "final_norm", 0), (-1, "logits", 0)]);
    let site =
        |(number, (layer, point, occurrence))| SiteV1 { occurrence, ..synthetic::site(number, layer, point, false) };
    (0..).zip(places).map(site).collect()
}

fn write_frame(writer: &mut Writer<FileStorage>, run: u32, step: u32, positions: std::ops::Range<u32>, scale: f64) {
    let mut stats = StatsV1 { step, ..StatsV1::default() };
    for site in 0..LAYERS * POINTS.len() as u32 + 3 {
        for position in positions.clone() {
            stats.push(site, position, &row(site, position, scale), (0, 0));
        }
    }
    writer.stats(run, &stats).unwrap();
}

/// Statistics that look like those of real rows: no two alike, so that they do not compress away. Every other row of two
/// runs is equal in its bits.
fn row(site: u32, position: u32, scale: f64) -> RowStatistics {
    let noise = f64::from((site * 7919 + position * 104_729) % 10_007) / 10_007.0;
    let count = 896;
    let own = if (site + position).is_multiple_of(2) { 0 } else { (scale * 10.0) as u64 };
    RowStatistics {
        count,
        extremes: Some(Extremes { min: (-3.0 - noise, 1), max: (3.0 + noise, 2), absmax: (scale * (3.0 + noise), 2) }),
        abs_smallest: Some(1e-4 * noise.max(1e-3)),
        moments: Moments {
            count: count.into(),
            mean: 0.01 * noise,
            m2: scale * scale * f64::from(count) * (1.0 + noise),
        },
        l1: 700.0 * noise,
        fingerprint: own << 60 | u64::from(site) << 32 | u64::from(position),
        ..RowStatistics::default()
    }
}
