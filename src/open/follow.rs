//! Traces that are being written, opened anew when something in them was finished.

use super::{State, Trace, TraceSet};
use crate::error::{Error, Result};
use crate::file::Kind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Follows files while they are written. It never waits: the caller asks as often as it likes.
#[derive(Debug)]
pub struct Follow {
    paths: Vec<PathBuf>,
    stamps: Vec<Stamp>,
    finished: Vec<Finished>,
}

/// What tells, without a look into the file, that nobody wrote to it since.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

/// How far a trace has come. What belongs to a step that is under way does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finished {
    uuid: [u8; 16],
    state: State,
    frames: usize,
}

impl Follow {
    /// Follows `paths` from the next [`Follow::poll`] on.
    pub fn new(paths: &[PathBuf]) -> Self {
        Follow { paths: paths.to_vec(), stamps: Vec::new(), finished: Vec::new() }
    }

    /// The traces, opened anew, where a step was finished, a run began or ended, or a file changed its state since the
    /// last time; `None` where there is nothing new, or no finished step yet. An empty file is one whose writer has
    /// just created it. Part of a header is none: no writer goes on with that.
    ///
    /// # Errors
    /// Environment, where a file is missing; else as [`TraceSet::open`].
    pub fn poll(&mut self) -> Result<Option<TraceSet>> {
        // Before the files are opened: what is written from here on is seen by the next poll.
        let stamps = self.paths.iter().map(|path| Stamp::of(path)).collect::<Result<Vec<_>>>()?;
        if stamps == self.stamps || stamps.iter().any(|stamp| stamp.length == 0) {
            return Ok(None);
        }
        let set = TraceSet::open(&self.paths)?;
        self.stamps = stamps;
        let finished: Vec<Finished> = set.traces().iter().map(|trace| Finished::of(trace)).collect();
        let nothing_yet = !set.is_over() && set.runs().all(|run| run.view().steps.is_empty());
        if nothing_yet || finished == self.finished {
            return Ok(None);
        }
        self.finished = finished;
        Ok(Some(set))
    }
}

impl Stamp {
    fn of(path: &Path) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(|cause| Error::io("open", path, cause))?;
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        // Only a file can be about to get its header; what else is empty is refused when it is opened.
        let length = if metadata.is_file() { metadata.len() } else { u64::MAX };
        Ok(Stamp { inode: metadata.ino(), length, modified })
    }
}

impl Finished {
    fn of(trace: &Trace) -> Self {
        let under_way = |kind| {
            matches!(kind, Kind::Stats | Kind::Weight | Kind::Payload | Kind::Sync | Kind::Index | Kind::PayloadIndex)
        };
        let frames = trace.directory.frames.iter().filter(|frame| !under_way(frame.kind)).count();
        Finished { uuid: trace.header().uuid, state: trace.state(), frames }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn an_empty_file_is_waited_for_and_part_of_a_header_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.actrace");
        let mut follow = Follow::new(std::slice::from_ref(&path));
        assert_eq!(follow.poll().unwrap_err().kind(), ErrorKind::Environment);
        std::fs::write(&path, "").unwrap();
        assert!(follow.poll().unwrap().is_none());
        std::fs::write(&path, b"\xABactr").unwrap();
        assert_eq!(follow.poll().unwrap_err().kind(), ErrorKind::Foreign);
    }
}
