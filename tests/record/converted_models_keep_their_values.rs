//! Models that `actrace convert` writes: the values of their source, in files that other programs would have written.

use crate::command::{Ground, actrace, json, limited, run};
use crate::running::{capture, forward, ids, json as fixture_json, prompt};
use crate::support::memory::peak;
use crate::support::{apr, families, fixture, gguf as rebuilt, model};
use actrace::backend::Semantics;
use actrace::model::convert::{Conversion, ENCODED, TokenizerFrom};
use actrace::model::synth::{Shape, Synthetic};
use actrace::model::{Model, Replace, Role, TensorType, Tokenizer, WeightKey};
use actrace::{Error, ErrorKind};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Converts without a command line.
fn convert(source: &Model, tensor_type: TensorType, tokenizer: TokenizerFrom<'_>, to: &Path) -> actrace::Result<Model> {
    let conversion = Conversion::new(source, tensor_type, tokenizer)?;
    let length = conversion.write(to, Replace::Yes, |_| Ok(()))?;
    assert_eq!(length, conversion.file_bytes()?);
    assert_eq!(length, std::fs::metadata(to).unwrap().len());
    Model::open(to)
}

fn open(path: &Path) -> Model {
    Model::open(path).unwrap()
}

/// The same points with the same bits, prompt and greedy steps.
fn check_runs(source: &Model, converted: &Model, tokens: &[u32], what: &str) {
    let (mut one, mut other) =
        (forward(source, Semantics::DequantizeF32), forward(converted, Semantics::DequantizeF32));
    let (expected, found) = (capture(&mut one, tokens, 4), capture(&mut other, tokens, 4));
    assert_eq!(expected.1, found.1, "{what}");
    assert_eq!(one.graph().sites.len(), other.graph().sites.len(), "{what}");
    for (site, also) in one.graph().sites.iter().zip(&other.graph().sites) {
        assert_eq!((site.layer, site.point, site.occurrence), (also.layer, also.point, also.occurrence), "{what}");
        for step in 0..4 {
            let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            let (expected, found) = (expected.0.values(step, site.id), found.0.values(step, also.id));
            assert!(bits(expected) == bits(found), "{what}: step {step} {} of {:?}", site.point, site.layer);
        }
    }
}

/// Type and bytes of every tensor.
fn tensors(model: &Model) -> BTreeMap<String, (TensorType, Vec<u8>)> {
    let tensor = |weight: &actrace::model::Weight| (weight.tensor_type, weight.data.to_vec());
    model.weights().map(|weight| (weight.stored_name.clone(), tensor(weight))).collect()
}

/// The weights are BF16, so that F32 and BF16 hold each value.
#[test]
fn safetensors_run_bit_for_bit_from_f32_and_bf16_files() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["tiny-qwen2", "tiny-gpt2"] {
        let source = open(&model(&format!("{name}.safetensors")));
        for tensor_type in [TensorType::F32, TensorType::Bf16] {
            let to = folder.path().join("m.gguf");
            let converted = convert(&source, tensor_type, TokenizerFrom::Model, &to).unwrap();
            assert_eq!(converted.weight_type(), tensor_type);
            check_runs(&source, &converted, &prompt(), &format!("{name} as {}", tensor_type.name()));
        }
    }
}

/// llama.cpp's converter and quantiser made their files from the same weights.
#[test]
fn f16_and_q8_0_tensors_are_those_of_llama_cpp() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["tiny-qwen2", "tiny-gpt2"] {
        let source = open(&model(&format!("{name}.safetensors")));
        for tensor_type in [TensorType::F16, TensorType::Q8_0] {
            let theirs = model(&format!("{name}.{}", tensor_type.name()));
            let to = folder.path().join("m.gguf");
            let converted = convert(&source, tensor_type, TokenizerFrom::Model, &to).unwrap();
            assert!(tensors(&converted) == tensors(&open(&theirs)), "{}", theirs.display());
            assert_eq!(converted.hyper(), open(&theirs).hyper(), "{}", theirs.display());
            // Theirs ends the tokenizer there.
            let tokenizer = |path: &Path| {
                let bytes = std::fs::read(path).unwrap();
                let find = |key: &str| bytes.windows(key.len()).position(|window| window == key.as_bytes()).unwrap();
                bytes[find("tokenizer.ggml.model")..find("tokenizer.ggml.add_bos_token")].to_vec()
            };
            assert!(tokenizer(&to) == tokenizer(&theirs), "the tokenizer of {}", theirs.display());
        }
    }
}

