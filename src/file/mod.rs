//! The bytes of a trace file: header, frames, and the writer that appends them. `schema/trace-file.md` has every field.

mod durability;
mod frame;
mod header;
mod lock;
mod storage;
mod writer;

pub use durability::Durability;
pub use frame::{FrameHeader, Kind, NO_RUN};
pub use header::FileHeader;
pub(crate) use storage::sync_folder;
pub use storage::{FileStorage, Storage};
pub use writer::{Span, Tail, Writer, list, seal_root};

/// Everything in the file begins at a multiple of this.
pub const ALIGNMENT: usize = 64;

/// Raw bytes of values that one payload frame aims at: one row is cheap to read.
pub const PAYLOAD_TARGET_BYTES: usize = 4 << 20;

/// Raw bytes of values that one payload frame may hold: a single row that is longer than the target.
pub const MAX_PAYLOAD_BYTES: usize = 64 << 20;

/// Stored or raw bytes of a frame's body.
pub const MAX_BODY_BYTES: u32 = 1 << 30;

/// Rounds up to [`ALIGNMENT`].
pub fn padded(length: u64) -> u64 {
    length.next_multiple_of(ALIGNMENT as u64)
}
