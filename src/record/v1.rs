//! Record structs, version 1. Frozen from the first tagged release: a change is a new version beside it.
//!
//! Only fixed-width numbers, strings and vectors of them: no maps, no niches, no shared pointers.

use rkyv::{Archive, Deserialize, Serialize};

/// A key and a value, for open-ended facts.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct PairV1 {
    /// Name.
    pub key: String,
    /// Value as text.
    pub value: String,
    /// Where it comes from: `file`, `shape`, `override`, empty where it makes no sense.
    pub source: String,
}

/// One file of a model.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct ModelFileV1 {
    /// File name without its folder.
    pub name: String,
    /// Length in bytes.
    pub size: u64,
    /// blake3 of the whole file.
    pub blake3: [u8; 32],
}

/// A run that this run was derived from (a replay's original).
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct ParentV1 {
    /// How it is related.
    pub role: String,
    /// The parent's run id.
    pub run_id: [u8; 16],
    /// The parent's content root.
    pub content_root: [u8; 32],
}

/// Identity of a run: everything that may explain a difference.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct RunV1 {
    /// Random id.
    pub run_id: [u8; 16],
    /// `record`, `replay`, `import`, `weights`.
    pub kind: String,
    /// Name that users give; unique in a file.
    pub label: String,
    /// Runs that this one was derived from.
    pub parents: Vec<ParentV1>,
    /// Version of this tool.
    pub tool_version: String,
    /// The command line.
    pub argv: Vec<String>,
    /// Start, in microseconds since 1970-01-01 UTC.
    pub started_us: i64,
    /// Host name.
    pub host: String,
    /// Process id.
    pub pid: u32,
    /// Processor name.
    pub cpu: String,
    /// Instruction set that kernels use.
    pub instruction_set: String,
    /// Threads.
    pub threads: u32,
    /// `cpu`, `cuda`.
    pub device_kind: String,
    /// Name of the device.
    pub device_name: String,
    /// Driver version.
    pub driver: String,
    /// CUDA version.
    pub cuda: String,
    /// Which kernels ran.
    pub kernel_path: String,
    /// Operations that were fused, by name.
    pub fused: Vec<String>,
    /// `ggml`, `dequantize-f32`.
    pub semantics: String,
    /// Type of the arithmetic.
    pub compute_type: String,
    /// Type of the KV cache.
    pub kv_type: String,
    /// Kind of attention.
    pub attention: String,
    /// Engine that ran: `actrace`, `llama.cpp`, ...
    pub engine: String,
    /// Its version.
    pub engine_version: String,
    /// Path as given.
    pub model_path: String,
    /// `gguf`, `safetensors`, `apr`.
    pub model_format: String,
    /// The type that holds most weight bytes.
    pub weight_type: String,
    /// Files of the model.
    pub model_files: Vec<ModelFileV1>,
    /// blake3 over the files' hashes, in the order of their names.
    pub model_hash: [u8; 32],
    /// Family.
    pub architecture: String,
    /// Hyper-parameters with their source.
    pub hyper_parameters: Vec<PairV1>,
    /// blake3 of the tokenizer file; zero where none was used.
    pub tokenizer_hash: [u8; 32],
    /// The prompt's text; empty where token ids were given.
    pub prompt: String,
    /// Whether a prompt existed and was left out on purpose.
    pub prompt_redacted: bool,
    /// The prompt's token ids.
    pub prompt_tokens: Vec<u32>,
    /// Tokens to generate.
    pub generate: u32,
    /// Selection as given, a pair an option.
    pub selection: Vec<PairV1>,
    /// blake3 of the capture-point vocabulary.
    pub vocabulary_hash: [u8; 32],
    /// Anything else.
    pub extra: Vec<PairV1>,
}

