//! Going on with a file: what a writer must know of it.

use super::directory::{Directory, PayloadDirectory, State};
use super::input::Input;
use crate::error::{Error, Result};
use crate::file::{FileHeader, FileStorage, Kind, NO_RUN, Span, Tail, Writer, list};
use crate::record::IndexV1;
use std::path::Path;

/// Opens `path` for appending runs: a new file gets its header, an existing trace is gone on with behind its last
/// whole frame (only bytes after that are cut). Gives the labels that the file already has.
///
/// # Errors
/// Foreign, where the file is no trace; Damaged, where frames before the last one are; Environment, where another
/// process writes to it.
pub fn append(path: &Path, header: FileHeader) -> Result<(Writer<FileStorage>, Vec<String>)> {
    let mut storage = FileStorage::open(path)?;
    let metadata = storage.file().metadata().map_err(|cause| Error::io("read", path, cause))?;
    if metadata.is_file() && metadata.len() == 0 {
        let mut writer = Writer::create(storage, header)?;
        writer.sync()?;
        sync_folder(path)?;
        return Ok((writer, Vec::new()));
    }
    let clone = storage.file().try_clone().map_err(|cause| Error::io("open", path, cause))?;
    let input = Input::of(clone, path)?;
    let directory = Directory::read(&input)?;
    if directory.state == State::Damaged {
        let (start, end) = directory.gaps.first().copied().unwrap_or_default();
        return Err(Error::damaged(format!("bytes {start} to {end} are damaged: nothing is appended behind them"))
            .in_file(path));
    }
    let labels = super::runs(&input, &directory)?.iter().map(|run| run.identity.label.clone()).collect();
    let tail = tail(&input, &directory)?;
    storage.cut(tail.end)?;
    Ok((Writer::resume(storage, *input.header(), tail), labels))
}

fn sync_folder(path: &Path) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(|cause| Error::io("sync", folder, cause))
}

fn tail(input: &Input, directory: &Directory) -> Result<Tail> {
    let payloads = PayloadDirectory::read(input, directory)?;
    let mut unindexed = IndexV1::default();
    for frame in directory.frames.iter().filter(|frame| frame.offset > directory.last_index.0) {
        let header = input.frame_header(frame.offset, directory.end)?;
        let span = Span { rows: frame.rows, sites: frame.sites, positions: frame.positions };
        list(&mut unindexed, &header, blake3::hash(&input.body(&header)?).as_bytes(), span);
        if frame.kind == Kind::PayloadIndex {
            unindexed.payload_index = frame.offset;
        }
    }
    let runs = directory.frames.iter().filter(|frame| frame.kind == Kind::Run).filter_map(|frame| frame.run).max();
    Ok(Tail {
        end: directory.end,
        seq: directory.next_seq,
        payload: payloads.last() + 1,
        runs: runs.map_or(0, |run| run.min(NO_RUN - 2) + 1),
        index: directory.last_index,
        unindexed,
        unindexed_payloads: PayloadDirectory::loose(input, directory)?,
        known: payloads.hashes().collect(),
    })
}
