//! Traces with known values, written through the product's own writer.

use actrace::file::{FileHeader, FileStorage, Writer};
use actrace::open::append;
use actrace::record::{CoverageV1, EndV1, PayloadV1, PlanV1, RunV1, SiteV1, StatsV1, StepV1};
use actrace::stats::RowStatistics;
use actrace::tensor::Dtype;
use std::path::Path;

/// A run to write: one prefill over `tokens`.
pub struct Run<'a> {
    /// Its label; the run id follows from it.
    pub label: &'a str,
    /// Token ids of the prompt.
    pub tokens: Vec<u32>,
    /// Captured points, in forward order: layer (-1 outside) and name.
    pub sites: Vec<(i32, &'a str)>,
    /// Whether tensors are kept.
    pub tensors: bool,
    /// The values at (layer, point, position).
    pub values: &'a dyn Fn(i32, &str, u32) -> Vec<f32>,
}

/// Writes `runs` to a new file; without `seal` it ends as a killed writer leaves it.
///
/// One writer writes them all: a second one could find the lock of the first still held by a process that another
/// test is just starting.
pub fn write(path: &Path, runs: &[Run<'_>], seal: bool) {
    let mut writer = writer(path);
    for run in runs {
        let mut under_way = UnderWay::begin(&mut writer, run);
        under_way.statistics();
        under_way.commit();
        if seal {
            under_way.end();
        }
    }
    if seal {
        writer.seal().unwrap();
    }
    writer.sync().unwrap();
}

/// A writer of a new file, or one that goes on with what is there.
pub fn writer(path: &Path) -> Writer<FileStorage> {
    append(path, FileHeader { uuid: [7; 16], created_us: 0 }).unwrap().0
}

/// A run that is being written: the prompt in its first step, then a token a step.
pub struct UnderWay<'a> {
    writer: &'a mut Writer<FileStorage>,
    run: &'a Run<'a>,
    ordinal: u32,
    step: u32,
    /// Token rows of the steps so far.
    positions: u32,
}

impl<'a> UnderWay<'a> {
    /// Writes identity and plan.
    pub fn begin(writer: &'a mut Writer<FileStorage>, run: &'a Run<'a>) -> Self {
        Self::begin_after(&run.tokens, writer, run)
    }

    /// The same, of a run whose prompt is `prompt` alone: further tokens of its first step count as chosen.
    pub fn begin_after(prompt: &[u32], writer: &'a mut Writer<FileStorage>, run: &'a Run<'a>) -> Self {
        Self::begin_as(&identity(run.label, prompt), &plan(run), writer, run)
    }

    /// The same, of a run that says `identity` and `plan` of itself.
    pub fn begin_as(identity: &RunV1, plan: &PlanV1, writer: &'a mut Writer<FileStorage>, run: &'a Run<'a>) -> Self {
        let ordinal = writer.begin_run(identity).unwrap();
        writer.record(ordinal, 0, plan).unwrap();
        UnderWay { writer, run, ordinal, step: 0, positions: 0 }
    }

    fn tokens(&self) -> Vec<u32> {
        if self.step == 0 { self.run.tokens.clone() } else { vec![9] }
    }

    /// Writes tensors and statistics of a step: half of it.
    pub fn statistics(&mut self) {
        self.statistics_where(&|_, _| true);
    }

    /// The same, of the points and positions that are `captured`.
    pub fn statistics_where(&mut self, captured: &dyn Fn(&str, u32) -> bool) {
        let mut stats = StatsV1 { step: self.step, ..StatsV1::default() };
        let positions = self.positions..self.positions + self.tokens().len() as u32;
        for (site, (layer, point)) in self.run.sites.iter().enumerate() {
            let positions: Vec<u32> = positions.clone().filter(|position| captured(point, *position)).collect();
            let rows: Vec<Vec<f32>> = positions.iter().map(|p| (self.run.values)(*layer, point, *p)).collect();
            let tensor = self.run.tensors.then(|| payload(&rows));
            let payload = tensor.map_or(0, |tensor| self.writer.payload(self.ordinal, self.step, tensor).unwrap());
            for ((number, position), row) in (0..).zip(positions).zip(&rows) {
                stats.push(site as u32, position, &RowStatistics::of(row), (payload, number));
            }
        }
        self.writer.stats(self.ordinal, &stats).unwrap();
    }

    /// Finishes the step.
    pub fn commit(&mut self) {
        let tokens = self.tokens();
        self.writer.record(self.ordinal, self.step, &step(self.step, self.positions, &tokens)).unwrap();
        self.step += 1;
        self.positions += tokens.len() as u32;
    }

    /// Says that something was dropped.
    pub fn lose(&mut self, loss: &actrace::record::LossV1) {
        self.writer.record(self.ordinal, self.step, loss).unwrap();
    }

    /// Ends the run well.
    pub fn end(self) {
        let rows = u64::from(self.positions);
        self.writer.record(self.ordinal, 0, &coverage(self.run, rows)).unwrap();
        let end = EndV1 { steps: self.step, ..end(rows * self.run.sites.len() as u64) };
        self.writer.record(self.ordinal, 0, &end).unwrap();
    }
}

