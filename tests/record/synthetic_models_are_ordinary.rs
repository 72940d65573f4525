//! Models that `actrace synth` makes: whole files that run like trained ones, the same for the same seed.

use crate::command::{Finished, Ground, actrace, json, limited, run};
use crate::running::{capture, forward};
use actrace::backend::Semantics;
use actrace::model::synth::{DRAWN, Shape, Synthetic};
use actrace::model::{Model, Replace, TensorType};
use actrace::{Error, ErrorKind};
use std::path::Path;
use std::process::Command;

/// One shape of each family, with a width of its own for every dimension, small enough for every type.
const SMALL: [(&str, &[&str]); 3] = [
    ("qwen2.5-7b", &["hidden=256", "heads=4", "kv-heads=2"]),
    ("tinyllama-1.1b", &["hidden=512", "heads=4", "kv-heads=1", "head-dim=64"]),
    ("gpt2", &["hidden=256", "heads=8"]),
];

const COMMON: [&str; 4] = ["layers=3", "ffn=768", "vocabulary=500", "context=32"];

fn shape(preset: &str, settings: &[&str]) -> Shape {
    let settings: Vec<String> = settings.iter().chain(&COMMON).map(|setting| (*setting).to_owned()).collect();
    Shape::new(preset, &settings).unwrap()
}

fn write(synthetic: &Synthetic, path: &Path, threads: usize) -> Vec<u8> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let length = pool.install(|| synthetic.write(path, Replace::Yes, |_| Ok(()))).unwrap();
    let bytes = std::fs::read(path).unwrap();
    assert_eq!((length, synthetic.file_bytes().unwrap()), (bytes.len() as u64, length));
    bytes
}

/// Ordinary is: all finite, of an rms between 0.01 and 10, nothing beyond 100.
///
/// Products of normalised rows with weights of standard deviation 1 / sqrt(columns) have an rms of about 1, activations
/// and gated products 0.4 to 0.7. The embedding has 1 / sqrt(hidden), 0.04 at the least here. Probabilities over at
/// most 9 keys have an rms of 1/9 at the least. Three layers add less than 2 each to the variance of the residual stream:
/// an rms below sqrt(7). Norm weights and biases move these figures by a few percent. 4.4 standard deviations are
/// the most that a normal variable shows in the 10^5 values of a point; 100 leaves room for products of two.
#[test]
fn activations_of_every_type_and_family_are_ordinary() {
    let ground = tempfile::tempdir().unwrap();
    let path = ground.path().join("m.gguf");
    for (preset, settings) in SMALL {
        let shape = shape(preset, settings);
        for tensor_type in DRAWN {
            write(&Synthetic::new(shape.clone(), tensor_type, 3).unwrap(), &path, 2);
            let model = Model::open(&path).unwrap();
            assert_eq!((model.architecture(), model.hyper()), (shape.architecture(), shape.hyper()));
            assert_eq!(model.weight_type(), tensor_type);
            for semantics in [Semantics::Ggml, Semantics::DequantizeF32] {
                let what = format!("{preset} {} {}", tensor_type.name(), semantics.name());
                check_activations(&model, semantics, &what);
            }
        }
    }
}

fn check_activations(model: &Model, semantics: Semantics, what: &str) {
    let mut forward = forward(model, semantics);
    let (seen, generation) = capture(&mut forward, &[7, 1, 499, 0, 250, 7], 4);
    let sites = forward.graph().sites.clone();
    for (step, id) in seen.rows.keys() {
        let values = seen.values(*step, *id);
        let site = sites.iter().find(|site| site.id == *id).unwrap();
        let rms = (values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / values.len() as f64).sqrt();
        let largest = values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let place = format!("{what}: step {step} {} {:?}: rms {rms}, largest {largest}", site.point, site.layer);
        assert!(values.iter().all(|value| value.is_finite()), "{place}");
        assert!((0.01..10.0).contains(&rms) && largest < 100.0, "{place}");
    }
    assert_eq!(seen.rows.len(), sites.len() * 4, "{what}: every point of every step is seen");
    assert!(generation.fingerprints.windows(2).all(|pair| pair[0] != pair[1]), "{what}: steps differ");
}

