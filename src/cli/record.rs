//! `actrace record`: run a model, append what happened.

use super::destination::{label, labels, open_out};
use super::device::{self, Device, Opened, Wish};
use super::identity::{Given, identity};
use super::interrupt::Interrupt;
use super::prompt::{Prompt, PromptSource};
use super::recording::{OnWriteError, Recorded, Recording};
use super::space::{bytes_text, check_space};
use super::weights::{walked, weights_kept};
use super::{json, note, print, printable};
use crate::backend::cuda::ComputeType;
use crate::backend::{Backend, Captured, Semantics};
use crate::capture::{Layers, Names, Plan, Positions, Selection};
use crate::error::{Error, Result};
use crate::file::{Durability, FileStorage, Writer};
use crate::forward::{Forward, Generation, Observer, Request, StepReport, Wanted};
use crate::graph::SiteId;
use crate::model::{Model, Overrides};
use crate::open::hex;
use crate::record::RunV1;
use crate::recorder::{Recorder, Untraced, expected_weight_bytes};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Threads beyond this are a slip of the hand, and starting them could exhaust the machine.
const MOST_THREADS: usize = 1024;

/// Run a model and append what happened to a trace file
#[derive(Debug, clap::Args)]
#[command(
    before_help = "Example:\n  actrace record --model model.gguf --prompt \"What is 2+2?\" \\\n      --generate 8 --label before --out runs.actrace",
    after_long_help = "SIGINT (Ctrl-C) and SIGTERM end the run at its next tensor and seal what is there: complete \
steps stay, the run's end says `interrupted`, and the exit status is 3. A second signal ends the program at once."
)]
pub struct Record {
    /// A GGUF or .apr file, or a folder with config.json and safetensors
    #[arg(long, value_name = "PATH")]
    model: PathBuf,
    /// A hyper-parameter in place of what the model's files say, for instance heads=4 (may be repeated)
    ///
    /// The names are those that a run's identity lists, layers, hidden, heads, kv_heads, head_dim, ffn, context, rope_base
    /// and norm_epsilon among them; it also says what was set so.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    prompt: PromptSource,
    /// tokenizer.json in place of the model's own: the one in a safetensors folder, or the vocabulary in a GGUF or .apr file
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Tokens to generate, greedily; the prefill yields the first
    #[arg(long, value_name = "N", default_value_t = 0)]
    generate: u32,
    /// Name of the run, unique in the file [default: the model's name and a number]
    #[arg(long, value_name = "NAME")]
    label: Option<String>,
    /// cpu, cuda[:N] or auto
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// ggml or dequantize-f32 [default on the processor: ggml for GGUF and quantised .apr; else dequantize-f32]
    #[arg(long, value_parser = device::semantics)]
    semantics: Option<Semantics>,
    /// What operands of large products are rounded to on CUDA: f32, f16 or bf16 [default: f32]
    #[arg(long, value_parser = device::compute)]
    compute: Option<ComputeType>,
    /// Capture points, as comma-separated globs
    #[arg(long, value_name = "GLOBS", default_value = "all")]
    points: String,
    /// Layers, for instance 0..3,7 (a range ends before its end)
    #[arg(long, default_value = "all")]
    layers: String,
    /// Token positions: all, last or A..B
    #[arg(long, default_value = "all")]
    positions: String,
    /// Points whose full tensors are kept: all, none or globs; statistics are kept of all
    #[arg(long, value_name = "GLOBS", default_value = "all")]
    tensors: String,
    /// Record the model's weights too: hashes and statistics of every one
    #[arg(long, conflicts_with = "untraced")]
    weights: bool,
    /// Keep the values of the weights, and the scales of quantised ones
    #[arg(long, requires = "weights")]
    weight_values: bool,
    /// Run once more without recording, first, and write into the trace whether every step has the same logits
    ///
    /// Tracing must not change a result. The run's end says `equal` or `different`, bit for bit, and the exit status is 1
    /// where they differ. Costs a second run.
    #[arg(long, conflicts_with = "untraced")]
    prove: bool,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// When the trace is synced before its end: none, step or a number of milliseconds
    ///
    /// At every level, whole frames survive the death of this process, and a run that ended well survives a power
    /// loss. In between, a power loss may take: `none`, the whole unfinished run (never a run that was sealed before);
    /// `step`, the step that was under way; MILLISECONDS, what was written within that time (a sync comes earlier where
    /// 64 MiB wait for one and none is under way).
    #[arg(long, value_name = "none|step|MILLISECONDS", default_value = "1000")]
    sync: Durability,
    /// What a failed write of the trace does to the run
    #[arg(long, value_enum, default_value_t = OnWriteError::Fail)]
    on_write_error: OnWriteError,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Record although the disk may not hold it
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    target: Target,
}

/// Where the recording goes.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// The trace file: created, or appended to
    #[arg(long, value_name = "FILE.actrace")]
    out: Option<PathBuf>,
    /// Run without recording, and print tokens, times and logits fingerprints
    #[arg(long)]
    untraced: bool,
}

