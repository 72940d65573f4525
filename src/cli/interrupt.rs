//! SIGINT and SIGTERM as a wish that the recorder asks for at its own pace.

use crate::error::{Error, ErrorKind, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a signal asked for an end.
#[derive(Debug, Clone)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on the first SIGINT or SIGTERM is only noted; a second one does what it does to any program.
    pub fn watch() -> Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // The order matters: the first registration acts only where the second one has already noted a signal.
            flag::register_conditional_default(signal, Arc::clone(&asked))
                .and_then(|_| flag::register(signal, Arc::clone(&asked)))
                .map_err(|cause| Error::new(ErrorKind::Environment, "cannot watch for signals").because(cause))?;
        }
        Ok(Interrupt(asked))
    }

    /// # Errors
    /// Interrupted, where a signal came.
    pub fn check(&self) -> Result<()> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(Error::new(ErrorKind::Interrupted, "a signal ended the run")),
            false => Ok(()),
        }
    }
}
