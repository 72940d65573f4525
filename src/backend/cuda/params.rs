//! What kernels take, laid out as in their source.

/// Products in one launch.
pub(super) const MOST_MATVEC_JOBS: usize = 4;
/// Element operations in one launch.
pub(super) const MOST_POINTWISE_JOBS: usize = 4;
/// Tensors in one launch of statistics: as many as parameters have room for.
pub(super) const MOST_STATISTICS: usize = 96;
/// Slots of one weighted sum.
pub(super) const MOST_SLOTS: usize = 8;

/// What follows the newest result of a Q4_K product, element by element: an operation, a store, or both; an address of 0
/// means: not wanted.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
pub struct After {
    pub out: u64,
    /// Of [`ElementOperation::Rope`]: cosines and sines by position.
    pub turns: u64,
    /// Where the result is stored by position.
    pub cache: u64,
    /// [`ElementOperation::Multiply`]: with what follows the product in front.
    pub operation: ElementOperation,
    pub head_dim: u32,
    pub first_row: u32,
    pub unused: u32,
}

/// One product, and what follows it element by element; an address of 0 means: not wanted.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
pub struct MatvecJob {
    pub weight: u64,
    pub x: u64,
    pub y: u64,
    pub bias: u64,
    pub biased: u64,
    pub addend: u64,
    pub sum: u64,
    /// Of Q4_K products.
    pub after: After,
    pub rows: u32,
    pub columns: u32,
    pub first_block: u32,
    pub unused: u32,
}

/// Products of one input with weights of one type.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
pub struct Matvec {
    pub jobs: [MatvecJob; MOST_MATVEC_JOBS],
    pub count: u32,
    /// What [`super::q4k::plan`] says.
    pub slab: u32,
    /// Of Q4_K products: what makes x; an x of 0 means that it is there.
    pub norm: Norm,
    /// Where [`After`] finds positions.
    pub step: u64,
    /// Whether a block makes the same tile of both products, one after the other; both begin at the first block.
    pub paired: u32,
    pub unused: u32,
}

/// Rows of a weight, to be converted.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
pub struct Dequantize {
    pub weight: u64,
    pub out: u64,
    pub rows: u64,
    pub columns: u32,
    pub compute_type: u32,
}

/// Rows of an embedding.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
pub struct Embedding {
    pub step: u64,
    pub weight: u64,
    pub out: u64,
    pub columns: u32,
    pub first_row: u32,
    pub by_position: u32,
    pub unused: u32,
}

/// Activations, to be rounded to the type of a product's operands.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
pub struct Cast {
    pub x: u64,
    pub out: u64,
    pub count: u64,
    pub compute_type: u32,
    pub unused: u32,
}

/// A norm; without a bias an RMS norm.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
pub struct Norm {
    pub x: u64,
    pub gain: u64,
    pub bias: u64,
    pub out: u64,
    pub width: u32,
    pub epsilon: f32,
    pub gain_offset: f32,
    pub unused: u32,
}

/// Codes of element operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum ElementOperation {
    #[default]
    Nothing,
    Add,
    Multiply,
    Bias,
    Scale,
    SoftCap,
    Silu,
    GeluTanh,
    GeluErf,
    GeluQuick,
    Rope,
    Store,
}

/// One element operation, and one more on its result.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
pub struct PointwiseJob {
    pub x: u64,
    pub y: u64,
    pub out: u64,
    pub next_y: u64,
    pub next_out: u64,
    pub operation: ElementOperation,
    pub next: ElementOperation,
    pub width: u32,
    pub rows: u32,
    pub first_row: u32,
    pub head_dim: u32,
    pub rotary_dim: u32,
    pub first_block: u32,
    /// A factor, or a cap.
    pub number: f32,
    pub unused: u32,
}

/// Element operations that do not read each other.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
pub struct Pointwise {
    pub step: u64,
    pub jobs: [PointwiseJob; MOST_POINTWISE_JOBS],
    pub count: u32,
    pub unused: u32,
}

/// Attention, whole or a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
pub struct Attention {
    pub step: u64,
    pub q: u64,
    pub keys: u64,
    pub values: u64,
    pub scores: u64,
    pub probabilities: u64,
    pub context: u64,
    pub heads: u32,
    pub kv_heads: u32,
    pub head_dim: u32,
    pub first_row: u32,
    pub rows: u32,
    pub scale: f32,
    pub stages: u32,
    /// Keys that a row sees at most; [`NO_WINDOW`] for all.
    pub window: u32,
    /// Bound of the scores; 0 for none.
    pub cap: f32,
    /// Of few rows, the blocks that share a head.
    pub parts: u32,
}

/// A window that hides nothing.
pub(super) const NO_WINDOW: u32 = u32::MAX;

/// Bits of [`Attention::stages`].
pub mod stage {
    pub const SCORES: u32 = 1;
    pub const SOFTMAX: u32 = 2;
    pub const CONTEXT: u32 = 4;
}

/// Rows of one tensor whose statistics are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
pub struct StatisticsEntry {
    pub x: u64,
    pub rows: u32,
    pub width: u32,
    pub heads: u32,
    pub first_position: u32,
    pub first_block: u32,
    pub out_row: u32,
    pub window: u32,
    /// Of each row.
    pub warps: u32,
}

/// Statistics of all rows of some tensors.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct Statistics {
    pub out: u64,
    pub entries: [StatisticsEntry; MOST_STATISTICS],
    pub count: u32,
    pub unused: u32,
}

/// Statistics of one row as the device delivers them.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
pub struct RowRecord {
    pub count: u32,
    pub nan: u32,
    pub pos_inf: u32,
    pub neg_inf: u32,
    pub zero: u32,
    pub subnormal: u32,
    pub min_index: u32,
    pub max_index: u32,
    pub min: f32,
    pub max: f32,
    pub smallest: u32,
    pub unused: u32,
    pub mean: f64,
    pub m2: f64,
    pub l1: f64,
    pub fingerprint: u64,
}

/// The greedy choice after a row of logits.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
pub struct Choose {
    pub logits: u64,
    pub parts: u64,
    pub out: u64,
    pub width: u32,
    pub count: u32,
}

/// One operation of a router.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
pub struct Router {
    pub x: u64,
    pub chosen: u64,
    pub out: u64,
    pub experts: u32,
    pub used: u32,
    pub normalised: u32,
    pub unused: u32,
}

/// Products of each row with the matrix of the expert in one slot.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
pub struct ExpertProduct {
    pub table: u64,
    pub chosen: u64,
    pub x: u64,
    pub y: u64,
    pub rows: u32,
    pub columns: u32,
    pub experts: u32,
    pub used: u32,
    pub slot: u32,
    pub unused: u32,
}

/// The weighted sum of some slots, added to that of the slots before them.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
pub struct ExpertSum {
    pub weights: u64,
    pub slots: [u64; MOST_SLOTS],
    pub out: u64,
    pub width: u32,
    pub used: u32,
    pub first: u32,
    pub count: u32,
}

/// Rows after a gate.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
pub struct Gate {
    pub x: u64,
    pub gated: u64,
    pub gate: u64,
    pub out: u64,
    pub width: u32,
    pub columns: u32,
}

/// Bytes of one part's result.
pub(super) const CHOOSE_BYTES: usize = 16;
