//! `actrace convert`: the same model in another element type.

use super::interrupt::Interrupt;
use super::space::{bytes_text, check_space};
use super::{json, note, print, progress};
use crate::error::{Error, Result, nearest};
use crate::model::convert::{Conversion, ENCODED, TokenizerFrom};
use crate::model::{Model, Overrides, Replace, TensorType};
use serde_json::json;
use std::path::PathBuf;

/// Write a model as a GGUF file of another element type
#[derive(Debug, clap::Args)]
#[command(
    before_help = "Example:\n  actrace convert --model models/tiny-qwen2 --type q8_0 --out tiny-qwen2.q8_0.gguf",
    after_long_help = "Vectors, learned positions and routers are F32, as in llama.cpp's files. A GGUF file's metadata are \
copied as they are, its tokenizer among them. A model, a tokenizer or a value that the new file cannot hold exactly as far as \
its element type goes is refused."
)]
pub struct Convert {
    /// A GGUF or .apr file, or a folder with config.json and safetensors
    #[arg(long, value_name = "PATH")]
    model: PathBuf,
    /// A hyper-parameter in place of what the model's files say, for instance heads=4 (may be repeated)
    ///
    /// Not for GGUF files, whose metadata are copied.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Element type of the matrices: f32, f16, bf16 or q8_0
    #[arg(long = "type", value_name = "TYPE")]
    tensor_type: String,
    /// The file to write
    #[arg(long, value_name = "FILE.gguf")]
    out: PathBuf,
    /// A tokenizer.json for a model that is no GGUF file, in place of its own
    #[arg(long, value_name = "FILE", conflicts_with = "no_tokenizer")]
    tokenizer: Option<PathBuf>,
    /// Write a file without a tokenizer: it runs on --tokens, or with --tokenizer
    #[arg(long)]
    no_tokenizer: bool,
    /// Replace a file that exists
    #[arg(long)]
    force: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Convert {
    /// Runs the command.
    pub fn run(&self) -> Result<u8> {
        let tensor_type = self.tensor_type()?;
        let overrides = Overrides::parse(self.set.iter().map(String::as_str))?;
        let model = Model::open_with(&self.model, &overrides)?;
        let conversion = Conversion::new(&model, tensor_type, self.tokenizer())?;
        let bytes = conversion.file_bytes()?;
        check_space(&self.out, bytes, "choose a smaller type, or make room")?;
        let replace = if self.force { Replace::Yes } else { Replace::No };
        let interrupt = Interrupt::watch()?;
        let bar = progress::writing(bytes);
        let written = conversion.write(&self.out, replace, |done| {
            bar.set_position(done);
            interrupt.check()
        });
        bar.finish_and_clear();
        self.report(&conversion, written?)?;
        conversion.loss().map_or(Ok(0), |loss| {
            note(&format!("note: {loss}"));
            Ok(3)
        })
    }

    fn tensor_type(&self) -> Result<TensorType> {
        let known = ENCODED.map(TensorType::name);
        ENCODED.into_iter().find(|known| known.name() == self.tensor_type).ok_or_else(|| {
            let near = nearest(&self.tensor_type, known);
            let hint = near.map_or_else(String::new, |near| format!("did you mean `{near}`? "));
            let names = known.join(", ");
            Error::usage(format!("`{}` is no type to convert to: {hint}known are {names}", self.tensor_type))
        })
    }

    fn tokenizer(&self) -> TokenizerFrom<'_> {
        match &self.tokenizer {
            Some(path) => TokenizerFrom::File(path),
            None if self.no_tokenizer => TokenizerFrom::Nowhere,
            None => TokenizerFrom::Model,
        }
    }

    fn report(&self, conversion: &Conversion<'_>, bytes: u64) -> Result<()> {
        let file = self.out.display().to_string();
        let tensors = conversion.tensors();
        if !self.json {
            let counts: Vec<String> = tensors.iter().map(|(kind, count)| format!("{count} {}", kind.name())).collect();
            let (counts, size) = (counts.join(", "), bytes_text(bytes));
            return print(&format!("{file}: {counts} tensors, {bytes} bytes ({size})\n"));
        }
        let counts: serde_json::Map<String, serde_json::Value> =
            tensors.iter().map(|(kind, count)| (kind.name().to_owned(), json!(count))).collect();
        print(&json(&json!({
            "file": file,
            "model": self.model.display().to_string(),
            "type": self.tensor_type,
            "tensors": counts,
            "bytes": bytes,
            "loss": conversion.loss(),
        }))?)
    }
}
