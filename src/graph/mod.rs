//! The forward pass of a family as data: every capture point, the operation that makes it, what it reads.
//!
//! Forward pass, coverage and comparison read this one description; a backend executes it.

mod blocks;
mod builder;
mod families;
mod family;
mod operation;

use crate::error::Result;
use crate::model::{Model, WeightKey};

pub use operation::Operation;

/// Index of a [`Site`] in its [`Graph`]: sites stand in forward order.
pub type SiteId = u32;

/// The elements of one token's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowAxes {
    /// One axis: `[width]`.
    Flat {
        /// Elements.
        width: u32,
    },
    /// Two axes: `[heads, dim]`.
    Heads {
        /// Heads.
        heads: u32,
        /// Elements of a head.
        dim: u32,
    },
    /// Ragged: `[heads, visible keys]`. The keys are those up to the token's own, the last `window` of them.
    Keys {
        /// Heads.
        heads: u32,
        /// Keys that are visible at most; `None` for all.
        window: Option<u32>,
    },
}

impl RowAxes {
    /// Elements of a row, or `None` where it depends on the position.
    pub fn width(self) -> Option<u32> {
        match self {
            RowAxes::Flat { width } => Some(width),
            RowAxes::Heads { heads, dim } => heads.checked_mul(dim),
            RowAxes::Keys { .. } => None,
        }
    }
}

/// One place of the forward pass: the tensor that one operation makes.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// Its index in the graph.
    pub id: SiteId,
    /// The layer, or `None` outside the layers.
    pub layer: Option<u32>,
    /// The capture point's name, from `schema/capture-points.toml`.
    pub point: &'static str,
    /// Which of several tensors of one point in one layer: the slot among the chosen experts; 0 otherwise.
    pub occurrence: u32,
    /// How it is made.
    pub operation: Operation,
    /// What it is made from; every input stands before its site.
    pub inputs: Vec<SiteId>,
    /// Weights in the order that the operation names.
    pub weights: Vec<WeightKey>,
    /// The shape of a row.
    pub axes: RowAxes,
}

/// A family's forward pass with the numbers of one model.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    /// Sites in forward order; the last is `logits`.
    pub sites: Vec<Site>,
    /// Layers.
    pub layers: u32,
}

impl Graph {
    /// The forward pass of `model`: its family's description with its numbers and the biases that it holds.
    ///
    /// # Errors
    /// Unsupported where the architecture is unknown; malformed where a weight is missing or has another
    /// shape than the hyper-parameters say.
    pub fn of(model: &Model) -> Result<Graph> {
        builder::build(model)
    }

    /// The site that makes `point` in `layer`.
    pub fn site(&self, layer: Option<u32>, point: &str) -> Option<&Site> {
        self.sites.iter().find(|site| site.layer == layer && site.point == point)
    }
}
