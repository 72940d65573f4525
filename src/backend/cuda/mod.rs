//! NVIDIA cards: weights stay in their stored blocks, kernels are compiled when the card is opened, results and
//! statistics leave beside the computation. Nothing of CUDA is needed to build or to start.

mod attention;
mod capture;
mod device;
mod experts;
mod library;
mod limits;
mod memory;
mod operations;
mod params;
mod pinned;
mod product;
mod q4k;
mod queue;
mod source;
mod streams;
mod tensor;
mod transfer;
mod work;

pub use device::ComputeType;
pub use library::require_nvrtc;
pub use limits::{check_site, check_weight};
pub use source::compile;
pub use tensor::{CudaTensor, CudaWeight};
pub use work::{FORMATS, Kernel, Part};

use super::{Backend, BackendIdentity, Batch, Captured, Choice};
use crate::error::{Error, Result};
use crate::graph::{Operation, Site, SiteId};
use crate::model::{RopeParameters, Weight};
use capture::Captures;
use device::{Device, DeviceMemory, check};
use memory::Memory;
use params::{CHOOSE_BYTES, Choose, NO_WINDOW};
use pinned::Pinned;
use product::Products;
use queue::{FUSED, Queue};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tensor::Shape;
use work::{CHOOSE_PART, Work};

/// Rows up to which products are made on the stored blocks, and a batch is collected into few launches.
const FEW: usize = 4;
/// Layers of few rows that are launched together at most.
const MOST_LAYERS: u32 = 16;
/// How long the host stays awake for a token.
const SOON: Duration = Duration::from_millis(20);
/// Which word of a choice is the token.
const TOKEN: usize = 1;
/// Of the card's memory, the part that one tensor of a chunk may take.
const CHUNK_PART: usize = 64;

/// Runs the graph on one card, with dequantize-f32 semantics.
pub struct CudaBackend {
    device: Arc<Device>,
    memory: Memory,
    queue: Queue,
    /// What collected launches of many rows read and write, until they are launched: then the stream keeps the order.
    held: Vec<Arc<DeviceMemory>>,
    captures: Captures,
    products: Products,
    cache: HashMap<SiteId, Arc<DeviceMemory>>,
    /// Cosines and sines of every position, by parameters and stored factors.
    turns: Vec<(RopeParameters, Vec<f32>, Arc<DeviceMemory>)>,
    /// Addresses of experts' matrices, as they lie on the card.
    tables: HashMap<Vec<u64>, Arc<DeviceMemory>>,
    positions: usize,
    /// The batch under way on the card: its first position, its rows, its tokens.
    step: Arc<DeviceMemory>,
    first_position: usize,
    layer: Option<u32>,
    /// Layers collected since the last launch, and how many go into the next.
    collected: u32,
    collect: u32,
    choice: (Arc<DeviceMemory>, Pinned),
    threads: usize,
}

impl CudaBackend {
    /// Card `ordinal`, with operands of large products rounded to `compute`. `threads` host threads take what it shows.
    ///
    /// # Errors
    /// Environment: which of driver, libraries and card is missing, and where it was looked for.
    pub fn new(ordinal: usize, compute: ComputeType, threads: usize) -> Result<Self> {
        let device = Device::open(ordinal)?;
        Ok(CudaBackend {
            captures: Captures::new(&device),
            step: device.alloc(16, "the batch")?,
            choice: (device.alloc(16, "the choice")?, Pinned::new(&device, 16)?),
            products: Products::new(compute),
            queue: Queue::new(device.facts().card, device.parts()?),
            held: Vec::new(),
            cache: HashMap::new(),
            turns: Vec::new(),
            tables: HashMap::new(),
            positions: 0,
            first_position: 0,
            layer: None,
            collected: 0,
            collect: 1,
            memory: Memory::new(&device),
            device,
            threads,
        })
    }

    /// Bytes a second that the card's memory can move: the bound of everything that reads all weights once.
    pub fn memory_bandwidth(&self) -> f64 {
        self.device.memory_bandwidth()
    }

    /// Launches what is collected and sends off what is parked.
    fn flush(&mut self) -> Result<()> {
        self.launch()?;
        if self.captures.is_empty() {
            return Ok(());
        }
        let (works, measured) = self.captures.statistics(&mut self.memory)?;
        self.device.launch_beside(&works)?;
        let copied = self.captures.ship(&self.device, measured)?;
        self.memory.copied(copied);
        Ok(())
    }

