//! The launches of kernels: what each one takes, laid out as in its source.

use super::q4k::{self, Card};
use crate::model::TensorType;

/// Products in one launch.
pub(super) const MOST_MATVEC_JOBS: usize = 4;
/// Outputs of one block of a product.
pub(super) const MATVEC_TILE: u32 = 8;
/// Element operations in one launch.
pub(super) const MOST_POINTWISE_JOBS: usize = 4;
/// Elements of one block of element operations.
pub(super) const POINTWISE_BLOCK: u64 = 1024;
/// Slots of one weighted sum.
pub(super) const MOST_SLOTS: usize = 8;
/// Logits of one block of the choice.
pub(super) const CHOOSE_PART: u32 = 2048;
/// Units of one block of statistics.
const STATISTICS_WARPS: u32 = 8;
/// Elements of a row that one block converts.
const DEQUANTIZE_BLOCK: u32 = 1024;
/// Elements of a row that one block of a weighted sum takes.
const SUM_BLOCK: u32 = 256;
/// Rows and columns of a tile of attention.
const SQUARE: u32 = 64;

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
    /// What [`q4k::plan`] says.
    pub slab: u32,
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
    pub unused: u32,
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
    pub first_row: u32,
    pub units: u32,
    pub first_unit: u32,
    pub out_row: u32,
    /// Of ragged rows, as in [`Attention`].
    pub window: u32,
}

impl StatisticsEntry {
    /// The entry as it lies in the card's memory.
    pub fn bytes(&self) -> impl Iterator<Item = u8> + use<> {
        let Self { rows, width, heads, first_row, units, first_unit, out_row, window, .. } = *self;
        let numbers = [rows, width, heads, first_row, units, first_unit, out_row, window];
        self.x.to_le_bytes().into_iter().chain(numbers.into_iter().flat_map(u32::to_le_bytes))
    }
}

/// Statistics of several tensors.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
pub struct Statistics {
    pub step: u64,
    pub partials: u64,
    pub out: u64,
    pub entries: u64,
    pub count: u32,
    pub unit: u32,
    pub units: u32,
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

/// Kernels that are compiled together, when they are first needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// Those of no type of weights.
    Plain,
    /// Products, conversion and embedding of a type.
    Type(TensorType),
    /// Products of experts of a type.
    Experts(TensorType),
}

impl Part {
    /// Every part.
    pub fn all() -> Vec<Part> {
        let typed =
            TensorType::ALL.into_iter().flat_map(|tensor_type| [Part::Type(tensor_type), Part::Experts(tensor_type)]);
        [Part::Plain].into_iter().chain(typed).collect()
    }

    /// Its kernels.
    pub fn kernels(self) -> Vec<Kernel> {
        match self {
            Part::Plain => PLAIN.map(Kernel::Plain).to_vec(),
            Part::Type(t) => vec![Kernel::Matvec(t), Kernel::Dequantize(t), Kernel::Embedding(t)],
            Part::Experts(t) => vec![Kernel::Experts(t)],
        }
    }
}

/// A kernel by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// Products of few rows with a weight.
    Matvec(TensorType),
    /// Products of rows with the matrix of each one's expert.
    Experts(TensorType),
    /// Conversion of a weight for a product of many rows.
    Dequantize(TensorType),
    /// Rows of a weight.
    Embedding(TensorType),
    /// What reads no weight in its stored type.
    Plain(&'static str),
}

impl Kernel {
    /// The name in the source.
    pub fn name(self) -> String {
        match self {
            Kernel::Matvec(tensor_type) => format!("matvec_{}", tensor_type.name()),
            Kernel::Experts(tensor_type) => format!("experts_{}", tensor_type.name()),
            Kernel::Dequantize(tensor_type) => format!("dequantize_{}", tensor_type.name()),
            Kernel::Embedding(tensor_type) => format!("embedding_{}", tensor_type.name()),
            Kernel::Plain(name) => name.to_owned(),
        }
    }
}

const PLAIN: [&str; 16] = [
    "cast",
    "normalise",
    "pointwise",
    "attention_few",
    "attention_scores",
    "attention_softmax",
    "attention_context",
    "row_softmax",
    "top_k",
    "expert_weights",
    "expert_sum",
    "gate",
    "statistics",
    "statistics_merge",
    "choose_parts",
    "choose",
];

