//! The fixed bytes of a trace file: its header, the header of every frame, and the limits both obey.
//! `schema/trace-file.md` has every field.

mod frame;
mod header;

pub(crate) use frame::{BODY_RAW, BODY_ZSTD};
pub use frame::{FrameHeader, Kind, NO_RUN};
pub use header::FileHeader;

/// Everything in the file begins at a multiple of this.
pub const ALIGNMENT: usize = 64;

/// Raw bytes of values that one payload frame may hold: a single row that is longer than the target.
pub const MAX_PAYLOAD_BYTES: usize = 64 << 20;

/// Stored or raw bytes of a frame's body.
pub const MAX_BODY_BYTES: u32 = 1 << 30;

/// Rounds up to [`ALIGNMENT`].
pub fn padded(length: u64) -> u64 {
    length.next_multiple_of(ALIGNMENT as u64)
}
