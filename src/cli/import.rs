//! `actrace import`: what another engine dumped, appended as a run.

use super::destination::{labels, open_out};
use super::device;
use super::identity::{of_model, pair, unsaid};
use super::interrupt::Interrupt;
use super::prompt::{parse_ids, read_text};
use super::space::{bytes_text, check_space};
use super::watched::Watched;
use super::{json, note, print};
use crate::backend::Semantics;
use crate::capture::Plan;
use crate::error::{Error, Result, nearest};
use crate::graph::Graph;
use crate::import::{Dump, Import as Imported, LeftOut, Mapping, Setting};
use crate::model::{Architecture, Model, ModelHash, Overrides};
use crate::open::hex;
use crate::record::{PairV1, RunV1};
use crate::recorder::{Outcome, Recorder, Summary};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Names that a note lists for one reason.
const LISTED: usize = 3;

/// Make a run of the tensors that another engine dumped
#[derive(Debug, clap::Args)]
#[command(
    before_help = "Example:\n  actrace import dump.safetensors --map hf --model models/tiny-qwen2 --tokens 609,1827,409 \\\n      --label transformers --out runs.actrace",
    after_long_help = "The dump is one prefill of one sequence: every tensor has a row for each token (logits, and what \
follows the last attention, may have the last token's alone). A name that the mapping does not know, or that could mean \
two points, ends the import; --ignore leaves tensors out, and the run says which. schema/mappings.md explains mappings.\n\n\
What is not said of the engine counts as unlike when the run is compared, and widens the tolerance: say --device, \
--semantics, --compute-type and --kv-type where they are known."
)]
pub struct Import {
    /// Safetensors files, .npy files (named as their tensors), or folders of both
    #[arg(required = true, value_name = "DUMP")]
    dump: Vec<PathBuf>,
    /// What the names mean: hf, llama.cpp, or a file; several are read as one
    #[arg(long = "map", required = true, value_name = "NAME|MAP.toml")]
    maps: Vec<String>,
    #[command(flatten)]
    tokens: Tokens,
    /// Name of the run, unique in the file
    #[arg(long, value_name = "NAME")]
    label: String,
    /// The trace file: created, or appended to
    #[arg(long, value_name = "FILE.actrace")]
    out: PathBuf,
    /// The model that ran: its operations, shapes, weights and hashes become the run's
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
    /// A hyper-parameter in place of what the model's files say, as `actrace record` takes it (may be repeated)
    #[arg(long, value_name = "KEY=VALUE", requires = "model")]
    set: Vec<String>,
    /// Its architecture, where the model is not at hand
    #[arg(long, value_name = "NAME", conflicts_with = "model")]
    architecture: Option<String>,
    /// Its layers, where the model is not at hand [default: those of the dump]
    #[arg(long, value_name = "N", conflicts_with = "model")]
    layers: Option<u32>,
    /// Leave out the tensors whose names match; may be given several times
    #[arg(long, value_name = "GLOB")]
    ignore: Vec<String>,
    #[command(flatten)]
    engine: Engine,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    /// Import although the disk may not hold it
    #[arg(long)]
    force: bool,
}

/// The tokens that the dump's rows are of.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Tokens {
    /// The tokens as ids, for instance 609,1827,409
    #[arg(long, value_name = "IDS")]
    tokens: Option<String>,
    /// A file of token ids, separated by commas or white space; `-` is stdin
    #[arg(long, value_name = "FILE")]
    tokens_file: Option<PathBuf>,
}