/// The whole file: nothing but the types of tensors and of the file differs, and llama.cpp's own quantiser made the other.
#[test]
fn a_gguf_file_keeps_its_metadata_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("m.gguf");
    for name in ["tiny-qwen2", "tiny-gpt2"] {
        let source = open(&rebuilt::rebuilt(&format!("{name}.f16")));
        convert(&source, TensorType::Q8_0, TokenizerFrom::Model, &to).unwrap();
        let theirs = std::fs::read(rebuilt::rebuilt(&format!("{name}.q8_0"))).unwrap();
        assert!(std::fs::read(&to).unwrap() == theirs, "{name}");
        // What has the type already is copied, not made again.
        let source = open(&rebuilt::rebuilt(&format!("{name}.q8_0")));
        convert(&source, TensorType::Q8_0, TokenizerFrom::Model, &to).unwrap();
        assert!(std::fs::read(&to).unwrap() == theirs, "{name} again");
    }
}

#[test]
fn quantised_files_run_bit_for_bit_from_f32() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["tiny-qwen2", "tiny-gpt2"] {
        let source = open(&model(&format!("{name}.q4_k_m")));
        let to = folder.path().join("m.gguf");
        let converted = convert(&source, TensorType::F32, TokenizerFrom::Model, &to).unwrap();
        check_runs(&source, &converted, &prompt(), name);
    }
}

/// Models that GGUF cannot hold or describe, as llama.cpp reads it: a scale of attention that is not the family's, attention
/// without biases in gpt_neox, windows in qwen2, layers without experts among others with.
const BEYOND_GGUF: [(&str, &str); 4] = [
    ("gemma3-scaled", "GGUF files of gemma3 cannot describe this model: they have no words for its attention scale"),
    ("gpt_neox-sequential", "tensor blk.0.attn_qkv.bias: GGUF files of gptneox need it as layers.0.q_bias"),
    ("qwen2-window", "cannot describe this model: qwen2.attention.sliding_window = 4 is not supported"),
    ("qwen3_moe-mixed", "cannot describe this model: they have no words for its experts"),
];

/// Every family as F32, from safetensors and from GGUF files: fused, merged and permuted tensors, norms with their 1.
#[test]
fn every_family_runs_bit_for_bit_from_its_converted_file() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("m.gguf");
    let tokens = ids(&fixture_json("families/prompt.json")["token_ids"]);
    for name in families::names() {
        let source = families::folder(&name);
        let converted = convert(&source, TensorType::F32, TokenizerFrom::Nowhere, &to);
        if let Some((_, words)) = BEYOND_GGUF.iter().find(|(beyond, _)| *beyond == name) {
            let error = converted.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{name}: {error}");
            assert!(error.to_string().contains(words), "{name}: {error}");
            continue;
        }
        let converted = converted.unwrap_or_else(|error| panic!("{name}: {error}"));
        match name.as_str() {
            "llama3" => check_factors(&source, &converted),
            _ => check_runs(&source, &converted, &tokens, &name),
        }
    }
    for name in families::gguf_names() {
        let source = families::gguf(&name);
        let converted = convert(&source, TensorType::F32, TokenizerFrom::Model, &to).unwrap();
        assert_eq!((source.hyper(), source.architecture()), (converted.hyper(), converted.architecture()), "{name}");
        check_runs(&source, &converted, &tokens, &format!("{name}.gguf"));
    }
}