    /// A layer is through. Many rows are too large to be kept for long. Of a few, one shipment at the step's end is
    /// cheapest, and launches go in graphs of one layer, then three, nine and sixteen: the card begins at once, and
    /// its kernels overlap within a graph only.
    fn next_layer(&mut self) -> Result<()> {
        if !self.memory.repeats() {
            return self.flush();
        }
        self.collected += 1;
        if self.collected < self.collect {
            return Ok(());
        }
        (self.collected, self.collect) = (0, (self.collect * 3).min(MOST_LAYERS));
        self.launch()
    }

    fn launch(&mut self) -> Result<()> {
        let launched = self.queue.launch(&self.device, self.memory.repeats());
        self.held.clear();
        launched
    }

    /// Keeps memory until it is launched upon; an arena keeps its own.
    fn hold(&mut self, memory: &Arc<DeviceMemory>) {
        if !self.memory.repeats() {
            self.held.push(Arc::clone(memory));
        }
    }

    /// The row of the batch that began at which `part` of it begins.
    fn first_row(&self, part: Batch<'_>) -> Result<u32> {
        let rows = part.first_position.checked_sub(self.first_position);
        count(rows.ok_or_else(|| Error::internal("rows before the batch that began"))?)
    }

    /// A new tensor for `site`. Ragged rows of a few tokens get room for any position: their addresses have to repeat.
    fn tensor(&mut self, site: &Site, batch: Batch<'_>) -> Result<CudaTensor> {
        let (rows, first_row) = (batch.tokens.len(), self.first_row(batch)?);
        let (shape, elements) = match (site.axes.width(), site.operation) {
            (Some(width), _) => (Shape::Width(width as usize), rows * width as usize),
            (None, Operation::AttnScores { heads, window, .. } | Operation::Softmax { heads, window }) => {
                let (heads, window) = (heads as usize, window.unwrap_or(NO_WINDOW));
                let last = if self.memory.repeats() { self.positions } else { batch.first_position + rows };
                (Shape::Keys { heads, window }, heads * rows * last.min(window as usize))
            }
            _ => return Err(Error::internal(format!("`{}` has rows of no known width", site.point))),
        };
        let what = || match site.layer {
            Some(layer) => format!("layers.{layer}.{}", site.point),
            None => site.point.to_owned(),
        };
        let (memory, address) = self.memory.take(elements * size_of::<f32>(), what)?;
        self.hold(&memory);
        Ok(CudaTensor::new(memory, address, shape, batch, first_row))
    }

    /// Adds a launch; with many rows it is made at once, behind what is collected.
    fn submit(&mut self, work: Work) -> Result<()> {
        self.queue.push(work);
        if self.memory.repeats() { Ok(()) } else { self.launch() }
    }
}

impl Backend for CudaBackend {
    type Tensor = CudaTensor;
    type Weight = CudaWeight;

    fn identity(&self) -> BackendIdentity {
        let facts = self.device.facts();
        let (major, minor) = facts.card.capability;
        BackendIdentity {
            device_kind: "cuda".to_owned(),
            device_name: facts.name.clone(),
            driver: facts.driver.clone(),
            cuda: facts.cuda.clone(),
            kernel_path: format!("cuda/sm_{major}{minor}: own products of experts and up to {FEW} rows, cuBLAS above"),
            fused: FUSED.map(str::to_owned).to_vec(),
            instruction_set: format!("sm_{major}{minor}"),
            threads: self.threads,
            compute_type: self.products.compute().name().to_owned(),
            kv_type: "f32".to_owned(),
            attention: "plain".to_owned(),
        }
    }

    fn rows_stand_alone(&self) -> bool {
        false
    }

    fn chunk_bytes(&self) -> usize {
        self.device.facts().total_bytes / CHUNK_PART
    }

    fn check(&self, site: &Site) -> Result<()> {
        limits::check_site(site)
    }

    fn load(&mut self, weight: &Weight) -> Result<CudaWeight> {
        CudaWeight::new(&self.device, weight)
    }

    fn reset_cache(&mut self, sites: &[Site], positions: usize) -> Result<()> {
        self.queue.clear();
        self.captures.give_up();
        self.cache.clear();
        if positions > self.positions {
            self.turns.clear();
        }
        self.positions = positions;
        self.step = self.device.alloc((positions + 2) * size_of::<u32>(), "the batch")?;
        for site in sites.iter().filter(|site| site.operation == Operation::CacheStore) {
            let width = site.axes.width().unwrap_or(0) as usize;
            let memory = self.device.alloc(positions * width * size_of::<f32>(), "the KV cache")?;
            self.cache.insert(site.id, memory);
        }
        Ok(())
    }