/// What is known of the engine.
#[derive(Debug, clap::Args)]
struct Engine {
    /// The engine that ran [default: the one that the mapping is for]
    #[arg(long, value_name = "NAME")]
    engine: Option<String>,
    /// Its version
    #[arg(long, value_name = "VERSION", default_value = "", hide_default_value = true)]
    engine_version: String,
    /// Where it ran: cpu or cuda
    #[arg(long, value_name = "cpu|cuda", value_parser = ["cpu", "cuda"])]
    device: Option<String>,
    /// How it rounded products: ggml or dequantize-f32
    #[arg(long, value_parser = device::semantics)]
    semantics: Option<Semantics>,
    /// Type of its arithmetic: f32, f16 or bf16
    #[arg(long, value_name = "TYPE", value_parser = ["f32", "f16", "bf16"])]
    compute_type: Option<String>,
    /// Type of its KV cache: f32, f16 or bf16
    #[arg(long, value_name = "TYPE", value_parser = ["f32", "f16", "bf16"])]
    kv_type: Option<String>,
}

/// The model that ran, opened.
struct Opened {
    model: Model,
    graph: Graph,
    hash: ModelHash,
}

impl Import {
    /// Runs the command.
    pub fn run(&self) -> Result<u8> {
        let mapping = self.mapping()?;
        let tokens = self.tokens.read()?;
        let opened = self.opened(&tokens)?;
        let dump = Dump::open(&self.dump)?;
        let setting = Setting {
            tokens: &tokens,
            model: opened.as_ref().map(|opened| (&opened.model, &opened.graph)),
            architecture: self.architecture()?,
            layers: self.layers,
            ignore: &self.ignore,
        };
        let import = Imported::new(&dump, &mapping, setting)?;
        self.announce(&import);
        self.check_label(&labels(&self.out)?)?;
        self.check_space(import.plan())?;
        let identity = self.identity(&dump, &mapping, &import, opened.as_ref(), &tokens)?;
        let interrupt = Interrupt::watch()?;
        let (writer, taken) = open_out(&self.out)?;
        self.check_label(&taken)?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let recorder = Recorder::begin(writer, &identity, import.plan().clone(), threads)?;
        let mut watched = Watched { recorder, interrupt };
        let shown = import.show(&mut watched);
        let summary = finish(watched.recorder, shown)?;
        self.report(&identity, &import, &summary)?;
        Ok(0)
    }

    fn mapping(&self) -> Result<Mapping> {
        let maps = self.maps.iter().map(|map| Mapping::open(map)).collect::<Result<Vec<_>>>()?;
        Ok(maps.into_iter().fold(Mapping::default(), Mapping::and))
    }

    fn opened(&self, tokens: &[u32]) -> Result<Option<Opened>> {
        let Some(path) = &self.model else { return Ok(None) };
        let model = Model::open_with(path, &Overrides::parse(self.set.iter().map(String::as_str))?)?;
        let graph = Graph::of(&model)?;
        let vocabulary = model.hyper().vocabulary;
        if let Some((position, id)) = tokens.iter().enumerate().find(|(_, id)| **id >= vocabulary) {
            return Err(Error::usage(format!(
                "token id {id} at position {position} is out of range: the vocabulary has {vocabulary} tokens"
            )));
        }
        let hash = model.hash()?;
        Ok(Some(Opened { model, graph, hash }))
    }

    fn architecture(&self) -> Result<Option<&str>> {
        let known = Architecture::ALL.map(Architecture::name);
        match self.architecture.as_deref() {
            Some(name) if !known.contains(&name) => {
                let near = nearest(name, known).map_or_else(String::new, |near| format!("did you mean `{near}`? "));
                Err(Error::usage(format!("`{name}` is no architecture: {near}known are {}", known.join(", "))))
            }
            name => Ok(name),
        }
    }

    fn check_label(&self, taken: &[String]) -> Result<()> {
        let label = &self.label;
        match taken.contains(label) {
            _ if label.is_empty() => Err(Error::usage("an empty --label names nothing: give a name")),
            true => Err(Error::usage(format!("the file already has a run `{label}`: choose another --label"))),
            false => Ok(()),
        }
    }

    fn check_space(&self, plan: &Plan) -> Result<()> {
        match self.force {
            true => Ok(()),
            false => check_space(&self.out, plan.expected_bytes(), "--ignore some tensors, or add --force"),
        }
    }