/// One launch of a kernel.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// Products of `rows` rows, made for `card`.
    Matvec {
        tensor_type: TensorType,
        rows: u32,
        card: Card,
        params: Box<Matvec>,
    },
    Dequantize {
        tensor_type: TensorType,
        params: Dequantize,
    },
    Embedding {
        tensor_type: TensorType,
        rows: u32,
        params: Embedding,
    },
    Cast(Cast),
    Norm {
        rows: u32,
        params: Norm,
    },
    Pointwise(Box<Pointwise>),
    /// All stages that are asked for, a block for each head of each row.
    AttentionFew(Attention),
    /// Scores of many rows that see at most `visible` keys.
    AttentionScores {
        params: Attention,
        visible: u32,
    },
    AttentionSoftmax(Attention),
    AttentionContext(Attention),
    RowSoftmax {
        rows: u32,
        params: Router,
    },
    TopK {
        rows: u32,
        params: Router,
    },
    ExpertWeights {
        rows: u32,
        params: Router,
    },
    Experts {
        tensor_type: TensorType,
        rows: u32,
        params: ExpertProduct,
    },
    ExpertSum {
        rows: u32,
        params: ExpertSum,
    },
    Gate {
        rows: u32,
        params: Gate,
    },
    Statistics(Statistics),
    StatisticsMerge(Statistics),
    ChooseParts(Choose),
    Choose(Choose),
}

impl Work {
    pub fn kernel(&self) -> Kernel {
        match self {
            Work::Matvec { tensor_type, .. } => Kernel::Matvec(*tensor_type),
            Work::Dequantize { tensor_type, .. } => Kernel::Dequantize(*tensor_type),
            Work::Embedding { tensor_type, .. } => Kernel::Embedding(*tensor_type),
            Work::Cast(_) => Kernel::Plain("cast"),
            Work::Norm { .. } => Kernel::Plain("normalise"),
            Work::Pointwise(_) => Kernel::Plain("pointwise"),
            Work::AttentionFew(_) => Kernel::Plain("attention_few"),
            Work::AttentionScores { .. } => Kernel::Plain("attention_scores"),
            Work::AttentionSoftmax(_) => Kernel::Plain("attention_softmax"),
            Work::AttentionContext(_) => Kernel::Plain("attention_context"),
            Work::RowSoftmax { .. } => Kernel::Plain("row_softmax"),
            Work::TopK { .. } => Kernel::Plain("top_k"),
            Work::ExpertWeights { .. } => Kernel::Plain("expert_weights"),
            Work::Experts { tensor_type, .. } => Kernel::Experts(*tensor_type),
            Work::ExpertSum { .. } => Kernel::Plain("expert_sum"),
            Work::Gate { .. } => Kernel::Plain("gate"),
            Work::Statistics(_) => Kernel::Plain("statistics"),
            Work::StatisticsMerge(_) => Kernel::Plain("statistics_merge"),
            Work::ChooseParts(_) => Kernel::Plain("choose_parts"),
            Work::Choose(_) => Kernel::Plain("choose"),
        }
    }

    /// Blocks in three directions.
    pub fn grid(&self) -> (u32, u32, u32) {
        match self {
            Work::Matvec { tensor_type, rows, card, params } => {
                let tiles = matvec_tiles(params, *tensor_type, card);
                let resident = self.q4_k().map(|plan| card.multiprocessors * plan.resident);
                (resident.map_or(tiles, |resident| tiles.min(resident)), *rows, 1)
            }
            Work::Dequantize { params, .. } => (blocks(params.rows, 1), params.columns.div_ceil(DEQUANTIZE_BLOCK), 1),
            Work::Embedding { rows, .. }
            | Work::Norm { rows, .. }
            | Work::RowSoftmax { rows, .. }
            | Work::TopK { rows, .. }
            | Work::ExpertWeights { rows, .. }
            | Work::Gate { rows, .. } => (*rows, 1, 1),
            Work::Experts { rows, params, .. } => (*rows, params.rows.div_ceil(MATVEC_TILE), 1),
            Work::ExpertSum { rows, params } => (*rows, params.width.div_ceil(SUM_BLOCK), 1),
            Work::Cast(params) => (blocks(params.count, 1024), 1, 1),
            Work::Pointwise(params) => (pointwise_blocks(params), 1, 1),
            Work::AttentionFew(params) => (params.heads, params.rows, 1),
            Work::AttentionScores { params, visible } => {
                (visible.div_ceil(SQUARE), params.rows.div_ceil(SQUARE), params.heads)
            }
            Work::AttentionSoftmax(params) => (params.rows, params.heads, 1),
            Work::AttentionContext(params) => {
                (params.head_dim.div_ceil(SQUARE), params.rows.div_ceil(SQUARE), params.heads)
            }
            Work::Statistics(params) | Work::StatisticsMerge(params) => (params.units.div_ceil(STATISTICS_WARPS), 1, 1),
            Work::ChooseParts(params) => (params.count, 1, 1),
            Work::Choose(_) => (1, 1, 1),
        }
    }