/// A weight that a site reads.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct WeightRefV1 {
    /// Name in its file.
    pub stored_name: String,
    /// Canonical name.
    pub canonical_name: String,
    /// Layer, -1 outside.
    pub layer: i32,
    /// What it does.
    pub role: String,
    /// Stored type.
    pub dtype: String,
    /// Stored layout: `rows`, `columns`, `head_pairs`, `head_thirds`.
    pub layout: String,
    /// Canonical shape.
    pub shape: Vec<u64>,
    /// Which file of the model.
    pub file: u32,
    /// Where its stored tensor begins in that file.
    pub offset: u64,
    /// Length of the stored tensor.
    pub bytes: u64,
}

/// A weight of the model: what is stored, and what its canonical values are. Canonical values are f32 in row-major order
/// of the canonical shape, whatever type, order and offset they are stored with.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct WeightV1 {
    /// What is stored, and where.
    pub weight: WeightRefV1,
    /// Added to every stored value: 1 for norms of Gemma's safetensors, else 0.
    pub added: f32,
    /// blake3 of the stored tensor's bytes, all parts of a fused one.
    pub stored_blake3: [u8; 32],
    /// blake3 of the canonical values, little-endian.
    pub values_blake3: [u8; 32],
    /// Elements.
    pub count: u64,
    /// NaN elements.
    pub nan: u64,
    /// Positive infinities.
    pub pos_inf: u64,
    /// Negative infinities.
    pub neg_inf: u64,
    /// Zeros of either sign.
    pub zero: u64,
    /// Subnormals.
    pub subnormal: u64,
    /// Smallest finite value; 0 where there is none (see counts).
    pub min: f64,
    /// Its first index in row-major order.
    pub min_index: u64,
    /// Largest finite value.
    pub max: f64,
    /// Its first index.
    pub max_index: u64,
    /// Largest finite absolute value.
    pub absmax: f64,
    /// Its first index.
    pub absmax_index: u64,
    /// Smallest nonzero finite absolute value; 0 where there is none.
    pub abs_smallest: f64,
    /// Mean of the finite values.
    pub mean: f64,
    /// Sum of squared distances from the mean.
    pub m2: f64,
    /// Sum of absolute values.
    pub l1: f64,
    /// Payloads of one row each that hold the values, one after the other; empty where they were not kept.
    pub payloads: Vec<u64>,
    /// Consecutive elements that share a scale; 0 where elements are plain or values were not kept.
    pub scale_elements: u32,
    /// For each payload of values, the payload with the scales of its elements; empty where there are none.
    pub scale_payloads: Vec<u64>,
}

/// One expected capture point of a run.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct SiteV1 {
    /// Number within the plan; statistics name it.
    pub site: u32,
    /// Layer, -1 outside.
    pub layer: i32,
    /// Capture point.
    pub point: String,
    /// Which of several.
    pub occurrence: u32,
    /// Forward order, comparable between runs of one depth.
    pub ordinal: u32,
    /// Operation's name; empty where not applicable.
    pub operation: String,
    /// Sites it reads.
    pub inputs: Vec<u32>,
    /// Weights it reads: index into the plan's weights.
    pub weights: Vec<u32>,
    /// Captured type.
    pub dtype: String,
    /// Axes of a row: `width`, `heads,dim`, `heads,keys`.
    pub axes: String,
    /// Elements per row, 0 where ragged.
    pub width: u32,
    /// Heads in a row, 0 where it has none.
    pub heads: u32,
    /// 0 captured, 1 not_applicable, 2 filtered, 3 unsupported, 4 failed.
    pub status: u8,
    /// Why it was not captured.
    pub reason: String,
    /// Whether tensors are kept.
    pub tensor: bool,
    /// Name in the source, for imports.
    pub source_name: String,
    /// How sure the mapping is: 100 by construction.
    pub confidence: u8,
}

/// What a run is expected to capture: written at its start.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct PlanV1 {
    /// Every expected capture point.
    pub sites: Vec<SiteV1>,
    /// Every weight that they read; of a run that is weights alone, every weight of the model.
    pub weights: Vec<WeightRefV1>,
}

