//! Kernels, the parts in which they are compiled, and their launches.

use super::params::{
    Attention, Cast, Choose, Dequantize, Embedding, ExpertProduct, ExpertSum, Gate, Matvec, Norm, Pointwise, Router,
    Statistics, StatisticsEntry,
};
use super::q4k::{self, Card};
use crate::model::TensorType;

/// Outputs of one block of a product.
pub(super) const MATVEC_TILE: u32 = 8;
/// Threads of a block of attention of few rows.
pub(super) const FEW_THREADS: u32 = 512;
/// Blocks that share a head of those at most: as many as make a cluster on ordinary cards that have clusters.
pub(super) const MOST_PARTS: u32 = 8;
/// Elements of one block of element operations.
pub(super) const POINTWISE_BLOCK: u64 = 1024;
/// Logits of one block of the choice.
pub(super) const CHOOSE_PART: u32 = 2048;
/// Warps of one block of statistics.
pub(super) const STATISTICS_WARPS: u32 = 8;
/// Elements of a row that one block converts.
const DEQUANTIZE_BLOCK: u32 = 1024;
/// Elements of a row that one block of a weighted sum takes.
const SUM_BLOCK: u32 = 256;
/// Rows and columns of a tile of attention.
const SQUARE: u32 = 64;

/// Types of weights that kernels read as they are stored. What a weight of another type holds, in several tensors perhaps,
/// comes to the card as F32.
pub const FORMATS: [TensorType; 16] = [
    TensorType::F32,
    TensorType::F16,
    TensorType::Bf16,
    TensorType::Q4_0,
    TensorType::Q4_1,
    TensorType::Q5_0,
    TensorType::Q5_1,
    TensorType::Q8_0,
    TensorType::Q2K,
    TensorType::Q3K,
    TensorType::Q4K,
    TensorType::Q5K,
    TensorType::Q6K,
    TensorType::Iq4Nl,
    TensorType::Iq4Xs,
    TensorType::Mxfp4,
];

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
        let typed = FORMATS.into_iter().flat_map(|tensor_type| [Part::Type(tensor_type), Part::Experts(tensor_type)]);
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

const PLAIN: [&str; 15] = [
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
    /// All stages that are asked for, a cluster of blocks for each head of each row.
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
    Statistics(Box<Statistics>),
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
            Work::AttentionFew(params) => (params.heads * params.parts, params.rows, 1),
            Work::AttentionScores { params, visible } => {
                (visible.div_ceil(SQUARE), params.rows.div_ceil(SQUARE), params.heads)
            }
            Work::AttentionSoftmax(params) => (params.rows, params.heads, 1),
            Work::AttentionContext(params) => {
                (params.head_dim.div_ceil(SQUARE), params.rows.div_ceil(SQUARE), params.heads)
            }
            Work::Statistics(params) => (params.blocks(), 1, 1),
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
            Work::Norm { .. } => 512,
            Work::AttentionFew(_) => FEW_THREADS,
            _ => 256,
        }
    }

    /// Blocks that run at the same time and write to each other's shared memory.
    pub fn cluster(&self) -> u32 {
        match self {
            Work::AttentionFew(params) => params.parts,
            _ => 1,
        }
    }

    /// Bytes of shared memory beside what the kernel declares.
    pub fn shared(&self) -> u32 {
        self.q4_k().map_or(0, |plan| plan.shared)
    }

    /// The plan of Q4_K products, where the card makes them in their own way.
    fn q4_k(&self) -> Option<q4k::Plan> {
        match self {
            Work::Matvec { tensor_type, card, params, .. } if card.multiplies_bytes(*tensor_type) => {
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
            Work::Statistics(params) => (&raw const **params).cast(),
            Work::ChooseParts(params) | Work::Choose(params) => (&raw const *params).cast(),
        }
    }
}

fn blocks(elements: u64, each: u64) -> u32 {
    u32::try_from(elements.div_ceil(each)).unwrap_or(u32::MAX)
}

/// Tiles of all products up to the last.
pub(super) fn matvec_tiles(params: &Matvec, tensor_type: TensorType, card: &Card) -> u32 {
    let tile = if card.multiplies_bytes(tensor_type) { q4k::TILE } else { MATVEC_TILE };
    let jobs = &params.jobs[..params.count as usize];
    jobs.last().map_or(0, |job| job.first_block + job.rows.div_ceil(tile))
}

/// Blocks of all element operations up to the last.
pub(super) fn pointwise_blocks(params: &Pointwise) -> u32 {
    let jobs = &params.jobs[..params.count as usize];
    jobs.last().map_or(0, |job| job.first_block + blocks(u64::from(job.rows) * u64::from(job.width), POINTWISE_BLOCK))
}

impl Statistics {
    /// Shares blocks out to the tensors, one behind the other.
    pub(super) fn place_blocks(&mut self) {
        let mut next = 0;
        for entry in &mut self.entries[..self.count as usize] {
            entry.first_block = next;
            next = entry.end_block();
        }
    }

    /// Blocks of all tensors.
    fn blocks(&self) -> u32 {
        self.entries[..self.count as usize].last().map_or(0, StatisticsEntry::end_block)
    }
}

impl StatisticsEntry {
    /// The block behind its last.
    fn end_block(&self) -> u32 {
        self.first_block + self.rows.div_ceil(STATISTICS_WARPS / self.warps)
    }
}
