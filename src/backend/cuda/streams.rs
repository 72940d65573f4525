//! What work is handed to a card through. A process keeps it for its next backend, and with it the card's context: where
//! cuBLAS gives a handle back it waits for every stream of the context, and the driver crashes now and then where another
//! thread destroys one meanwhile.

use super::device::{blas_error, check};
use crate::error::Result;
use cudarc::cublas::CudaBlas;
use cudarc::driver::{CudaContext, CudaStream, result};
use std::sync::{Arc, Mutex};

/// Three streams of a card, and cuBLAS on the first.
pub(super) struct Streams {
    /// Kernels and products.
    pub(super) compute: Arc<CudaStream>,
    /// Statistics of what is computed, with the multiprocessors that computing leaves.
    pub(super) statistics: Arc<CudaStream>,
    /// Copies to the host beside them.
    pub(super) copy: Arc<CudaStream>,
    pub(super) blas: CudaBlas,
}

impl Streams {
    /// Streams of card `ordinal` that nobody else has.
    pub(super) fn of(context: &Arc<CudaContext>, ordinal: usize) -> Result<Arc<Self>> {
        static KEPT: Mutex<Vec<(usize, Arc<Streams>)>> = Mutex::new(Vec::new());
        let mut kept = KEPT.lock().unwrap_or_else(|poison| poison.into_inner());
        let idle = kept.iter().find(|(of, streams)| *of == ordinal && Arc::strong_count(streams) == 1);
        if let Some((_, streams)) = idle {
            return Ok(Arc::clone(streams));
        }
        let made = Arc::new(Streams::new(context)?);
        kept.push((ordinal, Arc::clone(&made)));
        Ok(made)
    }

    fn new(context: &Arc<CudaContext>) -> Result<Self> {
        let priorities = check("ask for the priorities of streams", result::stream::get_priority_range())?;
        let stream = |priority| check("make a stream", context.new_stream_with_priority(priority));
        let (compute, statistics, copy) = (stream(priorities.1)?, stream(priorities.0)?, stream(priorities.1)?);
        let blas = CudaBlas::new(Arc::clone(&compute)).map_err(|cause| blas_error("start cuBLAS", &cause))?;
        Ok(Streams { compute, statistics, copy, blas })
    }
}
