//! Small traces that the library itself writes, in memory: records of every kind, every field with a value of its own.

use actrace::codec::Encoder;
use actrace::file::{FileHeader, FrameHeader, Storage, Writer};
use actrace::open::{Input, Verification, verify};
use actrace::record::*;
use actrace::tensor::Dtype;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// An appended-to image in memory; clones share it.
#[derive(Clone, Default)]
pub struct Memory(pub Arc<Mutex<Vec<u8>>>);

impl Memory {
    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

impl Storage for Memory {
    fn append(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let mut bytes = self.0.lock().unwrap();
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn path(&self) -> &Path {
        Path::new("memory.actrace")
    }
}

/// Verifies an image.
pub fn verified(image: Vec<u8>) -> actrace::Result<Verification> {
    verify(&Input::of(image, Path::new("image.actrace"))?, |_, _| {})
}

/// The frames of a sound image.
pub fn frames(image: &[u8]) -> Vec<FrameHeader> {
    let input = Input::of(image.to_vec(), Path::new("image.actrace")).unwrap();
    let mut frames: Vec<FrameHeader> = Vec::new();
    let mut offset = FileHeader::BYTES as u64;
    while offset < image.len() as u64 {
        let frame = input.frame_header(offset, image.len() as u64).unwrap();
        offset = frame.end();
        frames.push(frame);
    }
    frames
}

pub const HEADER: FileHeader = FileHeader { uuid: *b"actrace's golden", created_us: 1_700_000_000_000_000 };

/// Both runs of the sample, sealed after each: every record kind, values that compress and values that do not.
pub fn sample() -> Vec<u8> {
    let memory = Memory::default();
    write_sample(memory.clone()).unwrap();
    memory.bytes()
}

/// Writes the sample to a storage that may fail; gives the writer back.
pub fn write_sample<S: Storage>(storage: S) -> actrace::Result<Writer<S>> {
    let mut writer = Writer::create(storage, HEADER)?;
    write_run(&mut writer, &run())?;
    write_run(&mut writer, &RunV1 { label: "again".into(), run_id: [0x72; 16], ..run() })?;
    Ok(writer)
}

/// Writes one run and a seal. A second run stores no payload again: its rows name the first one's.
pub fn write_run<S: Storage>(writer: &mut Writer<S>, run: &RunV1) -> actrace::Result<()> {
    let number = writer.begin_run(run)?;
    writer.record(number, 0, &plan())?;
    for step in 0..2 {
        let mut stats = stats(step);
        for (payload, place) in payloads(step).into_iter().zip(&mut stats.payload) {
            *place = match writer.known_payload(&payload.blake3) {
                Some(known) => known,
                None => writer.payload(number, step, payload)?,
            };
        }
        writer.stats(number, &stats)?;
        writer.record(number, step, &self::step(step))?;
        writer.sync()?;
    }
    writer.record(number, 0, &weight())?;
    writer.record(number, 0, &loss())?;
    writer.record(number, 0, &coverage())?;
    writer.record(number, 0, &end())?;
    writer.seal()
}

fn pair(key: &str, value: &str, source: &str) -> PairV1 {
    PairV1 { key: key.into(), value: value.into(), source: source.into() }
}

pub fn run() -> RunV1 {
    RunV1 {
        run_id: [0x71; 16],
        kind: "replay".into(),
        label: "golden".into(),
        parents: vec![ParentV1 { role: "original".into(), run_id: [0x11; 16], content_root: [0x12; 32] }],
        tool_version: "0.1.0".into(),
        argv: vec!["actrace".into(), "record".into()],
        started_us: 1_700_000_000_000_001,
        host: "host".into(),
        pid: 4242,
        cpu: "processor".into(),
        instruction_set: "avx2".into(),
        threads: 3,
        device_kind: "cuda".into(),
        device_name: "device".into(),
        driver: "555.1".into(),
        cuda: "12.8".into(),
        kernel_path: "kernels".into(),
        fused: vec!["norm".into()],
        semantics: "ggml".into(),
        compute_type: "f32".into(),
        kv_type: "f16".into(),
        attention: "plain".into(),
        engine: "engine".into(),
        engine_version: "9".into(),
        model_path: "models/m.gguf".into(),
        model_format: "gguf".into(),
        weight_type: "q8_0".into(),
        model_files: vec![ModelFileV1 { name: "m.gguf".into(), size: 77, blake3: [0x21; 32] }],
        model_hash: [0x22; 32],
        architecture: "llama".into(),
        hyper_parameters: vec![pair("layers", "2", "file")],
        tokenizer_hash: [0x23; 32],
        prompt: "Grüße".into(),
        prompt_redacted: true,
        prompt_tokens: vec![5, 6, 7],
        generate: 8,
        selection: vec![pair("--layers", "0..2", "")],
        vocabulary_hash: [0x24; 32],
        extra: vec![pair("note", "anything", "")],
    }
}

fn site(number: u32, point: &str, width: u32) -> SiteV1 {
    SiteV1 {
        site: number,
        layer: 1 - 2 * number as i32,
        point: point.into(),
        occurrence: 2 + number,
        ordinal: 30 + number,
        operation: "matmul".into(),
        inputs: (0..number).collect(),
        weights: vec![0],
        dtype: "f32".into(),
        axes: "heads,keys".into(),
        width,
        heads: 4 + number,
        status: number as u8,
        reason: "because".into(),
        tensor: number == 0,
        source_name: "blk.0".into(),
        confidence: 99 + number as u8,
    }
}

fn weight_ref() -> WeightRefV1 {
    WeightRefV1 {
        stored_name: "blk.0.attn_q.weight".into(),
        canonical_name: "layers.0.attn_q".into(),
        layer: -1,
        role: "attn_q".into(),
        dtype: "q8_0".into(),
        layout: "rows".into(),
        shape: vec![16, 8],
        file: 1,
        offset: 4096,
        bytes: 136,
    }
}

pub fn plan() -> PlanV1 {
    PlanV1 { sites: vec![site(0, "attn_q", 16), site(1, "attn_probs", 0)], weights: vec![weight_ref()] }
}

/// Two rows: site 0 is a plain one, site 1 a ragged one.
pub fn stats(step: u32) -> StatsV1 {
    let base = 100 * (step + 1);
    let u32s = |at: u32| vec![base + 2 * at, base + 2 * at + 1];
    let f64s = |at: u32| vec![f64::from(base + at) + 0.5, -f64::from(base + at) - 0.25];
    StatsV1 {
        step,
        site: vec![0, 1],
        sequence: vec![0, 0],
        position: vec![step, step],
        count: vec![9_000, 9_001],
        nan: u32s(1),
        pos_inf: u32s(2),
        neg_inf: u32s(3),
        zero: u32s(4),
        subnormal: u32s(5),
        min: f64s(1),
        min_index: u32s(6),
        max: f64s(2),
        max_index: u32s(7),
        absmax: f64s(3),
        absmax_index: u32s(8),
        abs_smallest: f64s(4),
        mean: f64s(5),
        m2: f64s(6),
        l1: f64s(7),
        fingerprint: vec![0xfeed_0000 + u64::from(step), u64::MAX],
        payload: vec![1, 2],
        payload_row: vec![0, 1],
    }
}

/// Two payloads of a step: one row of f32, and ragged rows of another type, with values that are no numbers.
pub fn payloads(step: u32) -> Vec<PayloadV1> {
    let smooth: Vec<u8> = (0..512).flat_map(|i| ((i + step) as f32 * 0.01).to_le_bytes()).collect();
    let odd = [f32::NAN, -0.0, f32::INFINITY, 1e-40, step as f32, 1.0].map(half::bf16::from_f32);
    let odd: Vec<u8> = odd.iter().flat_map(|value| value.to_le_bytes()).collect();
    let (dtype, offsets) = if step == 0 { (Dtype::Bf16, vec![0, 0, 6]) } else { (Dtype::F16, vec![0, 2, 6]) };
    vec![payload(Dtype::F32, 512, Vec::new(), &smooth), payload(dtype, 0, offsets, &odd)]
}

pub fn payload(stored: Dtype, width: u32, offsets: Vec<u32>, raw: &[u8]) -> PayloadV1 {
    let mut bytes = Vec::new();
    let planes = Encoder::new().unwrap().encode(stored, raw, &mut bytes).unwrap();
    let rows = if offsets.is_empty() { (raw.len() / stored.size()) as u32 / width } else { offsets.len() as u32 - 1 };
    let captured = Dtype::F32;
    let blake3 = Shape { captured, stored, rows, width, offsets: &offsets }.content_hash(raw);
    PayloadV1 {
        payload: 1,
        rows,
        width,
        offsets,
        captured_dtype: captured as u8,
        stored_dtype: stored as u8,
        planes,
        raw_length: raw.len() as u64,
        blake3,
        bytes,
    }
}

pub fn step(step: u32) -> StepV1 {
    StepV1 {
        step,
        phase: step as u8,
        sequence: vec![0],
        position: vec![step],
        token: vec![5 + step],
        prefix: vec![0xabcd + u64::from(step)],
        next_token: 6 + step,
        logits_fingerprint: 0xdead,
        elapsed_us: 1234,
        stats_frames: 1,
        payload_frames: 2,
    }
}

/// A weight whose values are other records' payloads.
pub fn weight() -> WeightV1 {
    WeightV1 {
        weight: weight_ref(),
        added: 1.5,
        stored_blake3: [0x51; 32],
        values_blake3: [0x52; 32],
        count: 128,
        nan: 1,
        pos_inf: 2,
        neg_inf: 3,
        zero: 4,
        subnormal: 5,
        min: -7.5,
        min_index: 6,
        max: 6.5,
        max_index: 7,
        absmax: 7.25,
        absmax_index: 8,
        abs_smallest: 0.125,
        mean: 0.75,
        m2: 99.5,
        l1: 55.5,
        payloads: vec![1, 3],
        scale_elements: 32,
        scale_payloads: vec![3, 1],
    }
}

pub fn coverage() -> CoverageV1 {
    CoverageV1 {
        site: vec![0, 1],
        status: vec![0, 4],
        reason: vec![String::new(), "lost".into()],
        rows_expected: vec![2, 3],
        rows_captured: vec![2, 1],
        rows_with_tensor: vec![4, 5],
    }
}

pub fn loss() -> LossV1 {
    LossV1 { what: "rows".into(), rows: 17, why: "a full disk".into() }
}

pub fn end() -> EndV1 {
    EndV1 {
        status: 1,
        error: "stopped".into(),
        finished_us: 1_700_000_000_500_000,
        steps: 2,
        rows: 4,
        payloads: 3,
        tensor_bytes: 4120,
        content_root: [0x31; 32],
        untraced: 2,
    }
}

pub fn index() -> IndexV1 {
    IndexV1 {
        previous: 640,
        previous_chain: [0x41; 32],
        seq: vec![7],
        kind: vec![3],
        version: vec![1],
        offset: vec![704],
        stored_length: vec![91],
        raw_length: vec![92],
        run: vec![8],
        step: vec![9],
        rows: vec![10],
        first_site: vec![11],
        last_site: vec![12],
        first_position: vec![13],
        last_position: vec![14],
        blake3: vec![0x42; 32],
        payload_index: 832,
    }
}

pub fn payload_index() -> PayloadIndexV1 {
    PayloadIndexV1 {
        first_payload: 3,
        seq: vec![7],
        offset: vec![704],
        stored_length: vec![91],
        raw_length: vec![92],
        run: vec![8],
        step: vec![9],
        blake3: vec![0x43; 32],
    }
}

pub fn seal() -> SealV1 {
    SealV1 { index: 960, frames: 9, runs: 2, payloads: 4, root: [0x44; 32] }
}

/// Kind, version, archived size and fingerprint of every record: no field has the value of another field of its type,
/// so that two that change places change the bytes.
pub fn record_table() -> String {
    fn row<R: Record>(name: &str, size: usize, record: &R) -> String {
        let bytes = record.encode(rkyv::util::AlignedVec::new()).unwrap();
        let (kind, version) = (R::KIND.name(), actrace::record::VERSION);
        let hash = blake3::hash(&bytes).to_hex();
        format!(
            "\n[{name}]\nkind = \"{kind}\"\nversion = {version}\narchived_size = {size}\nfingerprint = \"{hash}\"\n"
        )
    }
    use std::mem::size_of;
    let mut payload = payloads(0).remove(1);
    // Its planes depend on zstd; the record does not.
    payload.planes = vec![PlaneV1 { codec: 1, offset: 2, length: 3 }];
    payload.bytes = vec![4; 5];
    let (sequence, position, payload_row) = (vec![40, 41], vec![50, 51], vec![60, 61]);
    let distinct_stats = StatsV1 { sequence, position, payload_row, ..stats(1) };
    let rows = [
        row("RunV1", size_of::<ArchivedRunV1>(), &run()),
        row("PlanV1", size_of::<ArchivedPlanV1>(), &plan()),
        row("StatsV1", size_of::<ArchivedStatsV1>(), &distinct_stats),
        row("PayloadV1", size_of::<ArchivedPayloadV1>(), &payload),
        row("StepV1", size_of::<ArchivedStepV1>(), &StepV1 { stats_frames: 11, ..step(1) }),
        row("CoverageV1", size_of::<ArchivedCoverageV1>(), &coverage()),
        row("LossV1", size_of::<ArchivedLossV1>(), &loss()),
        row("EndV1", size_of::<ArchivedEndV1>(), &end()),
        row("SyncV1", size_of::<ArchivedSyncV1>(), &SyncV1 { durable_to: 128 }),
        row("IndexV1", size_of::<ArchivedIndexV1>(), &index()),
        row("PayloadIndexV1", size_of::<ArchivedPayloadIndexV1>(), &payload_index()),
        row("SealV1", size_of::<ArchivedSealV1>(), &seal()),
        row("WeightV1", size_of::<ArchivedWeightV1>(), &weight()),
    ];
    let head = "# Every record: the size of its archive's root, and blake3 of the archive of one value with distinct fields\n\
                # (tests/support/trace.rs). Made by examples/golden.rs; trace-file.md says when it may change.\n";
    head.to_owned() + &rows.concat()
}