/// GGUF holds llama3's scaling as factors in f32, so the frequencies differ by half a unit of f32, 2^-24, and angles over
/// 12 positions by 12 times that: 7e-7. Points follow the angles with a factor that is not known, so the factors
/// themselves are held to their rounding, and the weights to their bits.
fn check_factors(source: &Model, converted: &Model) {
    let (exact, key) = (source.hyper().rope.unwrap(), WeightKey::outside(Role::RopeFactors));
    let factors = converted.weight(key).unwrap();
    let mut stored = vec![0.0; factors.columns];
    factors.dequantize_row(0, &mut stored).unwrap();
    let (exact, found) = (exact.frequencies(&[]), converted.hyper().rope.unwrap().frequencies(&stored));
    assert!(exact.iter().zip(&found).all(|(a, b)| (a - b).abs() <= a * 2f64.powi(-24)), "{exact:?} {found:?}");
    for weight in source.weights() {
        let other = converted.weight(weight.key).unwrap();
        let (mut ours, mut theirs) = (vec![0.0; weight.columns], vec![0.0; weight.columns]);
        for row in 0..weight.rows {
            weight.dequantize_row(row, &mut ours).unwrap();
            other.dequantize_row(row, &mut theirs).unwrap();
            assert_eq!(ours, theirs, "{} row {row}", weight.key);
        }
    }
}

/// The gguf package wrote the other files from the same weights. The fixture's script has it write routers in BF16, where
/// llama.cpp's converter keeps them in F32.
#[test]
fn every_family_s_tensors_are_those_of_the_gguf_package() {
    let folder = tempfile::tempdir().unwrap();
    for name in families::gguf_names() {
        let to = folder.path().join("m.gguf");
        let ours = convert(&families::folder(&name), TensorType::Bf16, TokenizerFrom::Nowhere, &to).unwrap();
        let (mut ours, mut theirs) = (tensors(&ours), tensors(&families::gguf(&name)));
        let is_router = |tensor: &String| tensor.ends_with("ffn_gate_inp.weight");
        let routers: Vec<TensorType> =
            ours.iter().filter(|(name, _)| is_router(name)).map(|(_, held)| held.0).collect();
        assert!(routers.iter().all(|held| *held == TensorType::F32), "{name}");
        assert_eq!(routers.is_empty(), !(name.ends_with("moe") || name == "mixtral"), "{name}");
        ours.retain(|tensor, _| !is_router(tensor));
        theirs.retain(|tensor, _| !is_router(tensor));
        let names = |tensors: &BTreeMap<String, _>| tensors.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&ours), names(&theirs), "{name}");
        for (tensor, held) in ours {
            assert!(held == theirs[&tensor], "{name}: {tensor}");
        }
    }
}

/// Shards, biases on permuted rows, an output head of its own. Products of F16 add in an order of their own, llama.cpp's: a
/// model of that type keeps it here, and its F32 file is held to the tensors of the gguf package's.
#[test]
fn llama_and_its_variants_run_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = ids(&fixture_json("llama/prompt.json")["token_ids"]);
    for name in ["plain", "sharded", "biased", "qwen2-untied"] {
        let source = open(&fixture(&format!("llama/{name}")));
        let to = folder.path().join("m.gguf");
        let halves = source.weight_type() == TensorType::F16;
        let tensor_type = if halves { TensorType::F16 } else { TensorType::F32 };
        let converted = convert(&source, tensor_type, TokenizerFrom::Nowhere, &to).unwrap();
        check_runs(&source, &converted, &tokens, name);
    }
    for name in ["plain", "biased"] {
        let to = folder.path().join("m.gguf");
        let source = open(&fixture(&format!("llama/{name}")));
        let converted = convert(&source, TensorType::F32, TokenizerFrom::Nowhere, &to).unwrap();
        assert!(tensors(&converted) == tensors(&open(&fixture(&format!("llama/{name}.f32.gguf")))), "{name}");
    }
}

