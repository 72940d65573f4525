//! The next writer goes on behind the last whole frame, wherever the one before it was cut off: nothing whole is lost,
//! and the file is sound again.

use crate::command;
use crate::support::trace::{HEADER, frames, run, sample, verified, write_run};
use actrace::ErrorKind;
use actrace::file::Kind;
use actrace::open::{State, Trace, append};
use actrace::record::RunV1;
use std::path::Path;

/// Appends a run to a file and seals it.
fn go_on(path: &Path) -> actrace::Result<Vec<String>> {
    let (mut writer, labels) = append(path, HEADER)?;
    write_run(&mut writer, &RunV1 { label: "next".into(), run_id: [0x73; 16], ..run() })?;
    Ok(labels)
}

/// Cut in front of every frame (between the two frames of an index, for instance), and within every one.
#[test]
fn wherever_it_was_cut() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.actrace");
    let image = sample();
    for frame in frames(&image) {
        for within in [0, 1, 63, 64, 70] {
            let start = frame.offset as usize;
            std::fs::write(&path, &image[..start + within]).unwrap();
            let labels = go_on(&path).unwrap_or_else(|error| panic!("cut at {start} + {within}: {error}"));
            let found = verified(std::fs::read(&path).unwrap()).unwrap();
            assert_eq!((found.state, found.faults), (State::Sealed, vec![]), "cut at {start} + {within}");
            let bytes = std::fs::read(&path).unwrap();
            assert_eq!(bytes[..start], image[..start], "cut at {start} + {within}: what was whole is untouched");

            let trace = Trace::open(&path).unwrap();
            let named: Vec<&str> = trace.runs().iter().map(|run| run.identity.label.as_str()).collect();
            assert_eq!(named[..named.len() - 1], labels[..]);
            let payloads = trace.frames().unwrap().iter().filter(|frame| frame.kind == Kind::Payload).count();
            assert_eq!(payloads, 4, "cut at {start} + {within}: equal content is still stored once");
            for stats in trace.runs().iter().flat_map(|run| &run.steps).flat_map(|step| &step.stats) {
                let stats = trace.stats(stats).unwrap();
                for payload in stats.record().payload.iter() {
                    trace.payload(payload.to_native()).unwrap_or_else(|error| panic!("cut at {start}: {error}"));
                }
            }
        }
    }
}

/// Behind the last mark of an unsealed file: a lost tail.
#[test]
fn a_lost_tail_is_cut_only_where_nothing_whole_stands_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.actrace");
    let mut image = sample();
    let end = frames(&image).iter().rfind(|frame| frame.kind == Kind::Coverage).unwrap().end();
    image.truncate(end as usize);
    let all = frames(&image);
    let (last, before) = (&all[all.len() - 1], &all[all.len() - 2]);

    let mut tail = image.clone();
    tail[last.offset as usize..][..64].fill(0);
    std::fs::write(&path, &tail).unwrap();
    go_on(&path).unwrap();
    assert_eq!(verified(std::fs::read(&path).unwrap()).unwrap().state, State::Sealed);

    let mut hole = image.clone();
    hole[before.offset as usize..][..64].fill(0);
    std::fs::write(&path, &hole).unwrap();
    let error = go_on(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.to_string().contains("whole frames stand behind them") && error.to_string().contains("recover"));
    assert_eq!(std::fs::read(&path).unwrap(), hole, "nothing was cut");
}

/// Opening for reading leaves payloads alone; opening for appending reads those that no mark vouches for.
#[test]
fn nothing_goes_on_behind_a_payload_with_a_hole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.actrace");
    let image = sample();
    let all = frames(&image);
    let payload = all.iter().find(|frame| frame.kind == Kind::Payload).unwrap();
    let stats = all.iter().find(|frame| frame.kind == Kind::Stats).unwrap();
    let mut hole = image[..stats.end() as usize].to_vec();
    hole[payload.offset as usize + 128..][..64].fill(0);
    std::fs::write(&path, &hole).unwrap();
    assert_eq!(Trace::open(&path).unwrap().state(), State::Torn);
    assert_eq!(go_on(&path).unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(std::fs::read(&path).unwrap(), hole);
}

#[test]
fn a_damaged_file_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.actrace");
    let mut image = sample();
    let plan = *frames(&image).iter().find(|frame| frame.kind == Kind::Plan).unwrap();
    image[plan.offset as usize + 70] ^= 1;
    // Were it sealed, only verify would see it: the next run is no reason to read gigabytes.
    image.truncate(frames(&sample()).last().unwrap().offset as usize);
    std::fs::write(&path, &image).unwrap();
    let refused = command::run(&mut command::record(&path, 1));
    assert_eq!(refused.status, 1);
    assert!(refused.stderr.contains("`actrace recover IN OUT`"), "{}", refused.stderr);
    assert_eq!(std::fs::read(&path).unwrap(), image);
}

/// A file that was created and no more, or not even that, is nobody's: the next writer begins it anew.
#[test]
fn an_empty_file_is_begun_and_a_foreign_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.actrace");
    std::fs::write(&path, b"").unwrap();
    assert_eq!(go_on(&path).unwrap(), Vec::<String>::new());
    std::fs::write(&path, b"notes of a user").unwrap();
    assert_eq!(go_on(&path).unwrap_err().kind(), ErrorKind::Foreign);
    assert_eq!(std::fs::read(&path).unwrap(), b"notes of a user");
}
