//! `actrace synth`: a model of a known shape with random weights.

use super::interrupt::Interrupt;
use super::space::{bytes_text, check_space};
use super::{json, print, progress};
use crate::error::{Error, Result, nearest};
use crate::model::synth::{DRAWN, Shape, Synthetic};
use crate::model::{Replace, TensorType};
use serde_json::json;
use std::path::PathBuf;

/// Write a GGUF model of a known shape with random weights, for benchmarks
#[derive(Debug, clap::Args)]
#[command(
    before_help = "Example:\n  actrace synth --shape qwen2.5-7b --type q4_k --out random-7b.gguf",
    after_long_help = "The file is the same for the same shape, type, settings and seed, on any number of threads. It has \
no tokenizer: run it with --tokens."
)]
pub struct Synth {
    /// The known model: qwen2.5-0.5b, qwen2.5-1.5b, qwen2.5-7b, tinyllama-1.1b or gpt2
    #[arg(long, value_name = "NAME")]
    shape: String,
    /// Element type of the matrices: f32, f16, bf16, q8_0, q4_k, q5_k or q6_k; vectors are f32
    #[arg(long = "type", value_name = "TYPE")]
    tensor_type: String,
    /// Number that the weights follow from
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Another dimension: layers, hidden, heads, kv-heads, head-dim, ffn, vocabulary or context
    ///
    /// May be given several times. head-dim is hidden / heads unless it is set.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The file to write
    #[arg(long, value_name = "FILE.gguf")]
    out: PathBuf,
    /// Replace a file that exists
    #[arg(long)]
    force: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Synth {
    /// Runs the command.
    pub fn run(&self) -> Result<u8> {
        let model = Synthetic::new(Shape::new(&self.shape, &self.set)?, self.tensor_type()?, self.seed)?;
        check_space(&self.out, model.file_bytes()?, "set smaller dimensions, choose a smaller type, or make room")?;
        let replace = if self.force { Replace::Yes } else { Replace::No };
        let interrupt = Interrupt::watch()?;
        let bar = progress::writing(model.file_bytes()?);
        let written = model.write(&self.out, replace, |done| {
            bar.set_position(done);
            interrupt.check()
        });
        bar.finish_and_clear();
        self.report(&model, written?)?;
        Ok(0)
    }

    fn tensor_type(&self) -> Result<TensorType> {
        let known = DRAWN.map(TensorType::name);
        DRAWN.into_iter().find(|known| known.name() == self.tensor_type).ok_or_else(|| {
            let near = nearest(&self.tensor_type, known);
            let hint = near.map_or_else(String::new, |near| format!("did you mean `{near}`? "));
            Error::usage(format!("`{}` is no element type: {hint}known are {}", self.tensor_type, known.join(", ")))
        })
    }

    fn report(&self, model: &Synthetic, bytes: u64) -> Result<()> {
        let file = self.out.display().to_string();
        if !self.json {
            let parameters = model.parameters();
            return print(&format!("{file}: {parameters} parameters, {bytes} bytes ({})\n", bytes_text(bytes)));
        }
        print(&json(&json!({
            "file": file,
            "shape": self.shape,
            "type": self.tensor_type,
            "seed": self.seed,
            "set": self.set,
            "parameters": model.parameters(),
            "bytes": bytes,
        }))?)
    }
}
