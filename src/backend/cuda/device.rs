//! One card: its context, streams, kernels and memory. What talks to the driver is here; page-locked memory is beside it.
//!
//! Launches take addresses, not borrows: what keeps an address valid is said where it is put into a
//! [`Work`], and memory is freed in the order of the stream that uses it.

#![allow(unsafe_code)]

use super::library;
use super::q4k::Card;
use super::source;
use super::streams::Streams;
use super::work::{FEW_THREADS, Kernel, MOST_PARTS, Part, Work};
use crate::error::{Error, ErrorKind, Result};
use crate::model::TensorType;
use cudarc::cublas::{result as blas, sys as blas_sys};
use cudarc::driver::{
    CudaContext, CudaEvent, CudaFunction, CudaGraph, CudaStream, DriverError, LaunchConfig, result, sys,
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// The type that operands of large products are rounded to; sums are f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComputeType {
    /// IEEE 754 binary32, and no TF32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
}

impl ComputeType {
    /// The name on the command line and in tables.
    pub fn name(self) -> &'static str {
        match self {
            ComputeType::F32 => "f32",
            ComputeType::F16 => "f16",
            ComputeType::Bf16 => "bf16",
        }
    }

    /// Bytes of an operand's element.
    pub(super) fn size(self) -> usize {
        if self == ComputeType::F32 { 4 } else { 2 }
    }

    fn blas(self) -> blas_sys::cudaDataType {
        match self {
            ComputeType::F32 => blas_sys::cudaDataType::CUDA_R_32F,
            ComputeType::F16 => blas_sys::cudaDataType::CUDA_R_16F,
            ComputeType::Bf16 => blas_sys::cudaDataType::CUDA_R_16BF,
        }
    }
}

/// What a run's identity says of the card.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) name: String,
    pub(super) card: Card,
    pub(super) driver: String,
    pub(super) cuda: String,
    pub(super) total_bytes: usize,
}

/// A card that is ready to work.
pub(super) struct Device {
    context: Arc<CudaContext>,
    pub(super) streams: Arc<Streams>,
    /// Kernels of the parts that were needed so far; they stay.
    functions: Mutex<HashMap<Kernel, CudaFunction>>,
    facts: Facts,
    /// Held while a graph is captured: memory that another thread frees meanwhile must not become a part of it.
    capturing: Mutex<()>,
}

/// One product `Y = X W^T` of cuBLAS, row-major: X is `m x k`, W is `n x k`, Y has rows of `stride` elements.
pub(super) struct Gemm {
    pub(super) x: u64,
    pub(super) w: u64,
    pub(super) y: u64,
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) stride: usize,
    pub(super) compute: ComputeType,
}

impl Device {
    /// Opens card `ordinal` and compiles the kernels that every model needs.
    ///
    /// # Errors
    /// Environment: which of driver, libraries and card is not there.
    pub(super) fn open(ordinal: usize) -> Result<Arc<Self>> {
        library::require()?;
        check("initialise the driver", result::init())?;
        let count = check("count the cards", CudaContext::device_count())?;
        if usize::try_from(count).is_ok_and(|count| ordinal >= count) {
            let message =
                format!("there is no card {ordinal}: the driver shows {count}, counted from 0; see nvidia-smi");
            return Err(Error::new(ErrorKind::Environment, message));
        }
        let context = check("open the card", CudaContext::new(ordinal))?;
        // SAFETY: nothing here uses the slices whose accesses would be tracked; order between streams is kept by the
        // events of this backend.
        unsafe { context.disable_event_tracking() };
        let facts = facts(&context)?;
        let streams = Streams::of(&context, ordinal)?;
        // Sums of half-precision products stay in f32 throughout.
        let mode = blas_sys::cublasMath_t::CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION;
        // SAFETY: a live handle that nobody else has.
        unsafe { blas_sys::cublasSetMathMode(*streams.blas.handle(), mode) }
            .result()
            .map_err(|cause| blas_error("set cuBLAS up", &cause))?;
        keep_freed_memory(&context)?;
        let device =
            Arc::new(Device { context, streams, functions: Mutex::default(), facts, capturing: Mutex::new(()) });
        device.prepare(Part::Plain)?;
        Ok(device)
    }

