//! `actrace replay`: a run of kind `replay` beside the run that it was made from.

use crate::command::{Finished, Ground, actrace, run};
use crate::support::{fixture, model};
use actrace::capture::Status;
use actrace::compare::{Comparison, Verdict};
use actrace::open::{RunRef, TraceSet};

fn replay(ground: &Ground, model: &str, args: &[&str]) -> Finished {
    let mut command = actrace("replay");
    command.arg(ground.path("out")).args(["--model", model]).args(args);
    run(command.arg("--out").arg(ground.path("replay")))
}

fn recorded(args: &[&str]) -> (Ground, String) {
    let ground = Ground::new();
    let model = model("tiny-qwen2.q8_0").to_str().unwrap().to_owned();
    let prompt = ["--model", &model, "--tokens", "609,1827,409,72", "--generate", "4", "--label", "run"];
    let finished = ground.record(&[&prompt[..], args, &["--out", "{out}"]].concat());
    assert_eq!(finished.status, 0, "{}", finished.stderr);
    (ground, model)
}

fn runs(ground: &Ground) -> (RunRef, RunRef) {
    let set = TraceSet::open(&[ground.path("out"), ground.path("replay")]).unwrap();
    (set.resolve("run").unwrap(), set.resolve("again").unwrap())
}

#[test]
fn every_point_is_made_again_from_its_own_inputs() {
    let (ground, model) = recorded(&[]);
    let finished = replay(&ground, &model, &["--run", "run", "--label", "again"]);
    assert_eq!(finished.status, 0, "{}", finished.stderr);
    let (original, again) = runs(&ground);
    let identity = &again.view().identity;
    assert_eq!((identity.kind.as_str(), identity.semantics.as_str()), ("replay", "ggml"));
    assert_eq!((identity.kernel_path.as_str(), identity.compute_type.as_str()), ("reference/f64", "f64"));
    assert_eq!(identity.parents[0].run_id, original.view().identity.run_id);
    assert_eq!(identity.parents[0].content_root, original.view().end.as_ref().unwrap().content_root);
    let captured = |run: &RunRef| run.view().plan.sites.iter().filter(|site| site.status == 0).count();
    assert_eq!(captured(&again), captured(&original));
    let rows = |run: &RunRef| run.view().end.as_ref().unwrap().rows;
    assert_eq!(rows(&again), rows(&original), "decode steps too");
    let comparison = Comparison::new(again, original, None, true).unwrap();
    assert_eq!(comparison.verdict, Verdict::WithinTolerance, "{}", comparison.reason);
    assert!(comparison.tolerance.reason.contains("replay") && comparison.tolerance.value == 1e-5);
    let worst = comparison.sites.iter().map(|site| site.whole()).fold(0.0, f64::max);
    assert!(worst < 1e-6, "{worst}");
}

#[test]
fn what_was_not_recorded_is_unsupported_with_a_reason() {
    let (ground, model) = recorded(&["--tensors", "attn_norm,q_matmul,ffn_glu"]);
    let finished = replay(&ground, &model, &["--run", "run", "--label", "again"]);
    assert_eq!(finished.status, 0, "{}", finished.stderr);
    let (_, again) = runs(&ground);
    let point = |name: &str| {
        let mut sites = again.view().plan.sites.iter();
        let site = sites.find(|site| (site.layer, site.point.as_str()) == (2, name)).unwrap();
        (site.status, site.reason.as_str())
    };
    let captured = (Status::Captured as u8, "");
    let unsupported = (Status::Unsupported as u8, "input not recorded");
    // attn_scores follow from attn_norm by a chain within the layer; the residual stream's input is another layer's.
    assert_eq!([point("q_matmul"), point("q"), point("attn_scores"), point("ffn_out")], [captured; 4]);
    assert_eq!([point("attn_norm"), point("resid_mid"), point("ffn_gate")], [unsupported; 3]);
}

/// `--points replay` leaves out second names alone, and everything can be made again from the rest.
#[test]
fn the_least_set_is_enough() {
    let (ground, model) = recorded(&["--points", "replay"]);
    let finished = replay(&ground, &model, &["--run", "run", "--label", "again"]);
    assert_eq!(finished.status, 0, "{}", finished.stderr);
    let (original, again) = runs(&ground);
    let names = |run: &RunRef| {
        let sites = run.view().plan.sites.iter().filter(|site| site.status == 0);
        sites.map(|site| (site.layer, site.point.clone())).collect::<Vec<_>>()
    };
    let missing: Vec<_> = names(&again).into_iter().filter(|name| !names(&original).contains(name)).collect();
    assert_eq!(missing.len(), 1 + 2 * 6, "embed, k_cache and v_cache");
    assert!(again.view().plan.sites.iter().all(|site| site.status != Status::Unsupported as u8));
}

#[test]
fn what_cannot_be_replayed_is_refused_in_words() {
    let (ground, model) = recorded(&["--tensors", "none"]);
    let refused = |model: &str, args: &[&str]| {
        let finished = replay(&ground, model, &[&["--run", "run", "--label", "again"], args].concat());
        assert!(!ground.path("replay").exists(), "nothing is written");
        (finished.status, finished.one_error())
    };
    let (status, error) = refused(&model, &["--layers", "1..3"]);
    assert!(status == 2 && error.contains("nothing can be replayed"), "{error}");
    let (status, error) = refused(&model, &["--semantics", "fast"]);
    assert!(status == 2 && error.contains("`fast` is no semantics"), "{error}");
    let (ground, _) = recorded(&[]);
    let other = fixture("llama/plain");
    let finished = replay(&ground, other.to_str().unwrap(), &["--run", "run", "--label", "again"]);
    assert_eq!(finished.status, 3, "{}", finished.stderr);
    assert!(finished.one_error().contains("this run is of another model"), "{}", finished.stderr);
}
