//! Weights as records: hashes, statistics and values are numpy's, whatever format they come from; and two models are
//! told apart weight by weight.

use crate::command::{actrace, json as report, run as finish};
use crate::running::json;
use crate::support::memory::peak;
use crate::support::trace::{HEADER, Memory, frames, payload, run, verified, weight};
use crate::support::{families, fixture, model};
use actrace::compare::{WeightDifference, WeightPair, WeightPairing, WeightState};
use actrace::file::{Kind, Storage, Writer};
use actrace::model::Model;
use actrace::open::{Input, State, Trace, TraceSet, hex};
use actrace::record::{RunV1, WeightRefV1, WeightV1};
use actrace::recorder::{Weights, record_weights};
use actrace::stats::Moments;
use actrace::tensor::Dtype;
use actrace::{Error, ErrorKind};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// Appends the weights of a model to a file in memory, as a run `label`.
fn append<S: Storage>(writer: Writer<S>, model: &Model, label: &str, keep_values: bool) {
    let mut id = [0; 16];
    id.copy_from_slice(&blake3::hash(label.as_bytes()).as_bytes()[..16]);
    let run = RunV1 { label: label.to_owned(), run_id: id, ..run() };
    record_weights(writer, &run, Weights { model, keep_values, progress: &mut |_| Ok(()) }).unwrap();
}

fn image(model: &Model, label: &str, keep_values: bool) -> Vec<u8> {
    let memory = Memory::default();
    append(Writer::create(memory.clone(), HEADER).unwrap(), model, label, keep_values);
    memory.bytes()
}

fn opened(image: Vec<u8>) -> Arc<Trace> {
    Trace::of(Input::of(image, Path::new("weights.actrace")).unwrap()).unwrap()
}

fn records(trace: &Trace) -> Vec<WeightV1> {
    trace.runs()[0].weights.iter().map(|frame| trace.weight(frame).unwrap()).collect()
}

/// The weights of two models, paired: runs `r` and `t`.
fn paired(reference: &Model, target: &Model, keep_values: bool) -> WeightPairing {
    pairing(image(reference, "r", keep_values), image(target, "t", keep_values)).unwrap()
}

fn pairing(reference: Vec<u8>, target: Vec<u8>) -> actrace::Result<WeightPairing> {
    let set = TraceSet::new(vec![opened(reference), opened(target)]).unwrap();
    let mut runs = set.runs();
    let (reference, target) = (runs.next().unwrap(), runs.next().unwrap());
    WeightPairing::new(reference, target)
}

fn name(pair: &WeightPair) -> &str {
    &pair.weight().unwrap().canonical_name
}

fn states(pairing: &WeightPairing) -> Vec<(&str, WeightState)> {
    pairing.pairs.iter().map(|pair| (name(pair), pair.state)).collect()
}

/// f64 sums of half a million terms over eight lanes, merged by the quarter million: 65,536 / 2 roundings of 2^-53 bound
/// the error of a lane, 4e-12 of the sum of magnitudes; a mean near 0 and a std keep that of l1 and of rms.
const ROUNDING: f64 = 4e-12;

fn close(found: f64, expected: &Value, scale: f64, what: &str) {
    let expected = expected.as_f64().unwrap();
    assert!((found - expected).abs() <= ROUNDING * scale, "{what}: {found}, numpy {expected}");
}