    /// Compiles and loads the kernels of a part, unless they are there.
    pub(super) fn prepare(&self, part: Part) -> Result<()> {
        let mut functions = self.functions.lock().unwrap_or_else(|poison| poison.into_inner());
        let kernels = part.kernels();
        if kernels.iter().all(|kernel| functions.contains_key(kernel)) {
            return Ok(());
        }
        let ptx = source::compile(part, self.facts.card.capability)?;
        let module = check("load the kernels", self.context.load_module(ptx))?;
        for kernel in kernels {
            let function = check("load a kernel", module.load_function(&kernel.name()))?;
            if kernel == Kernel::Matvec(TensorType::Q4K) {
                allow_shared_memory(&self.facts.card, &function)?;
            }
            functions.insert(kernel, function);
        }
        Ok(())
    }

    /// Blocks that may share a head of attention: as many as run together here, 1 on cards without clusters.
    pub(super) fn parts(&self) -> Result<u32> {
        if self.facts.card.capability.0 < 9 {
            return Ok(1);
        }
        let function = self.function(Kernel::Plain("attention_few"))?;
        let config = LaunchConfig { grid_dim: (MOST_PARTS, 1, 1), block_dim: (FEW_THREADS, 1, 1), shared_mem_bytes: 0 };
        let largest = function.occupancy_max_potential_cluster_size(config, &self.streams.compute);
        Ok(check("ask how many blocks run together", largest)?.clamp(1, MOST_PARTS))
    }

    fn function(&self, kernel: Kernel) -> Result<CudaFunction> {
        let functions = self.functions.lock().unwrap_or_else(|poison| poison.into_inner());
        functions.get(&kernel).cloned().ok_or_else(|| Error::internal("a kernel that was not loaded"))
    }

    /// Bytes a second that the card's memory moves by its clock and width, both edges of the clock.
    pub(super) fn memory_bandwidth(&self) -> f64 {
        use sys::CUdevice_attribute::{
            CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH as WIDTH, CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE as CLOCK,
        };
        let attribute = |attribute| f64::from(self.context.attribute(attribute).unwrap_or(0));
        2.0 * attribute(CLOCK) * 1e3 * attribute(WIDTH) / 8.0
    }

    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Memory for `what`, in the order of the compute stream.
    pub(super) fn alloc(self: &Arc<Self>, bytes: usize, what: &str) -> Result<Arc<DeviceMemory>> {
        self.bind()?;
        // SAFETY: the stream lives as long as the device, which the memory keeps alive.
        match unsafe { result::malloc_async(self.streams.compute.cu_stream(), bytes.max(16)) } {
            Ok(address) => Ok(Arc::new(DeviceMemory { device: Arc::clone(self), address, bytes: bytes.max(16) })),
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => Err(self.out_of_memory(bytes, what)),
            Err(cause) => Err(driver_error(&format!("allocate {bytes} bytes for {what}"), &cause)),
        }
    }

    fn out_of_memory(&self, bytes: usize, what: &str) -> Error {
        let (free, total) = self.context.mem_get_info().unwrap_or((0, self.facts.total_bytes));
        let mib = |bytes: usize| bytes.div_ceil(1 << 20);
        Error::new(
            ErrorKind::Environment,
            format!(
                "{} is out of memory: {what} needs {} MiB, and {} of {} MiB are free; take a smaller model, type or prompt, or --device cpu",
                self.facts.name,
                mib(bytes),
                mib(free),
                mib(total)
            ),
        )
    }

