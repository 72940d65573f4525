//! Going on with a file: what a writer must know of it.

use super::directory::Directory;
use super::input::Input;
use super::payload_directory::PayloadDirectory;
use super::walk::State;
use crate::error::{Error, Result};
use crate::file::{FileHeader, FileStorage, Kind, NO_RUN, Span, Tail, Writer, list, sync_folder};
use crate::record::IndexV1;
use std::path::Path;

/// Opens `path` for appending runs: a new file gets its header, an existing trace is gone on with behind its last
/// whole frame. Only bytes after that are cut: the beginning of a frame, or a lost tail without a whole frame behind
/// it. Gives the labels that the file already has.
///
/// # Errors
/// Foreign, where the file is no trace; Damaged, where it is, or where whole frames stand behind a lost tail (so that
/// nothing readable is destroyed); Environment, where another process writes to it.
pub fn append(path: &Path, header: FileHeader) -> Result<(Writer<FileStorage>, Vec<String>)> {
    let mut storage = FileStorage::open(path)?;
    let metadata = storage.file().metadata().map_err(|cause| Error::io("read", path, cause))?;
    if metadata.is_file() && metadata.len() == 0 {
        return Ok((create(storage, path, header)?, Vec::new()));
    }
    let clone = storage.file().try_clone().map_err(|cause| Error::io("open", path, cause))?;
    let input = Input::of(clone, path)?;
    let directory = appendable(&input)?;
    let labels = super::runs(&input, &directory)?.iter().map(|run| run.identity.label.clone()).collect();
    let tail = tail(&input, &directory)?;
    let torn_index = tail.unindexed.payload_index != 0;
    storage.cut(tail.end)?;
    let mut writer = Writer::resume(storage, *input.header(), tail);
    if torn_index {
        writer.write_index()?;
    }
    Ok((writer, labels))
}

fn create(storage: FileStorage, path: &Path, header: FileHeader) -> Result<Writer<FileStorage>> {
    let file = storage.file().try_clone().map_err(|cause| Error::io("open", path, cause))?;
    let created = Writer::create(storage, header).and_then(|writer| sync_folder(path).map(|()| writer));
    created.inspect_err(|_| {
        // Part of a header would make the file foreign to everyone; the error to report is the first one.
        drop(file.set_len(0));
    })
}

/// The directory of a file that can be gone on with.
fn appendable(input: &Input) -> Result<Directory> {
    let mut directory = Directory::read(input)?;
    if directory.state != State::Sealed {
        // What was not durable is read in full: nothing goes on behind a payload that a power loss made a hole of.
        directory = Directory::walked(input, input.length()?, directory.durable_to)?;
    }
    let behind = directory.holes.iter().find(|(start, _)| *start < directory.end);
    let what = match (directory.state, behind) {
        (State::Damaged, Some((start, end))) => format!("bytes {start} to {end} are damaged"),
        (State::Damaged, None) => "its frames are not in order".to_owned(),
        (_, Some((start, end))) => format!("bytes {start} to {end} are lost, and whole frames stand behind them"),
        (_, None) => return Ok(directory),
    };
    let rescue = "nothing is appended behind that; `actrace recover IN OUT` copies everything whole into a new file";
    Err(Error::damaged(format!("{what}: {rescue}")).in_file(input.path()))
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
    let runs = directory.frames.iter().filter_map(|frame| frame.run).max();
    let unindexed_payloads = PayloadDirectory::unindexed(input, directory)?;
    let hashes = unindexed_payloads.blake3.as_chunks::<32>().0.iter().copied();
    let known = payloads.hashes().chain(hashes.zip(unindexed_payloads.first_payload..)).collect();
    Ok(Tail {
        end: directory.end,
        seq: directory.next_seq,
        payload: payloads.next(),
        runs: runs.map_or(0, |run| run.min(NO_RUN - 2) + 1),
        index: directory.last_index,
        unindexed,
        unindexed_payloads,
        known,
    })
}
