//! The recorder from handed-over values to storage, beside what bounds it:
//! `cargo bench --bench recording -- pipeline [--packers N] [--gigabytes G] [--folder FOLDER]`.
//!
//! Values are windows of a real run's, each at a place of its own, so that no two pieces are equal and handing them
//! over costs nothing. Every round measures the bounds again: only ratios of one round mean something on a machine
//! that others use too.

#[path = "../../tests/support/trace.rs"]
#[allow(dead_code, reason = "a benchmark uses a part of it")]
mod trace;

use crate::ROUNDS;
use actrace::backend::{Captured, Landed, Landing};
use actrace::capture::{Layers, Names, Plan, Positions, Selection};
use actrace::codec::Encoder;
use actrace::file::{DetachedSync, Durability, FileStorage, Kind, Storage, Writer};
use actrace::forward::{Observer, Phase, StepReport};
use actrace::graph::{Graph, SiteId};
use actrace::model::Model;
use actrace::record::{RunV1, Shape};
use actrace::recorder::{Outcome, Recorder};
use actrace::stats::RowStatistics;
use actrace::tensor::{Dtype, Extent, Rows, Values};
use std::fs::OpenOptions;
use std::hint::black_box;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The rows of a capture, all of one width.
#[derive(Clone, Copy)]
struct Piece {
    rows: usize,
    width: usize,
}

/// Of a prompt: 4 MiB, as a card hands over.
const OF_A_PROMPT: Piece = Piece { rows: 512, width: 2048 };
/// Of a decoded token, as wide as a model of 7 billion parameters.
const OF_A_TOKEN: Piece = Piece { rows: 1, width: 3584 };

impl Piece {
    fn elements(self) -> usize {
        self.rows * self.width
    }
    fn bytes(self) -> usize {
        self.elements() * size_of::<f32>()
    }
}

/// Elements from one window to the next; a prime, so that windows meet no place twice.
const STRIDE: usize = 1_000_003;

struct Window {
    values: Arc<Vec<f32>>,
    range: Range<usize>,
}

impl Values for Window {
    fn values(&self) -> &[f32] {
        &self.values[self.range.clone()]
    }
}

/// Rows whose statistics come with them, as a card's do: not theirs, but no two alike, for they are compressed too.
struct Arrived {
    rows: Rows,
    statistics: Arc<Vec<RowStatistics>>,
    number: usize,
}

impl Landing for Arrived {
    fn rows(&self) -> usize {
        self.rows.len()
    }
    fn held_bytes(&self) -> usize {
        self.rows.held_bytes()
    }
    fn land(self: Box<Self>) -> actrace::Result<Landed> {
        let scale = 1.0 + self.number as f64 * 1e-6;
        let value = |value: f64| f64::from((value * scale) as f32);
        let statistics = self.statistics.iter().take(self.rows.len()).map(|row| {
            let mut row = *row;
            row.fingerprint = row.fingerprint.wrapping_mul(2 * self.number as u64 + 1);
            row.moments.mean *= scale;
            row.moments.m2 *= scale;
            row.l1 *= scale;
            row.abs_smallest = row.abs_smallest.map(value);
            if let Some(extremes) = &mut row.extremes {
                extremes.min.0 = value(extremes.min.0);
                extremes.max.0 = value(extremes.max.0);
                extremes.absmax.0 = value(extremes.absmax.0);
            }
            row
        });
        Ok(Landed { statistics: statistics.collect(), values: Some(self.rows) })
    }
}

/// Where a run spent its time in the storage.
#[derive(Default)]
struct Times {
    appending: AtomicU64,
    syncing: AtomicU64,
    last_piece: Mutex<Option<Instant>>,
}

/// Whether these are the first bytes of a payload's frame (schema/trace-file.md).
fn is_payload(frame: &[u8]) -> bool {
    frame.get(4..6) == Some(&Kind::Payload.code().to_le_bytes())
}

struct Metered<S> {
    storage: Option<S>,
    times: Arc<Times>,
}

