//! Everything about a run that may later explain a difference.

use super::prompt::Prompt;
use crate::backend::BackendIdentity;
use crate::capture::vocabulary_hash;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Fact, Model, ModelHash};
use crate::record::{ModelFileV1, PairV1, RunV1};

/// The facts that the command line adds to those of model and backend.
pub struct Given<'a> {
    /// Name of the run.
    pub label: String,
    /// Rounding.
    pub semantics: &'a str,
    /// The prompt.
    pub prompt: &'a Prompt,
    /// Tokens to generate.
    pub generate: u32,
    /// Selection options as given.
    pub selection: Vec<(&'static str, String)>,
}

/// The identity of a run that begins now.
pub fn identity(model: &Model, hash: &ModelHash, backend: &BackendIdentity, given: Given<'_>) -> Result<RunV1> {
    let run = RunV1 {
        cpu: cpu_name(),
        instruction_set: backend.instruction_set.clone(),
        threads: u32::try_from(backend.threads).unwrap_or(u32::MAX),
        device_kind: backend.device_kind.clone(),
        device_name: backend.device_name.clone(),
        driver: backend.driver.clone(),
        cuda: backend.cuda.clone(),
        kernel_path: backend.kernel_path.clone(),
        fused: backend.fused.clone(),
        semantics: given.semantics.to_owned(),
        compute_type: backend.compute_type.clone(),
        kv_type: backend.kv_type.clone(),
        attention: backend.attention.clone(),
        engine: "actrace".to_owned(),
        engine_version: env!("CARGO_PKG_VERSION").to_owned(),
        tokenizer_hash: given.prompt.tokenizer.as_ref().map_or([0; 32], |tokenizer| tokenizer.hash()),
        prompt: given.prompt.text.clone().unwrap_or_default(),
        prompt_tokens: given.prompt.tokens.clone(),
        generate: given.generate,
        selection: given.selection.into_iter().map(|(key, value)| pair(key, value)).collect(),
        extra: given.prompt.tokenizer.as_ref().map_or_else(Vec::new, |tokenizer| pairs(tokenizer.facts())),
        ..unsaid("record", given.label)?
    };
    Ok(of_model(run, model, hash))
}

/// The identity of a run of which nothing is known but what this program does.
pub fn unsaid(kind: &str, label: String) -> Result<RunV1> {
    let mut run_id = [0; 16];
    fill_random(&mut run_id)?;
    Ok(RunV1 {
        run_id,
        kind: kind.to_owned(),
        label,
        parents: Vec::new(),
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        argv: std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect(),
        started_us: crate::recorder::now_us(),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        pid: std::process::id(),
        cpu: String::new(),
        instruction_set: String::new(),
        threads: 0,
        device_kind: String::new(),
        device_name: String::new(),
        driver: String::new(),
        cuda: String::new(),
        kernel_path: String::new(),
        fused: Vec::new(),
        semantics: String::new(),
        compute_type: String::new(),
        kv_type: String::new(),
        attention: String::new(),
        engine: String::new(),
        engine_version: String::new(),
        model_path: String::new(),
        model_format: String::new(),
        weight_type: String::new(),
        model_files: Vec::new(),
        model_hash: [0; 32],
        architecture: String::new(),
        hyper_parameters: Vec::new(),
        tokenizer_hash: [0; 32],
        prompt: String::new(),
        prompt_redacted: false,
        prompt_tokens: Vec::new(),
        generate: 0,
        selection: Vec::new(),
        vocabulary_hash: vocabulary_hash(),
        extra: Vec::new(),
    })
}

/// The identity with everything that the model's files say.
pub fn of_model(run: RunV1, model: &Model, hash: &ModelHash) -> RunV1 {
    RunV1 {
        model_path: model.path().display().to_string(),
        model_format: model.format().name().to_owned(),
        weight_type: model.weight_type().name().to_owned(),
        model_files: files(model, hash),
        model_hash: hash.model,
        architecture: model.architecture().name().to_owned(),
        hyper_parameters: pairs(model.facts()),
        ..run
    }
}

/// A key and a value without a source.
pub fn pair(key: &str, value: impl Into<String>) -> PairV1 {
    PairV1 { key: key.to_owned(), value: value.into(), source: String::new() }
}

/// Fills `bytes` from the system's random source.
pub fn fill_random(bytes: &mut [u8; 16]) -> Result<()> {
    let filled = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
    match filled {
        Ok(16) => Ok(()),
        _ => Err(Error::new(ErrorKind::Environment, "the system gives no random bytes for a run id")),
    }
}

fn files(model: &Model, hash: &ModelHash) -> Vec<ModelFileV1> {
    let files = model.files().iter().zip(&hash.files);
    files.map(|(file, blake3)| ModelFileV1 { name: file.name.clone(), size: file.size, blake3: *blake3 }).collect()
}

fn pairs(facts: &[Fact]) -> Vec<PairV1> {
    let pair = |fact: &Fact| PairV1 {
        key: fact.key.to_owned(),
        value: fact.value.clone(),
        source: fact.source.name().to_owned(),
    };
    facts.iter().map(pair).collect()
}

/// The processor's name as the kernel knows it; empty where it does not say.
fn cpu_name() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(':')).map_or_else(String::new, |(_, name)| name.trim().to_owned())
}