/// Statistics of token rows, as columns of equal length; one entry is one token of one captured tensor.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
pub struct StatsV1 {
    /// Step that all rows belong to.
    pub step: u32,
    /// Site in the plan.
    pub site: Vec<u32>,
    /// Sequence in the batch.
    pub sequence: Vec<u32>,
    /// Position in the sequence.
    pub position: Vec<u32>,
    /// Elements of the row.
    pub count: Vec<u32>,
    /// NaN elements.
    pub nan: Vec<u32>,
    /// Positive infinities.
    pub pos_inf: Vec<u32>,
    /// Negative infinities.
    pub neg_inf: Vec<u32>,
    /// Zeros of either sign.
    pub zero: Vec<u32>,
    /// Subnormals.
    pub subnormal: Vec<u32>,
    /// Smallest finite value; 0 where there is none (see counts).
    pub min: Vec<f64>,
    /// Its first index.
    pub min_index: Vec<u32>,
    /// Largest finite value.
    pub max: Vec<f64>,
    /// Its first index.
    pub max_index: Vec<u32>,
    /// Largest finite absolute value.
    pub absmax: Vec<f64>,
    /// Its first index.
    pub absmax_index: Vec<u32>,
    /// Smallest nonzero finite absolute value; 0 where there is none.
    pub abs_smallest: Vec<f64>,
    /// Mean of the finite values.
    pub mean: Vec<f64>,
    /// Sum of squared distances from the mean.
    pub m2: Vec<f64>,
    /// Sum of absolute values.
    pub l1: Vec<f64>,
    /// Fingerprint of the row's bits.
    pub fingerprint: Vec<u64>,
    /// Payload that holds the row; 0 where no tensor was kept.
    pub payload: Vec<u64>,
    /// Row within that payload.
    pub payload_row: Vec<u32>,
}

/// One byte plane of a payload.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct PlaneV1 {
    /// 0 raw, 1 zstd.
    pub codec: u8,
    /// Where it begins in `planes`.
    pub offset: u32,
    /// Its stored length.
    pub length: u32,
}

/// Values of rows: consecutive ones of one captured tensor, or those that one layer showed in a step, each content once.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct PayloadV1 {
    /// Number in the file, from 1; statistics rows name it.
    pub payload: u64,
    /// How many rows.
    pub rows: u32,
    /// Elements per row, 0 where ragged.
    pub width: u32,
    /// Row boundaries in elements where ragged (rows + 1 of them), else empty.
    pub offsets: Vec<u32>,
    /// Number format when captured.
    pub captured_dtype: u8,
    /// Number format as stored.
    pub stored_dtype: u8,
    /// Byte planes, most significant first.
    pub planes: Vec<PlaneV1>,
    /// Raw length in bytes.
    pub raw_length: u64,
    /// blake3 of types, row boundaries and raw little-endian values.
    pub blake3: [u8; 32],
    /// The planes' bytes.
    pub bytes: Vec<u8>,
}

/// One finished step; written after everything that belongs to it.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct StepV1 {
    /// 0 is the prefill.
    pub step: u32,
    /// 0 prefill, 1 decode.
    pub phase: u8,
    /// Per row: sequence.
    pub sequence: Vec<u32>,
    /// Per row: position.
    pub position: Vec<u32>,
    /// Per row: token id.
    pub token: Vec<u32>,
    /// Per row: fingerprint of the token ids from position 0 up to this one.
    pub prefix: Vec<u64>,
    /// Greedy choice after the last row; 2^32 - 1 where the logits were not seen.
    pub next_token: u32,
    /// Fingerprint of the last row's logits; 0 where they were not seen.
    pub logits_fingerprint: u64,
    /// Wall-clock time.
    pub elapsed_us: u64,
    /// Statistics frames of this step.
    pub stats_frames: u32,
    /// Payload frames written in this step.
    pub payload_frames: u32,
}

