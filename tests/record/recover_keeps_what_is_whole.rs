//! `recover` keeps going past broken frames: everything whole is in the new file, everything else is named.

use crate::command::{actrace, json, run};
use crate::support::trace::{HEADER, frames, sample, verified, weight};
use crate::traces::recorded;
use actrace::file::{FileHeader, FrameHeader, Kind};
use actrace::open::{Recovery, State, Trace, recover};
use actrace::record::WeightV1;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const NEW: FileHeader = FileHeader { uuid: [3; 16], created_us: 1 };

/// What a reader sees of a file: by run, step, site and position the fingerprint of a row, and its values' bits.
type Rows = BTreeMap<(String, u32, u32, u32), (u64, Option<Vec<u32>>)>;

fn rows(trace: &Trace) -> Rows {
    let mut rows = Rows::new();
    for run in trace.runs() {
        for step in &run.steps {
            for frame in &step.stats {
                let stats = trace.stats(frame).unwrap();
                let stats = stats.record();
                for row in 0..stats.site.len() {
                    let payload = stats.payload[row].to_native();
                    let bits = (payload != 0).then(|| {
                        let payload = trace.payload(payload).unwrap();
                        let values = payload.row(stats.payload_row[row].to_native() as usize).unwrap();
                        values.iter().map(|value| value.to_bits()).collect()
                    });
                    let label = run.identity.label.clone();
                    let key = (label, step.step, stats.site[row].to_native(), stats.position[row].to_native());
                    rows.insert(key, (stats.fingerprint[row].to_native(), bits));
                }
            }
        }
    }
    rows
}

/// Recovers an image; the new file is checked in full.
fn recovered(folder: &Path, image: &[u8]) -> actrace::Result<(Recovery, Arc<Trace>)> {
    let (from, to) = (folder.join("in"), folder.join("out"));
    drop(std::fs::remove_file(&to));
    std::fs::write(&from, image).unwrap();
    let recovery = recover(&from, &to, NEW, |_, _| {})?;
    assert_eq!(std::fs::read(&from).unwrap(), image, "the input is only read");
    let found = verified(std::fs::read(&to).unwrap()).unwrap();
    assert_eq!((found.state, &found.faults[..]), (State::Sealed, &[][..]));
    let trace = Trace::open(&to).unwrap();
    let kinds = trace.frames().unwrap().into_iter().fold(BTreeMap::new(), |mut kinds, frame| {
        *kinds.entry(frame.kind.name()).or_insert(0) += 1;
        kinds
    });
    let written = recovery.losses.iter().filter(|(run, _)| run.is_some()).count() as u64;
    for (kind, kept) in &recovery.kept {
        let added = if *kind == "loss" { written } else { 0 };
        assert_eq!(kinds[kind], kept + added, "{kind}");
    }
    Ok((recovery, trace))
}

fn opened(folder: &Path, image: &[u8]) -> Arc<Trace> {
    let path = folder.join("original");
    std::fs::write(&path, image).unwrap();
    Trace::open(&path).unwrap()
}

#[test]
fn a_sound_file_comes_back_whole_with_its_rows_and_values() {
    let folder = tempfile::tempdir().unwrap();
    for image in [sample(), recorded()] {
        let (recovery, trace) = recovered(folder.path(), &image).unwrap();
        assert!(recovery.is_complete() && recovery.lost.is_empty() && recovery.holes.is_empty());
        let original = opened(folder.path(), &image);
        assert_eq!(rows(&trace), rows(&original));
        for (new, old) in trace.runs().iter().zip(original.runs()) {
            assert_eq!((&new.identity, &new.plan, &new.end), (&old.identity, &old.plan, &old.end));
        }
        assert_ne!(trace.header().uuid, original.header().uuid, "it is another file");
    }
}

