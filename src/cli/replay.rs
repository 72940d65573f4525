//! `actrace replay`: every operation of a recorded run again, from its own recorded inputs.

use super::destination::{labels, open_out};
use super::identity::{Given, identity};
use super::interrupt::Interrupt;
use super::prompt::Prompt;
use super::watched::Watched;
use super::{note, print, progress};
use crate::backend::{Backend, ReferenceBackend};
use crate::capture::{Layers, Names, Plan, Positions, Selection};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::model::Model;
use crate::open::{RunRef, TraceSet, hex};
use crate::record::{PairV1, ParentV1, RunV1};
use crate::recorder::{Outcome, Recorder};
use crate::replay::{self, Emulation, Recorded};
use std::path::PathBuf;

/// Make every operation of a recorded run again, each from its own recorded inputs
#[derive(Debug, clap::Args)]
#[command(
    before_help = "Example:\n  actrace replay runs.actrace --run gpu --model model.gguf --label gpu-replayed \
                   --out replay.actrace\n  actrace-query compare runs.actrace replay.actrace --reference gpu-replayed \
                   --target gpu",
    after_help = "The arithmetic is f64, in loops that no other backend shares. Points whose inputs were not recorded are \
                  unsupported in the new run."
)]
pub struct Replay {
    /// Trace files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Label or id of the run
    #[arg(long, value_name = "RUN")]
    run: String,
    /// The model whose weights are used: the run's own, or another one of the same shape
    #[arg(long, value_name = "PATH")]
    model: PathBuf,
    /// Rounding that is emulated: recorded (what the run declared), ggml, dequantize-f32 or exact
    #[arg(long, default_value = "recorded")]
    semantics: String,
    /// Capture points, as comma-separated globs
    #[arg(long, value_name = "GLOBS", default_value = "all")]
    points: String,
    /// Layers, for instance 0..3,7 (a range ends before its end)
    #[arg(long, default_value = "all")]
    layers: String,
    /// Token positions: all, last or A..B
    #[arg(long, default_value = "all")]
    positions: String,
    /// Name of the new run, unique in its file
    #[arg(long, value_name = "NAME")]
    label: String,
    /// The trace file of the new run: created, or appended to
    #[arg(long, value_name = "FILE.actrace")]
    out: PathBuf,
}

impl Replay {
    /// Runs the command.
    pub fn run(&self) -> Result<u8> {
        let set = TraceSet::open(&self.files)?;
        let run = set.resolve(&self.run)?;
        let emulation = Emulation::of(&run.view().identity, &self.semantics)?;
        let model = Model::open_with(&self.model, &replay::overrides(&run.view().identity)?)?;
        let graph = Graph::of(&model)?;
        let recorded = Recorded::read(run.clone(), &graph)?;
        let (prompt, positions) = (run.view().identity.prompt_tokens.len(), recorded.tokens().len());
        let mut plan = Plan::new(&model, &graph, &self.selection()?, prompt, positions)?;
        let replay = replay::Replay::new(&model, &graph, &recorded, &emulation, &mut plan)?;
        if labels(&self.out)?.contains(&self.label) {
            return Err(Error::usage(format!("the file already has a run `{}`: choose another --label", self.label)));
        }
        let identity = self.identity(&run, &model, &emulation)?;
        let interrupt = Interrupt::watch()?;
        let (writer, _) = open_out(&self.out)?;
        let recorder = Recorder::begin(writer, &identity, plan, rayon::current_num_threads())?;
        let mut watched = Watched { recorder, interrupt };
        let bar = progress::operations("replaying", replay.sites());
        let made = replay.run(&mut watched, &|| bar.inc(1)).and_then(|()| model.check_unchanged());
        bar.finish_and_clear();
        let outcome = made.as_ref().map_or_else(Outcome::of, |()| Outcome::Finished);
        let summary = watched.recorder.finish(&outcome)?;
        match made {
            Err(error) if outcome != Outcome::Interrupted => return Err(error),
            Err(_) => note("interrupted: the replay was sealed without a complete step"),
            Ok(()) => {}
        }
        print(&format!(
            "run {} ({}) in {}: {} operations of {} made again, {} rows\n",
            self.label,
            hex(&identity.run_id),
            self.out.display(),
            replay.sites(),
            run.view().identity.label,
            summary.rows
        ))?;
        Ok(if outcome == Outcome::Interrupted { 3 } else { 0 })
    }

    fn selection(&self) -> Result<Selection> {
        Ok(Selection {
            points: Names::parse(&self.points)?,
            layers: Layers::parse(&self.layers)?,
            positions: Positions::parse(&self.positions)?,
            tensors: Names::parse("all")?,
        })
    }

    /// That of the model and the yardstick, with prompt and parent of the run.
    fn identity(&self, run: &RunRef, model: &Model, emulation: &Emulation) -> Result<RunV1> {
        let original = &run.view().identity;
        let arithmetic = emulation.arithmetics.first().copied().unwrap_or_default();
        let prompt =
            Prompt { text: Some(original.prompt.clone()), tokens: original.prompt_tokens.clone(), tokenizer: None };
        let given = Given {
            label: self.label.clone(),
            semantics: &emulation.name,
            prompt: &prompt,
            generate: original.generate,
            selection: vec![
                ("points", self.points.clone()),
                ("layers", self.layers.clone()),
                ("positions", self.positions.clone()),
            ],
        };
        let parent = ParentV1 {
            role: "original".to_owned(),
            run_id: original.run_id,
            content_root: run.view().end.as_ref().map_or([0; 32], |end| end.content_root),
        };
        let replayed = PairV1 { key: "replayed".to_owned(), value: original.label.clone(), source: String::new() };
        let backend = ReferenceBackend::new(arithmetic).identity();
        let made = identity(model, &model.hash()?, &backend, given)?;
        Ok(RunV1 {
            kind: "replay".to_owned(),
            parents: vec![parent],
            prompt_redacted: original.prompt_redacted,
            tokenizer_hash: original.tokenizer_hash,
            extra: made.extra.iter().cloned().chain([replayed]).collect(),
            ..made
        })
    }
}