impl Record {
    /// Runs the command.
    pub fn run(&self) -> Result<u8> {
        let selection = self.selection()?;
        let model = Model::open_with(&self.model, &Overrides::parse(self.set.iter().map(String::as_str))?)?;
        let prompt = self.prompt.read(&model, self.tokenizer.as_deref())?;
        let wish =
            Wish { device: self.device, semantics: self.semantics, compute: self.compute, threads: self.threads()? };
        match wish.open(&model)? {
            (Opened::Cpu(backend), semantics) => self.on(backend, &model, semantics, &prompt, &selection),
            (Opened::Cuda(backend), semantics) => self.on(*backend, &model, semantics, &prompt, &selection),
        }
    }

    fn on<B: Backend>(
        &self,
        backend: B,
        model: &Model,
        semantics: Semantics,
        prompt: &Prompt,
        selection: &Selection,
    ) -> Result<u8> {
        let mut forward = Forward::new(model, backend)?;
        let request = Request { tokens: &prompt.tokens, generate: self.generate as usize, stop_at: &[] };
        forward.check(&request)?;
        match &self.target.out {
            None => self.untraced(&mut forward, &request, prompt),
            Some(out) => self.traced(model, forward, &request, prompt, semantics, selection, out),
        }
    }

    fn selection(&self) -> Result<Selection> {
        Ok(Selection {
            points: Names::parse(&self.points)?,
            layers: Layers::parse(&self.layers)?,
            positions: Positions::parse(&self.positions)?,
            tensors: Names::parse(&self.tensors)?,
        })
    }

    /// The selection as given, an option a pair.
    fn selected(&self) -> Vec<(&'static str, String)> {
        let mut selected = vec![
            ("points", self.points.clone()),
            ("layers", self.layers.clone()),
            ("positions", self.positions.clone()),
            ("tensors", self.tensors.clone()),
        ];
        if self.weights {
            selected.push(("weights", weights_kept(self.weight_values).to_owned()));
        }
        selected
    }

    fn threads(&self) -> Result<usize> {
        match self.threads {
            Some(threads) if (1..=MOST_THREADS).contains(&threads) => Ok(threads),
            Some(threads) => Err(Error::usage(format!("--threads {threads} is not among 1 to {MOST_THREADS}"))),
            None => Ok(std::thread::available_parallelism().map_or(1, usize::from)),
        }
    }

    fn untraced<B: Backend>(&self, forward: &mut Forward<B>, request: &Request<'_>, prompt: &Prompt) -> Result<u8> {
        let mut steps = Steps::default();
        let generation = forward.generate(request, &mut steps)?;
        let text = generated_text(prompt, &generation);
        if self.json {
            let steps: Vec<_> = steps.0.iter().map(step_json).collect();
            print(&json(&serde_json::json!({ "tokens": generation.tokens, "text": text, "steps": steps }))?)?;
        } else {
            let mut lines = String::from("step  phase    tokens  next_token     logits_fingerprint  elapsed_ms\n");
            for step in &steps.0 {
                lines += &format!(
                    "{:>4}  {:7}  {:>6}  {:>10}  {:>21}  {:>10.3}\n",
                    step.step,
                    step.phase.name(),
                    step.tokens.len(),
                    step.next_token,
                    step.logits_fingerprint,
                    step.elapsed.as_secs_f64() * 1e3
                );
            }
            print(&(lines + &generated_lines(&generation, text.as_deref())))?;
        }
        Ok(0)
    }

    #[expect(clippy::too_many_arguments, reason = "the parts that run() opened, each of another module")]
    fn traced<B: Backend>(
        &self,
        model: &Model,
        mut forward: Forward<B>,
        request: &Request<'_>,
        prompt: &Prompt,
        semantics: Semantics,
        selection: &Selection,
        out: &Path,
    ) -> Result<u8> {
        let positions = request.tokens.len() + request.generate.saturating_sub(1);
        let plan = Plan::new(model, forward.graph(), selection, request.tokens.len(), positions)?;
        // Asked before the file is opened for writing, so that a refusal leaves it as it is.
        self.label(&labels(out)?)?;
        let weights = if self.weights { expected_weight_bytes(model, self.weight_values) } else { 0 };
        self.check_space(out, plan.expected_bytes().saturating_add(weights))?;
        let hash = model.hash()?;
        let expected =
            if self.prove { Some(forward.generate(request, &mut Steps::default())?.fingerprints) } else { None };
        let (writer, labels) = open_out(out)?;
        let given = Given {
            label: self.label(&labels)?,
            semantics: semantics.name(),
            prompt,
            generate: self.generate,
            selection: self.selected(),
        };
        let run = identity(model, &hash, &forward.identity(), given)?;
        let interrupt = Interrupt::watch()?;
        let recorder = self.begin(writer, &run, plan, model, &interrupt)?;
        let mut recording = Recording::new(recorder, request, interrupt, self.on_write_error, expected);
        let generated = forward.generate(request, &mut recording).and_then(|generation| {
            model.check_unchanged()?;
            Ok(generation)
        });
        let recorded = recording.finish(generated)?;
        self.report(out, &run.label, &hex(&run.run_id), &recorded, prompt)?;
        Ok(match recorded.untraced {
            Untraced::Different => 1,
            _ if recorded.interrupted || recorded.summary.is_err() => 3,
            _ => 0,
        })
    }

