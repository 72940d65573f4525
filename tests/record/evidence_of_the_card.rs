//! What the last run on a card left in evidence/cuda is still what it says: the trace is sound and agrees with a run of
//! today's processor backend, the log is of today's tests, and all of it is of one card.

use crate::running::open;
use crate::support::package;
use crate::support::trace::{HEADER, Memory};
use actrace::audit::{Finding, Judgement, audit_kernels, verdict};
use actrace::backend::{CpuBackend, Semantics};
use actrace::capture::{Layers, Names, Plan, Positions, Selection};
use actrace::compare::{Comparison, Verdict};
use actrace::file::Writer;
use actrace::forward::{Forward, Request};
use actrace::graph::Graph;
use actrace::open::{Input, State, Trace, TraceSet, verify};
use actrace::record::RunV1;
use actrace::recorder::{Outcome, Recorder};
use actrace::replay::{Emulation, Recorded};
use std::path::{Path, PathBuf};

fn evidence(name: &str) -> PathBuf {
    package().join("evidence/cuda").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(evidence(name)).unwrap()
}

/// The run that the script records, on the processor.
fn on_the_processor(of_card: &RunV1) -> Vec<u8> {
    let model = open("tiny-qwen2.q4_k_m");
    let mut forward = Forward::new(&model, CpuBackend::new(Semantics::DequantizeF32, 2).unwrap()).unwrap();
    let tokens = &of_card.prompt_tokens;
    let request = Request { tokens, generate: of_card.generate as usize, stop_at: &[] };
    let selection = Selection {
        points: Names::parse("all").unwrap(),
        layers: Layers::parse("0,5").unwrap(),
        positions: Positions::All,
        tensors: Names::parse("all").unwrap(),
    };
    let plan = Plan::new(&model, forward.graph(), &selection, tokens.len(), tokens.len() + 2).unwrap();
    let memory = Memory::default();
    let identity = RunV1 {
        label: "processor".into(),
        run_id: [7; 16],
        device_kind: "cpu".into(),
        kernel_path: "cpu".into(),
        instruction_set: "avx2".into(),
        ..of_card.clone()
    };
    let writer = Writer::create(memory.clone(), HEADER).unwrap();
    let mut recorder = Recorder::begin(writer, &identity, plan, 1).unwrap();
    forward.generate(&request, &mut recorder).unwrap();
    recorder.finish(&Outcome::Finished).unwrap();
    memory.bytes()
}

/// What the card computed is judged on its own inputs, here and by f64: no second run is needed for that.
#[test]
fn its_operations_are_right() {
    let model = open("tiny-qwen2.q4_k_m");
    let graph = Graph::of(&model).unwrap();
    let card = TraceSet::open(&[evidence("run.actrace")]).unwrap().resolve("cuda").unwrap();
    let emulation = Emulation::of(&card.view().identity, "recorded").unwrap();
    let recorded = Recorded::read(card, &graph).unwrap();
    let findings = audit_kernels(&model, &graph, &recorded, &emulation, &|| ()).unwrap();
    assert_eq!(verdict(&findings), (actrace::audit::Verdict::Right, None));
    let judged = |finding: &&Finding| finding.judgement == Judgement::Right;
    assert_eq!(findings.iter().filter(judged).count(), 44, "all but the first of layer 5: layer 4 was not recorded");
    let worst = findings.iter().filter_map(|finding| finding.rel_l2).fold(0.0, f64::max);
    println!("{} operations, worst {worst:.1e}", findings.len());
}

#[test]
fn its_trace_is_sound_and_agrees_with_the_processor_of_today() {
    let path = evidence("run.actrace");
    let image = std::fs::read(&path).unwrap();
    let verification = verify(&Input::of(image, &path).unwrap(), |_, _| {}).unwrap();
    assert!(verification.faults.is_empty(), "{verification:?}");
    let card = Trace::open(&path).unwrap();
    assert_eq!(card.state(), State::Sealed);
    let identity = card.runs()[0].identity.clone();
    assert_eq!((identity.device_kind.as_str(), identity.semantics.as_str()), ("cuda", "dequantize-f32"));
    assert!(!identity.fused.is_empty() && !identity.driver.is_empty() && !identity.cuda.is_empty());
    let coverage = card.coverage(&card.runs()[0]).unwrap();
    assert!(!coverage.status.iter().any(|status| [3, 4].contains(status)), "no point is unsupported, none failed");

    let image = on_the_processor(&identity);
    let processor = Trace::of(Input::of(image, Path::new("processor.actrace")).unwrap()).unwrap();
    let set = TraceSet::new(vec![processor, card]).unwrap();
    let (reference, target) = (set.resolve("processor").unwrap(), set.resolve("cuda").unwrap());
    let comparison = Comparison::new(reference, target, None, false).unwrap();
    assert_eq!(comparison.verdict, Verdict::WithinTolerance, "{}", comparison.reason);
    assert!(comparison.unlike.iter().any(|unlike| unlike.contains("device (cpu against cuda)")));
    let pairing = comparison.pairing.as_ref().unwrap();
    assert_eq!(pairing.left_out.iter().map(|left| left.rows).sum::<u64>(), 0, "every row has a partner");
    println!(
        "{} points, worst {:.1e}",
        comparison.sites.len(),
        comparison.sites.iter().map(|s| s.whole()).fold(0.0, f64::max)
    );
}

/// A log that is older than a test says nothing of it.
#[test]
fn its_log_is_of_the_tests_of_today() {
    let log = text("tests.log");
    let mut tests = 0;
    for module in ["cards_agree_with_the_processor", "every_model_on_a_card", "operations_on_a_card"] {
        let source = std::fs::read_to_string(package().join(format!("tests/record/{module}.rs"))).unwrap();
        for (_, rest) in source.match_indices("#[test]").map(|(at, _)| source.split_at(at)) {
            let name = rest.split_once("fn ").unwrap().1.split_once('(').unwrap().0;
            let line = format!("{module}::{name} ... ");
            assert!(log.contains(&line), "{name} was not run on a card: evidence/cuda/run.sh");
            tests += 1;
        }
    }
    assert!(log.contains(&format!("test result: ok. {tests} passed; 0 failed")), "{tests} tests");
    assert!(!log.contains("skipped"));
}

#[test]
fn everything_is_of_one_card() {
    let card = Trace::open(&evidence("run.actrace")).unwrap();
    let identity = &card.runs()[0].identity;
    for name in ["tests.log", "figures.txt"] {
        assert!(text(name).contains(&format!("{} · driver {}", identity.device_name, identity.driver)), "{name}");
    }
}
