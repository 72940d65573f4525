//! The rounding that a run declared, and other known roundings that may explain it.

use crate::backend::{ActivationFormula, Arithmetic, CacheType, ProductRounding};
use crate::error::{Error, Result};
use crate::graph::Operation;
use crate::model::{Activation, Overrides, Source};
use crate::record::RunV1;

/// The arithmetic that a replay emulates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emulation {
    /// The name in records: `ggml`, `dequantize-f32`, `exact`.
    pub name: String,
    /// The arithmetic; where there are several, each row was made by one of them (large products round their operands
    /// to the compute type, small ones do not).
    pub arithmetics: Vec<Arithmetic>,
}

impl Emulation {
    /// What `semantics` means for `run`: `recorded` is what the run declared.
    ///
    /// # Errors
    /// Usage for a name that is none of `recorded`, `ggml`, `dequantize-f32` and `exact`; Unsupported where the run
    /// declared what cannot be emulated.
    pub fn of(run: &RunV1, semantics: &str) -> Result<Self> {
        let name = if semantics == "recorded" { run.semantics.as_str() } else { semantics };
        let products = match name {
            "ggml" => ProductRounding::Paired,
            // A run that was imported without a word about its semantics is measured against exact arithmetic.
            "dequantize-f32" | "exact" | "" => ProductRounding::None,
            other => {
                let known = "recorded, ggml, dequantize-f32 or exact";
                return Err(Error::usage(format!("`{other}` is no semantics that can be replayed: give {known}")));
            }
        };
        let cache = match run.kv_type.as_str() {
            _ if name == "exact" => CacheType::F32,
            "f16" => CacheType::F16,
            "bf16" => CacheType::Bf16,
            "f32" | "" => CacheType::F32,
            other => return Err(Error::unsupported(format!("a cache of {other} cannot be replayed"))),
        };
        let operands = match run.compute_type.as_str() {
            _ if name == "exact" => None,
            "f16" => Some(ProductRounding::F16Operands),
            "bf16" => Some(ProductRounding::Bf16Operands),
            _ => None,
        };
        let of = |products| Arithmetic { products, cache, ..Arithmetic::default() };
        let arithmetics = operands.into_iter().chain([products]).map(of).collect();
        Ok(Emulation { name: if name.is_empty() { "exact" } else { name }.to_owned(), arithmetics })
    }
}

/// The settings that a run was made with, for opening its model again.
///
/// # Errors
/// Usage, where the run's identity sets something twice.
pub fn overrides(run: &RunV1) -> Result<Overrides> {
    let set = run.hyper_parameters.iter().filter(|pair| pair.source == Source::CommandLine.name());
    let settings: Vec<String> = set.map(|pair| format!("{}={}", pair.key, pair.value)).collect();
    Overrides::parse(settings.iter().map(String::as_str))
}

/// Another rounding that an engine is known to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alternative {
    /// What it is called in a verdict.
    pub name: &'static str,
    /// How it rounds.
    pub arithmetic: Arithmetic,
}

/// Known roundings of `operation` other than `declared`.
pub fn alternatives(operation: Operation, declared: &[Arithmetic]) -> Vec<Alternative> {
    let plain = Arithmetic::default();
    let product = |name, products| Alternative { name, arithmetic: Arithmetic { products, ..plain } };
    let cache = |name, cache| Alternative { name, arithmetic: Arithmetic { cache, ..plain } };
    let formula = |name, activation| Alternative { name, arithmetic: Arithmetic { activation, ..plain } };
    let list = match operation {
        Operation::MatMul | Operation::Linear | Operation::GatedMatMul | Operation::ExpertMatMul { .. } => vec![
            product("exact", ProductRounding::None),
            product("ggml", ProductRounding::Paired),
            product("repacked rounding", ProductRounding::Repacked),
            product("f16 activations", ProductRounding::F16),
            product("bf16 activations", ProductRounding::Bf16),
            product("f16 operands", ProductRounding::F16Operands),
            product("bf16 operands", ProductRounding::Bf16Operands),
        ],
        Operation::CacheStore | Operation::AttnScores { .. } | Operation::AttnContext { .. } => {
            vec![cache("f16 KV cache", CacheType::F16), cache("bf16 KV cache", CacheType::Bf16)]
        }
        Operation::Activate(named) => {
            let others = [
                ("f16 GELU table", ActivationFormula::GeluTable, Activation::GeluTanh),
                ("GELU tanh", ActivationFormula::Other(Activation::GeluTanh), Activation::GeluTanh),
                ("GELU erf", ActivationFormula::Other(Activation::GeluErf), Activation::GeluErf),
                ("GELU quick", ActivationFormula::Other(Activation::GeluQuick), Activation::GeluQuick),
            ];
            let gelu = named != Activation::Silu;
            let other = |(_, formula, activation): &(_, ActivationFormula, Activation)| {
                gelu && (*formula == ActivationFormula::GeluTable || *activation != named)
            };
            others.into_iter().filter(other).map(|(name, formula_, _)| formula(name, formula_)).collect()
        }
        _ => Vec::new(),
    };
    list.into_iter().filter(|alternative| !declared.contains(&alternative.arithmetic)).collect()
}