/// The counts that the models' own pages give (Hugging Face, safetensors).
#[test]
fn known_shapes_have_the_parameters_of_the_known_models() {
    for (preset, parameters) in [
        ("qwen2.5-0.5b", 494_032_768),
        ("qwen2.5-1.5b", 1_543_714_304),
        ("qwen2.5-7b", 7_615_616_512),
        ("tinyllama-1.1b", 1_100_048_384),
        ("gpt2", 124_439_808),
    ] {
        let shape = Shape::new(preset, &[]).unwrap();
        assert_eq!(Synthetic::new(shape, TensorType::Bf16, 0).unwrap().parameters(), parameters, "{preset}");
    }
    assert_eq!(Shape::presets().count(), 5);
}

/// The embedding of 20 MB is drawn in two pieces of many tasks.
#[test]
fn bytes_depend_on_the_seed_and_not_on_threads() {
    let ground = tempfile::tempdir().unwrap();
    let path = ground.path().join("m.gguf");
    for (tensor_type, vocabulary) in [(TensorType::F32, "vocabulary=20000"), (TensorType::Q4K, "vocabulary=130000")] {
        let settings = ["hidden=256", "heads=4", "layers=1", "ffn=256", "context=8", vocabulary].map(str::to_owned);
        let synthetic = |seed| Synthetic::new(Shape::new("gpt2", &settings).unwrap(), tensor_type, seed).unwrap();
        let first = write(&synthetic(1), &path, 1);
        assert!(first.len() > 18 << 20, "more than a piece");
        for threads in [1, 3] {
            assert!(first == write(&synthetic(1), &path, threads), "{threads} threads");
        }
        let other = write(&synthetic(2), &path, 1);
        assert_eq!(first.len(), other.len());
        let equal = first.iter().zip(&other).filter(|(a, b)| a == b).count();
        assert!(equal < first.len() / 10, "{equal} of {} bytes are equal under another seed", first.len());
    }
}