    /// Threads of a block.
    pub fn block(&self) -> u32 {
        match self {
            Work::Matvec { .. } => self.q4_k().map_or(128, |plan| plan.warps * 32),
            Work::AttentionSoftmax(_) | Work::RowSoftmax { .. } | Work::Experts { .. } => 128,
            Work::TopK { .. } | Work::ExpertWeights { .. } => 32,
            Work::ExpertSum { .. } => SUM_BLOCK,
            Work::Norm { .. } | Work::AttentionFew(_) => 1024,
            _ => 256,
        }
    }

    /// Bytes of shared memory beside what the kernel declares.
    pub fn shared(&self) -> u32 {
        self.q4_k().map_or(0, |plan| plan.shared)
    }

    /// The plan of Q4_K products, where the card makes them in their own way.
    fn q4_k(&self) -> Option<q4k::Plan> {
        match self {
            Work::Matvec { tensor_type: TensorType::Q4K, card, params, .. } if card.multiplies_bytes() => {
                Some(q4k::plan(params.jobs[0].columns, card))
            }
            _ => None,
        }
    }

    /// The one parameter of the kernel.
    pub fn params(&self) -> *const std::ffi::c_void {
        match self {
            Work::Matvec { params, .. } => (&raw const **params).cast(),
            Work::Dequantize { params, .. } => (&raw const *params).cast(),
            Work::Embedding { params, .. } => (&raw const *params).cast(),
            Work::Cast(params) => (&raw const *params).cast(),
            Work::Norm { params, .. } => (&raw const *params).cast(),
            Work::Pointwise(params) => (&raw const **params).cast(),
            Work::AttentionFew(params)
            | Work::AttentionScores { params, .. }
            | Work::AttentionSoftmax(params)
            | Work::AttentionContext(params) => (&raw const *params).cast(),
            Work::RowSoftmax { params, .. } | Work::TopK { params, .. } | Work::ExpertWeights { params, .. } => {
                (&raw const *params).cast()
            }
            Work::Experts { params, .. } => (&raw const *params).cast(),
            Work::ExpertSum { params, .. } => (&raw const *params).cast(),
            Work::Gate { params, .. } => (&raw const *params).cast(),
            Work::Statistics(params) | Work::StatisticsMerge(params) => (&raw const *params).cast(),
            Work::ChooseParts(params) | Work::Choose(params) => (&raw const *params).cast(),
        }
    }
}

fn blocks(elements: u64, each: u64) -> u32 {
    u32::try_from(elements.div_ceil(each)).unwrap_or(u32::MAX)
}

/// Tiles of all products up to the last.
pub(super) fn matvec_tiles(params: &Matvec, tensor_type: TensorType, card: &Card) -> u32 {
    let own = tensor_type == TensorType::Q4K && card.multiplies_bytes();
    let tile = if own { q4k::TILE } else { MATVEC_TILE };
    let jobs = &params.jobs[..params.count as usize];
    jobs.last().map_or(0, |job| job.first_block + job.rows.div_ceil(tile))
}

/// Blocks of all element operations up to the last.
pub(super) fn pointwise_blocks(params: &Pointwise) -> u32 {
    let jobs = &params.jobs[..params.count as usize];
    jobs.last().map_or(0, |job| job.first_block + blocks(u64::from(job.rows) * u64::from(job.width), POINTWISE_BLOCK))
}