/// How much of each expected site was captured; written at a run's end.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
pub struct CoverageV1 {
    /// Site in the plan.
    pub site: Vec<u32>,
    /// Status as in [`SiteV1`].
    pub status: Vec<u8>,
    /// Why.
    pub reason: Vec<String>,
    /// Rows that the run should have.
    pub rows_expected: Vec<u64>,
    /// Rows that it has.
    pub rows_captured: Vec<u64>,
    /// Rows whose tensor was kept.
    pub rows_with_tensor: Vec<u64>,
}

/// Something that was dropped.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct LossV1 {
    /// What.
    pub what: String,
    /// How many rows.
    pub rows: u64,
    /// Why.
    pub why: String,
}

/// Everything before `durable_to` was handed to stable storage.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct SyncV1 {
    /// File offset.
    pub durable_to: u64,
}

/// End of a run.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct EndV1 {
    /// 0 finished, 1 interrupted, 2 failed.
    pub status: u8,
    /// What went wrong; empty where nothing did.
    pub error: String,
    /// End, in microseconds since 1970-01-01 UTC.
    pub finished_us: i64,
    /// Steps.
    pub steps: u32,
    /// Statistics rows.
    pub rows: u64,
    /// Payload frames written.
    pub payloads: u64,
    /// Raw bytes of rows and weights whose values were kept, stored or shared.
    pub tensor_bytes: u64,
    /// Hash of what was captured, without identity and time.
    pub content_root: [u8; 32],
    /// Untraced logits: 0 not compared, 1 equal, 2 different.
    pub untraced: u8,
}

/// Directory of the frames since the previous index that are not payloads, as columns.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
pub struct IndexV1 {
    /// Offset of the previous index frame; 0 for the first.
    pub previous: u64,
    /// Chain hash of the previous index.
    pub previous_chain: [u8; 32],
    /// Sequence number.
    pub seq: Vec<u64>,
    /// Frame kind.
    pub kind: Vec<u16>,
    /// Record version.
    pub version: Vec<u16>,
    /// Where the frame begins.
    pub offset: Vec<u64>,
    /// Stored body length.
    pub stored_length: Vec<u32>,
    /// Raw body length.
    pub raw_length: Vec<u32>,
    /// Run number in the file.
    pub run: Vec<u32>,
    /// Step; 0 where the kind has none.
    pub step: Vec<u32>,
    /// Statistics: rows.
    pub rows: Vec<u32>,
    /// Statistics: smallest site.
    pub first_site: Vec<u32>,
    /// Statistics: largest site.
    pub last_site: Vec<u32>,
    /// Statistics: smallest position.
    pub first_position: Vec<u32>,
    /// Statistics: largest position.
    pub last_position: Vec<u32>,
    /// blake3 of the raw body, 32 bytes a frame.
    pub blake3: Vec<u8>,
    /// Offset of the payload index that covers the same stretch; 0 where it has no payload.
    pub payload_index: u64,
}

/// Directory of the payload frames since the previous payload index.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
pub struct PayloadIndexV1 {
    /// First payload number; the others follow without a gap.
    pub first_payload: u64,
    /// Sequence number of each.
    pub seq: Vec<u64>,
    /// Where each frame begins.
    pub offset: Vec<u64>,
    /// Stored body length.
    pub stored_length: Vec<u32>,
    /// Raw body length of the frame.
    pub raw_length: Vec<u32>,
    /// Run number in the file that wrote it.
    pub run: Vec<u32>,
    /// Step that wrote it.
    pub step: Vec<u32>,
    /// The payload's content hash, 32 bytes each.
    pub blake3: Vec<u8>,
}

/// Seal: the file is complete up to here.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct SealV1 {
    /// Offset of the last index frame.
    pub index: u64,
    /// Frames before this one.
    pub frames: u64,
    /// Runs in the file.
    pub runs: u32,
    /// Payloads in the file.
    pub payloads: u64,
    /// blake3 that covers everything before.
    pub root: [u8; 32],
}
