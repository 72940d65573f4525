//! Hostile inputs by number: a reader of any of them ends with an answer or an error, in bounded memory.
//!
//! Input `n` is always the same bytes, so a number is a report. Half of the attacks on traces fix the checksums up
//! afterwards, so that they reach the decoders.

use super::forge::{append, encoded, fix_checksums, fix_seal, uncompressed};
use super::memory::peak;
use super::trace::{coverage, end, loss, payloads, plan, run, stats, step, weight};
use super::trace::{frames, sample};
use actrace::ErrorKind;
use actrace::file::{FileHeader, FrameHeader, Kind};
use actrace::model::Model;
use actrace::open::{Input, Payload, StatsFrame, Trace, append as go_on, recover, verify};
use actrace::record::*;
use rkyv::util::AlignedVec;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Marsaglia's xorshift64*.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        (0..4).for_each(|_| _ = random.next());
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 16) as usize % bound.max(1)
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Numbers at which lengths and offsets break.
fn limit(random: &mut Random, length: usize) -> u64 {
    let length = length as u64;
    let limits = [0, 1, 63, 64, 255, 1 << 16, 1 << 26, 1 << 30, (1 << 31) - 1, 1 << 31, u64::from(u32::MAX)];
    match random.below(4) {
        0 => *random.pick(&[length, length - 1, length + 1, u64::MAX, u64::MAX - 1, i64::MAX as u64, 1 << 63]),
        1 => random.next() % (length + 1),
        _ => *random.pick(&limits),
    }
}

/// Changes bytes of a stretch without moving what lies behind it.
fn change(random: &mut Random, bytes: &mut [u8]) {
    for _ in 0..=random.below(4) {
        if bytes.len() < 16 {
            return;
        }
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 | 3 => {
                let at = at.min(bytes.len() - 4) & !3;
                let number = limit(random, bytes.len()) as u32;
                bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
            }
            4 => {
                let at = at.min(bytes.len() - 8) & !7;
                let number = limit(random, bytes.len());
                bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
            }
            _ => {
                let (from, length) = (random.below(bytes.len() - 8), random.below(8) + 1);
                let to = at.min(bytes.len() - 8);
                bytes.copy_within(from..from + length, to);
            }
        }
    }
}

/// Moves bytes: a stretch is dropped, doubled or moved, or the end is cut.
fn shift(random: &mut Random, bytes: &mut Vec<u8>) {
    let grain = *random.pick(&[1, 4, 64]);
    let at = random.below(bytes.len()) / grain * grain;
    let end = (at + (random.below(4) + 1) * grain).min(bytes.len());
    match random.below(4) {
        0 => drop(bytes.drain(at..end)),
        1 => {
            let doubled = bytes[at..end].to_vec();
            bytes.splice(at..at, doubled);
        }
        2 => {
            let moved: Vec<u8> = bytes.drain(at..end).collect();
            let to = random.below(bytes.len() + 1) / grain * grain;
            bytes.splice(to..to, moved);
        }
        _ => bytes.truncate(at),
    }
}

/// What all attacks begin with.
pub struct Attacker {
    packed: Vec<u8>,
    raw: Vec<u8>,
    raw_frames: Vec<FrameHeader>,
    bodies: Vec<(Kind, Vec<u8>)>,
    gguf: Vec<u8>,
    safetensors: Vec<u8>,
    config: Vec<u8>,
    folder: PathBuf,
}

/// How an input ended, and what it cost.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    pub group: &'static str,
    /// Whether something was read without an error.
    pub accepted: bool,
    /// The most bytes that were held.
    pub peak: usize,
    /// The most bytes that the input justifies.
    pub allowed: usize,
}