    /// Copies host bytes to `memory` from `offset` on, behind everything on the compute stream.
    pub(super) fn upload(&self, memory: &DeviceMemory, offset: usize, bytes: &[u8]) -> Result<()> {
        if offset.checked_add(bytes.len()).is_none_or(|end| end > memory.bytes) {
            return Err(Error::internal("a copy that exceeds its memory on the card"));
        }
        self.bind()?;
        // SAFETY: the range lies within the memory; pageable bytes are staged before the call returns.
        let copied = unsafe {
            result::memcpy_htod_async(memory.address + offset as u64, bytes, self.streams.compute.cu_stream())
        };
        check("copy to the card", copied)
    }

    /// Starts a copy from `source`, an address with `to.1` readable bytes, to pinned memory at `to`, on `stream`.
    pub(super) fn download(&self, stream: &CudaStream, source: u64, to: (*mut u8, usize)) -> Result<()> {
        self.bind()?;
        // SAFETY: the caller's slot owns `to.1` bytes from `to.0` on and is not freed before the event behind this copy, nor
        // read but by `Pinned::has_arrived`; the source is kept until then.
        let to = unsafe { std::slice::from_raw_parts_mut(to.0, to.1) };
        // SAFETY: as above.
        check("copy from the card", unsafe { result::memcpy_dtoh_async(to, source, stream.cu_stream()) })
    }

    /// Launches one kernel on the compute stream; with `overlapping` it may begin before the one in front of it ends,
    /// where the card can do that: kernels wait themselves before they touch what others write.
    pub(super) fn launch(&self, work: &Work, overlapping: bool) -> Result<()> {
        self.launch_on(&self.streams.compute, work, overlapping)
    }

    /// Launches kernels beside what is computed next, behind what was computed so far.
    pub(super) fn launch_beside(&self, works: &[Work]) -> Result<()> {
        let computed = self.event(&self.streams.compute)?;
        check("order two streams", self.streams.statistics.wait(&computed))?;
        works.iter().try_for_each(|work| self.launch_on(&self.streams.statistics, work, false))
    }

