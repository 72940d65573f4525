//! Writes a large trace and prints how fast it is written, verified and opened, and how fast values are coded.
//!
//! `cargo bench --bench trace_file -- [GIBIBYTES [FOLDER]]`: the file is removed afterwards. Verifying and opening run in
//! processes of their own (`verify PATH`, `open PATH`; `write PATH GIBIBYTES` makes a file to keep), so that their memory
//! and their cold start are theirs. Nothing is asserted about time.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that cannot run should say where")]
#![allow(dead_code, reason = "the tests use more of what is shared")]

#[path = "../tests/support/trace.rs"]
mod trace;

use actrace::codec::{Encoder, decode};
use actrace::file::{FileHeader, PAYLOAD_TARGET_BYTES};
use actrace::open::{Input, Trace, append, verify};
use actrace::record::{PayloadV1, RunV1, StatsV1, StepV1};
use actrace::stats::RowStatistics;
use actrace::tensor::Dtype;
use rayon::prelude::*;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const WIDTH: usize = 2048;
const ROWS: usize = PAYLOAD_TARGET_BYTES / (4 * WIDTH);
/// Payloads of one step.
const SITES: usize = 16;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["verify", path] => verify_file(Path::new(path)),
        ["open", path] => open_file(Path::new(path)),
        ["write", path, gibibytes] => write(Path::new(path), size(gibibytes)),
        _ => all(&words),
    }
}