#[test]
fn hashes_and_statistics_are_those_of_numpy() {
    let expected = json("weights/weights.json");
    for kind in ["safetensors", "q8_0", "q4_k_m"] {
        let trace = opened(image(&Model::open(&model(&format!("tiny-qwen2.{kind}"))).unwrap(), "r", false));
        let records = records(&trace);
        for (name, expected) in expected["values"][kind].as_object().unwrap() {
            let found = records.iter().find(|record| record.weight.canonical_name == *name).unwrap();
            assert_eq!(found.weight.dtype, expected["dtype"].as_str().unwrap(), "{name}");
            assert_eq!(hex(&found.stored_blake3), expected["stored_blake3"].as_str().unwrap(), "{name}");
            assert_eq!(hex(&found.values_blake3), expected["values_blake3"].as_str().unwrap(), "{name}");
            for (key, count) in [
                ("count", found.count),
                ("zero", found.zero),
                ("min_index", found.min_index),
                ("max_index", found.max_index),
                ("absmax_index", found.absmax_index),
            ] {
                assert_eq!(count, expected[key].as_u64().unwrap(), "{kind} {name}: {key}");
            }
            for (key, value) in
                [("min", found.min), ("max", found.max), ("absmax", found.absmax), ("abs_smallest", found.abs_smallest)]
            {
                assert_eq!(value as f32, expected[key].as_f64().unwrap() as f32, "{kind} {name}: {key}");
            }
            let moments = Moments { count: found.finite(), mean: found.mean, m2: found.m2 };
            let rms = expected["rms"].as_f64().unwrap();
            close(found.mean, &expected["mean"], rms, &format!("{kind} {name}: mean"));
            close(moments.std().unwrap(), &expected["std"], rms, &format!("{kind} {name}: std"));
            close(moments.rms().unwrap(), &expected["rms"], rms, &format!("{kind} {name}: rms"));
            close(found.l1, &expected["l1"], found.l1, &format!("{kind} {name}: l1"));
        }
    }
}

#[test]
fn an_extreme_in_a_later_piece_has_its_place_in_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let original = Model::open(&model("tiny-qwen2.safetensors")).unwrap();
    let weight = original.weights().find(|weight| weight.key.to_string() == "token_embedding").unwrap();
    let elements = weight.rows * weight.columns;
    let source = &original.files()[weight.file].path;
    let mut bytes = std::fs::read(source).unwrap();
    // 1 and -2 are beyond every value of the embedding; the second 1 is not the first.
    for (element, value) in [(elements - 3, 1.0), (elements - 2, -2.0), (elements - 1, 1.0)] {
        let at = weight.offset as usize + 2 * element;
        bytes[at..at + 2].copy_from_slice(&half::bf16::from_f32(value).to_le_bytes());
    }
    std::fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
    std::fs::copy(source.with_file_name("config.json"), folder.path().join("config.json")).unwrap();
    let records = records(&opened(image(&Model::open(folder.path()).unwrap(), "r", false)));
    let found = records.iter().find(|record| record.weight.canonical_name == "token_embedding").unwrap();
    let last = elements as u64 - 1;
    assert_eq!((found.max, found.max_index, found.min, found.min_index), (1.0, last - 2, -2.0, last - 1));
    assert_eq!((found.absmax, found.absmax_index), (2.0, last - 1));
    let pairing = paired(&original, &Model::open(folder.path()).unwrap(), true);
    let pair = pairing.pairs.iter().find(|pair| name(pair) == "token_embedding").unwrap();
    let found = pairing.compare(pair).unwrap().unwrap();
    assert_eq!((found.first, found.worst.map(|(index, _)| index)), (Some(last - 2), Some(last - 1)));
}

#[test]
fn differences_are_those_of_numpy() {
    let expected = json("weights/weights.json");
    let reference = Model::open(&model("tiny-qwen2.safetensors")).unwrap();
    for kind in ["f16", "q8_0", "q4_k_m"] {
        let pairing = paired(&reference, &Model::open(&model(&format!("tiny-qwen2.{kind}"))).unwrap(), true);
        let (mut equal, mut different) = (0, 0);
        for (name, expected) in expected["differences"][kind].as_object().unwrap() {
            let pair = pairing.pairs.iter().find(|pair| self::name(pair) == name).unwrap();
            let found = pairing.compare(pair).unwrap().unwrap();
            let state = if expected["first"].is_null() { WeightState::Equal } else { WeightState::Different };
            assert_eq!((pair.state, found.first), (state, expected["first"].as_u64()), "{kind} {name}");
            equal += usize::from(state == WeightState::Equal);
            different += usize::from(state == WeightState::Different);
            // Differences of f32 are exact in f64, and one is chosen; serde_json may read it one unit off.
            let (largest, numpy) = (found.sums.max_abs_diff().unwrap(), expected["max_abs_diff"].as_f64().unwrap());
            assert!((largest - numpy).abs() <= f64::EPSILON * numpy, "{kind} {name}: {largest}, numpy {numpy}");
            let rel_l2 = expected["rel_l2"].as_f64().unwrap();
            close(found.sums.rel_l2().unwrap(), &expected["rel_l2"], rel_l2, &format!("{kind} {name}: rel_l2"));
            // By Cauchy and Schwarz, the magnitudes that a slope is summed of are at most rel_l2 of the divisor.
            close(found.sums.slope().unwrap(), &expected["slope"], rel_l2, &format!("{kind} {name}: slope"));
            match expected["max_over_step"].as_f64() {
                // A product of two f32 numbers rounded once to f32 on either side.
                Some(steps) => {
                    assert!((found.over_step().unwrap() - steps).abs() <= 2.0 * f64::from(f32::EPSILON) * steps)
                }
                None => assert_eq!(found.over_step(), None, "{kind} {name}"),
            }
        }
        assert!(equal >= 6 && different >= 3, "{kind}: norms and biases are equal, matrices are not");
    }
}