    fn launch_on(&self, stream: &CudaStream, work: &Work, overlapping: bool) -> Result<()> {
        let function = self.function(work.kernel())?;
        let grid = work.grid();
        if grid.0 == 0 || grid.1 == 0 || grid.2 == 0 {
            return Ok(());
        }
        if grid.1 > 65535 || grid.2 > 65535 {
            return Err(Error::unsupported("more rows in one batch than a launch can count: use a shorter prompt"));
        }
        self.bind()?;
        let attribute = |id, value| sys::CUlaunchAttribute { id, pad: [0; 4], value };
        let mut attributes = Vec::with_capacity(2);
        if overlapping && self.facts.card.capability.0 >= 9 {
            attributes.push(attribute(
                sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
                sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
            ));
        }
        if work.cluster() > 1 {
            let cluster = sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x: work.cluster(), y: 1, z: 1 };
            attributes.push(attribute(
                sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
                sys::CUlaunchAttributeValue { clusterDim: cluster },
            ));
        }
        let config = sys::CUlaunchConfig {
            gridDimX: grid.0,
            gridDimY: grid.1,
            gridDimZ: grid.2,
            blockDimX: work.block(),
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: work.shared(),
            hStream: stream.cu_stream(),
            attrs: attributes.as_mut_ptr(),
            numAttrs: attributes.len() as u32,
        };
        let mut params = [work.params().cast_mut()];
        // SAFETY: the kernel takes one parameter by value, whose layout the source asserts; the driver copies it and the
        // configuration before this returns. The addresses in it are of memory whose owners outlive the launch in
        // stream order.
        let launched = unsafe {
            sys::cuLaunchKernelEx(&raw const config, function.cu_function(), params.as_mut_ptr(), std::ptr::null_mut())
        };
        check(&format!("launch {}", work.kernel().name()), launched.result())
    }

    /// Launches works as one graph, and keeps it for the next time.
    pub(super) fn graph(&self, works: &[Work]) -> Result<CudaGraph> {
        let _alone = self.capturing.lock().unwrap_or_else(|poison| poison.into_inner());
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        check("begin a graph", self.streams.compute.begin_capture(mode))?;
        let launched = works.iter().try_for_each(|work| self.launch(work, true));
        let graph = check("end a graph", self.streams.compute.end_capture(sys::CUgraphInstantiate_flags(0)));
        launched?;
        graph?.ok_or_else(|| Error::internal("a graph without a launch"))
    }

    /// A product on the compute stream.
    pub(super) fn gemm(&self, p: &Gemm) -> Result<()> {
        let int = |n: usize| {
            i32::try_from(n).map_err(|_| Error::unsupported("a product with more than 2^31 rows or columns"))
        };
        let (m, n, k, stride) = (int(p.m)?, int(p.n)?, int(p.k)?, int(p.stride)?);
        let (one, zero) = (1.0f32, 0.0f32);
        self.bind()?;
        // SAFETY: column-major, this is Y^T = W X^T with leading dimensions k, k and stride; the addresses are of
        // memory of those sizes that its owners keep in stream order, the factors are read before this returns.
        let done = unsafe {
            blas::gemm_ex(
                *self.streams.blas.handle(),
                blas_sys::cublasOperation_t::CUBLAS_OP_T,
                blas_sys::cublasOperation_t::CUBLAS_OP_N,
                n,
                m,
                k,
                (&raw const one).cast(),
                p.w as *const _,
                p.compute.blas(),
                k,
                p.x as *const _,
                p.compute.blas(),
                k,
                (&raw const zero).cast(),
                p.y as *mut _,
                blas_sys::cudaDataType::CUDA_R_32F,
                stride,
                blas_sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                blas_sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        };
        done.map_err(|cause| blas_error("multiply", &cause))
    }

    /// An event behind everything that `stream` has so far. Whoever waits for it sleeps.
    pub(super) fn event(&self, stream: &CudaStream) -> Result<CudaEvent> {
        let flags = sys::CUevent_flags::CU_EVENT_BLOCKING_SYNC;
        check("record an event", stream.record_event(Some(flags)))
    }

    /// Makes the calling thread one that may use the card.
    pub(super) fn bind(&self) -> Result<()> {
        check("use the card", self.context.bind_to_thread())
    }
}

impl Drop for Device {
    /// What was freed goes back to the card: the process may go on for long without it.
    fn drop(&mut self) {
        if self.bind().is_ok() && self.streams.compute.synchronize().is_ok() {
            // SAFETY: the default pool of a live context; memory that is in use is not touched. A failure leaves what was
            // freed to the process's end.
            let _ = unsafe {
                result::device::get_default_mem_pool(self.context.cu_device())
                    .and_then(|pool| result::mem_pool::trim_to(pool, 0))
            };
        }
    }
}

/// Bytes on a card; freed behind everything that the compute stream has when they are dropped.
pub(super) struct DeviceMemory {
    device: Arc<Device>,
    address: u64,
    bytes: usize,
}

impl DeviceMemory {
    pub(super) fn address(&self) -> u64 {
        self.address
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        let _no_capture = self.device.capturing.lock().unwrap_or_else(|poison| poison.into_inner());
        if self.device.bind().is_ok() {
            // SAFETY: allocated on this stream, freed once. A failure leaves it to the process's end.
            let _ = unsafe { result::free_async(self.address, self.device.streams.compute.cu_stream()) };
        }
    }
}

/// Lets the kernel that asks for much shared memory have what the card can give.
fn allow_shared_memory(card: &Card, function: &CudaFunction) -> Result<()> {
    use sys::CUfunction_attribute::{
        CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as BYTES,
        CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT as CARVEOUT,
    };
    let declared = check("ask for a kernel's shared memory", function.shared_size_bytes())?;
    let most = i32::try_from(card.shared_block).unwrap_or(i32::MAX).saturating_sub(declared);
    for (attribute, value) in [(BYTES, most), (CARVEOUT, 100)] {
        // SAFETY: the function's module is loaded and stays so.
        let set = unsafe { result::function::set_function_attribute(function.cu_function(), attribute, value) };
        check("set a kernel's shared memory", set)?;
    }
    Ok(())
}

