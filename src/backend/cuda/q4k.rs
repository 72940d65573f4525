//! How a card shares out products with Q4_K weights: `kernels/matvec_q4_k.cu` says what for.

use crate::model::TensorType;

/// What a launch has to know of the card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Card {
    pub capability: (i32, i32),
    pub multiprocessors: u32,
    /// Bytes of shared memory that one block may have at most.
    pub shared_block: u32,
    /// The same of all blocks on a multiprocessor.
    pub shared_multiprocessor: u32,
}

impl Card {
    /// Whether tensor cores make products with weights of this type: Q4_K, on cards that multiply bytes. All others are made
    /// alike.
    pub(super) fn multiplies_bytes(&self, tensor_type: TensorType) -> bool {
        tensor_type == TensorType::Q4K && self.capability.0 >= 8
    }
}

/// Rows of a tile.
pub(super) const TILE: u32 = 16;
/// Warps of a block at most.
pub(super) const WARPS: u32 = 16;
/// Bytes of a warp's stage: two super-blocks of every row of a tile.
pub(super) const STAGE: u32 = TILE * 2 * 144;
/// Stages of a warp.
pub(super) const DEPTH: u32 = 3;
/// Bytes of shared memory that x of one super-block takes.
pub(super) const INPUT: u32 = 1072;
/// Super-blocks of a warp, at most, of a row that a product norms.
pub(super) const NORMED: u32 = 4;
/// Bytes of shared memory that the kernel declares: two partial sums of each row for every warp, and those of a norm.
const DECLARED: u32 = 2 * WARPS * TILE * 4 + WARPS * NORMED * 8;
/// Bytes of shared memory that the system takes of every block.
const RESERVED: u32 = 1024;

/// The blocks of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) warps: u32,
    /// Pairs of super-blocks of each warp whose x is in shared memory at a time.
    pub(super) slab: u32,
    /// Bytes of shared memory beside what the kernel declares.
    pub(super) shared: u32,
    /// Blocks that a multiprocessor runs at a time.
    pub(super) resident: u32,
}

impl Plan {
    /// Whether a product of so many columns can make its row by a norm: every warp has its part of it in registers.
    pub(super) fn norms(&self, columns: u32) -> bool {
        let blocks = columns / 256;
        columns.is_multiple_of(256) && blocks <= self.warps * NORMED && self.slab * self.warps * 2 >= blocks
    }
}

/// The plan that keeps most warps of a multiprocessor busy, for weights of so many columns.
pub(super) fn plan(columns: u32, card: &Card) -> Plan {
    let blocks = (columns / 256).max(1);
    let pairs = blocks.div_ceil(2);
    let mut best = (0, Plan { warps: 1, slab: 1, shared: DEPTH * STAGE + blocks.min(2) * INPUT, resident: 1 });
    for warps in 1..=WARPS.min(pairs) {
        let stages = warps * DEPTH * STAGE;
        let room = card.shared_block.saturating_sub(DECLARED + stages);
        let turns = pairs.div_ceil(warps);
        let slab = turns.min(room / (warps * 2 * INPUT));
        if slab == 0 {
            continue;
        }
        let shared = stages + blocks.min(slab * warps * 2) * INPUT;
        let fit = card.shared_multiprocessor / (shared + DECLARED + RESERVED);
        let resident = fit.clamp(1, WARPS / warps);
        // Warps that work on average, in 64ths; x that is made anew for every tile costs about as much again.
        let busy = resident * pairs * 64 / turns / if slab < turns { 2 } else { 1 };
        if busy > best.0 {
            best = (busy, Plan { warps, slab, shared, resident });
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::{Card, DECLARED, DEPTH, INPUT, Plan, RESERVED, STAGE, WARPS, plan};

    const HOPPER: Card =
        Card { capability: (9, 0), multiprocessors: 132, shared_block: 232_448, shared_multiprocessor: 233_472 };
    const ADA: Card =
        Card { capability: (8, 9), multiprocessors: 128, shared_block: 101_376, shared_multiprocessor: 102_400 };

    #[test]
    fn the_widths_of_a_7b_model_fill_a_large_card() {
        let shapes = [3584, 18944].map(|columns| plan(columns, &HOPPER)).map(|p| (p.warps, p.resident, p.slab));
        assert_eq!(shapes, [(7, 2, 1), (10, 1, 4)]);
    }

    #[test]
    fn rows_that_fit_its_registers_are_normed_by_the_product() {
        let norms = |columns| plan(columns, &HOPPER).norms(columns);
        assert_eq!([256, 3584, 4096, 5120].map(norms), [true; 4]);
        assert_eq!([300, 8192, 18944].map(norms), [false; 3]);
    }

    #[test]
    fn every_width_fits_every_card() {
        for card in [HOPPER, ADA] {
            for blocks in 1..=400u32 {
                let made @ Plan { warps, slab, shared, resident } = plan(blocks * 256, &card);
                let place = format!("{blocks} super-blocks on {:?}: {made:?}", card.capability);
                assert!(shared + DECLARED <= card.shared_block, "{place}");
                assert!(resident * (shared + DECLARED + RESERVED) <= card.shared_multiprocessor, "{place}");
                let turns = blocks.div_ceil(2).div_ceil(warps);
                assert!(slab >= 1 && slab <= turns && resident * warps <= WARPS, "{place}");
                let held = blocks.min(slab * warps * 2);
                assert_eq!(shared, warps * DEPTH * STAGE + held * INPUT, "{place}");
                assert!(blocks.div_ceil(2) >= warps, "{place}");
            }
        }
    }
}