    /// Begins the run, with the model's weights where they are wanted.
    fn begin(
        &self,
        writer: Writer<FileStorage>,
        run: &RunV1,
        plan: Plan,
        model: &Model,
        interrupt: &Interrupt,
    ) -> Result<Recorder<FileStorage>> {
        let writer = writer.with_durability(self.sync);
        if !self.weights {
            return Recorder::begin(writer, run, plan, self.threads()?);
        }
        walked(model, self.weight_values, interrupt, |weights| {
            Recorder::begin_with(weights, writer, run, plan, self.threads()?)
        })
    }

    fn label(&self, taken: &[String]) -> Result<String> {
        label(self.label.as_deref(), &self.model, taken)
    }

    /// Says how much is expected, and refuses more than the disk has.
    fn check_space(&self, out: &Path, expected: u64) -> Result<()> {
        note(&format!("expected: at most {} before compression", bytes_text(expected)));
        if self.force {
            return Ok(());
        }
        check_space(out, expected, "select less (--points, --tensors, --positions), or add --force")
    }

    fn report(&self, out: &Path, label: &str, run: &str, recorded: &Recorded, prompt: &Prompt) -> Result<()> {
        let generation = &recorded.generation;
        let text = generated_text(prompt, generation);
        let (summary, error) = match &recorded.summary {
            Ok(summary) => (Some(summary), None),
            Err(error) => (None, Some(error)),
        };
        if let Some(error) = error {
            note(&format!("not sealed: {error}"));
        } else if recorded.interrupted {
            note("interrupted: the run was sealed with the steps that were complete");
        }
        if recorded.untraced == Untraced::Different {
            note(
                "the logits differ from those of the run without recording: what was recorded is not what the model does",
            );
        }
        if self.json {
            return print(&json(&serde_json::json!({
                "file": out.display().to_string(),
                "label": label,
                "run": run,
                "interrupted": recorded.interrupted,
                "untraced": recorded.untraced.name(),
                "sealed": summary.is_some(),
                "error": error.map(ToString::to_string),
                "steps": summary.map(|summary| summary.steps),
                "rows": summary.map(|summary| summary.rows),
                "payloads": summary.map(|summary| summary.payloads),
                "tensor_bytes": summary.map(|summary| summary.tensor_bytes),
                "file_bytes": summary.map(|summary| summary.file_bytes),
                "content_root": summary.map(|summary| hex(&summary.content_root)),
                "tokens": generation.tokens,
                "text": text,
                "logits_fingerprints": generation.fingerprints,
            }))?);
        }
        let mut lines = format!("run {label} ({run}) in {}\n", out.display());
        if let Some(summary) = summary {
            lines += &format!(
                "{} steps, {} rows, {} of values; the file has {}\n",
                summary.steps,
                summary.rows,
                bytes_text(summary.tensor_bytes),
                bytes_text(summary.file_bytes)
            );
        }
        if recorded.untraced == Untraced::Equal {
            lines += "without recording: the same logits in every step, bit for bit\n";
        }
        print(&(lines + &generated_lines(generation, text.as_deref())))
    }
}

fn generated_text(prompt: &Prompt, generation: &Generation) -> Option<String> {
    prompt.tokenizer.as_ref().and_then(|tokenizer| tokenizer.decode(&generation.tokens).ok())
}

fn generated_lines(generation: &Generation, text: Option<&str>) -> String {
    if generation.tokens.is_empty() {
        return String::new();
    }
    let ids: Vec<String> = generation.tokens.iter().map(u32::to_string).collect();
    let text = text.map_or_else(String::new, |text| format!("text: {}\n", printable(text)));
    format!("tokens: {}\n{text}", ids.join(","))
}

fn step_json(step: &StepReport) -> serde_json::Value {
    serde_json::json!({
        "step": step.step,
        "phase": step.phase.name(),
        "first_position": step.first_position,
        "tokens": step.tokens.len(),
        "next_token": step.next_token,
        "logits_fingerprint": step.logits_fingerprint,
        "elapsed_ms": step.elapsed.as_secs_f64() * 1e3,
    })
}

/// Wants no tensor, keeps the steps' reports.
#[derive(Default)]
struct Steps(Vec<StepReport>);

impl Observer for Steps {
    fn wants(&mut self, _: SiteId, _: Range<usize>) -> Option<Wanted> {
        None
    }

    fn capture(&mut self, _: u32, _: SiteId, _: usize, _: Captured) -> Result<()> {
        Ok(())
    }

    fn step(&mut self, report: &StepReport) -> Result<()> {
        self.0.push(report.clone());
        Ok(())
    }
}