/// Freed memory stays with this process: a batch allocates what the one before it freed.
fn keep_freed_memory(context: &CudaContext) -> Result<()> {
    // SAFETY: the device of a live context.
    let pool = check("find the memory pool", unsafe { result::device::get_default_mem_pool(context.cu_device()) })?;
    let most = u64::MAX;
    // SAFETY: the attribute is a u64, read before the call returns.
    let set = unsafe {
        sys::cuMemPoolSetAttribute(
            pool,
            sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
            (&raw const most).cast_mut().cast(),
        )
    };
    check("set the memory pool up", set.result())
}

fn facts(context: &CudaContext) -> Result<Facts> {
    let mut version = 0;
    // SAFETY: writes one integer.
    check("ask for the driver's version", unsafe { sys::cuDriverGetVersion(&raw mut version) }.result())?;
    let driver = ["/sys/module/nvidia/version", "/proc/driver/nvidia/version"]
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok())
        .map(|text| driver_version(&text));
    Ok(Facts {
        card: card(context)?,
        name: check("ask for the card's name", context.name())?,
        driver: driver.unwrap_or_default(),
        cuda: format!("{}.{}", version / 1000, version % 1000 / 10),
        total_bytes: check("ask for the card's memory", context.total_mem())?,
    })
}

fn card(context: &CudaContext) -> Result<Card> {
    use sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN as SHARED_BLOCK,
        CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR as SHARED_MULTIPROCESSOR,
        CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT as MULTIPROCESSORS,
    };
    let number = |what, attribute| {
        let number = check(what, context.attribute(attribute))?;
        Ok(u32::try_from(number).unwrap_or(1).max(1))
    };
    Ok(Card {
        capability: check("ask for the card's compute capability", context.compute_capability())?,
        multiprocessors: number("ask for the card's multiprocessors", MULTIPROCESSORS)?,
        shared_block: number("ask for a block's shared memory", SHARED_BLOCK)?,
        shared_multiprocessor: number("ask for a multiprocessor's shared memory", SHARED_MULTIPROCESSOR)?,
    })
}

/// The version in what the kernel module says of itself: the first word with two dots, or the whole line.
fn driver_version(text: &str) -> String {
    let dotted = |word: &&str| word.matches('.').count() >= 1 && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    text.split_whitespace().find(dotted).unwrap_or_else(|| text.trim()).to_owned()
}

/// An error of the driver while doing `what`.
pub(super) fn check<T>(what: &str, result: std::result::Result<T, DriverError>) -> Result<T> {
    result.map_err(|cause| driver_error(what, &cause))
}

fn driver_error(what: &str, cause: &DriverError) -> Error {
    let name = cause.error_name().map_or_else(|_| "unknown error".into(), |name| name.to_string_lossy());
    let text = cause.error_string().map_or_else(|_| "".into(), |text| text.to_string_lossy());
    Error::new(ErrorKind::Environment, format!("CUDA: cannot {what}: {name}: {text}"))
}

pub(super) fn blas_error(what: &str, cause: &cudarc::cublas::result::CublasError) -> Error {
    Error::new(ErrorKind::Environment, format!("cuBLAS: cannot {what}: {cause:?}"))
}

#[cfg(test)]
mod tests {
    use super::driver_version;

    #[test]
    fn the_driver_s_version_is_found_in_both_of_its_files() {
        let proc = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build";
        assert_eq!(
            (driver_version(proc).as_str(), driver_version("580.159.04\n").as_str()),
            ("580.159.04", "580.159.04")
        );
    }
}
