//! What the content hash of a payload covers.

use crate::tensor::Dtype;

/// Types and row boundaries of a payload: with the raw values, what its content hash covers.
#[derive(Debug, Clone, Copy)]
pub struct Shape<'a> {
    /// Type when captured.
    pub captured: Dtype,
    /// Stored type.
    pub stored: Dtype,
    /// Rows.
    pub rows: u32,
    /// Elements per row, 0 where ragged.
    pub width: u32,
    /// Row boundaries where ragged.
    pub offsets: &'a [u32],
}

impl Shape<'_> {
    /// blake3 over types, shape and raw little-endian values: equal content is recognised by it.
    pub fn content_hash(&self, raw: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("actrace 1 payload content");
        hasher.update(&[self.captured as u8, self.stored as u8]);
        hasher.update(&self.rows.to_le_bytes()).update(&self.width.to_le_bytes());
        for offset in self.offsets {
            hasher.update(&offset.to_le_bytes());
        }
        hasher.update(raw);
        *hasher.finalize().as_bytes()
    }
}
