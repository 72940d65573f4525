//! Every CUDA kernel compiles for every generation of cards, on hosts without one: NVRTC needs no card.

use actrace::backend::cuda::{compile, require_nvrtc};

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
        let ptx = compile(capability).unwrap().to_src();
        let kernels = ptx.matches(".visible .entry").count();
        assert_eq!(kernels, actrace::backend::cuda::kernel_names().len(), "compute capability {capability:?}");
        for name in actrace::backend::cuda::kernel_names() {
            assert!(ptx.contains(&format!(".entry {name}(")), "no kernel {name}");
        }
    }
    println!("compiled for {CAPABILITIES:?}");
}