/// The apr tool copied the same bf16 weights, and the blocks of the same q4_k_m file.
#[test]
fn an_apr_file_is_a_source_like_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("m.gguf");
    for (apr, same) in [("tiny-qwen2.bf16", "tiny-qwen2.safetensors"), ("tiny-qwen2.q4_k_m", "tiny-qwen2.q4_k_m")] {
        let source = open(&apr::rebuilt(apr).0);
        let json = model("tiny-qwen2.safetensors").join("tokenizer.json");
        let ours = tensors(&convert(&source, TensorType::F32, TokenizerFrom::File(&json), &to).unwrap());
        let theirs = tensors(&convert(&open(&model(same)), TensorType::F32, TokenizerFrom::Model, &to).unwrap());
        assert!(ours == theirs, "{apr}");
    }
    // A vocabulary that came from GGUF says all that GGUF asks for; one that came from a tokenizer.json does not.
    let source = open(&apr::rebuilt("tiny-qwen2.q4_k_m").0);
    let converted = convert(&source, TensorType::F16, TokenizerFrom::Model, &to).unwrap();
    let hash = |model: &Model| {
        let vocabulary = model.vocabulary().unwrap().unwrap();
        Tokenizer::of_vocabulary(&vocabulary, model.path()).unwrap().hash()
    };
    assert_eq!(hash(&source), hash(&converted));
    let source = open(&apr::rebuilt("tiny-qwen2.bf16").0);
    let error = Conversion::new(&source, TensorType::F16, TokenizerFrom::Model).unwrap_err();
    assert!(error.to_string().contains("does not say how text is cut into words: name a tokenizer.json"), "{error}");
}

fn tokenizer_json(name: &str) -> serde_json::Value {
    fixture_json(&format!("tokenizer/{name}.json"))
}

/// A tokenizer.json of its own, and a model with more rows than it has tokens.
fn with_tokenizer(folder: &Path, json: &serde_json::Value) -> actrace::Result<(Model, Option<String>)> {
    let (path, to) = (folder.join("tokenizer.json"), folder.join("m.gguf"));
    std::fs::write(&path, json.to_string()).unwrap();
    let source = open(&model("tiny-gpt2.safetensors"));
    let conversion = Conversion::new(&source, TensorType::Q8_0, TokenizerFrom::File(&path))?;
    conversion.write(&to, Replace::Yes, |_| Ok(()))?;
    Ok((Model::open(&to)?, conversion.loss().map(str::to_owned)))
}

/// The ids are those of Hugging Face's tokenizers. Qwen's normalizer has no place in GGUF: that is said, and only text
/// with decomposed letters is concerned.
#[test]
fn tokenizers_in_new_files_split_hard_texts_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let expected = tokenizer_json("expected");
    for (name, loss) in [("gpt2", None), ("qwen2", Some("NFC"))] {
        let (converted, said) = with_tokenizer(folder.path(), &tokenizer_json(name)).unwrap();
        assert_eq!(said.is_some(), loss.is_some(), "{said:?}");
        assert!(said.is_none_or(|said| said.contains(loss.unwrap())));
        let vocabulary = converted.vocabulary().unwrap().unwrap();
        assert_eq!(vocabulary.len(), 2048, "as many as the model has rows");
        let tokenizer = Tokenizer::of_vocabulary(&vocabulary, converted.path()).unwrap();
        let mut checked = 0;
        for (i, text) in expected["texts"].as_array().unwrap().iter().enumerate() {
            let text = text.as_str().unwrap();
            // Decomposed letters, the Angstrom sign, and a long s with what composes with it.
            if name == "qwen2" && ["e\u{301}", "\u{212b}"].iter().any(|letter| text.contains(letter)) {
                continue;
            }
            assert_eq!(tokenizer.encode(text).unwrap(), ids(&expected["ids"][name][i]), "{name}: {text:?}");
            checked += 1;
        }
        assert!(checked >= 20, "{name}: {checked} texts");
    }
}