/// Q8_0 chooses codes under a scale that is rounded to f16 (by 2^-11 of it) afterwards: half a step and 127 such
/// roundings. Scales and minima of K-quants are searched, so that no such bound holds; clean files of tiny-qwen2 and
/// tiny-gpt2 stay within 1.05 steps.
#[test]
fn rounding_stays_within_the_steps_of_its_blocks() {
    let reference = Model::open(&model("tiny-qwen2.safetensors")).unwrap();
    for (kind, limit) in [("q8_0", 0.5 + 127.0 / 2048.0), ("q4_k_m", 1.05)] {
        let pairing = paired(&reference, &Model::open(&model(&format!("tiny-qwen2.{kind}"))).unwrap(), true);
        for pair in &pairing.pairs {
            let over = pairing.compare(pair).unwrap().unwrap().over_step().unwrap_or(0.0);
            assert!(over <= limit, "{kind} {}: {over} steps", name(pair));
        }
    }
}

#[test]
fn every_family_has_the_same_weights_in_both_formats() {
    let llama = |name: &str| {
        let open = |path: &str| Model::open(&fixture(&format!("llama/{path}"))).unwrap();
        (open(name), open(&format!("{name}.f32.gguf")))
    };
    let mut models: Vec<(String, (Model, Model))> =
        ["plain", "biased"].map(|name| (name.to_owned(), llama(name))).into();
    models.extend(families::gguf_names().into_iter().map(|name| {
        let pair = (families::folder(&name), families::gguf(&name));
        (name, pair)
    }));
    let mut added = 0;
    for (model, (folder, gguf)) in &models {
        let pairing = paired(folder, gguf, false);
        for pair in &pairing.pairs {
            if name(pair) == "rope_factors" && pair.state == WeightState::MissingInReference {
                // A GGUF file has them as a tensor; config.json has the numbers that they follow from.
                continue;
            }
            let equal = matches!(pair.state, WeightState::Equal | WeightState::ByteEqual);
            assert!(equal, "{model} {}: {:?}", name(pair), pair.state);
            let reference = pair.reference.as_ref().unwrap();
            added += usize::from(reference.added == 1.0 && pair.target.as_ref().unwrap().added == 0.0);
            let layouts = [&pair.reference, &pair.target].map(|side| side.as_ref().unwrap().weight.layout.as_str());
            if pair.state == WeightState::ByteEqual && layouts[0] != layouts[1] {
                panic!("{model} {}: bytes in another order mean something else", name(pair));
            }
        }
    }
    assert!(added > 10, "Gemma's norms are stored without their 1 in safetensors");
}

