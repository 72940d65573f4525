//! The recorder as a program.

use crate::support::model;
use std::path::Path;
use std::process::{Command, Output};

/// `actrace VERB`.
pub fn actrace(verb: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_actrace"));
    command.arg(verb);
    command
}

/// `actrace record` of one layer of a small model into `out`, `generate` tokens.
pub fn record(out: &Path, generate: u32) -> Command {
    let mut command = actrace("record");
    command.arg("--model").arg(model("tiny-qwen2.safetensors")).args(["--tokens", "609,1827,409", "--threads", "1"]);
    command.args(["--layers", "0", "--generate", &generate.to_string()]).arg("--out").arg(out);
    command
}

pub fn status(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("no exit status: {:?}", output.status))
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command and gives its stdout as JSON.
pub fn json(command: &mut Command) -> (i32, serde_json::Value) {
    let output = command.arg("--json").output().unwrap();
    let value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {}", stderr(&output)));
    (status(&output), value)
}
