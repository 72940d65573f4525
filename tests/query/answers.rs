//! What a comparison says of the answer: distributions over the next token, flips, steps.

use crate::comparing::{compare, judged, record_ids};
use crate::support;
use crate::synthetic::{Run, write};
use serde_json::Value;
use tempfile::tempdir;

const REFERENCE: [[f32; 4]; 3] = [[0.5, 1.25, -2.0, 3.0], [2.0, 1.5, 0.25, -1.0], [1.0, 2.0, 3.0, 3.5]];
const TARGET: [[f32; 4]; 3] = [[0.25, 1.5, -2.5, 2.75], [1.25, 1.75, 0.5, -1.5], [3.0, 2.0, 1.0, 0.5]];

/// `scipy.special.rel_entr(softmax(r), softmax(t)).sum()` of each row, and their mean by numpy.
const KL: [f64; 3] = [0.016955222468890335, 0.12091538352335154, 1.4306591621141669];
const KL_MEAN: f64 = 0.5228432560354696;

/// Both are sums of four terms in f64, over values of the same f32.
fn near(found: &Value, expected: f64) -> bool {
    (found.as_f64().unwrap() - expected).abs() <= 1e-13
}

fn logits(rows: [[f32; 4]; 3]) -> impl Fn(i32, &str, u32) -> Vec<f32> {
    move |_, _, position| rows[position as usize].to_vec()
}

#[test]
fn divergences_flips_and_gaps_are_those_of_scipy() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("runs.actrace");
    let (r, t) = (logits(REFERENCE), logits(TARGET));
    let run = |label, values| Run { label, tokens: vec![1, 2, 3], sites: vec![(-1, "logits")], tensors: true, values };
    write(&path, &[run("r", &r), run("t", &t)], true);
    let answer = &judged(&path, "r", "t", &[]).0["answer"];
    assert_eq!((&answer["rows"], &answer["unknown_rows"]), (&3.into(), &0.into()));
    assert!(near(&answer["kl_mean"], KL_MEAN) && near(&answer["last"]["kl_divergence"], KL[2]), "{answer}");
    assert!(near(&answer["kl_max"]["kl_divergence"], KL[2]) && near(&answer["first_flip"]["kl_divergence"], KL[1]));
    let flip = &answer["first_flip"];
    assert_eq!((&answer["flips"], &flip["position"], &flip["rank"]), (&2.into(), &1.into(), &1.into()));
    assert!(near(&flip["reference_gap"], 0.5) && near(&flip["target_gap"], 0.5));
    assert_eq!((&answer["worst_rank"]["position"], &answer["worst_rank"]["rank"]), (&2.into(), &3.into()));
    let page = String::from_utf8(compare(&path, "r", "t", &[]).stdout).unwrap();
    assert!(page.contains("\n  2 greedy choices flip, first in step 0: position 1, KL 1.21e-1"), "{page}");
}

#[test]
fn without_values_only_equal_logits_have_an_answer() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("runs.actrace");
    let mut partly = TARGET;
    partly[0] = REFERENCE[0];
    let (r, t) = (logits(REFERENCE), logits(partly));
    let run = |label, values| Run { label, tokens: vec![1, 2, 3], sites: vec![(-1, "logits")], tensors: false, values };
    write(&path, &[run("r", &r), run("t", &t)], true);
    let (whole, _) = judged(&path, "r", "t", &[]);
    assert_eq!((&whole["answer"]["rows"], &whole["answer"]["unknown_rows"]), (&1.into(), &2.into()));
    assert_eq!(whole["answer"]["last"]["position"], 0, "no number for rows without values");
    assert_eq!(whole["statistics_only"], true);
    let page = String::from_utf8(compare(&path, "r", "t", &[]).stdout).unwrap();
    assert!(
        page.contains("\nevidence: statistics only - 1 rows equal in every bit, 0 compared value by value, 2 differ")
    );
}

/// The tokens of a run's greedy decode, given to a second run as its prompt: the cache against the whole.
#[test]
fn a_prompt_in_one_go_is_held_against_its_decode_token_by_token() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("runs.actrace");
    let model = support::model("tiny-qwen2.safetensors");
    record_ids(&model, "609,1827,409", "decoded", &path);
    let sql = "SELECT token_id FROM activations WHERE point = 'tok_embed' ORDER BY position";
    let tokens: Vec<String> =
        crate::asking::ask(sql, std::slice::from_ref(&path)).lines().skip(1).map(str::to_owned).collect();
    assert_eq!(tokens.len(), 6, "three of the prompt and three that were read again");
    record_ids(&model, &tokens.join(","), "at-once", &path);
    let (answer, status) = judged(&path, "decoded", "at-once", &[]);
    assert_eq!((answer["verdict"].as_str(), status), (Some("equal"), 0), "{}", answer["reason"]);
    assert_eq!(answer["answer"]["prefill_against_decode"], serde_json::json!([3, 4, 5]));
    assert_eq!(answer["answer"]["rows"], 6);
    let page = String::from_utf8(compare(&path, "decoded", "at-once", &[]).stdout).unwrap();
    assert!(page.contains("\nprefill against decode: 3 positions, 3 to 5\n"), "{page}");
    // A prompt that goes on otherwise is another prompt.
    record_ids(&model, "609,1827,409,5", "other", &path);
    let (answer, status) = judged(&path, "decoded", "other", &[]);
    assert_eq!((answer["verdict"].as_str(), status), (Some("not_comparable"), 3));
    assert!(answer["reason"].as_str().unwrap().contains("the prompts differ"), "{}", answer["reason"]);
}

/// q8_0 and q4_k files of one model choose other tokens: the step is named, and rows behind it are not compared.
#[test]
fn the_step_at_which_two_runs_part_is_named() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("runs.actrace");
    let ids = "609,1827,409,72,608,221,1834,335";
    record_ids(&support::model("tiny-qwen2.safetensors"), ids, "original", &path);
    record_ids(&support::model("tiny-qwen2.q4_k_m"), ids, "q4_k", &path);
    let (whole, _) = judged(&path, "original", "q4_k", &["--no-audit"]);
    let (answer, chosen) = (&whole["answer"], &whole["answer"]["first_other_choice"]);
    let steps = answer["steps"].as_array().unwrap();
    let parted = steps.last().unwrap();
    assert_eq!(parted["last"]["top1_equal"], false, "the last common step is that of the other choice");
    assert_eq!((&chosen["target_step"], &chosen["position"]), (&parted["step"], &parted["last"]["position"]));
    assert_ne!(chosen["reference"], chosen["target"]);
    let differing = &whole["first_differing_token"];
    assert_eq!((&differing["reference"], &differing["target"]), (&chosen["reference"], &chosen["target"]));
}
