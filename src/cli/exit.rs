//! From an error's kind to the exit status, in this one place.

use crate::error::{Error, ErrorKind};

/// 1 for damage or failure, 2 for usage, environment and input that is not readable, 3 for what cannot be compared or
/// was done with loss.
pub fn exit_code(error: &Error) -> u8 {
    match error.kind() {
        ErrorKind::Damaged | ErrorKind::Internal => 1,
        ErrorKind::NotComparable | ErrorKind::Loss => 3,
        ErrorKind::Usage
        | ErrorKind::Environment
        | ErrorKind::Unsupported
        | ErrorKind::Malformed
        | ErrorKind::Foreign => 2,
    }
}