#[test]
fn a_copy_is_equal_byte_for_byte_and_a_planted_change_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = model("tiny-qwen2.q4_k_m");
    let copy = folder.path().join("copy.gguf");
    std::fs::copy(&path, &copy).unwrap();
    let original = Model::open(&path).unwrap();
    let pairing = paired(&original, &Model::open(&copy).unwrap(), true);
    assert!(states(&pairing).iter().all(|(_, state)| *state == WeightState::ByteEqual));
    for pair in &pairing.pairs {
        let found = pairing.compare(pair).unwrap().unwrap();
        assert_eq!((found.first, found.sums.max_abs_diff(), found.sums.rel_l2()), (None, Some(0.0), Some(0.0)));
        assert_eq!(found.over_step().is_some(), pair.weight().unwrap().dtype != "f32", "{}", name(pair));
    }
    // One code of one block: layer 3's ffn_down, row 2, element 5 of its first block of Q4_K or Q6_K.
    let weight = original.weights().find(|weight| weight.key.to_string() == "layers.3.ffn_down").unwrap();
    let place = weight.offset as usize + 2 * weight.tensor_type.row_bytes(weight.columns).unwrap();
    let (code, first) = if weight.tensor_type.name() == "q4_k" { (16 + 5, 5) } else { (5, 5) };
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[place + code] ^= 1;
    std::fs::write(&copy, bytes).unwrap();
    let pairing = paired(&original, &Model::open(&copy).unwrap(), true);
    let other: Vec<_> = states(&pairing).into_iter().filter(|(_, state)| *state != WeightState::ByteEqual).collect();
    assert_eq!(other, [("layers.3.ffn_down", WeightState::Different)]);
    let pair = pairing.pairs.iter().find(|pair| pair.state == WeightState::Different).unwrap();
    let found = pairing.compare(pair).unwrap().unwrap();
    let element = 2 * weight.columns as u64 + first;
    assert_eq!((found.first, found.worst.map(|(index, _)| index)), (Some(element), Some(element)));
    // Two values one code apart, each rounded once or twice.
    assert!((found.over_step().unwrap() - 1.0).abs() < 1e-4, "{found:?}");
}

#[test]
fn without_values_a_difference_has_no_size() {
    let reference = Model::open(&model("tiny-qwen2.safetensors")).unwrap();
    let target = Model::open(&model("tiny-qwen2.q8_0")).unwrap();
    for (values_r, values_t) in [(false, false), (true, false), (false, true)] {
        let pairing = pairing(image(&reference, "r", values_r), image(&target, "t", values_t)).unwrap();
        let pair = pairing.pairs.iter().find(|pair| name(pair) == "layers.0.q").unwrap();
        assert_eq!((pair.state, pairing.compare(pair).unwrap()), (WeightState::DifferentNotKept, None));
        assert!(pair.rel_l2_at_least().unwrap() < 0.0053, "the norms alone bound it from below");
        let norm = pairing.pairs.iter().find(|pair| name(pair) == "final_norm").unwrap();
        assert_eq!(norm.state, WeightState::Equal, "equality needs no values");
    }
}

#[test]
fn what_only_one_model_has_is_missing_and_what_was_not_recorded_is_not() {
    let qwen = Model::open(&model("tiny-qwen2.q8_0")).unwrap();
    let gpt = Model::open(&model("tiny-gpt2.q8_0")).unwrap();
    let pairing = paired(&qwen, &gpt, false);
    let found = states(&pairing);
    assert!(found.contains(&("layers.5.q", WeightState::MissingInTarget)), "gpt2 has four layers: {found:?}");
    assert!(found.contains(&("position_embedding", WeightState::MissingInReference)));
    assert!(
        found.contains(&("token_embedding", WeightState::DifferentNotKept))
            || found.contains(&("token_embedding", WeightState::ShapesDiffer))
    );
    // A recording that a signal ended after some weights.
    let memory = Memory::default();
    let mut calls = 0;
    let mut stop = |_| {
        calls += 1;
        if calls > 9 { Err(Error::new(ErrorKind::Interrupted, "a signal")) } else { Ok(()) }
    };
    let weights = Weights { model: &qwen, keep_values: true, progress: &mut stop };
    let writer = Writer::create(memory.clone(), HEADER).unwrap();
    let error = record_weights(writer, &RunV1 { label: "t".into(), ..run() }, weights).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    assert_eq!(verified(memory.bytes()).unwrap().state, State::Sealed);
    let trace = opened(memory.bytes());
    assert_eq!(trace.runs()[0].end.as_ref().unwrap().status, 1);
    let pairing = self::pairing(image(&qwen, "r", true), memory.bytes()).unwrap();
    let found = states(&pairing);
    assert!(found.contains(&("token_embedding", WeightState::ByteEqual)));
    assert!(found.contains(&("layers.5.q", WeightState::NotRecordedInTarget)), "{found:?}");
    assert!(found.iter().all(|(_, state)| *state != WeightState::MissingInTarget));
}

