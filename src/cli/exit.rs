//! From an error's kind to the exit status, in this one place.

use crate::error::{Error, ErrorKind};

/// 1 for damage or failure, 2 for usage, environment and input that is not readable, 3 for what cannot be compared or
/// was done with loss. An interrupted run that was sealed is of the last sort: shells' 128 plus a signal's number would
/// say that nothing was made of it.
pub fn exit_code(error: &Error) -> u8 {
    match error.kind() {
        ErrorKind::Damaged | ErrorKind::Internal => 1,
        ErrorKind::NotComparable | ErrorKind::Loss | ErrorKind::Interrupted => 3,
        ErrorKind::Usage
        | ErrorKind::Environment
        | ErrorKind::Unsupported
        | ErrorKind::Malformed
        | ErrorKind::Foreign => 2,
    }
}