#[test]
fn an_end_before_the_last_byte_leaves_no_file() {
    let ground = tempfile::tempdir().unwrap();
    let synthetic = Synthetic::new(shape(SMALL[0].0, SMALL[0].1), TensorType::F16, 0).unwrap();
    let mut calls = 0;
    let stop = |_| {
        calls += 1;
        if calls < 5 { Ok(()) } else { Err(Error::new(ErrorKind::Interrupted, "enough")) }
    };
    let error = synthetic.write(&ground.path().join("m.gguf"), Replace::No, stop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    assert_eq!(std::fs::read_dir(ground.path()).unwrap().count(), 0);
    // A limit on the file's size stands for a full disk.
    let finished = run(&mut limited(512, &synth(&ground.path().join("m.gguf"))));
    assert_eq!((finished.status, finished.stdout.as_str()), (2, ""), "{}", finished.stderr);
    assert!(finished.one_error().contains("m.gguf: cannot write"), "{}", finished.stderr);
    assert_eq!(std::fs::read_dir(ground.path()).unwrap().count(), 0);
}

/// `actrace synth` of a small model of type q4_k into `out`.
fn synth(out: &Path) -> Command {
    let mut command = actrace("synth");
    command.args(["--shape", "qwen2.5-0.5b", "--type", "q4_k", "--out"]).arg(out);
    for setting in ["hidden=256", "heads=4"].iter().chain(&COMMON) {
        command.args(["--set", setting]);
    }
    command
}

#[test]
fn the_command_says_what_it_wrote_and_the_recorder_runs_it() {
    let ground = Ground::new();
    let out = ground.path("m.gguf");
    let finished = run(&mut synth(&out));
    let bytes = std::fs::metadata(&out).unwrap().len();
    // 500 x 256 embedding; per layer q, k, v with biases, output, three FFN matrices and two norms; the last norm.
    let layer = (256 + 2 * 128) * 257 + 256 * 256 + 3 * 768 * 256 + 2 * 256;
    let line = format!(
        "[dir]/m.gguf: {} parameters, {bytes} bytes ({:.1} MiB)\n",
        500 * 256 + 3 * layer + 256,
        bytes as f64 / f64::from(1 << 20)
    );
    assert_eq!((finished.status, ground.redacted(&finished.stdout), finished.stderr.as_str()), (0, line, ""));

    let again = ground.path("again.gguf");
    let (status, report) = json(synth(&again).args(["--seed", "0"]).env("RAYON_NUM_THREADS", "1"));
    assert_eq!((status, report["bytes"].as_u64(), report["seed"].as_u64()), (0, Some(bytes), Some(0)));
    assert_eq!((report["type"].as_str(), report["shape"].as_str()), (Some("q4_k"), Some("qwen2.5-0.5b")));
    assert!(
        std::fs::read(&out).unwrap() == std::fs::read(&again).unwrap(),
        "seed 0 is the default, threads do not matter"
    );

    let untraced = |seed: &str| {
        let made = run(synth(&again).args(["--force", "--seed", seed]));
        assert_eq!(made.status, 0, "{}", made.stderr);
        let mut record = actrace("record");
        record.args(["--untraced", "--tokens", "1,2,499", "--generate", "3", "--model"]).arg(&again);
        let report = Finished::of(record.arg("--json").output().unwrap()).json();
        report["steps"].as_array().unwrap().iter().map(|step| step["logits_fingerprint"].clone()).collect::<Vec<_>>()
    };
    let fingerprints = untraced("0");
    assert_eq!(fingerprints.len(), 3);
    assert_ne!(fingerprints, untraced("1"), "another seed is another model");
}

#[test]
fn what_cannot_be_made_is_refused_in_words() {
    let ground = Ground::new();
    let out = ground.path("m.gguf");
    std::fs::write(&out, "precious").unwrap();
    let refused = |change: &[&str], words: &[&str]| {
        let mut command = actrace("synth");
        command.args(change).arg("--out").arg(&out);
        let finished = run(&mut command);
        assert_eq!((finished.status, finished.stdout.as_str()), (2, ""), "{}", finished.stderr);
        let error = finished.one_error();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
        assert_eq!(std::fs::read(&out).unwrap(), b"precious");
    };
    refused(&["--shape", "qwen2-7b", "--type", "q4_k"], &["`qwen2-7b` is no shape", "did you mean `qwen2.5-7b`?"]);
    refused(&["--shape", "gpt2", "--type", "q4_K"], &["`q4_K` is no element type", "did you mean `q4_k`?"]);
    refused(&["--shape", "gpt2", "--type", "q4_k", "--set", "layer=1"], &["`layer` is no dimension", "`layers`?"]);
    let indivisible = ["token_embd.weight", "896 elements (hidden)", "blocks of 256 (q4_k)", "set it to 1024"];
    refused(&["--shape", "qwen2.5-0.5b", "--type", "q4_k"], &indivisible);
    let ffn = ["--shape", "gpt2", "--type", "q8_0", "--set", "ffn=100"];
    refused(&ffn, &["blk.0.ffn_down.weight", "100 elements (ffn)", "blocks of 32", "set it to 128"]);
    let heads = ["--shape", "gpt2", "--type", "q6_k", "--set", "head-dim=80"];
    refused(&heads, &["blk.0.attn_output.weight", "960 elements (heads x head-dim)", "set it to 1024"]);
    let endless = ["--shape", "gpt2", "--type", "f32", "--set", "vocabulary=4294967295", "--set", "hidden=1048560"];
    refused(&endless, &["TiB may be written", "set smaller dimensions"]);
    refused(&["--shape", "gpt2", "--type", "f16", "--set", "layers=1"], &["m.gguf: this exists already", "--force"]);
}

#[test]
fn help_opens_with_an_example() {
    let finished = run(actrace("synth").arg("--help"));
    assert_eq!(finished.status, 0);
    assert!(finished.stdout.starts_with("Example:\n  actrace synth --shape qwen2.5-7b"), "{}", finished.stdout);
    for preset in Shape::presets() {
        assert!(finished.stdout.contains(preset), "{preset} is not in the help");
    }
    for tensor_type in DRAWN {
        assert!(finished.stdout.contains(tensor_type.name()), "{} is not in the help", tensor_type.name());
    }
}
