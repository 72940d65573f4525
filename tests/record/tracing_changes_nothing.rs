//! Recording does not change the result: `record` and `record --untraced` agree on every step's logits, bit for bit.

use crate::command::Ground;
use crate::support::model;
use actrace::open::Trace;
use serde_json::Value;

/// Prompt ids that both small models have, more than one token of them, and a few decode steps.
const RUN: [&str; 4] = ["--tokens", "11,409,7,3,250,1999,40,5", "--generate", "5"];

fn fingerprints(report: &Value) -> Vec<u64> {
    let list: Vec<u64> = match report.get("logits_fingerprints") {
        Some(list) => list.as_array().unwrap().iter().map(|value| value.as_u64().unwrap()).collect(),
        None => {
            let steps = report["steps"].as_array().unwrap();
            steps.iter().map(|step| step["logits_fingerprint"].as_u64().unwrap()).collect()
        }
    };
    assert_eq!(list.len(), 5);
    list
}

#[test]
fn traced_and_untraced_runs_have_equal_logits_whatever_the_file_type_and_the_threads() {
    let ground = Ground::new();
    for family in ["tiny-qwen2", "tiny-gpt2"] {
        for kind in ["safetensors", "f16", "q8_0", "q4_k_m"] {
            let path = model(&format!("{family}.{kind}"));
            let common = [&["--model", path.to_str().unwrap(), "--json"][..], &RUN].concat();
            let run = |more: &[&str]| ground.record(&[&common[..], more].concat()).json();
            let untraced = run(&["--untraced", "--threads", "1"]);
            let expected = fingerprints(&untraced);
            for more in [
                &["--untraced"][..],
                &["--out", "{out}", "--threads", "1"],
                &["--out", "{out}"],
                &["--out", "{out}", "--tensors", "none", "--positions", "last"],
                &["--out", "{out}", "--points", "ffn_*", "--layers", "1"],
            ] {
                let report = run(more);
                assert_eq!(fingerprints(&report), expected, "{family} {kind} {more:?}");
                assert_eq!(report["tokens"], untraced["tokens"], "{family} {kind} {more:?}");
            }
        }
    }
}

/// The proof is in the trace: the run's end says what a pass without recording came to.
#[test]
fn a_run_that_is_proven_says_so() {
    let ground = Ground::new();
    let path = model("tiny-gpt2.q8_0");
    for (more, untraced, name) in [(&[][..], 0, "not_compared"), (&["--prove"][..], 1, "equal")] {
        let common = ["--model", path.to_str().unwrap(), "--json", "--out", "{out}"];
        let report = ground.record(&[&common[..], &RUN, more].concat()).json();
        assert_eq!(report["untraced"], name);
        let trace = Trace::open(&ground.path("out")).unwrap();
        assert_eq!(trace.runs().last().unwrap().end.as_ref().unwrap().untraced, untraced);
    }
}
