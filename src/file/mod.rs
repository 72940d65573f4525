//! The writer that appends frames to a trace file, and what it writes through. The bytes are those of
//! [`crate::layout`], whose names are names of this module too.

mod durability;
mod lock;
mod storage;
mod syncing;
mod writer;

pub use crate::layout::{ALIGNMENT, FileHeader, FrameHeader, Kind, MAX_BODY_BYTES, MAX_PAYLOAD_BYTES, NO_RUN, padded};
pub use durability::Durability;
pub(crate) use storage::sync_folder;
pub use storage::{DetachedSync, FileStorage, Storage};
pub use writer::{Span, Tail, Writer, list, seal_root};

/// Raw bytes of values that one payload frame aims at: one row is cheap to read.
pub const PAYLOAD_TARGET_BYTES: usize = 4 << 20;