impl<S: Storage> Storage for Metered<S> {
    fn append(&mut self, parts: &[&[u8]]) -> std::io::Result<()> {
        let start = Instant::now();
        let done = self.storage.as_mut().map_or(Ok(()), |storage| storage.append(parts));
        self.times.appending.fetch_add(start.elapsed().as_nanos() as u64, Relaxed);
        if parts.first().is_some_and(|header| is_payload(header)) {
            *self.times.last_piece.lock().unwrap() = Some(Instant::now());
        }
        done
    }
    fn sync(&mut self) -> std::io::Result<()> {
        let start = Instant::now();
        let done = self.storage.as_mut().map_or(Ok(()), S::sync);
        self.times.syncing.fetch_add(start.elapsed().as_nanos() as u64, Relaxed);
        done
    }
    fn detached_sync(&self) -> Option<DetachedSync> {
        self.storage.as_ref().and_then(S::detached_sync)
    }
    fn path(&self) -> &Path {
        self.storage.as_ref().map_or(Path::new("nowhere"), S::path)
    }
}

/// How long a run took.
struct Run {
    /// From the first piece to the last one's append.
    written: Duration,
    /// Until the file was sealed, and so synced.
    sealed: Duration,
    appending: f64,
    /// While the writing waited.
    syncing: f64,
}

impl Run {
    fn print(&self) {
        println!(
            "  {:42} {:6.2} s, sealed after {:.2} s; {:.2} s in appends, {:.2} s in syncs that writing waits for",
            "",
            self.written.as_secs_f64(),
            self.sealed.as_secs_f64(),
            self.appending,
            self.syncing
        );
    }
}

/// What all rounds share.
#[derive(Clone)]
pub struct Pipeline<'a> {
    model: &'a Model,
    graph: &'a Graph,
    values: Arc<Vec<f32>>,
    statistics: Arc<Vec<RowStatistics>>,
    piece: Piece,
    pieces: usize,
    packers: usize,
    folder: PathBuf,
}

