//! Attacks the readers with mutated inputs: `cargo run --release --example attack -- COUNT [FIRST]`.
//!
//! Ends with status 1 where an input made a reader panic or hold more memory than the input justifies; the numbers it
//! prints make the same inputs again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in an attack, a panic is the report")]
#![allow(dead_code, reason = "the tests use more of what is shared")]

#[path = "../tests/support/attack.rs"]
mod attack;
#[path = "../tests/support/forge.rs"]
mod forge;
#[path = "../tests/support/memory.rs"]
mod memory;
#[path = "../tests/support/trace.rs"]
mod trace;

use attack::attack_all;
use std::path::Path;
use std::time::Instant;

#[global_allocator]
static COUNTED: memory::Counting = memory::Counting;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>().expect("a number"));
    let count = arguments.next().unwrap_or(100_000);
    let first = arguments.next().unwrap_or(0);
    let start = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (tally, failures) = attack_all(Path::new(env!("CARGO_MANIFEST_DIR")), first..first + count, threads);
    println!("group           inputs   accepted   peak bytes");
    for (group, (inputs, accepted, peak)) in &tally {
        println!("{group:12} {inputs:>9}  {accepted:>9}  {peak:>11}");
    }
    println!("{count} inputs in {:.1} s, {} failures", start.elapsed().as_secs_f64(), failures.len());
    failures.iter().take(20).for_each(|failure| println!("{failure}"));
    std::process::exit(i32::from(!failures.is_empty()));
}
