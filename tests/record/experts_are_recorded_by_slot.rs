//! A model with experts in a trace: every token has a row in every slot, and two runs are compared there only where they
//! chose the same experts.

use crate::command::{actrace, json, run};
use crate::running::{ids, json as fixture_json};
use crate::support::families;
use actrace::compare::{Pairing, SitePair};
use actrace::open::{RunRef, TraceSet};
use std::path::Path;

const EXPERT_POINTS: [&str; 5] = ["moe_gate", "moe_up", "moe_act", "moe_glu", "moe_down"];

fn record(model: &Path, out: &Path, label: &str, points: &str) {
    let tokens = ids(&fixture_json("families/prompt.json")["token_ids"]);
    let tokens: Vec<String> = tokens.iter().map(u32::to_string).collect();
    let mut command = actrace("record");
    command.arg("--model").arg(model).arg("--out").arg(out);
    command.args(["--tokens", &tokens.join(","), "--generate", "3", "--label", label, "--points", points]);
    let finished = run(&mut command);
    assert_eq!(finished.status, 0, "{}", finished.stderr);
}

fn place<'a>(pairing: &'a Pairing, layer: i32, point: &str, occurrence: u32) -> &'a SitePair {
    let mut sites = pairing.sites.iter();
    sites.find(|site| (site.layer, site.point.as_str(), site.occurrence) == (layer, point, occurrence)).unwrap()
}

fn left_out(pairing: &Pairing, reason: &str) -> u64 {
    pairing.left_out.iter().find(|left| left.reason == reason).map_or(0, |left| left.rows)
}

#[test]
fn slots_are_compared_where_the_same_experts_were_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let (trace, other) = (folder.path().join("runs.actrace"), folder.path().join("other"));
    std::fs::create_dir(&other).unwrap();
    let model = families::folder("qwen2_moe");
    families::turn_router(model.path(), &other);
    record(model.path(), &trace, "right", "all");
    record(&other, &trace, "other", "all");
    record(model.path(), &trace, "alone", "moe_down");
    let (status, report) = json(actrace("verify").arg(&trace));
    assert_eq!(status, 0, "{report}");

    let set = TraceSet::open(&[trace]).unwrap();
    let of = |label: &str| -> RunRef { set.resolve(label).unwrap() };
    let same = Pairing::new(of("right"), of("right")).unwrap();
    assert!(same.left_out.is_empty(), "{:?}", same.left_out);
    for point in EXPERT_POINTS {
        for (layer, slot) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)] {
            let rows = &place(&same, layer, point, slot).rows;
            // The prompt of twelve tokens and two that were decoded.
            assert_eq!(rows.len(), 14, "{point} of layer {layer}, slot {slot}: a row for every token");
        }
    }

    let differing = Pairing::new(of("right"), of("other")).unwrap();
    let chosen = &place(&differing, 1, "moe_topk", 0).rows;
    let agreeing = chosen.iter().filter(|pair| pair.reference.fingerprint == pair.target.fingerprint).count();
    assert!(agreeing < chosen.len(), "the other router chooses other experts");
    for point in EXPERT_POINTS {
        assert_eq!(place(&differing, 1, point, 0).rows.len(), agreeing, "{point}");
        assert_eq!(place(&differing, 0, point, 0).rows.len(), chosen.len(), "{point}: layer 0 is the same");
    }
    // Five points in three slots, and the weights.
    assert_eq!(left_out(&differing, "other experts chosen"), 16 * (chosen.len() - agreeing) as u64);

    let unknown = Pairing::new(of("right"), of("alone"));
    let error = unknown.err().unwrap().to_string();
    assert!(error.contains("experts not known: moe_topk was not captured (84 rows)"), "{error}");
}
