//! The headline query over two runs of a million statistics rows each.
//!
//! `cargo bench --bench ratio_by_layer` writes the two runs to a temporary file and prints how long opening, the query
//! and some others take; nothing is asserted about time.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run should say where")]

#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/query/synthetic.rs"]
mod synthetic;

use actrace::file::FileHeader;
use actrace::open::{TraceSet, append};
use actrace::record::{PlanV1, StatsV1};
use actrace::sql::{DEFAULT_MEMORY, Session, named};
use actrace::stats::{Extremes, Moments, RowStatistics};
use std::path::Path;
use std::time::Instant;

const LAYERS: u32 = 28;
const POINTS: u32 = 20;
const POSITIONS: u32 = 1786;
/// Positions of one statistics frame: at most 64k rows a frame.
const CHUNK: u32 = 64;

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("million.actrace");
    for (label, scale) in [("reference", 1.0), ("target", 1.2)] {
        write(&path, label, scale);
    }
    println!("{} rows a run", LAYERS * POINTS * POSITIONS);
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    let query = named::find("ratio-by-layer").unwrap();
    for round in 0..5 {
        let begun = Instant::now();
        let session = Session::new(TraceSet::open(std::slice::from_ref(&path)).unwrap(), DEFAULT_MEMORY).unwrap();
        let opened = begun.elapsed();
        let values = query.values(&[], session.set()).unwrap();
        let time = |sql: &str, values: &[(String, actrace::sql::Value)]| {
            let begun = Instant::now();
            let rows: usize = runtime
                .block_on(async { session.query(sql, values).await.unwrap().collect().await.unwrap() })
                .iter()
                .map(|batch| batch.num_rows())
                .sum();
            (rows, begun.elapsed())
        };
        let ratio = time(&query.sql, &values);
        let group = time("SELECT layer, point, avg(std) FROM activations GROUP BY layer, point", &[]);
        let count = time("SELECT count(*) FROM activations WHERE point = 'point_3' AND absmax > 3", &[]);
        let payload_bytes = session.set().traces()[0].bytes_read().0;
        println!(
            "round {round}: open {opened:?}, ratio-by-layer {:?} ({} rows), group by {:?}, filtered count {:?}, \
             {payload_bytes} payload bytes",
            ratio.1, ratio.0, group.1, count.1
        );
    }
}

fn write(path: &Path, label: &str, scale: f64) {
    let (mut writer, _) = append(path, FileHeader { uuid: [3; 16], created_us: 0 }).unwrap();
    let tokens: Vec<u32> = (0..POSITIONS).collect();
    let run = writer.begin_run(&synthetic::identity(label, &tokens)).unwrap();
    let sites = (0..LAYERS * POINTS)
        .map(|site| synthetic::site(site, (site / POINTS) as i32, &format!("point_{}", site % POINTS), false));
    writer.record(run, 0, &PlanV1 { sites: sites.collect(), weights: vec![] }).unwrap();
    for first in (0..POSITIONS).step_by(CHUNK as usize) {
        let mut stats = StatsV1::default();
        for site in 0..LAYERS * POINTS {
            for position in first..(first + CHUNK).min(POSITIONS) {
                stats.push(site, position, &row(site, position, scale), (0, 0));
            }
        }
        writer.stats(run, &stats).unwrap();
    }
    writer.record(run, 0, &synthetic::step(0, 0, &tokens)).unwrap();
    writer.record(run, 0, &synthetic::end(0)).unwrap();
    writer.seal().unwrap();
}

/// Statistics that look like those of real rows: no two alike, so that they do not compress away.
fn row(site: u32, position: u32, scale: f64) -> RowStatistics {
    let noise = f64::from((site * 7919 + position * 104_729) % 10_007) / 10_007.0;
    let count = 896;
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
        fingerprint: u64::from(site) << 32 | u64::from(position),
        ..RowStatistics::default()
    }
}
