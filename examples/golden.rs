//! Makes `tests/fixtures/golden/v1.actrace` and `schema/records.toml` anew: `cargo run --release --example golden`.
//!
//! Only for a change of a record before the first tagged release. From then on what is committed stays.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a program for developers: a panic is its report")]
#![allow(dead_code, reason = "the tests use more of what is shared")]

#[path = "../tests/support/trace.rs"]
mod trace;

use std::path::Path;

fn main() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::create_dir_all(package.join("tests/fixtures/golden")).expect("a folder");
    std::fs::write(package.join("tests/fixtures/golden/v1.actrace"), trace::sample()).expect("the golden trace");
    std::fs::write(package.join("schema/records.toml"), trace::record_table()).expect("the table of records");
}