#[test]
fn runs_without_weights_are_not_comparable() {
    let qwen = Model::open(&model("tiny-qwen2.q8_0")).unwrap();
    let error = pairing(image(&qwen, "r", false), crate::traces::recorded()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotComparable);
    assert!(error.to_string().contains("actrace weights"), "{error}");
}

#[test]
fn values_come_back_bit_for_bit_in_pieces_of_a_mebibyte() {
    for kind in ["safetensors", "f16", "q4_k_m"] {
        let model = Model::open(&model(&format!("tiny-qwen2.{kind}"))).unwrap();
        let trace = opened(image(&model, "r", true));
        for (weight, record) in model.weights().zip(records(&trace)) {
            assert_eq!(weight.key.to_string(), record.weight.canonical_name);
            let mut values = vec![0.0; weight.rows * weight.columns];
            for (row, out) in values.chunks_exact_mut(weight.columns).enumerate() {
                weight.dequantize_row(row, out).unwrap();
            }
            let payloads: Vec<_> = record.payloads.iter().map(|number| trace.payload(*number).unwrap()).collect();
            assert!(payloads.iter().all(|payload| payload.row(0).unwrap().len() <= 1 << 18));
            let kept: Vec<u32> =
                payloads.iter().flat_map(|payload| payload.row(0).unwrap()).map(|value| value.to_bits()).collect();
            assert!(kept == values.into_iter().map(f32::to_bits).collect::<Vec<_>>(), "{kind} {}", weight.key);
        }
    }
}

/// A storage that keeps nothing.
struct Nowhere;

impl Storage for Nowhere {
    fn append(&mut self, _: &[&[u8]]) -> std::io::Result<()> {
        Ok(())
    }
    fn sync(&mut self) -> std::io::Result<()> {
        Ok(())
    }
    fn path(&self) -> &Path {
        Path::new("nowhere")
    }
}

#[test]
fn memory_does_not_grow_with_the_model() {
    let model = Model::open(&model("tiny-qwen2.q8_0")).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    // The thread of the pool makes the pieces, and counts itself.
    let ((), held) = pool.install(|| peak(|| append(Writer::create(Nowhere, HEADER).unwrap(), &model, "r", true)));
    let values: usize = model.weights().map(|weight| 4 * weight.rows * weight.columns).sum();
    // A piece of 1 MiB: its values, its planes on their way, and its payload; the rest is small.
    assert!(held < 5 << 20, "{held} bytes held");
    assert!(values > 4 * held, "the model's {values} bytes would not fit");
}

#[test]
fn a_damaged_payload_of_a_weight_is_named() {
    let model = Model::open(&fixture("llama/biased.f32.gguf")).unwrap();
    let mut image = image(&model, "r", true);
    let frame = *frames(&image).iter().find(|frame| frame.kind == Kind::Payload).unwrap();
    image[frame.offset as usize + 100] ^= 1;
    let found = verified(image).unwrap();
    assert_eq!(found.faults[0].points, ["weight output", "weight token_embedding"], "the head is tied");
}