fn all(words: &[&str]) {
    let size = size(words.first().unwrap_or(&"1"));
    let folder = words.get(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let path = folder.join(format!("bench-{}.actrace", std::process::id()));
    println!("{} cores, load {}", rayon::current_num_threads(), load());
    coded();
    write(&path, size);
    for round in 0..3 {
        print!("verify, round {round}: ");
        child("verify", &path);
    }
    for cached in [true, false] {
        for round in 0..3 {
            if !cached {
                forget(&path);
            }
            print!("open, {}, round {round}: ", if cached { "file cached" } else { "file not cached" });
            child("open", &path);
        }
    }
    forget(&path);
    print!("verify, file not cached: ");
    child("verify", &path);
    std::fs::remove_file(&path).unwrap();
}

fn size(gibibytes: &str) -> u64 {
    (gibibytes.parse::<f64>().expect("GIBIBYTES is a number") * (1u64 << 30) as f64) as u64
}

fn load() -> String {
    std::fs::read_to_string("/proc/loadavg").map_or_else(|_| "unknown".to_owned(), |text| text[..14].to_owned())
}

/// Drops the file from the page cache, as far as the system follows.
fn forget(path: &Path) {
    let file = std::fs::File::open(path).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

fn child(verb: &str, path: &Path) {
    let begun = Instant::now();
    let done = Command::new(std::env::current_exe().unwrap()).arg(verb).arg(path).output().unwrap();
    let whole = begun.elapsed();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    println!("{}; whole process {:.1} ms", String::from_utf8_lossy(&done.stdout).trim(), milliseconds(whole));
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn rate(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64() / 1e9
}

/// Values like activations: the sum of uniform numbers, of another scale in every row.
fn values(seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let scale = |row: usize| 0.5 + (row % 7) as f32;
    (0..ROWS * WIDTH).map(|at| (uniform() + uniform() + uniform()) * scale(at / WIDTH)).collect()
}

fn raw(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn coded() {
    let made = raw(&values(1));
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/reference/tiny-qwen2.hf-f32.safetensors");
    let recorded = std::fs::read(recorded).unwrap();
    let header = 8 + u64::from_le_bytes(recorded[..8].try_into().unwrap()) as usize;
    let recorded = &recorded[header..header + (recorded.len() - header) / 4 * 4];
    for (name, raw) in [("made values", &made[..]), ("tiny-qwen2's activations", recorded)] {
        let mut encoder = Encoder::new().unwrap();
        let (mut bytes, mut planes) = (Vec::new(), Vec::new());
        let rounds = (256 << 20) / raw.len() as u64;
        let begun = Instant::now();
        for _ in 0..rounds {
            bytes.clear();
            planes = encoder.encode(Dtype::F32, raw, &mut bytes).unwrap();
        }
        let encoded = begun.elapsed();
        let begun = Instant::now();
        for _ in 0..rounds {
            assert_eq!(decode(Dtype::F32, raw.len() / 4, &planes, &bytes).unwrap().len(), raw.len());
        }
        let decoded = begun.elapsed();
        let all = rounds * raw.len() as u64;
        println!(
            "codec, f32, one core, {name}: encode {:.2} GB/s, decode {:.2} GB/s, ratio {:.2}",
            rate(all, encoded),
            rate(all, decoded),
            raw.len() as f64 / bytes.len() as f64
        );
    }
}

fn write(path: &Path, size: u64) {
    let (mut writer, _) = append(path, FileHeader { uuid: [5; 16], created_us: 0 }).unwrap();
    let begun = Instant::now();
    let run = writer.begin_run(&RunV1 { label: "bench".into(), ..trace::run() }).unwrap();
    writer.record(run, 0, &trace::plan()).unwrap();
    for step in 0.. {
        let packed: Vec<(PayloadV1, StatsV1)> =
            (0..SITES).into_par_iter().map(|site| packed(step, site as u32)).collect();
        for (payload, mut stats) in packed {
            let number = writer.payload(run, step, payload).unwrap();
            stats.payload.fill(number);
            writer.stats(run, &stats).unwrap();
        }
        writer.record(run, step, &StepV1 { step, ..trace::step(1) }).unwrap();
        if writer.file_bytes() >= size {
            break;
        }
    }
    writer.record(run, 0, &trace::end()).unwrap();
    writer.seal().unwrap();
    println!(
        "write {:.2} GB: {:.2} GB/s with making the values",
        writer.file_bytes() as f64 / 1e9,
        rate(writer.file_bytes(), begun.elapsed())
    );
}

fn packed(step: u32, site: u32) -> (PayloadV1, StatsV1) {
    let values = values(u64::from(step) << 8 | u64::from(site));
    let payload = trace::payload(Dtype::F32, WIDTH as u32, Vec::new(), &raw(&values));
    let rows: Vec<RowStatistics> = values.chunks(WIDTH).map(RowStatistics::of).collect();
    let numbers: Vec<u32> = (0..ROWS as u32).collect();
    let column = |of: fn(&RowStatistics) -> u32| rows.iter().map(of).collect::<Vec<u32>>();
    let wide = |of: fn(&RowStatistics) -> f64| rows.iter().map(of).collect::<Vec<f64>>();
    let stats = StatsV1 {
        step,
        site: vec![site % 2; ROWS],
        sequence: vec![0; ROWS],
        position: numbers.clone(),
        count: column(|row| row.count),
        nan: column(|row| row.nan),
        pos_inf: column(|row| row.pos_inf),
        neg_inf: column(|row| row.neg_inf),
        zero: column(|row| row.zero),
        subnormal: column(|row| row.subnormal),
        min: wide(|row| row.extremes.map_or(0.0, |extremes| extremes.min.0)),
        min_index: column(|row| row.extremes.map_or(0, |extremes| extremes.min.1)),
        max: wide(|row| row.extremes.map_or(0.0, |extremes| extremes.max.0)),
        max_index: column(|row| row.extremes.map_or(0, |extremes| extremes.max.1)),
        absmax: wide(|row| row.extremes.map_or(0.0, |extremes| extremes.absmax.0)),
        absmax_index: column(|row| row.extremes.map_or(0, |extremes| extremes.absmax.1)),
        abs_smallest: wide(|row| row.abs_smallest.unwrap_or(0.0)),
        mean: wide(|row| row.moments.mean),
        m2: wide(|row| row.moments.m2),
        l1: wide(|row| row.l1),
        fingerprint: rows.iter().map(|row| row.fingerprint).collect(),
        payload: vec![0; ROWS],
        payload_row: numbers,
    };
    (payload, stats)
}

/// Highest memory of this process, in MiB, as Linux counts it.
fn highest_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or_else(|| "unknown".to_owned(), |line| line.trim().to_owned())
}

fn verify_file(path: &Path) {
    let begun = Instant::now();
    let found = verify(&Input::open(path).unwrap(), |_, _| {}).unwrap();
    let time = begun.elapsed();
    println!(
        "{} {} frames, {:.2} s, {:.2} GB/s, at most {}, load {}",
        found.state.name(),
        found.frames,
        time.as_secs_f64(),
        rate(found.bytes, time),
        highest_memory(),
        load()
    );
}

fn open_file(path: &Path) {
    let begun = Instant::now();
    let trace = Trace::open(path).unwrap();
    let opened = begun.elapsed();
    let run = &trace.runs()[0];
    let sum = |frames: &[actrace::open::FrameEntry]| -> (usize, f64) {
        let add = |(rows, sum), frame| {
            let stats = trace.stats(frame).unwrap();
            let means = stats.record().mean.iter().map(|mean| mean.to_native());
            (rows + stats.record().mean.len(), sum + means.sum::<f64>())
        };
        frames.iter().fold((0, 0.0), add)
    };
    let first = sum(&run.steps[0].stats);
    let answered = begun.elapsed();
    let all = run.steps.iter().map(|step| sum(&step.stats).0).sum::<usize>();
    let scanned = begun.elapsed();
    let (payload_bytes, other_bytes) = trace.bytes_read();
    println!(
        "open {:.2} ms, with statistics of {} rows {:.2} ms, of all {all} rows {:.1} ms; {payload_bytes} payload bytes \
         and {other_bytes} others read",
        milliseconds(opened),
        first.0,
        milliseconds(answered),
        milliseconds(scanned)
    );
}
