//! Bad input gets one clear line and a status of its own, and damages nothing.

use crate::command::{Ground, actrace, run};
use crate::support::fixture;
use std::path::Path;

/// A copy of `from` with every `old` replaced by `new` of the same length.
fn patched(from: &Path, to: &Path, old: &[u8], new: &[u8]) {
    let mut bytes = std::fs::read(from).unwrap();
    let places: Vec<usize> =
        bytes.windows(old.len()).enumerate().filter(|(_, window)| *window == old).map(|(place, _)| place).collect();
    assert!(!places.is_empty() && old.len() == new.len());
    for place in places {
        bytes[place..place + new.len()].copy_from_slice(new);
    }
    std::fs::write(to, bytes).unwrap();
}

/// A folder with config.json of the small llama model and `weights` as its tensors.
fn folder(at: &Path, config: &str, weights: &[u8]) {
    std::fs::create_dir(at).unwrap();
    std::fs::write(at.join("config.json"), config).unwrap();
    std::fs::write(at.join("model.safetensors"), weights).unwrap();
}

#[test]
fn models_that_are_none_or_cannot_run() {
    let ground = Ground::new();
    let gguf = fixture("llama/plain.f32.gguf");
    let config = std::fs::read_to_string(fixture("llama/plain/config.json")).unwrap();
    let weights = std::fs::read(fixture("llama/plain/model.safetensors")).unwrap();
    let whole = std::fs::read(&gguf).unwrap();
    std::fs::write(ground.path("empty"), b"").unwrap();
    std::fs::write(ground.path("cut.gguf"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(ground.path("stub.gguf"), &whole[..10]).unwrap();
    std::fs::write(ground.path("notes.txt"), "dear diary").unwrap();
    std::fs::write(ground.path("model.apr"), b"APR\0\x02\0\0\0 and more").unwrap();
    std::fs::write(ground.path("old.apr"), b"APR1 and more").unwrap();
    std::fs::write(ground.path("alone.safetensors"), &weights).unwrap();
    std::fs::create_dir(ground.path("bare")).unwrap();
    patched(&gguf, &ground.path("family.gguf"), b"llama", b"lhama");
    // The type follows the name, the number of axes and the axes.
    let mut unknown_type = whole.clone();
    let name = b"blk.0.attn_q.weight";
    let place = whole.windows(name.len()).position(|window| window == name).unwrap() + name.len() + 4 + 2 * 8;
    unknown_type[place..place + 4].copy_from_slice(&99u32.to_le_bytes());
    std::fs::write(ground.path("type.gguf"), unknown_type).unwrap();
    folder(&ground.path("cut"), &config, &weights[..weights.len() / 2]);
    folder(&ground.path("family"), &config.replace("\"llama\"", "\"lhama\""), &weights);
    folder(&ground.path("syntax"), "{", &weights);
    folder(&ground.path("weightless"), &config, &weights);
    std::fs::remove_file(ground.path("weightless/model.safetensors")).unwrap();
    let mut float64 = weights.clone();
    let place = weights.windows(5).position(|window| window == b"\"F32\"").unwrap();
    float64[place..place + 5].copy_from_slice(b"\"F64\"");
    folder(&ground.path("type"), &config, &float64);

    let names = [
        "missing.gguf",
        "empty",
        "stub.gguf",
        "cut.gguf",
        "notes.txt",
        "model.apr",
        "old.apr",
        "alone.safetensors",
        "family.gguf",
        "type.gguf",
        "bare",
        "cut",
        "family",
        "syntax",
        "type",
        "weightless",
        "bad\nname",
    ];
    let refusals = names.map(|name| {
        let path = ground.path(name);
        ground.refused(name, &["--model", path.to_str().unwrap(), "--tokens", "1", "--out", "{out}"])
    });
    insta::assert_snapshot!(refusals.join("\n"), @r#"
    missing.gguf: error: [dir]/missing.gguf: cannot open the model: No such file or directory (os error 2)
    empty: error: [dir]/empty: the file is empty
    stub.gguf: error: [dir]/stub.gguf: at byte 8: the file is cut short or damaged: 8 bytes should follow, 2 do
    cut.gguf: error: [dir]/cut.gguf: tensor blk.0.ffn_down.weight: the file is cut short: 24576 bytes from 131072 of its data end beyond its 157248 bytes
    notes.txt: error: [dir]/notes.txt: not a model file (it begins with "dear"); give a GGUF or .apr file, or a folder with config.json and safetensors
    model.apr: error: [dir]/model.apr: the file is cut short: its 17 bytes are no header of 64
    old.apr: error: [dir]/old.apr: version 1 of .apr is another format and is not supported, only 2.0
    alone.safetensors: error: [dir]/alone.safetensors: a safetensors file alone has no hyper-parameters; give its folder, with config.json
    family.gguf: error: [dir]/family.gguf: architecture "lhama" is not known; this version runs gemma2, gemma3, gpt2, gptneox, llama, phi3, qwen2, qwen2moe, qwen3, qwen3moe
    type.gguf: error: [dir]/type.gguf: tensor blk.0.attn_q.weight: 99 is no element type of ggml; known are f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0, q2_k, q3_k, q4_k, q5_k, q6_k, iq4_nl, iq4_xs, mxfp4
    bare: error: [dir]/bare: the folder has no config.json, so it is no model; give a folder with config.json and safetensors, or a GGUF or .apr file
    cut: error: [dir]/cut/model.safetensors: tensor model.layers.0.self_attn.o_proj.weight: the file is cut short: data_offsets 147968..164352 end beyond its 157356 bytes
    family: error: [dir]/family/config.json: architecture "lhama" is not known; this version runs gemma2, gemma3_text, gpt2, gpt_neox, llama, mistral, mixtral, phi3, qwen2, qwen2_moe, qwen3, qwen3_moe
    syntax: error: [dir]/syntax/config.json: the configuration is no JSON object: EOF while parsing an object at line 1 column 1
    type: error: [dir]/type/model.safetensors: tensor lm_head.weight: element type F64 is not supported in safetensors files; known are F32, F16, BF16, F8_E4M3
    weightless: error: [dir]/weightless/model.safetensors: cannot open: No such file or directory (os error 2)
    bad\nname: error: [dir]/bad\nname: cannot open the model: No such file or directory (os error 2)
    "#);
}

#[test]
fn devices_and_numbers_that_are_none() {
    let ground = Ground::new();
    let cases: &[&[&str]] = &[
        &["--device", "cuda", "--semantics", "ggml"],
        &["--compute", "bf16"],
        &["--compute", "f8"],
        &["--device", "cuda:x"],
        &["--device", "cudax"],
        &["--device", "gpu"],
        &["--device", ""],
        &["--semantics", "exact"],
        &["--threads", "0"],
        &["--threads", "100000"],
        &["--threads", "two"],
        &["--label", ""],
        &["--untraced"],
    ];
    insta::assert_snapshot!(ground.refusals(&["--tokens", "1"], cases), @r#"
    --device cuda --semantics ggml: error: --semantics ggml is not built for CUDA: use dequantize-f32, on both devices where they are to be compared
    --compute bf16: error: --compute bf16 is for --device cuda: the processor multiplies in f32
    --compute f8: error: invalid value 'f8' for '--compute <COMPUTE>': `f8` is no compute type: f32, f16 or bf16
    --device cuda:x: error: invalid value 'cuda:x' for '--device <DEVICE>': `cuda:x` is no device: cpu, cuda[:N] or auto
    --device cudax: error: invalid value 'cudax' for '--device <DEVICE>': `cudax` is no device: cpu, cuda[:N] or auto
    --device gpu: error: invalid value 'gpu' for '--device <DEVICE>': `gpu` is no device: cpu, cuda[:N] or auto
    --device : error: invalid value '' for '--device <DEVICE>': `` is no device: cpu, cuda[:N] or auto
    --semantics exact: error: invalid value 'exact' for '--semantics <SEMANTICS>': `exact` is no semantics: ggml or dequantize-f32
    --threads 0: error: --threads 0 is not among 1 to 1024
    --threads 100000: error: --threads 100000 is not among 1 to 1024
    --threads two: error: invalid value 'two' for '--threads <N>': invalid digit found in string
    --label : error: an empty --label names nothing: give a name, or leave the option out
    --untraced: error: the argument '--untraced' cannot be used with '--out <FILE.actrace>'
    "#);
}

#[test]
fn prompts_that_are_none() {
    let ground = Ground::new();
    std::fs::write(ground.path("empty"), b"").unwrap();
    std::fs::write(ground.path("latin1"), b"caf\xE9").unwrap();
    let at = |name: &str| ground.path(name).to_str().unwrap().to_owned();
    let (empty, latin1, missing) = (at("empty"), at("latin1"), at("missing"));
    let cases: &[&[&str]] = &[
        &["--prompt", ""],
        &["--prompt-file", &empty],
        &["--prompt-file", "-"],
        &["--prompt-file", &missing],
        &["--prompt-file", &latin1],
        &["--tokens", ""],
        &["--tokens-file", &empty],
        &["--tokens", "1,two"],
        &["--tokens", "1,-1"],
        &["--tokens", "1,128"],
        &["--tokens", "1,99999999999"],
        &["--tokens", "1,2,3", "--generate", "126"],
        &["--tokens", "1", "--generate", "4294967295"],
        &["--tokens", "1", "--prompt", "one"],
        &["--prompt", "one"],
        &["--tokens", "1", "--tokenizer", &missing],
        &["--tokens", "1", "--tokenizer", &latin1],
    ];
    insta::assert_snapshot!(ground.refusals(&[], cases), @r#"
    --prompt : error: the prompt is empty: give at least one token
    --prompt-file [dir]/empty: error: the prompt is empty: give at least one token
    --prompt-file -: error: the prompt is empty: give at least one token
    --prompt-file [dir]/missing: error: [dir]/missing: cannot read the prompt: No such file or directory (os error 2)
    --prompt-file [dir]/latin1: error: [dir]/latin1: cannot read the prompt: stream did not contain valid UTF-8
    --tokens : error: the prompt is empty: give at least one token
    --tokens-file [dir]/empty: error: the prompt is empty: give at least one token
    --tokens 1,two: error: `two` is no token id: give whole numbers from 0 on, with commas between
    --tokens 1,-1: error: `-1` is no token id: give whole numbers from 0 on, with commas between
    --tokens 1,128: error: token id 128 at position 1 is out of range: the vocabulary has 128 tokens, 0 to 127
    --tokens 1,99999999999: error: `99999999999` is no token id: give whole numbers from 0 on, with commas between
    --tokens 1,2,3 --generate 126: error: 3 prompt tokens and 126 to generate exceed the model's context of 128: shorten one of them
    --tokens 1 --generate 4294967295: error: 1 prompt tokens and 4294967295 to generate exceed the model's context of 128: shorten one of them
    --tokens 1 --prompt one: error: the argument '--tokens <IDS>' cannot be used with '--prompt <TEXT>'
    --prompt one: error: [package]/tests/fixtures/llama/plain: a prompt as text needs a tokenizer: add --tokenizer tokenizer.json, or give token ids with --tokens
    --tokens 1 --tokenizer [dir]/missing: error: [dir]/missing: cannot open the tokenizer: No such file or directory (os error 2)
    --tokens 1 --tokenizer [dir]/latin1: error: [dir]/latin1: not a tokenizer.json of Hugging Face tokenizers: expected value at line 1 column 1
    "#);
}

#[test]
fn selections_that_record_nothing() {
    let ground = Ground::new();
    let cases: &[&[&str]] = &[
        &["--points", "ffn_gat"],
        &["--points", "logits,attn_nrm"],
        &["--points", "nothing_like_it"],
        &["--points", ""],
        &["--points", "none"],
        &["--points", "[a"],
        &["--points", "router_logits"],
        &["--tensors", "logit"],
        &["--layers", "2"],
        &["--layers", "0..3"],
        &["--layers", "1..1"],
        &["--layers", "first"],
        &["--layers", "0", "--points", "logits"],
        &["--positions", "2..2"],
        &["--positions", "5..2"],
        &["--positions", "3..9"],
        &["--positions", "first"],
    ];
    insta::assert_snapshot!(ground.refusals(&["--tokens", "1,2,3"], cases), @r#"
    --points ffn_gat: error: no capture point is named `ffn_gat`; did you mean `ffn_gate`?
    --points logits,attn_nrm: error: no capture point is named `attn_nrm`; did you mean `attn_norm`?
    --points nothing_like_it: error: no capture point is named `nothing_like_it`
    --points : error: an empty pattern names no capture point: write all, none or globs
    --points none: error: nothing is selected: this model has none of the selected points and layers
    --points [a: error: `[a` is no pattern for points: error parsing glob '[a': unclosed character class; missing ']'
    --points router_logits: error: no capture point is named `router_logits`; did you mean `moe_logits`?
    --tensors logit: error: no capture point is named `logit`; did you mean `logits`?
    --layers 2: error: layer 2 is selected, but the model has 2 layers
    --layers 0..3: error: layer 2 is selected, but the model has 2 layers
    --layers 1..1: error: `1..1` is no range: write A..B with A below B; B is not included
    --layers first: error: `first` is no range: write A..B with A below B; B is not included
    --layers 0 --points logits: error: nothing is selected: this model has none of the selected points and layers
    --positions 2..2: error: `2..2` is no range: write A..B with A below B; B is not included
    --positions 5..2: error: `5..2` is no range: write A..B with A below B; B is not included
    --positions 3..9: error: no position is selected: the run has positions 0..3
    --positions first: error: `first` is no range: write A..B with A below B; B is not included
    "#);
}

#[test]
fn places_that_take_no_trace() {
    let ground = Ground::new();
    std::fs::write(ground.path("notes.txt"), "dear diary").unwrap();
    std::fs::create_dir(ground.path("folder")).unwrap();
    std::fs::copy(fixture("llama/plain.f32.gguf"), ground.path("model.gguf")).unwrap();
    let at = |name: &str| ground.path(name).to_str().unwrap().to_owned();
    let outs = [
        at("folder"),
        at("nowhere/out"),
        at("notes.txt/out"),
        at("notes.txt"),
        at("model.gguf"),
        "/dev/full".to_owned(),
        "/dev/null".to_owned(),
    ];
    let cases: Vec<[&str; 2]> = outs.iter().map(|out| ["--out", out]).collect();
    let cases: Vec<&[&str]> = cases.iter().map(|case| &case[..]).collect();
    insta::assert_snapshot!(ground.refusals(&["--tokens", "1"], &cases), @r#"
    --out [dir]/folder: error: [dir]/folder: this is a folder: give --out a file in it
    --out [dir]/nowhere/out: error: [dir]/nowhere: cannot open the folder: No such file or directory (os error 2)
    --out [dir]/notes.txt/out: error: [dir]/notes.txt/out: cannot open for appending: Not a directory (os error 20)
    --out [dir]/notes.txt: error: [dir]/notes.txt: this is no actrace file
    --out [dir]/model.gguf: error: [dir]/model.gguf: this is no actrace file
    --out /dev/full: error: /dev/full: this is no actrace file
    --out /dev/null: error: /dev/null: this is no actrace file
    "#);
}

#[test]
fn a_label_that_the_file_has_is_refused_and_the_file_stays() {
    let ground = Ground::new();
    let plain = fixture("llama/plain");
    let args = ["--model", plain.to_str().unwrap(), "--tokens", "1", "--label", "before", "--out", "{out}"];
    assert_eq!(ground.record(&args).status, 0);
    insta::assert_snapshot!(ground.refused("sealed", &args), @"sealed: error: the file already has a run `before`: choose another --label");
    // A torn file would be cut by the next run, and is not by a refused one.
    let mut torn = std::fs::read(ground.path("out")).unwrap();
    torn.extend_from_slice(b"half a frame");
    std::fs::write(ground.path("out"), torn).unwrap();
    insta::assert_snapshot!(ground.refused("torn", &args), @"torn: error: the file already has a run `before`: choose another --label");
}

/// A file size limit stands for a full disk: both fail a write in the middle.
#[test]
fn a_disk_that_is_full_in_the_middle_of_a_run_keeps_the_runs_before() {
    let ground = Ground::new();
    let plain = fixture("llama/plain");
    let args = ["--model", plain.to_str().unwrap(), "--tokens", "1,2", "--out", "{out}"];
    assert_eq!(ground.record(&args).status, 0);
    let before = std::fs::read(ground.path("out")).unwrap();
    let limit = before.len().div_ceil(512) + 4;
    let full = ground.record_limited(limit, &args);
    assert_eq!(full.status, 2, "{}", full.stderr);
    insta::assert_snapshot!(ground.redacted(&full.one_error()), @"error: [dir]/out: cannot write: the file would exceed the size limit of this process or file system (see ulimit -f); every whole frame written so far stays readable, and the next recording goes on behind them: File too large (os error 27)");
    let after = std::fs::read(ground.path("out")).unwrap();
    assert!(after.starts_with(&before) && after.len() > before.len());
    let out = ground.path("out");
    let verified = run(actrace("verify").arg(&out));
    assert_eq!(verified.status, 1, "what was cut short is not sealed: {}", verified.stdout);
    assert_eq!(ground.record(&args).status, 0, "the next run goes on behind the last whole frame");
    assert_eq!(run(actrace("verify").arg(&out)).status, 0);
}

/// What nobody can read is no reason for a panic, which would be a status of 101.
#[test]
fn a_full_standard_error_or_output_is_no_panic() {
    let ground = Ground::new();
    let plain = fixture("llama/plain");
    let args = ["--model", plain.to_str().unwrap(), "--tokens", "1", "--out", "{out}"];
    assert_eq!(ground.record_into("2>/dev/full", &args).status, 0);
    assert_eq!(ground.record_into("2>&-", &args).status, 0);
    assert_eq!(ground.record_into("2>/dev/full", &["--model", "none", "--tokens", "1", "--out", "{out}"]).status, 2);
    let full = ground.record_into(">/dev/full", &args);
    assert_eq!(
        (full.status, full.one_error()),
        (2, "error: cannot write to stdout: No space left on device (os error 28)".to_owned())
    );
}