    /// Says what is taken for granted and what is left out.
    fn announce(&self, import: &Imported<'_>) {
        if self.model.is_none() && self.layers.is_none() {
            note(&format!("layers: {}, as many as the dump has (no --model, no --layers)", import.layers()));
        }
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for left_out in import.left_out() {
            reasons.entry(&left_out.reason).or_default().push(&left_out.name);
        }
        for (reason, names) in reasons {
            let more = if names.len() > LISTED { ", ..." } else { "" };
            let shown = names.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
            note(&format!("left out: {} ({reason}): {shown}{more}", names.len()));
        }
    }

    fn identity(
        &self,
        dump: &Dump,
        mapping: &Mapping,
        import: &Imported<'_>,
        opened: Option<&Opened>,
        tokens: &[u32],
    ) -> Result<RunV1> {
        let engine = &self.engine;
        let mut extra: Vec<PairV1> = dump
            .files()
            .iter()
            .map(|file| PairV1 {
                source: format!("blake3:{}", hex(&file.blake3())),
                ..pair("dump", file.path.display().to_string())
            })
            .collect();
        extra.extend(self.maps.iter().map(|map| pair("mapping", map.as_str())));
        let left_out =
            |left_out: &LeftOut| PairV1 { source: left_out.reason.clone(), ..pair("left_out", left_out.name.as_str()) };
        extra.extend(import.left_out().iter().map(left_out));
        let run = RunV1 {
            device_kind: engine.device.clone().unwrap_or_default(),
            semantics: engine.semantics.map_or_else(String::new, |semantics| semantics.name().to_owned()),
            compute_type: engine.compute_type.clone().unwrap_or_default(),
            kv_type: engine.kv_type.clone().unwrap_or_default(),
            engine: engine.engine.clone().unwrap_or_else(|| mapping.engine().to_owned()),
            engine_version: engine.engine_version.clone(),
            architecture: self.architecture.clone().unwrap_or_default(),
            prompt_tokens: tokens.to_vec(),
            selection: self.ignore.iter().map(|glob| pair("ignore", glob.as_str())).collect(),
            extra,
            ..unsaid("import", self.label.clone())?
        };
        Ok(match opened {
            Some(opened) => of_model(run, &opened.model, &opened.hash),
            None => run,
        })
    }

    fn report(&self, run: &RunV1, import: &Imported<'_>, summary: &Summary) -> Result<()> {
        let (file, label, id) = (self.out.display(), &self.label, hex(&run.run_id));
        if self.json {
            let left_out = import
                .left_out()
                .iter()
                .map(|left_out| serde_json::json!({ "name": left_out.name, "reason": left_out.reason }));
            return print(&json(&serde_json::json!({
                "file": file.to_string(),
                "label": label,
                "run": id,
                "layers": import.layers(),
                "rows": summary.rows,
                "payloads": summary.payloads,
                "tensor_bytes": summary.tensor_bytes,
                "file_bytes": summary.file_bytes,
                "content_root": hex(&summary.content_root),
                "left_out": left_out.collect::<Vec<_>>(),
            }))?);
        }
        print(&format!(
            "run {label} ({id}) in {file}\n{} rows, {} of values, {} tensors left out; the file has {}\n",
            summary.rows,
            bytes_text(summary.tensor_bytes),
            import.left_out().len(),
            bytes_text(summary.file_bytes)
        ))
    }
}

impl Tokens {
    fn read(&self) -> Result<Vec<u32>> {
        match (&self.tokens, &self.tokens_file) {
            (Some(ids), _) => parse_ids(ids),
            (None, Some(file)) => parse_ids(&read_text(file)?).map_err(|error| error.in_file(file)),
            (None, None) => Err(Error::usage("no token is given: add --tokens or --tokens-file")),
        }
    }
}

/// Ends the run as the import ended, and seals the file.
fn finish(recorder: Recorder<crate::file::FileStorage>, shown: Result<()>) -> Result<Summary> {
    let outcome = shown.as_ref().map_or_else(Outcome::of, |()| Outcome::Finished);
    let summary = recorder.finish(&outcome);
    shown.and(summary)
}