impl Attacker {
    /// Takes the fixtures of `package`; model files go to `folder`, one attacker a folder.
    pub fn new(package: &Path, folder: &Path) -> Self {
        let fixture = |name: &str| std::fs::read(package.join("tests/fixtures/llama").join(name)).unwrap();
        let packed = sample();
        let raw = uncompressed(&packed);
        let raw_frames = frames(&raw);
        let body = |frame: &FrameHeader| {
            let start = frame.offset as usize + 64;
            (frame.kind, raw[start..start + frame.stored_length as usize].to_vec())
        };
        let mut bodies: Vec<(Kind, Vec<u8>)> = raw_frames.iter().map(body).collect();
        bodies.extend([
            (Kind::Run, encoded(&run())),
            (Kind::Plan, encoded(&plan())),
            (Kind::Stats, encoded(&stats(1))),
        ]);
        bodies.extend(payloads(0).iter().map(|payload| (Kind::Payload, encoded(payload))));
        bodies.extend([(Kind::Step, encoded(&step(1))), (Kind::Coverage, encoded(&coverage()))]);
        bodies.extend([(Kind::Loss, encoded(&loss())), (Kind::End, encoded(&end()))]);
        bodies.push((Kind::Weight, encoded(&weight())));
        bodies.push((Kind::Sync, encoded(&SyncV1 { durable_to: 64 })));
        let gguf = zstd::decode_all(fixture("biased.f32.gguf.zst").as_slice()).unwrap();
        let safetensors = fixture("biased/model.safetensors");
        let config = fixture("biased/config.json");
        std::fs::create_dir_all(folder.join("folder")).unwrap();
        Attacker { packed, raw, raw_frames, bodies, gguf, safetensors, config, folder: folder.to_path_buf() }
    }

    /// Attack number `number`.
    pub fn attack(&self, number: u64) -> Outcome {
        let mut random = Random::new(number);
        match number % 16 {
            0..4 => self.read("bytes", &self.loose_bytes(&mut random), 0),
            4..8 => self.read("frame", &self.frame(&mut random), 0),
            8..10 => {
                let (image, held) = self.appended(&mut random);
                self.read("appended", &image, held)
            }
            10 if number % 256 == 10 => self.go_on(&mut random),
            11 if number % 256 == 11 => self.recover(&mut random),
            10..13 => self.record(&mut random),
            13 => self.model(&mut random),
            14 => self.weights(&mut random),
            _ => self.folder(&mut random),
        }
    }

    fn base(&self, random: &mut Random) -> Vec<u8> {
        if random.below(2) == 0 { self.packed.clone() } else { self.raw.clone() }
    }

    /// Bytes changed or moved, checksums as they were.
    fn loose_bytes(&self, random: &mut Random) -> Vec<u8> {
        let mut image = self.base(random);
        for _ in 0..=random.below(2) {
            match random.below(2) {
                0 => change(random, &mut image),
                _ => shift(random, &mut image),
            }
        }
        image
    }

    /// The header or the body of a frame changed, checksums that fit, and a seal that fits the index.
    fn frame(&self, random: &mut Random) -> Vec<u8> {
        let mut image = self.raw.clone();
        for _ in 0..=random.below(2) {
            let frame = random.pick(&self.raw_frames);
            let start = frame.offset as usize;
            let end = start + 64 + frame.stored_length as usize;
            match random.below(4) {
                0 => change(random, &mut image[start + 4..start + 56]),
                _ => change(random, &mut image[start + 64..end]),
            }
            fix_checksums(&mut image, start);
            if frame.kind == Kind::Index && random.below(4) > 0 {
                fix_seal(&mut image, &self.raw, &self.raw_frames);
            }
        }
        image
    }

    /// A frame of any kind behind the file: a changed record, compressed or not, of any stated length. Gives the image
    /// and the bytes that the new frames really hold.
    fn appended(&self, random: &mut Random) -> (Vec<u8>, usize) {
        let mut image = self.base(random);
        let mut held = 0;
        let seq = self.raw_frames.len() as u64;
        for more in 0..=random.below(3) as u64 {
            let (kind, mut body) = random.pick(&self.bodies).clone();
            if random.below(4) > 0 {
                change(random, &mut body);
            }
            let compressed = random.below(2) == 0;
            let mut header = FrameHeader { kind, seq: seq + more, codec: u8::from(compressed), ..self.raw_frames[0] };
            header.run = *random.pick(&[0, 1, 2, u32::MAX]);
            header.payload = if kind == Kind::Payload { *random.pick(&[0, 4, 5, u64::MAX]) } else { 0 };
            header.raw_length = body.len() as u32;
            if compressed {
                if random.below(4) == 0 {
                    body.resize(1 << random.below(21), 0);
                    header.raw_length = body.len() as u32;
                }
                held += body.len();
                if random.below(2) == 0 {
                    header.raw_length = limit(random, body.len()).min(1 << 30) as u32;
                }
                body = zstd::bulk::compress(&body, 1).unwrap();
                if random.below(4) == 0 {
                    change(random, &mut body);
                }
            }
            append(&mut image, header, &body);
        }
        (image, held)
    }

