//! The kernels' source, and its compilation by NVRTC: part by part, because a model needs a few of the types of weights.

use super::work::{self, Part};
use super::{params, q4k};
use crate::error::{Error, ErrorKind, Result};
use crate::model::TensorType;
use cudarc::nvrtc::{CompileError, CompileOptions, Ptx, compile_ptx_with_opts};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// A file of the source, and what the host lays out and counts alike.
struct File {
    text: &'static str,
    /// Names and bytes.
    structs: &'static [(&'static str, usize)],
    constants: &'static [(&'static str, u64)],
}

const COMMON: File = File {
    text: include_str!("kernels/common.cu"),
    structs: &[],
    constants: &[("NO_WINDOW", params::NO_WINDOW as u64)],
};

const FORMATS: File = File {
    text: include_str!("kernels/formats.cu"),
    structs: &[("Dequantize", size_of::<params::Dequantize>()), ("Embedding", size_of::<params::Embedding>())],
    constants: &[],
};

const NORM: File =
    File { text: include_str!("kernels/norm.cu"), structs: &[("Norm", size_of::<params::Norm>())], constants: &[] };

const ELEMENT: File = File { text: include_str!("kernels/element.cu"), structs: &[], constants: &[] };

const MATVEC: File = File {
    text: include_str!("kernels/matvec.cu"),
    structs: &[("Matvec", size_of::<params::Matvec>())],
    constants: &[("TILE", work::MATVEC_TILE as u64)],
};

const MATVEC_Q4_K: File = File {
    text: include_str!("kernels/matvec_q4_k.cu"),
    structs: &[("Q4KInput", q4k::INPUT as usize)],
    constants: &[
        ("Q4_K_TILE", q4k::TILE as u64),
        ("Q4_K_WARPS", q4k::WARPS as u64),
        ("Q4_K_STAGE", q4k::STAGE as u64),
        ("Q4_K_DEPTH", q4k::DEPTH as u64),
        ("Q4_K_NORMED", q4k::NORMED as u64),
    ],
};

const EXPERTS: File = File {
    text: include_str!("kernels/experts.cu"),
    structs: &[("ExpertProduct", size_of::<params::ExpertProduct>())],
    constants: &[],
};

const ROWWISE: File = File {
    text: include_str!("kernels/rowwise.cu"),
    structs: &[("Pointwise", size_of::<params::Pointwise>()), ("Cast", size_of::<params::Cast>())],
    constants: &[("POINTWISE_BLOCK", work::POINTWISE_BLOCK)],
};

const ATTENTION: File = File {
    text: include_str!("kernels/attention.cu"),
    structs: &[("Attention", size_of::<params::Attention>())],
    constants: &[("FEW_THREADS", work::FEW_THREADS as u64), ("MOST_PARTS", work::MOST_PARTS as u64)],
};

const ROUTER: File = File {
    text: include_str!("kernels/router.cu"),
    structs: &[
        ("Router", size_of::<params::Router>()),
        ("ExpertSum", size_of::<params::ExpertSum>()),
        ("Gate", size_of::<params::Gate>()),
    ],
    constants: &[("MOST_SLOTS", params::MOST_SLOTS as u64)],
};

const STATISTICS: File = File {
    text: include_str!("kernels/statistics.cu"),
    structs: &[
        ("Statistics", size_of::<params::Statistics>()),
        ("RowStatistics", size_of::<params::RowRecord>()),
        ("StatisticsEntry", size_of::<params::StatisticsEntry>()),
        ("Choose", size_of::<params::Choose>()),
        ("Best", params::CHOOSE_BYTES),
    ],
    constants: &[
        ("CHOOSE_PART", work::CHOOSE_PART as u64),
        ("MOST_STATISTICS", params::MOST_STATISTICS as u64),
        ("STATISTICS_WARPS", work::STATISTICS_WARPS as u64),
    ],
};

/// The source of a part: its files one after the other, the kernels of its type, and a check that both sides lay
/// parameters out alike.
fn source(part: Part) -> String {
    let (files, kernels) = match part {
        Part::Plain => (vec![COMMON, NORM, ELEMENT, ROWWISE, ATTENTION, ROUTER, STATISTICS], String::new()),
        Part::Type(TensorType::Q4K) => {
            (vec![COMMON, FORMATS, NORM, ELEMENT, MATVEC, MATVEC_Q4_K], "FORMAT(q4_k, Q4_K)\n".to_owned())
        }
        Part::Type(tensor_type) => {
            let (name, code) = (tensor_type.name(), tensor_type.name().to_uppercase());
            (vec![COMMON, FORMATS, NORM, MATVEC], format!("FORMAT({name}, {code})\nMATVEC({name}, {code})\n"))
        }
        Part::Experts(tensor_type) => {
            let (name, code) = (tensor_type.name(), tensor_type.name().to_uppercase());
            (vec![COMMON, FORMATS, NORM, MATVEC, EXPERTS], format!("EXPERTS({name}, {code})\n"))
        }
    };
    let mut source: String = files.iter().map(|file| file.text).collect();
    source += &kernels;
    for (name, size) in files.iter().flat_map(|file| file.structs) {
        source += &format!("static_assert(sizeof({name}) == {size}, \"{name} on the host\");\n");
    }
    for (name, value) in files.iter().flat_map(|file| file.constants) {
        source += &format!("static_assert({name} == {value}, \"{name} on the host\");\n");
    }
    source
}

/// The kernels of a part, compiled for a compute capability once in a process.
///
/// # Errors
/// Environment where NVRTC does not know the card; internal, with NVRTC's log, where the source is wrong.
pub fn compile(part: Part, capability: (i32, i32)) -> Result<Ptx> {
    type Compiled = BTreeMap<(Part, (i32, i32)), Ptx>;
    static COMPILED: Mutex<Compiled> = Mutex::new(BTreeMap::new());
    let mut compiled = COMPILED.lock().unwrap_or_else(|poison| poison.into_inner());
    if let Some(ptx) = compiled.get(&(part, capability)) {
        return Ok(ptx.clone());
    }
    let ptx = compile_anew(part, capability)?;
    compiled.insert((part, capability), ptx.clone());
    Ok(ptx)
}

fn compile_anew(part: Part, (major, minor): (i32, i32)) -> Result<Ptx> {
    let options =
        [format!("--gpu-architecture=compute_{major}{minor}"), "--fmad=false".to_owned(), "--std=c++17".to_owned()];
    let options = CompileOptions { options: options.to_vec(), ..CompileOptions::default() };
    compile_ptx_with_opts(source(part), options).map_err(|error| match error {
        CompileError::CompileError { log, .. } => {
            let log = log.to_string_lossy().trim().replace('\n', " / ");
            Error::internal(format!("the CUDA kernels do not compile for compute capability {major}.{minor}: {log}"))
        }
        other => {
            Error::new(ErrorKind::Environment, "NVRTC cannot compile the CUDA kernels").because(format!("{other:?}"))
        }
    })
}