impl<'a> Pipeline<'a> {
    /// A pipeline fed with `tensors`, as the words of the command line say.
    pub fn new(model: &'a Model, graph: &'a Graph, tensors: &[Rows], words: &[String]) -> Self {
        let option = |name: &str| {
            words.iter().position(|word| word == name).map(|at| words.get(at + 1).expect("a value behind its option"))
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let gigabytes: f64 = option("--gigabytes").map_or(4.0, |word| word.parse().expect("--gigabytes is a number"));
        let values: Vec<f32> = tensors.iter().flat_map(|rows| rows.values()).copied().collect();
        let piece = OF_A_PROMPT;
        assert!(values.len() > 2 * piece.elements(), "the run has too few values");
        Pipeline {
            model,
            graph,
            statistics: Arc::new(values.chunks_exact(piece.width).take(piece.rows).map(RowStatistics::of).collect()),
            values: Arc::new(values),
            piece,
            pieces: ((gigabytes * 1e9) as usize / piece.bytes()).max(1),
            packers: option("--packers").map_or(cores, |word| word.parse().expect("--packers is a number")),
            folder: option("--folder").map_or_else(std::env::temp_dir, PathBuf::from),
        }
    }

    /// Prints bounds and runs, round by round.
    pub fn print(&self) {
        println!("pipeline: {:.2} GB in pieces of 4 MiB, {} packers; GB/s of values", self.gigabytes(), self.packers);
        for _ in 0..ROUNDS {
            self.round();
        }
        let tokens = Pipeline {
            piece: OF_A_TOKEN,
            pieces: self.pieces * OF_A_PROMPT.bytes() / OF_A_TOKEN.bytes(),
            ..self.clone()
        };
        println!("pipeline: rows of single tokens, {} bytes each; GB/s of values", OF_A_TOKEN.bytes());
        for _ in 0..ROUNDS {
            let codec = self.codec(false).0;
            self.report("codec, pieces of 4 MiB", codec, None);
            tokens.token_by_token(codec);
        }
    }

    /// What a capture costs beside the codec, which takes large pieces in the time `codec`.
    fn token_by_token(&self, codec: Duration) {
        self.report("codec, row by row", self.codec(false).0, Some(codec));
        let run = self.run(true, Durability::None, None::<FileStorage>);
        self.report("device rows, nowhere", run.written, Some(codec));
        println!("  {:42} {:6.2} us a row", "", run.written.as_secs_f64() * 1e6 / self.pieces as f64);
    }

    fn round(&self) {
        println!("  copying, one thread {:.2}", self.gigabytes() / self.copying().as_secs_f64());
        let (codec, ratio) = self.codec(false);
        self.report("codec", codec, None);
        let counted = self.codec(true).0;
        self.report("codec and statistics", counted, None);
        let nowhere = || None::<FileStorage>;
        for (what, arrived, bound) in [("device rows, nowhere", true, codec), ("host rows, nowhere", false, counted)] {
            self.report(what, self.run(arrived, Durability::None, nowhere()).written, Some(bound));
        }
        let block = (self.piece.bytes() as f64 * ratio) as usize;
        let path = self.folder.join(format!("actrace-pipeline-{}.actrace", std::process::id()));
        self.writing(block, &path, true);
        for (what, fresh, durability) in [
            ("cached file", false, Durability::None),
            ("new file", true, Durability::None),
            ("new file, synced every second", true, Durability::default()),
        ] {
            let (before, syncing) = self.writing(block, &path, fresh);
            if fresh {
                std::fs::remove_file(&path).unwrap();
            }
            let storage = FileStorage::open(&path).unwrap();
            let run = self.run(true, durability, Some(storage));
            let writing = (before + self.writing(block, &path, fresh).0) / 2;
            self.report(&format!("bytes, {what}"), writing, None);
            println!("  {:42} {:6.2} s", "their sync", syncing.as_secs_f64());
            self.report(&format!("device rows, {what}"), run.written, Some(writing.max(codec)));
            run.print();
        }
        std::fs::remove_file(path).unwrap();
    }

    fn gigabytes(&self) -> f64 {
        (self.pieces * self.piece.bytes()) as f64 / 1e9
    }

    fn report(&self, what: &str, time: Duration, bound: Option<Duration>) {
        let share =
            bound.map(|bound| format!("  {:3.0} % of its bound", 100.0 * bound.as_secs_f64() / time.as_secs_f64()));
        println!("  {what:42} {:6.2}{}", self.gigabytes() / time.as_secs_f64(), share.unwrap_or_default());
    }

    fn piece(&self, number: usize) -> Rows {
        let window = Window { values: Arc::clone(&self.values), range: self.window(number) };
        Rows::new(Arc::new(window), Extent::Width(self.piece.width), self.piece.rows).unwrap()
    }

    /// Where the values of a piece are.
    fn window(&self, number: usize) -> Range<usize> {
        let start = number * STRIDE % (self.values.len() - self.piece.elements());
        start..start + self.piece.elements()
    }

    fn copying(&self) -> Duration {
        let mut to = vec![0.0; self.piece.elements()];
        let start = Instant::now();
        for number in 0..self.pieces {
            to.copy_from_slice(self.piece(number).values());
            black_box(&mut to);
        }
        start.elapsed()
    }

    /// Hashing and encoding on as many threads as there are packers; the time, and stored bytes for each raw one.
    fn codec(&self, statistics: bool) -> (Duration, f64) {
        let raw: Vec<u8> = self.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let (next, stored) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let work = || {
            let (mut encoder, mut out) = (Encoder::new().unwrap(), Vec::new());
            loop {
                let number = next.fetch_add(1, Relaxed);
                if number >= self.pieces {
                    return;
                }
                if statistics {
                    let rows = self.piece(number);
                    (0..rows.len()).for_each(|row| _ = black_box(RowStatistics::of(rows.row(row))));
                }
                let window = self.window(number);
                let raw = &raw[window.start * size_of::<f32>()..window.end * size_of::<f32>()];
                let shape = Shape { captured: Dtype::F32, stored: Dtype::F32, rows: 1, width: 0, offsets: &[] };
                black_box(shape.content_hash(raw));
                encoder.encode(Dtype::F32, raw, &mut out).unwrap();
                stored.fetch_add(black_box(&out).len(), Relaxed);
            }
        };
        let start = Instant::now();
        std::thread::scope(|scope| (0..self.packers).for_each(|_| _ = scope.spawn(work)));
        (start.elapsed(), stored.into_inner() as f64 / (self.pieces * self.piece.bytes()) as f64)
    }

    /// Writing `block` bytes for each piece, one after the other, and handing them to stable storage. A file that is
    /// not fresh is written over: its pages are there, and what finding memory for them costs is left out.
    fn writing(&self, block: usize, path: &Path, fresh: bool) -> (Duration, Duration) {
        // More than caches hold, as the packers leave them.
        let bytes: Vec<u8> = (0..(16 * block) as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let mut file = OpenOptions::new().write(true).create(true).truncate(fresh).open(path).unwrap();
        let start = Instant::now();
        for block in bytes.chunks(block).cycle().take(self.pieces) {
            file.write_all(block).unwrap();
        }
        let writing = start.elapsed();
        file.sync_data().unwrap();
        (writing, start.elapsed() - writing)
    }

    /// Records all pieces.
    fn run(&self, arrived: bool, durability: Durability, storage: Option<FileStorage>) -> Run {
        let times = Arc::new(Times::default());
        let writer = Writer::create(Metered { storage, times: Arc::clone(&times) }, trace::HEADER).unwrap();
        let plan = self.plan();
        let numbers = plan.record().sites.iter().map(|site| site.site);
        let sites: Vec<SiteId> = numbers.filter(|site| plan.keeps_tensor(*site)).collect();
        let run = RunV1 { label: "bench".into(), ..trace::run() };
        let mut recorder = Recorder::begin(writer.with_durability(durability), &run, plan, self.packers).unwrap();
        let start = Instant::now();
        for number in 0..self.pieces {
            let (step, rows) = (number / sites.len(), self.piece(number));
            let statistics = Arc::clone(&self.statistics);
            let rows = if arrived {
                Captured::Device(Box::new(Arrived { rows, statistics, number }))
            } else {
                Captured::Host(rows)
            };
            recorder.capture(step as u32, sites[number % sites.len()], step * self.piece.rows, rows).unwrap();
            if (number + 1) % sites.len() == 0 || number + 1 == self.pieces {
                recorder.step(&self.step(step)).unwrap();
            }
        }
        let summary = recorder.finish(&Outcome::Finished).unwrap();
        let sealed = start.elapsed();
        assert_eq!(summary.tensor_bytes, (self.pieces * self.piece.bytes()) as u64, "every piece was kept");
        let written = times.last_piece.lock().unwrap().unwrap() - start;
        let seconds = |nanoseconds: &AtomicU64| nanoseconds.load(Relaxed) as f64 / 1e9;
        Run { written, sealed, appending: seconds(&times.appending), syncing: seconds(&times.syncing) }
    }

    fn plan(&self) -> Plan {
        let all = || Names::parse("all").unwrap();
        let selection = Selection { points: all(), layers: Layers::ALL, positions: Positions::All, tensors: all() };
        let positions = self.pieces * self.piece.rows;
        Plan::new(self.model, self.graph, &selection, positions, positions).unwrap()
    }

    fn step(&self, step: usize) -> StepReport {
        StepReport {
            step: step as u32,
            phase: if step == 0 { Phase::Prefill } else { Phase::Decode },
            first_position: (step * self.piece.rows) as u32,
            tokens: vec![1; self.piece.rows],
            next_token: 1,
            logits_fingerprint: 0,
            elapsed: Duration::ZERO,
        }
    }
}