#[test]
fn a_tokenizer_that_gguf_cannot_say_is_refused() {
    type Change = (&'static str, fn(&mut serde_json::Value));
    let changes: [Change; 13] = [
        ("the normalizer {\"type\":\"Lowercase\"}", |t| t["normalizer"] = serde_json::json!({"type": "Lowercase"})),
        ("no name here", |t| t["pre_tokenizer"]["add_prefix_space"] = true.into()),
        ("no name here", |t| t["pre_tokenizer"] = serde_json::Value::Null),
        ("no name here", |t| t["model"]["ignore_merges"] = true.into()),
        ("dropout = 0.1", |t| t["model"]["dropout"] = 0.1.into()),
        ("byte_fallback = true", |t| t["model"]["byte_fallback"] = true.into()),
        ("unk_token = \"<|end|>\"", |t| t["model"]["unk_token"] = "<|end|>".into()),
        ("type WordPiece", |t| t["model"]["type"] = "WordPiece".into()),
        ("without a space", |t| t["model"]["merges"][0] = serde_json::json!(["a b", "c"])),
        ("token \"<|end|>\" with", |t| t["added_tokens"][1]["lstrip"] = true.into()),
        ("id 1 is both", |t| t["added_tokens"][1]["content"] = "other".into()),
        ("neither ByteLevel nor", |t| t["post_processor"]["type"] = "BertProcessing".into()),
        ("several tokens on a side", |t| {
            let bos = t["post_processor"]["single"][0].clone();
            t["post_processor"]["single"].as_array_mut().unwrap().insert(0, bos);
        }),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (words, change) in changes {
        let mut json = tokenizer_json("gpt2");
        change(&mut json);
        let error = with_tokenizer(folder.path(), &json).unwrap_err();
        assert!(error.to_string().contains(words), "{words}: {error}");
        assert!(error.file().is_some_and(|file| file.ends_with("tokenizer.json")), "{error}");
    }
    let source = open(&fixture("llama/plain"));
    let error =
        Conversion::new(&source, TensorType::F32, TokenizerFrom::File(&fixture("tokenizer/gpt2.json"))).unwrap_err();
    assert!(error.to_string().contains("has 400 tokens, and the model 128"), "{error}");
}

/// 20 million weights, 80 MB as F32; two pieces of 16 MiB are in memory, and what one thread needs besides. The pool is
/// this thread alone, so that it is the one that is counted.
#[test]
fn no_model_is_held_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let settings = ["layers=1", "hidden=512", "heads=4", "ffn=512", "context=8", "vocabulary=36000"].map(str::to_owned);
    let synthetic = Synthetic::new(Shape::new("gpt2", &settings).unwrap(), TensorType::Q4K, 0).unwrap();
    let (from, to) = (folder.path().join("from.gguf"), folder.path().join("to.gguf"));
    synthetic.write(&from, Replace::No, |_| Ok(())).unwrap();
    let source = open(&from);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build().unwrap();
    let (length, held) = peak(|| {
        let conversion = Conversion::new(&source, TensorType::F32, TokenizerFrom::Model).unwrap();
        pool.install(|| conversion.write(&to, Replace::No, |_| Ok(()))).unwrap()
    });
    assert!(length > 80_000_000 && held > 16 << 20 && held < 36 << 20, "{held} bytes held for {length}");
}

/// `actrace convert` of the small llama model.
fn command(out: &Path, tensor_type: &str) -> Command {
    let mut command = actrace("convert");
    command
        .arg("--model")
        .arg(fixture("llama/plain"))
        .args(["--no-tokenizer", "--type", tensor_type, "--out"])
        .arg(out);
    command
}

#[test]
fn the_command_says_what_it_wrote_and_the_recorder_runs_it() {
    let ground = Ground::new();
    let out = ground.path("m.gguf");
    let finished = run(&mut command(&out, "q8_0"));
    let bytes = std::fs::metadata(&out).unwrap().len();
    let size = bytes as f64 / 1024.0;
    // Two layers of two norms each, and the last; seven matrices in each, the embedding and the output head.
    let line = format!("[dir]/m.gguf: 5 f32, 16 q8_0 tensors, {bytes} bytes ({size:.1} KiB)\n");
    assert_eq!((finished.status, ground.redacted(&finished.stdout), finished.stderr.as_str()), (0, line, ""));
    let (status, report) = json(command(&out, "f16").arg("--force"));
    assert_eq!((status, report["type"].as_str()), (0, Some("f16")));
    assert_eq!(report["tensors"], serde_json::json!({"f32": 5, "f16": 16}));
    assert_eq!(report["bytes"].as_u64(), Some(std::fs::metadata(&out).unwrap().len()));
    assert_eq!(report["loss"], serde_json::Value::Null);
    let mut record = actrace("record");
    let recorded = run(record.args(["--untraced", "--tokens", "1,2,3", "--model"]).arg(&out));
    assert_eq!(recorded.status, 0, "{}", recorded.stderr);

    let mut qwen = actrace("convert");
    qwen.arg("--model").arg(model("tiny-qwen2.safetensors")).args(["--type", "q8_0", "--force", "--out"]).arg(&out);
    let finished = run(qwen.arg("--tokenizer").arg(fixture("tokenizer/qwen2.json")));
    assert_eq!(finished.status, 3, "done with loss");
    assert!(
        finished.stderr.starts_with("note: GGUF has no place for the tokenizer's normalizer"),
        "{}",
        finished.stderr
    );
}

#[test]
fn what_cannot_be_converted_is_refused_in_words() {
    let ground = Ground::new();
    let (taken, out) = (ground.path("taken.gguf"), ground.path("m.gguf"));
    std::fs::write(&taken, "precious").unwrap();
    let gguf = ground.path("plain.f32.gguf");
    std::fs::copy(fixture("llama/plain.f32.gguf"), &gguf).unwrap();
    let refusal = |command: &mut Command| {
        let finished = run(command);
        assert_eq!((finished.status, finished.stdout.as_str()), (2, ""), "{}", finished.stderr);
        ground.redacted(&finished.one_error())
    };
    let from_gguf = |more: &[&str]| {
        let mut command = actrace("convert");
        command.arg("--model").arg(&gguf).args(["--type", "f16", "--out"]).arg(&out).args(more);
        command
    };
    let without = |option: &str| {
        let mut bare = actrace("convert");
        bare.args(command(&out, "f16").get_args().skip(1).filter(|arg| *arg != option));
        bare
    };
    let lines = [
        refusal(&mut command(&taken, "f16")),
        refusal(&mut command(&out, "q4_k")),
        refusal(&mut command(&out, "q80")),
        refusal(&mut command(&ground.path("no/m.gguf"), "f16")),
        refusal(&mut without("--no-tokenizer")),
        refusal(&mut from_gguf(&["--no-tokenizer"])),
        refusal(&mut from_gguf(&["--tokenizer", "tokenizer.json"])),
        refusal(&mut from_gguf(&["--set", "rope_base=5"])),
        refusal(&mut limited(64, &command(&out, "f32"))),
    ];
    insta::assert_snapshot!(lines.join("\n"), @r"
    error: [dir]/taken.gguf: this exists already and is not overwritten: name another file, or add --force
    error: `q4_k` is no type to convert to: known are f32, f16, bf16, q8_0
    error: `q80` is no type to convert to: did you mean `q8_0`? known are f32, f16, bf16, q8_0
    error: [dir]/no: cannot open the folder: No such file or directory (os error 2)
    error: [package]/tests/fixtures/llama/plain: the model has no tokenizer: name a tokenizer.json by --tokenizer, or write a file without by --no-tokenizer
    error: [dir]/plain.f32.gguf: a GGUF file's tokenizer is copied with its other metadata: leave the option out
    error: [dir]/plain.f32.gguf: a GGUF file's tokenizer is copied with its other metadata: leave the option out
    error: [dir]/plain.f32.gguf: a GGUF file's metadata are copied as they are: rope_base cannot be set
    error: [dir]/m.gguf: cannot write: File too large (os error 27)
    ");
    assert_eq!(std::fs::read(&taken).unwrap(), b"precious");
    assert_eq!(std::fs::read_dir(ground.path("")).unwrap().count(), 2, "nothing is left behind");
}

/// The fixture with one element of a matrix changed.
fn with_value(folder: &Path, value: f32) -> Model {
    let from = fixture("llama/plain");
    std::fs::copy(from.join("config.json"), folder.join("config.json")).unwrap();
    let source = open(&from);
    let weight = source.weight(WeightKey::in_layer(1, Role::FfnDown)).unwrap();
    let mut bytes = std::fs::read(from.join("model.safetensors")).unwrap();
    let place = weight.offset as usize + (3 * weight.columns + 5) * 4;
    bytes[place..place + 4].copy_from_slice(&value.to_le_bytes());
    std::fs::write(folder.join("model.safetensors"), bytes).unwrap();
    open(folder)
}

#[test]
fn values_that_a_type_cannot_hold_are_named_and_leave_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let to = tempfile::tempdir().unwrap();
    for (value, tensor_type) in
        [(1e5, TensorType::F16), (f32::INFINITY, TensorType::Q8_0), (f32::NAN, TensorType::Q8_0)]
    {
        let source = with_value(folder.path(), value);
        let error = convert(&source, tensor_type, TokenizerFrom::Nowhere, &to.path().join("m.gguf")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let words = format!("row 3: element 5 is {value}, which {} cannot hold", tensor_type.name());
        assert!(error.to_string().contains(&words), "{error}");
        assert_eq!(error.tensor(), Some("blk.1.ffn_down.weight"));
        assert_eq!(std::fs::read_dir(to.path()).unwrap().count(), 0);
    }
    // Types that have infinities keep them.
    let source = with_value(folder.path(), f32::NEG_INFINITY);
    for tensor_type in [TensorType::F32, TensorType::F16, TensorType::Bf16] {
        let converted = convert(&source, tensor_type, TokenizerFrom::Nowhere, &to.path().join("m.gguf")).unwrap();
        let weight = converted.weight(WeightKey::in_layer(1, Role::FfnDown)).unwrap();
        let mut row = vec![0.0; weight.columns];
        weight.dequantize_row(3, &mut row).unwrap();
        assert_eq!(row[5], f32::NEG_INFINITY);
        std::fs::remove_file(converted.path()).unwrap();
    }
}

#[test]
fn an_end_before_the_last_byte_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let source = open(&fixture("llama/plain"));
    let conversion = Conversion::new(&source, TensorType::F32, TokenizerFrom::Nowhere).unwrap();
    let mut calls = 0;
    let stop = |_| {
        calls += 1;
        if calls < 5 { Ok(()) } else { Err(Error::new(ErrorKind::Interrupted, "enough")) }
    };
    let error = conversion.write(&folder.path().join("m.gguf"), Replace::No, stop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_source_that_changes_meanwhile_leaves_no_file() {
    let (folder, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = with_value(folder.path(), 1.0);
    let conversion = Conversion::new(&source, TensorType::F32, TokenizerFrom::Nowhere).unwrap();
    let touch = |_| {
        let file = std::fs::File::options().write(true).open(folder.path().join("model.safetensors")).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        Ok(())
    };
    let error = conversion.write(&to.path().join("m.gguf"), Replace::No, touch).unwrap_err();
    assert!(error.to_string().contains("changed while it was in use"), "{error}");
    assert_eq!(std::fs::read_dir(to.path()).unwrap().count(), 0);
}

#[test]
fn only_types_that_are_written_are_promised() {
    let source = open(&fixture("llama/plain"));
    for tensor_type in TensorType::ALL {
        let conversion = Conversion::new(&source, tensor_type, TokenizerFrom::Nowhere);
        assert_eq!(conversion.is_ok(), ENCODED.contains(&tensor_type), "{}", tensor_type.name());
    }
}

/// Rounding to 8 bits under a scale of a 127th moves a value by half a step at most.
#[test]
fn q8_0_values_are_within_half_a_step() {
    let folder = tempfile::tempdir().unwrap();
    let source = open(&fixture("llama/plain"));
    let to = folder.path().join("m.gguf");
    let converted = convert(&source, TensorType::Q8_0, TokenizerFrom::Nowhere, &to).unwrap();
    for weight in source.weights().filter(|weight| weight.key.role.is_matrix()) {
        let other = converted.weight(weight.key).unwrap();
        let (mut exact, mut found) = (vec![0.0; weight.columns], vec![0.0; weight.columns]);
        for row in 0..weight.rows {
            weight.dequantize_row(row, &mut exact).unwrap();
            other.dequantize_row(row, &mut found).unwrap();
            for (exact, found) in exact.chunks(32).zip(found.chunks(32)) {
                let largest = exact.iter().fold(0f32, |max, x| max.max(x.abs()));
                // The scale is rounded to 11 bits: half a unit of it for each of 127 steps, a 32nd of a step, comes on top.
                let limit = largest / 127.0 * (0.5 + 127.0 / 2048.0);
                assert!(exact.iter().zip(found).all(|(a, b)| (a - b).abs() <= limit), "{} row {row}", weight.key);
            }
        }
    }
}