/// The run id that goes with a label.
pub fn run_id(label: &str) -> [u8; 16] {
    let mut id = [0; 16];
    id.copy_from_slice(&blake3::hash(label.as_bytes()).as_bytes()[..16]);
    id
}

/// An identity with little in it.
pub fn identity(label: &str, tokens: &[u32]) -> RunV1 {
    let text = String::new;
    RunV1 {
        run_id: run_id(label),
        kind: "record".into(),
        label: label.into(),
        parents: vec![],
        tool_version: "0".into(),
        argv: vec!["actrace".into(), "record".into()],
        started_us: 1_700_000_000_000_000,
        host: "host".into(),
        pid: 1,
        cpu: text(),
        instruction_set: text(),
        threads: 1,
        device_kind: "cpu".into(),
        device_name: text(),
        driver: text(),
        cuda: text(),
        kernel_path: text(),
        fused: vec![],
        semantics: "dequantize-f32".into(),
        compute_type: "f32".into(),
        kv_type: "f32".into(),
        attention: "full".into(),
        engine: "actrace".into(),
        engine_version: "0".into(),
        model_path: format!("models/{label}"),
        model_format: "safetensors".into(),
        weight_type: "f32".into(),
        model_files: vec![],
        model_hash: [1; 32],
        architecture: "qwen2".into(),
        hyper_parameters: vec![],
        tokenizer_hash: [0; 32],
        prompt: text(),
        prompt_redacted: false,
        prompt_tokens: tokens.to_vec(),
        generate: 1,
        selection: vec![],
        vocabulary_hash: [0; 32],
        extra: vec![],
    }
}

/// Every point of a run, without inputs.
pub fn plan(run: &Run<'_>) -> PlanV1 {
    let sites =
        run.sites.iter().enumerate().map(|(number, (layer, point))| site(number as u32, *layer, point, run.tensors));
    PlanV1 { sites: sites.collect(), weights: vec![] }
}

/// A captured site without inputs.
pub fn site(number: u32, layer: i32, point: &str, tensor: bool) -> SiteV1 {
    SiteV1 {
        site: number,
        layer,
        point: point.into(),
        occurrence: 0,
        ordinal: number,
        operation: String::new(),
        inputs: vec![],
        weights: vec![],
        dtype: "f32".into(),
        axes: "width".into(),
        width: 0,
        heads: 0,
        status: 0,
        reason: String::new(),
        tensor,
        source_name: String::new(),
        confidence: 100,
    }
}

/// A step over `tokens`, whose first stands at `first`.
pub fn step(number: u32, first: u32, tokens: &[u32]) -> StepV1 {
    let mut hash = blake3::Hasher::new();
    let prefix = tokens.iter().map(|token| {
        hash.update(&token.to_le_bytes());
        u64::from_le_bytes(hash.finalize().as_bytes()[..8].try_into().unwrap())
    });
    StepV1 {
        step: number,
        phase: u8::from(number > 0),
        sequence: vec![0; tokens.len()],
        position: (first..first + tokens.len() as u32).collect(),
        token: tokens.to_vec(),
        prefix: prefix.collect(),
        next_token: 9,
        logits_fingerprint: 11,
        elapsed_us: 1500,
        stats_frames: 1,
        payload_frames: 0,
    }
}

fn payload(rows: &[Vec<f32>]) -> PayloadV1 {
    let raw: Vec<u8> = rows.concat().iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut offsets = vec![0];
    for row in rows {
        offsets.push(offsets.last().unwrap() + row.len() as u32);
    }
    let shape = actrace::record::Shape {
        captured: Dtype::F32,
        stored: Dtype::F32,
        rows: rows.len() as u32,
        width: 0,
        offsets: &offsets,
    };
    let blake3 = shape.content_hash(&raw);
    let mut bytes = Vec::new();
    let planes = actrace::codec::Encoder::new().unwrap().encode(Dtype::F32, &raw, &mut bytes).unwrap();
    let raw_length = raw.len() as u64;
    let dtype = Dtype::F32 as u8;
    PayloadV1 {
        payload: 0,
        rows: rows.len() as u32,
        width: 0,
        offsets,
        captured_dtype: dtype,
        stored_dtype: dtype,
        planes,
        raw_length,
        blake3,
        bytes,
    }
}

fn coverage(run: &Run<'_>, rows: u64) -> CoverageV1 {
    let sites = run.sites.len();
    CoverageV1 {
        site: (0..sites as u32).collect(),
        status: vec![0; sites],
        reason: vec![String::new(); sites],
        rows_expected: vec![rows; sites],
        rows_captured: vec![rows; sites],
        rows_with_tensor: vec![if run.tensors { rows } else { 0 }; sites],
    }
}

/// The end of a run that went well.
pub fn end(rows: u64) -> EndV1 {
    EndV1 {
        status: 0,
        error: String::new(),
        finished_us: 1_700_000_001_000_000,
        steps: 1,
        rows,
        payloads: 0,
        tensor_bytes: 0,
        content_root: [2; 32],
        untraced: 0,
    }
}
