//! Every CUDA kernel compiles for every generation of cards, on hosts without one: NVRTC needs no card.

use actrace::backend::cuda::{Part, compile, require_nvrtc};

/// Turing, Ampere (data centre and desktop), Ada, Hopper, Blackwell (data centre and desktop).
const CAPABILITIES: [(i32, i32); 7] = [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)];

/// Where the folder of NVRTC is named, as in CI, its absence is a failure.
#[test]
fn for_every_generation_of_cards() {
    if let Err(missing) = require_nvrtc() {
        assert!(std::env::var_os("ACTRACE_CUDA_LIBRARIES").is_none(), "{missing}");
        println!("skipped: no NVRTC");
        return;
    }
    for capability in CAPABILITIES {
        for part in Part::all() {
            let ptx = compile(part, capability).unwrap().to_src();
            let kernels = part.kernels();
            let found = ptx.matches(".visible .entry").count();
            assert_eq!(found, kernels.len(), "{part:?} for compute capability {capability:?}");
            for kernel in kernels {
                let name = kernel.name();
                assert!(ptx.contains(&format!(".entry {name}(")), "no kernel {name}");
            }
        }
    }
    println!("compiled for {CAPABILITIES:?}");
}