    fn read(&self, group: &'static str, image: &[u8], held: usize) -> Outcome {
        let (accepted, peak) = peak(|| {
            let Ok(input) = Input::of(image.to_vec(), Path::new("image.actrace")) else { return false };
            let _ = verify(&input, |_, _| {});
            Trace::of(input).is_ok_and(|trace| read_everything(&trace))
        });
        Outcome { group, accepted, peak, allowed: allowed(image.len() + self.raw.len() + held) }
    }

    fn record(&self, random: &mut Random) -> Outcome {
        let (kind, mut body) = random.pick(&self.bodies).clone();
        change(random, &mut body);
        if random.below(8) == 0 {
            shift(random, &mut body);
        }
        let mut aligned = AlignedVec::<64>::new();
        aligned.extend_from_slice(&body);
        let (accepted, peak) = peak(|| decode(kind, aligned));
        Outcome { group: "record", accepted, peak, allowed: allowed(body.len()) }
    }

    /// A writer that goes on with the file.
    fn go_on(&self, random: &mut Random) -> Outcome {
        let (image, held) = if random.below(2) == 0 { self.appended(random) } else { (self.frame(random), 0) };
        let path = self.folder.join("trace.actrace");
        std::fs::write(&path, &image).unwrap();
        let header = FileHeader { uuid: [1; 16], created_us: 0 };
        let (accepted, peak) = peak(|| match go_on(&path, header) {
            Ok((mut writer, _)) => writer.seal().is_ok(),
            Err(_) => false,
        });
        Outcome { group: "go on", accepted, peak, allowed: allowed(image.len() + self.raw.len() + held) }
    }

    /// What is whole, copied into a new file; it must verify, and recover makes sure of that itself.
    fn recover(&self, random: &mut Random) -> Outcome {
        let (image, held) = match random.below(3) {
            0 => self.appended(random),
            1 => (self.frame(random), 0),
            _ => (self.loose_bytes(random), 0),
        };
        let (from, to) = (self.folder.join("trace.actrace"), self.folder.join("recovered.actrace"));
        std::fs::write(&from, &image).unwrap();
        let _ = std::fs::remove_file(&to);
        let header = FileHeader { uuid: [2; 16], created_us: 0 };
        let (recovered, peak) = peak(|| recover(&from, &to, header, |_, _| {}));
        let bug = recovered.as_ref().err().filter(|error| error.kind() == ErrorKind::Internal);
        assert!(bug.is_none(), "{bug:?}");
        Outcome {
            group: "recover",
            accepted: recovered.is_ok(),
            peak,
            allowed: allowed(image.len() + self.raw.len() + held),
        }
    }

    fn model(&self, random: &mut Random) -> Outcome {
        let mut bytes = self.gguf.clone();
        damage_header(random, &mut bytes, 3 << 10);
        let path = self.folder.join("model.gguf");
        open_model(&path, &path, &bytes, "gguf")
    }

    fn weights(&self, random: &mut Random) -> Outcome {
        let mut bytes = self.safetensors.clone();
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        damage_header(random, &mut bytes, header);
        let folder = self.folder.join("folder");
        std::fs::write(folder.join("config.json"), &self.config).unwrap();
        open_model(&folder, &folder.join("model.safetensors"), &bytes, "safetensors")
    }

    fn folder(&self, random: &mut Random) -> Outcome {
        let mut config = self.config.clone();
        let length = config.len();
        damage_header(random, &mut config, length);
        let folder = self.folder.join("folder");
        std::fs::write(folder.join("model.safetensors"), &self.safetensors).unwrap();
        open_model(&folder, &folder.join("config.json"), &config, "config")
    }
}

fn damage_header(random: &mut Random, bytes: &mut Vec<u8>, header: usize) {
    let header = header.min(bytes.len());
    change(random, &mut bytes[..header]);
    if random.below(4) == 0 {
        let mut moved = bytes[..header].to_vec();
        shift(random, &mut moved);
        bytes.splice(..header, moved);
    }
}

/// What an input may cost that holds `length` bytes when decompressed: records as structures of their own (several
/// times the bytes of the archive), columns beside the index, and reused contexts and buffers.
fn allowed(length: usize) -> usize {
    (256 << 10) + 8 * length
}

/// Asks an open trace for all that it can be asked for. Gives whether everything could be answered.
pub fn read_everything(trace: &Trace) -> bool {
    let mut sound = trace.frames().is_ok();
    for run in trace.runs() {
        sound &= trace.coverage(run).is_ok() & trace.losses(run).is_ok();
        sound &= run.weights.iter().all(|frame| trace.weight(frame).is_ok());
        for step in &run.steps {
            sound &= trace.step(&step.commit).is_ok();
            for frame in &step.stats {
                sound &= trace.stats(frame).is_ok_and(|stats| read_stats(&stats));
            }
        }
    }
    for number in 0..5 {
        if let Ok(payload) = trace.payload(number) {
            read_rows(&payload);
        }
    }
    sound
}

