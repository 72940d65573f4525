//! `--device cuda` on a host without a card: one line that says what is missing and where it was looked for, and never a
//! run on something else.

use crate::command::{Ground, actrace, run};
use crate::support::fixture;
use std::path::Path;

/// Whether this host has no card; otherwise the test has nothing to show.
fn without_card() -> bool {
    let without = !Path::new("/dev/nvidiactl").exists();
    if !without {
        println!("skipped: a card is here");
    }
    without
}

#[test]
fn the_missing_library_and_the_folders_are_named() {
    if !without_card() {
        return;
    }
    let ground = Ground::new();
    let (folder, out) = (ground.path("libraries"), ground.path("out"));
    std::fs::create_dir(&folder).unwrap();
    for device in ["cuda", "cuda:7"] {
        let mut command = actrace("record");
        command.env("ACTRACE_CUDA_LIBRARIES", &folder).args(["--tokens", "1", "--device", device]);
        let finished = run(command.arg("--model").arg(fixture("llama/plain")).arg("--out").arg(&out));
        assert_eq!((finished.status, finished.stdout.as_str()), (2, ""));
        let error = finished.one_error();
        assert!(error.contains("no CUDA here: the NVIDIA driver (libcuda.so) is missing"), "{error}");
        assert!(error.contains(folder.to_str().unwrap()) && error.contains("--device cpu"), "{error}");
        assert!(!out.exists(), "nothing was begun");
    }
}

#[test]
fn auto_says_what_it_chose_and_why() {
    if !without_card() {
        return;
    }
    let mut command = actrace("record");
    command.args(["--tokens", "1,2", "--device", "auto", "--untraced"]).arg("--model").arg(fixture("llama/plain"));
    let finished = run(&mut command);
    assert_eq!(finished.status, 0, "{}", finished.stderr);
    assert!(finished.stderr.contains("device: cpu (no CUDA here: "), "{}", finished.stderr);
}
