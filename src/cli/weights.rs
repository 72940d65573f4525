//! `actrace weights`: what a model's weights are, without running it.

use super::destination::{label, labels, open_out};
use super::identity::{of_model, pair, unsaid};
use super::interrupt::Interrupt;
use super::space::{bytes_text, check_space};
use super::{json, note, print, progress};
use crate::error::Result;
use crate::model::{Model, Overrides};
use crate::open::hex;
use crate::record::RunV1;
use crate::recorder::{Summary, Weights as Recorded, expected_weight_bytes, record_weights, weight_elements};
use serde_json::json;
use std::path::PathBuf;

/// Record the weights of a model, without running it
#[derive(Debug, clap::Args)]
#[command(
    before_help = "Example:\n  actrace weights model.gguf --values --label gguf --out weights.actrace\n  actrace-query run weights weights.actrace",
    after_long_help = "A run of kind `weights` is appended: of every weight its name, type, shape, place, the hash of its \
stored bytes, and statistics and hash of its values as f32 in canonical order. SIGINT (Ctrl-C) and SIGTERM end it with \
what is there, and the exit status is 3."
)]
pub struct Weights {
    /// A GGUF or .apr file, or a folder with config.json and safetensors
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Keep the values too, and the scales of quantised ones: differences get their size
    #[arg(long)]
    values: bool,
    /// A hyper-parameter in place of what the model's files say, for instance heads=4 (may be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Name of the run, unique in the file [default: the model's name and a number]
    #[arg(long, value_name = "NAME")]
    label: Option<String>,
    /// The trace file: created, or appended to
    #[arg(long, value_name = "FILE.actrace")]
    out: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Record although the disk may not hold it
    #[arg(long)]
    force: bool,
}

impl Weights {
    /// Runs the command.
    pub fn run(&self) -> Result<u8> {
        let model = Model::open_with(&self.model, &Overrides::parse(self.set.iter().map(String::as_str))?)?;
        // Asked before the file is opened for writing, so that a refusal leaves it as it is.
        label(self.label.as_deref(), &self.model, &labels(&self.out)?)?;
        let expected = expected_weight_bytes(&model, self.values);
        note(&format!("expected: at most {} before compression", bytes_text(expected)));
        if !self.force {
            check_space(&self.out, expected, "leave out --values, or add --force")?;
        }
        let hash = model.hash()?;
        let (writer, labels) = open_out(&self.out)?;
        let label = label(self.label.as_deref(), &self.model, &labels)?;
        let selection = vec![pair("weights", weights_kept(self.values))];
        let run = of_model(RunV1 { selection, ..unsaid("weights", label)? }, &model, &hash);
        let interrupt = Interrupt::watch()?;
        let recorded = walked(&model, self.values, &interrupt, |weights| record_weights(writer, &run, weights));
        let (summary, weights) = recorded?;
        self.report(&run.label, &hex(&run.run_id), &summary, weights)?;
        Ok(0)
    }

    fn report(&self, label: &str, run: &str, summary: &Summary, weights: u64) -> Result<()> {
        let file = self.out.display().to_string();
        if !self.json {
            let (values, bytes) = (bytes_text(summary.tensor_bytes), bytes_text(summary.file_bytes));
            let kept = if self.values { format!("{values} of values") } else { "no values".to_owned() };
            return print(&format!(
                "weights {label} ({run}) in {file}\n{weights} weights, {kept}; the file has {bytes}\n"
            ));
        }
        print(&json(&json!({
            "file": file,
            "label": label,
            "run": run,
            "weights": weights,
            "payloads": summary.payloads,
            "tensor_bytes": summary.tensor_bytes,
            "file_bytes": summary.file_bytes,
            "content_root": hex(&summary.content_root),
        }))?)
    }
}

/// What is kept of weights, as the selection of a run has it.
pub fn weights_kept(values: bool) -> &'static str {
    if values { "values" } else { "statistics" }
}

/// Lets `record` walk the weights of `model`, with a bar on the terminal, until a signal comes.
pub fn walked<T>(
    model: &Model,
    keep_values: bool,
    interrupt: &Interrupt,
    record: impl FnOnce(Recorded<'_>) -> Result<T>,
) -> Result<T> {
    let bar = progress::weights(weight_elements(model));
    let mut progress = |done| {
        bar.set_position(done);
        interrupt.check()
    };
    let recorded = record(Recorded { model, keep_values, progress: &mut progress });
    bar.finish_and_clear();
    recorded
}