/// Every block of the file zeroed in turn: the rest is kept, row for row, and what is gone is told.
#[test]
fn every_zeroed_block() {
    let folder = tempfile::tempdir().unwrap();
    let image = sample();
    let all = frames(&image);
    let original = rows(&opened(folder.path(), &image));
    let mut incomplete = 0;
    for block in 1..image.len() / 64 {
        let mut damaged = image.clone();
        damaged[block * 64..][..64].fill(0);
        if damaged == image {
            continue;
        }
        let broken: &FrameHeader = all.iter().find(|frame| block as u64 * 64 < frame.end()).unwrap();
        let (recovery, trace) = recovered(folder.path(), &damaged).unwrap();
        let kept = rows(&trace);
        for (key, (fingerprint, bits)) in &kept {
            let (expected, values) = &original[key];
            assert_eq!(fingerprint, expected, "block {block}");
            assert!(bits.is_none() || bits == values, "block {block}: other values at {key:?}");
        }
        let own = matches!(broken.kind, Kind::Index | Kind::PayloadIndex | Kind::Sync | Kind::Seal);
        assert_eq!(recovery.is_complete(), own, "block {block}, {:?}: {:?}", broken.kind, recovery.losses);
        assert_eq!(recovery.lost.get(broken.kind.name()), Some(&1), "block {block}: {:?}", recovery.lost);
        let complete = own || !matches!(broken.kind, Kind::Run | Kind::Stats | Kind::Step | Kind::Payload);
        assert_eq!(kept == original, complete, "block {block}, {:?}", broken.kind);
        if broken.kind == Kind::Payload {
            assert_eq!(kept.len(), original.len(), "block {block}: statistics stay without their values");
            let bare: Vec<_> = recovery.losses.iter().filter(|(_, loss)| loss.what == "tensors").collect();
            // Equal content is stored once: rows of both runs named that payload, and perhaps their weights.
            let named = weight().payloads.contains(&broken.payload);
            let each = 1 + u64::from(named);
            assert_eq!(
                bare.iter().map(|(run, loss)| (*run, loss.rows)).collect::<Vec<_>>(),
                [(Some(0), each), (Some(1), each)]
            );
            for kept in trace.runs().iter().flat_map(|run| &run.weights).map(|frame| trace.weight(frame).unwrap()) {
                assert_eq!((kept.payloads.is_empty(), kept.scale_elements == 0), (named, named), "block {block}");
                let unnamed = WeightV1 {
                    payloads: kept.payloads.clone(),
                    scale_payloads: kept.scale_payloads.clone(),
                    ..weight()
                };
                assert_eq!(kept, WeightV1 { scale_elements: kept.scale_elements, ..unnamed }, "block {block}");
            }
        }
        for run in trace.runs() {
            let told = recovery.losses.iter().filter(|(of, _)| *of == Some(run.ordinal)).count();
            let own = usize::from(broken.kind != Kind::Loss || broken.run != run.ordinal);
            assert_eq!(trace.losses(run).unwrap().len(), own + told, "block {block}: what was lost before, and now");
        }
        incomplete += usize::from(!own);
    }
    assert!(incomplete > 10);
}

#[test]
fn a_killed_run_loses_nothing_and_gets_no_end() {
    let folder = tempfile::tempdir().unwrap();
    let image = recorded();
    let all = frames(&image);
    let end = all.iter().find(|frame| frame.kind == Kind::Coverage).unwrap();
    let (recovery, trace) = recovered(folder.path(), &image[..end.offset as usize + 70]).unwrap();
    assert!(recovery.is_complete() && recovery.cut_bytes == 70);
    assert_eq!(trace.runs()[0].end, None);
    assert_eq!(rows(&trace), rows(&opened(folder.path(), &image)));
}

#[test]
fn a_damaged_header_is_no_obstacle_while_the_identity_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let mut image = sample();
    image[41] ^= 1;
    assert!(recovered(folder.path(), &image).unwrap().0.is_complete());
    image[..8].fill(0);
    assert!(recovered(folder.path(), &image).unwrap().0.is_complete());
    image[20..36].fill(0);
    assert!(recovered(folder.path(), &image).is_err());
    assert!(!folder.path().join("out").exists());
}

#[test]
fn the_command_says_what_is_kept_and_lost_and_overwrites_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("in"), folder.path().join("out"));
    let mut image = sample();
    let stats = *frames(&image).iter().find(|frame| frame.kind == Kind::Stats).unwrap();
    image[stats.offset as usize + 70] ^= 1;
    std::fs::write(&from, &image).unwrap();
    let (code, report) = json(actrace("recover").args([&from, &to]));
    assert_eq!((code, &report["lost"]), (3, &serde_json::json!({ "stats": 1 })));
    assert_eq!(report["losses"][0]["rows"], 2, "the index knows how many rows are gone");
    assert_eq!(report["kept"]["run"], 2);
    assert_eq!(run(actrace("verify").arg(&to)).status, 0);
    let runs = json(actrace("info").arg(&to)).1["files"][0]["runs"].take();
    let losses = runs[0]["losses"].as_array().unwrap();
    assert!(losses.iter().any(|loss| loss["rows"] == 2), "{losses:?}");
    let told = run(actrace("info").arg(&to)).stdout;
    assert_eq!(
        told.matches("    lost ").count(),
        runs.as_array().unwrap().iter().map(|run| run["losses"].as_array().unwrap().len()).sum::<usize>()
    );
    let again = run(actrace("recover").args([&from, &to]));
    assert_eq!(again.status, 2);
    assert!(again.stderr.contains("exists already and is not overwritten"), "{}", again.stderr);
    let itself = run(actrace("recover").args([&from, &from]));
    assert_eq!((itself.status, std::fs::read(&from).unwrap()), (2, image));
    std::fs::write(&from, sample()).unwrap();
    std::fs::remove_file(&to).unwrap();
    let whole = run(actrace("recover").args([&from, &to]));
    assert_eq!(whole.status, 0);
    assert!(whole.stdout.contains("nothing that was recorded is lost"));
    assert_ne!(HEADER.uuid, Trace::open(&to).unwrap().header().uuid);
}