fn read_stats(stats: &StatsFrame) -> bool {
    let record = stats.record();
    (0..record.site.len()).all(|row| record.l1[row].to_native().is_finite() || record.payload_row[row] == 0)
}

fn read_rows(payload: &Payload) {
    assert!((0..payload.rows()).all(|row| payload.row(row).is_some()));
    assert!(payload.row(payload.rows()).is_none());
}

fn decode(kind: Kind, body: AlignedVec<64>) -> bool {
    match kind {
        Kind::Run => RunV1::decode(&body).is_ok(),
        Kind::Plan => PlanV1::decode(&body).is_ok(),
        Kind::Stats => StatsV1::decode(&body).is_ok() | StatsFrame::new(body).is_ok_and(|stats| read_stats(&stats)),
        Kind::Payload => {
            let payload = PayloadV1::decode(&body).and_then(|record| Payload::decode(&record));
            payload.as_ref().map(read_rows).is_ok()
        }
        Kind::Step => StepV1::decode(&body).is_ok(),
        Kind::Coverage => CoverageV1::decode(&body).is_ok(),
        Kind::Loss => LossV1::decode(&body).is_ok(),
        Kind::End => EndV1::decode(&body).is_ok(),
        Kind::Sync => SyncV1::decode(&body).is_ok(),
        Kind::Index => IndexV1::decode(&body).is_ok(),
        Kind::PayloadIndex => PayloadIndexV1::decode(&body).is_ok(),
        Kind::Seal => SealV1::decode(&body).is_ok(),
        Kind::Weight => WeightV1::decode(&body).is_ok(),
        Kind::Other(_) => false,
    }
}

fn open_model(model: &Path, file: &Path, bytes: &[u8], group: &'static str) -> Outcome {
    std::fs::write(file, bytes).unwrap();
    let (accepted, peak) = peak(|| match Model::open(model) {
        Ok(model) => model.weights().all(|weight| {
            let mut row = vec![0.0; weight.columns];
            (0..weight.rows).all(|i| weight.dequantize_row(i, &mut row).is_ok())
        }),
        Err(_) => false,
    });
    Outcome { group, accepted, peak, allowed: allowed(bytes.len()) }
}

/// Per group: inputs, those that were read without an error, and the most memory that one took.
pub type Tally = BTreeMap<&'static str, (u64, u64, usize)>;

/// Runs attacks by number on `threads` threads; gives what came of them and one line for each that went wrong.
pub fn attack_all(package: &Path, numbers: Range<u64>, threads: usize) -> (Tally, Vec<String>) {
    let (mut tally, mut failures) = (Tally::new(), Vec::new());
    let share = |worker: usize| (numbers.start + worker as u64..numbers.end).step_by(threads);
    std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..threads).map(|worker| scope.spawn(move || attack_some(package, share(worker)))).collect();
        for worker in workers {
            let (found, failed) = worker.join().unwrap();
            failures.extend(failed);
            for (group, (inputs, accepted, peak)) in found {
                let sum = tally.entry(group).or_default();
                *sum = (sum.0 + inputs, sum.1 + accepted, sum.2.max(peak));
            }
        }
    });
    (tally, failures)
}

/// One thread's share, in a pool of one thread, so that all its memory is counted there.
fn attack_some(package: &Path, numbers: impl Iterator<Item = u64> + Send) -> (Tally, Vec<String>) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    // A folder in memory, where there is one: model files are written anew for every input.
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    pool.install(|| {
        let attacker = Attacker::new(package, folder.path());
        let (mut tally, mut failures) = (Tally::new(), Vec::new());
        for number in numbers {
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| attacker.attack(number))) {
                Ok(Outcome { group, accepted, peak, allowed }) => {
                    let sum = tally.entry(group).or_default();
                    *sum = (sum.0 + 1, sum.1 + u64::from(accepted), sum.2.max(peak));
                    if peak > allowed {
                        failures.push(format!("input {number}: {peak} bytes held, {allowed} allowed"));
                    }
                }
                Err(_) => failures.push(format!("input {number}: a panic")),
            }
        }
        (tally, failures)
    })
}
