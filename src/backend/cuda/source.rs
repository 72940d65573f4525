//! The kernels' source, and its compilation by NVRTC.

use super::{q4k, work};
use crate::error::{Error, ErrorKind, Result};
use cudarc::nvrtc::{CompileError, CompileOptions, Ptx, compile_ptx_with_opts};
use std::collections::BTreeMap;
use std::sync::Mutex;

const FILES: [&str; 7] = [
    include_str!("kernels/common.cu"),
    include_str!("kernels/formats.cu"),
    include_str!("kernels/matvec.cu"),
    include_str!("kernels/matvec_q4_k.cu"),
    include_str!("kernels/rowwise.cu"),
    include_str!("kernels/attention.cu"),
    include_str!("kernels/statistics.cu"),
];

/// The whole source: the files one after the other, and a check that both sides lay parameters out alike.
fn source() -> String {
    let sizes: [(&str, usize); _] = [
        ("Matvec", size_of::<work::Matvec>()),
        ("Q4KInput", q4k::INPUT as usize),
        ("Dequantize", size_of::<work::Dequantize>()),
        ("Embedding", size_of::<work::Embedding>()),
        ("Cast", size_of::<work::Cast>()),
        ("Norm", size_of::<work::Norm>()),
        ("Pointwise", size_of::<work::Pointwise>()),
        ("Attention", size_of::<work::Attention>()),
        ("Statistics", size_of::<work::Statistics>()),
        ("RowStatistics", size_of::<work::RowRecord>()),
        ("StatisticsEntry", size_of::<work::StatisticsEntry>()),
        ("Choose", size_of::<work::Choose>()),
        ("Best", work::CHOOSE_BYTES),
    ];
    let constants = [
        ("TILE", u64::from(work::MATVEC_TILE)),
        ("Q4_K_TILE", u64::from(q4k::TILE)),
        ("Q4_K_WARPS", u64::from(q4k::WARPS)),
        ("Q4_K_STAGE", u64::from(q4k::STAGE)),
        ("Q4_K_DEPTH", u64::from(q4k::DEPTH)),
        ("POINTWISE_BLOCK", work::POINTWISE_BLOCK),
        ("CHOOSE_PART", u64::from(work::CHOOSE_PART)),
    ];
    let mut source = FILES.concat();
    for (name, size) in sizes {
        source += &format!("static_assert(sizeof({name}) == {size}, \"{name} on the host\");\n");
    }
    for (name, value) in constants {
        source += &format!("static_assert({name} == {value}, \"{name} on the host\");\n");
    }
    source
}

/// All kernels, compiled for a compute capability once in a process.
///
/// # Errors
/// Environment where NVRTC does not know the card; internal, with NVRTC's log, where the source is wrong.
pub fn compile(capability: (i32, i32)) -> Result<Ptx> {
    static COMPILED: Mutex<BTreeMap<(i32, i32), Ptx>> = Mutex::new(BTreeMap::new());
    let mut compiled = COMPILED.lock().unwrap_or_else(|poison| poison.into_inner());
    if let Some(ptx) = compiled.get(&capability) {
        return Ok(ptx.clone());
    }
    let ptx = compile_anew(capability)?;
    compiled.insert(capability, ptx.clone());
    Ok(ptx)
}

fn compile_anew((major, minor): (i32, i32)) -> Result<Ptx> {
    let options =
        [format!("--gpu-architecture=compute_{major}{minor}"), "--fmad=false".to_owned(), "--std=c++17".to_owned()];
    let options = CompileOptions { options: options.to_vec(), ..CompileOptions::default() };
    compile_ptx_with_opts(source(), options).map_err(|error| match error {
        CompileError::CompileError { log, .. } => {
            let log = log.to_string_lossy().trim().replace('\n', " / ");
            Error::internal(format!("the CUDA kernels do not compile for compute capability {major}.{minor}: {log}"))
        }
        other => {
            Error::new(ErrorKind::Environment, "NVRTC cannot compile the CUDA kernels").because(format!("{other:?}"))
        }
    })
}