    fn begin(&mut self, batch: Batch<'_>) -> Result<()> {
        self.flush()?;
        let rows = batch.tokens.len();
        if batch.first_position + rows > self.positions {
            return Err(Error::internal("a batch beyond the positions that the cache has room for"));
        }
        self.first_position = batch.first_position;
        (self.collected, self.collect) = (0, 1);
        self.memory.begin(rows <= FEW)?;
        let head = [count(batch.first_position)?, count(rows)?];
        let words = head.iter().chain(batch.tokens);
        let bytes: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
        self.device.upload(&self.step, 0, &bytes)
    }

    fn execute(
        &mut self,
        site: &Site,
        inputs: &[&CudaTensor],
        weights: &[&CudaWeight],
        batch: Batch<'_>,
    ) -> Result<CudaTensor> {
        limits::check_site(site)?;
        let rows = batch.tokens.len();
        if inputs.iter().any(|input| input.rows != rows) || rows == 0 {
            return Err(Error::internal(format!("`{}` needs {rows} rows of every input", site.point)));
        }
        if site.layer != self.layer {
            // What is in front of the first layer goes with it.
            if self.layer.is_some() {
                self.next_layer()?;
            }
            self.layer = site.layer;
        }
        self.run(site, inputs, weights, batch)
    }

    fn slice(&self, tensor: &CudaTensor, rows: Range<usize>) -> Result<CudaTensor> {
        tensor.slice(rows)
    }

    fn capture(&mut self, tensor: &CudaTensor, rows: Range<usize>, values: bool) -> Result<Captured> {
        let piece = tensor.slice(rows)?;
        let bytes = piece.elements() * size_of::<f32>();
        if self.captures.crowds(bytes, values) {
            self.flush()?;
        }
        let alone = self.captures.crowds(bytes, values);
        let captured = self.captures.park(piece, values);
        if alone {
            self.flush()?;
        }
        Ok(captured)
    }

    fn choose(&mut self, logits: &CudaTensor) -> Result<Choice> {
        let last = logits.rows.checked_sub(1).ok_or_else(|| Error::internal("no logits to choose by"))?;
        let row = logits.slice(last..logits.rows)?;
        let width = count(row.width()?)?;
        let parts = width.div_ceil(CHOOSE_PART);
        let (_held, parts_at) = self.memory.take(parts as usize * CHOOSE_BYTES, || "the choice".to_owned())?;
        let out = self.choice.0.address();
        let params = Choose { logits: row.address(), parts: parts_at, out, width, count: parts };
        self.submit(Work::ChooseParts(params))?;
        self.submit(Work::Choose(params))?;
        self.launch()?;
        // The host needs the token for the next step: it goes before the statistics of this one.
        self.choice.1.clear();
        self.device.download(&self.device.streams.compute, out, self.choice.1.target(0, 16)?)?;
        let chosen = self.device.event(&self.device.streams.compute)?;
        self.flush()?;
        // Between two tokens the card has nothing to do: to be woken would take a good part of that time.
        let soon = Instant::now() + if self.memory.repeats() { SOON } else { Duration::ZERO };
        let is_there = || self.choice.1.has_arrived(TOKEN) && chosen.is_complete();
        while !is_there() && Instant::now() < soon {
            std::thread::yield_now();
        }
        check("wait for the choice", chosen.synchronize())?;
        match self.choice.1.values::<u64>(0, 2) {
            [fingerprint, token] => Ok(Choice { token: *token as u32, fingerprint: *fingerprint }),
            _ => Err(Error::internal("the choice did not arrive")),
        }
    }
}
impl Drop for CudaBackend {
    /// Captures that are still parked would be waited for without end.
    fn drop(&mut self) {
        self.captures.give_up();
    }
}

fn missing(site: &Site, what: &str) -> Error {
    Error::internal(format!("`{}` lacks an {what} that its operation needs", site.point))
}

/// An operation that came to the wrong place.
fn misplaced(site: &Site) -> Error {
    Error::internal(format!("`{}` came to the wrong kernels", site.point))
}

/// A number as kernels take it.
fn count(number: usize) -> Result<u32> {
    u32::try_from(number).map_err(|_| Error::unsupported("more than 2^32 rows, columns or positions on a card"))
}