/// Records that a sound file can hold and no recorder writes: payloads of another length than the weight, too few scales,
/// scales of a type that has none.
#[test]
fn payloads_that_do_not_hold_their_weight_are_damage() {
    let good = WeightV1 { payloads: vec![1], scale_payloads: vec![2], scale_elements: 32, ..weight() };
    let of_type = |dtype: &str| WeightRefV1 { dtype: dtype.into(), ..good.weight.clone() };
    let cases = [
        ("", good.clone()),
        ("do not hold 128 values", WeightV1 { payloads: vec![1, 1], scale_payloads: vec![2, 2], ..good.clone() }),
        (
            "do not hold 128 values",
            WeightV1 { payloads: vec![2], scale_elements: 0, scale_payloads: vec![], ..good.clone() },
        ),
        ("4 scales of 128 values", WeightV1 { scale_elements: 16, ..good.clone() }),
        ("128 scales of 128 values", WeightV1 { scale_payloads: vec![1], ..good.clone() }),
        ("type f32 have no scales", WeightV1 { weight: of_type("f32"), ..good.clone() }),
        ("type huh have no scales", WeightV1 { weight: of_type("huh"), ..good.clone() }),
    ];
    for (said, target) in cases {
        let memory = Memory::default();
        let mut writer = Writer::create(memory.clone(), HEADER).unwrap();
        for (label, record) in [("r", &good), ("t", &WeightV1 { values_blake3: [0x77; 32], ..target })] {
            let id = if label == "r" { [1; 16] } else { [2; 16] };
            let number = writer.begin_run(&RunV1 { label: label.into(), run_id: id, ..run() }).unwrap();
            for values in [128, 4] {
                let raw: Vec<u8> = (0..values).flat_map(|i| (1.0 + i as f32).to_le_bytes()).collect();
                let values = payload(Dtype::F32, values, Vec::new(), &raw);
                if writer.known_payload(&values.blake3).is_none() {
                    writer.payload(number, 0, values).unwrap();
                }
            }
            writer.record(number, 0, record).unwrap();
        }
        writer.seal().unwrap();
        assert_eq!(verified(memory.bytes()).unwrap().state, State::Sealed, "each record is right by itself");
        let set = TraceSet::new(vec![opened(memory.bytes())]).unwrap();
        let [r, t] = ["r", "t"].map(|label| set.resolve(label).unwrap());
        let pairing = WeightPairing::new(r, t).unwrap();
        match pairing.compare(&pairing.pairs[0]) {
            Ok(found) => assert!(said.is_empty() && found.unwrap().first.is_none()),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Damaged);
                assert!(!said.is_empty() && error.to_string().contains(said), "{error}, not {said}");
            }
        }
    }
}

#[test]
fn the_commands_record_weights_alone_or_before_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.actrace");
    let model = fixture("llama/biased.f32.gguf");
    let (status, alone) =
        report(actrace("weights").arg(&model).args(["--values", "--label", "alone", "--out"]).arg(&out));
    assert_eq!((status, &alone["label"]), (0, &"alone".into()));
    let record = |label: &str, more: &[&str]| {
        let mut command = actrace("record");
        command.arg("--model").arg(&model).args(["--tokens", "3,4,5", "--generate", "2", "--label", label]);
        report(command.args(more).arg("--out").arg(&out)).1
    };
    let (plain, with) = (record("plain", &[]), record("with", &["--weights", "--weight-values"]));
    assert_eq!(plain["content_root"], with["content_root"], "weights change nothing of what the run shows");
    assert_eq!(plain["logits_fingerprints"], with["logits_fingerprints"]);
    assert_eq!(finish(actrace("verify").arg(&out)).status, 0);
    let trace = Trace::open(&out).unwrap();
    let [alone, plain, with] = [0, 1, 2].map(|run: usize| &trace.runs()[run]);
    assert_eq!((alone.identity.kind.as_str(), with.identity.kind.as_str()), ("weights", "record"));
    assert_eq!((alone.steps.len(), plain.weights.len(), with.weights.len()), (0, 0, alone.weights.len()));
    assert!(with.end.as_ref().unwrap().tensor_bytes > plain.end.as_ref().unwrap().tensor_bytes);
    for (alone, with) in alone.weights.iter().zip(&with.weights) {
        assert_eq!(trace.weight(alone).unwrap(), trace.weight(with).unwrap(), "equal values are stored once");
    }
    let refused = finish(actrace("weights").arg(&model).args(["--label", "alone", "--out"]).arg(&out));
    assert_eq!(refused.status, 2);
    assert!(refused.stderr.contains("already has a run `alone`"), "{}", refused.stderr);
}

#[test]
fn an_element_that_only_one_side_has_a_number_for_gives_no_figure() {
    let mut model = std::fs::read(fixture("llama/biased.f32.gguf")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.gguf");
    let original = Model::open(&fixture("llama/biased.f32.gguf")).unwrap();
    let norm = original.weights().find(|weight| weight.key.to_string() == "final_norm").unwrap();
    let place = norm.offset as usize + 4 * 3;
    model[place..place + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, model).unwrap();
    let pairing = paired(&original, &Model::open(&path).unwrap(), true);
    let pair = pairing.pairs.iter().find(|pair| name(pair) == "final_norm").unwrap();
    let found: WeightDifference = pairing.compare(pair).unwrap().unwrap();
    assert_eq!((found.first, found.sums.disagreeing, found.sums.rel_l2()), (Some(3), 1, None));
    assert_eq!(pair.target.as_ref().unwrap().nan, 1);
}
