//! A dump that could be taken for something else is refused with one line, and the trace stays as it is.

use crate::command::{Ground, actrace, run};
use crate::imports::{Held, bits, bytes, import_of, write_safetensors};
use crate::support::{families, fixture};
use actrace::backend::Captured;
use actrace::forward::{Observer, StepReport, Wanted};
use actrace::graph::{Graph, RowAxes, SiteId};
use actrace::import::{Dump, Import, Mapping, Setting};
use std::ops::Range;
use std::path::Path;

const TOKENS: &str = "1,2,3";

/// Three rows of two elements that are all different.
fn rows() -> Vec<u8> {
    bytes(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
}

/// What an import of `dump` is refused with; nothing was written.
fn refusal(ground: &Ground, dump: &Path, args: &[&str]) -> String {
    let refused = import_of(ground, &[dump], TOKENS, "x", args);
    assert_eq!((refused.status, refused.stdout.as_str()), (2, ""), "{args:?}: {}", refused.stderr);
    assert!(!ground.path("runs.actrace").exists(), "{args:?}");
    let errors: Vec<&str> = refused.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    let [error] = errors[..] else { panic!("one error line in {}", refused.stderr) };
    ground.redacted(error)
}

#[test]
fn names_without_one_meaning() {
    let ground = Ground::new();
    let dump = ground.path("dump.safetensors");
    let of = |names: &[&str], args: &[&str]| {
        let tensors: Vec<_> = names.iter().map(|name| (*name, "F32", &[3usize, 2][..], rows())).collect();
        write_safetensors(&dump, &tensors);
        refusal(&ground, &dump, args)
    };
    let lines = [
        of(&["00.ffn_up", "00.ffn_upp", "bias"], &["--map", "hf"]),
        of(&["00.ffn_up", "model.layers.0.mlp.up_proj"], &["--map", "hf"]),
        of(&["00.ffn_up", "0.ffn_up"], &["--map", "hf"]),
        of(&["ffn_up-0#0:MUL_MAT"], &["--map", "llama.cpp"]),
        of(&["model.layers.0.self_attn.qkv_proj"], &["--map", "hf", "--architecture", "phi3"]),
        of(&["00.ffn_up", "bias"], &["--map", "hf", "--ignore", "bias", "--ignore", "norm*"]),
        of(&["00.ffn_up", "bias"], &["--map", "hf", "--ignore", "["]),
        of(&["00.ffn_up"], &["--map", "hf", "--ignore", "*"]),
        of(&["03.ffn_up"], &["--map", "hf", "--layers", "3"]),
        of(&["99999.ffn_up"], &["--map", "hf"]),
        of(&["00.ffn_up"], &["--map", "hf", "--architecture", "qwen"]),
        of(&["00.moe_topk"], &["--map", "hf"]),
    ];
    insta::assert_snapshot!(lines.join("\n"), @r#"
    error: 2 tensors have no meaning in the mapping: 00.ffn_upp, bias; add a --map that says what they are, or leave them out with --ignore GLOB
    error: layer 0 ffn_up is in two tensors, 00.ffn_up and model.layers.0.mlp.up_proj: leave one out with --ignore
    error: layer 0 ffn_up is in two tensors, 0.ffn_up and 00.ffn_up: leave one out with --ignore
    error: [dir]/dump.safetensors: tensor ffn_up-0#0:MUL_MAT: at byte 82: what this name means depends on the architecture: give --model, or --architecture NAME
    error: [dir]/dump.safetensors: tensor model.layers.0.self_attn.qkv_proj: at byte 97: q, k, v lie side by side, and how wide each is says only the model: give --model
    error: --ignore norm* matches no tensor of the dump
    error: `[` is no pattern for names: error parsing glob '[': unclosed character class; missing ']'
    error: no tensor of the dump is left: there is nothing to import
    error: tensor 03.ffn_up: it is of layer 3, and the model has 3 layers
    error: tensor 99999.ffn_up: 100000 layers are more than the 4096 that are supported
    error: `qwen` is no architecture: did you mean `qwen2`? known are qwen2, llama, gpt2, mistral, qwen3, gemma2, gemma3, phi3, gpt_neox, mixtral, qwen2_moe, qwen3_moe
    error: 1 tensor has no meaning in the mapping: 00.moe_topk; add a --map that says what they are, or leave them out with --ignore GLOB
    "#);
}

#[test]
fn tensors_that_are_not_what_their_names_say() {
    let ground = Ground::new();
    let dump = ground.path("dump.safetensors");
    let plain = fixture("llama/plain");
    let model = ["--map", "hf", "--model", plain.to_str().unwrap()];
    let alone = ["--map", "hf"];
    let of = |name: &str, dtype: &str, shape: &[usize], args: &[&str]| {
        let elements: usize = shape.iter().product();
        let size = if dtype == "F32" { 4 } else { 8 };
        write_safetensors(&dump, &[(name, dtype, shape, vec![0; elements * size])]);
        refusal(&ground, &dump, args)
    };
    let lines = [
        of("00.ffn_up", "F32", &[4, 2], &alone),
        of("logits", "F32", &[2, 8], &alone),
        of("00.ffn_up", "F32", &[1, 2], &alone),
        of("00.ffn_up", "F32", &[2, 3, 2], &alone),
        of("00.ffn_up", "F32", &[6], &alone),
        of("00.ffn_up", "F32", &[3, 0], &alone),
        of("00.ffn_up", "F64", &[3, 2], &alone),
        of("00.qkv", "F32", &[3, 8], &alone),
        of("00.attn_probs", "F32", &[2, 3, 2], &alone),
        of("00.ffn_up", "F32", &[3, 95], &model),
        of("00.q_rope", "F32", &[3, 2, 32], &model),
        of("00.attn_probs", "F32", &[3, 3, 3], &model),
        of("00.attn_post_norm", "F32", &[3, 64], &model),
        of("07.ffn_up", "F32", &[3, 96], &model),
    ];
    insta::assert_snapshot!(lines.join("\n"), @r#"
    error: [dir]/dump.safetensors: tensor 00.ffn_up: at byte 73: shape [4, 2] has 4 rows, and 3 tokens are given: a dump has one row for each token
    error: [dir]/dump.safetensors: tensor logits: at byte 70: shape [2, 8] has 2 rows, and 3 tokens are given: a dump has one row for each token, or one for the last
    error: [dir]/dump.safetensors: tensor 00.ffn_up: at byte 72: shape [1, 2] has 1 row, and 3 tokens are given: a dump has one row for each token
    error: [dir]/dump.safetensors: tensor 00.ffn_up: at byte 75: shape [2, 3, 2] is a batch of 2 sequences: one sequence makes a run
    error: [dir]/dump.safetensors: tensor 00.ffn_up: at byte 71: shape [6] is not [tokens, width]
    error: [dir]/dump.safetensors: tensor 00.ffn_up: at byte 72: shape [3, 0] has an empty axis
    error: [dir]/dump.safetensors: tensor 00.ffn_up: at byte 73: element type F64 makes no rows: f32, f16 and bf16 do
    error: [dir]/dump.safetensors: tensor 00.qkv: at byte 70: rows of 8 elements do not divide into q, k, v
    error: [dir]/dump.safetensors: tensor 00.attn_probs: at byte 79: rows of 2 keys, and 3 tokens are given
    error: [dir]/dump.safetensors: tensor 00.ffn_up: at byte 76: a row is 95 elements, and layer 0 ffn_up has 96 elements
    error: [dir]/dump.safetensors: tensor 00.q_rope: at byte 77: a row is 2 heads of 32, and layer 0 q_rope has 4 heads of 16
    error: [dir]/dump.safetensors: tensor 00.attn_probs: at byte 80: a row is 3 heads of keys, and layer 0 attn_probs has 4 heads of keys
    error: [dir]/dump.safetensors: tensor 00.attn_post_norm: at byte 83: the model has no layer 0 attn_post_norm
    error: tensor 07.ffn_up: it is of layer 7, and the model has 2 layers
    "#);
}

/// A causal mask in the wrong place means that the axes are others than the mapping says.
#[test]
fn values_that_no_query_sees() {
    let ground = Ground::new();
    let dump = ground.path("dump.safetensors");
    let mut probs = vec![0.0; 2 * 3 * 3];
    for (head, query, key) in (0..18).map(|at| (at / 9, at / 3 % 3, at % 3)) {
        probs[head * 9 + query * 3 + key] = if key <= query { 1.0 / (query + 1) as f32 } else { 0.0 };
    }
    let turned: Vec<f32> = (0..18).map(|at| probs[at / 9 * 9 + at % 3 * 3 + at / 3 % 3]).collect();
    let of = |values: &[f32], args: &[&str]| {
        write_safetensors(&dump, &[("00.attn_probs", "F32", &[2, 3, 3], bytes(values))]);
        refusal(&ground, &dump, args)
    };
    let mapping = ground.path("masked.toml");
    let text = "[[tensor]]\nnames = [\"{layer}.attn_probs\"]\npoint = \"attn_scores\"\n\
                axes = [\"heads\", \"tokens\", \"keys\"]\nmasked = \"-inf\"\n";
    std::fs::write(&mapping, text).unwrap();
    let mut hidden = probs.clone();
    hidden[9 + 3 + 2] = f32::NAN;
    let lines = [
        of(&turned, &["--map", "hf"]),
        of(&hidden, &["--map", "hf"]),
        of(&probs, &["--map", mapping.to_str().unwrap()]),
        of(&probs, &["--map", mapping.to_str().unwrap(), "--map", "hf"]),
    ];
    insta::assert_snapshot!(lines.join("\n"), @r#"
    error: [dir]/dump.safetensors: tensor 00.attn_probs: at byte 79: head 0 of position 0 has 0.5 at key 1, which the position does not see: the mapping says 0 there
    error: [dir]/dump.safetensors: tensor 00.attn_probs: at byte 79: head 1 of position 1 has NaN at key 2, which the position does not see: the mapping says 0 there
    error: [dir]/dump.safetensors: tensor 00.attn_probs: at byte 79: head 0 of position 0 has 0 at key 1, which the position does not see: the mapping says -inf there
    error: [dir]/dump.safetensors: tensor 00.attn_probs: at byte 79: the mapping has two meanings for it, attn_scores and attn_probs: leave it out with --ignore, or change the mapping
    "#);

    let scores: Vec<f32> = (0..18).map(|at| if at % 3 > at / 3 % 3 { f32::NEG_INFINITY } else { at as f32 }).collect();
    write_safetensors(&dump, &[("00.attn_probs", "F32", &[2, 3, 3], bytes(&scores))]);
    let imported = import_of(&ground, &[&dump], TOKENS, "scores", &["--map", mapping.to_str().unwrap()]);
    assert_eq!(imported.status, 0, "{}", imported.stderr);
    let held = Held::of(&ground, "scores").rows(0, "attn_scores");
    assert_eq!(held[&1], [3.0, 4.0, 12.0, 13.0]);
}

/// With the model a window is known: keys before it are no part of a row.
#[test]
fn keys_before_the_window() {
    let ground = Ground::new();
    let dump = ground.path("dump.safetensors");
    let model = families::folder("qwen2-window");
    let args = ["--map", "hf", "--model", model.path().to_str().unwrap()];
    let graph = Graph::of(&model).unwrap();
    let windowed = graph.sites.iter().find_map(|site| match site.axes {
        RowAxes::Keys { heads, window: Some(window) } => Some((site.layer.unwrap(), heads, window)),
        _ => None,
    });
    let (layer, heads, window) = windowed.expect("a layer with a window");
    let (heads, window) = (heads as usize, window as usize);
    let tokens = window + 2;
    let ids = vec!["1"; tokens].join(",");
    let mut probs = vec![0.0f32; heads * tokens * tokens];
    for (at, value) in probs.iter_mut().enumerate() {
        let (query, key) = (at / tokens % tokens, at % tokens);
        *value = if key <= query && key + window > query { 1.0 + at as f32 } else { 0.0 };
    }
    let name = format!("{layer}.attn_probs");
    let write = |values: &[f32]| {
        write_safetensors(&dump, &[(name.as_str(), "F32", &[heads, tokens, tokens], bytes(values))]);
    };
    write(&probs);
    let imported = import_of(&ground, &[&dump], &ids, "window", &args);
    assert_eq!(imported.status, 0, "{}", imported.stderr);
    let rows = Held::of(&ground, "window").rows(layer as i32, "attn_probs");
    for (position, row) in rows {
        let query = position as usize;
        let seen = (query + 1).saturating_sub(window)..query + 1;
        let expected: Vec<f32> =
            (0..heads).flat_map(|head| probs[(head * tokens + query) * tokens..][seen.clone()].to_vec()).collect();
        assert_eq!(row, expected, "{position}");
    }
    probs[(tokens - 1) * tokens] = 0.5;
    write(&probs);
    let refused = import_of(&ground, &[&dump], &ids, "beyond", &args);
    let expected = format!("head 0 of position {} has 0.5 at key 0, which the position does not see", tokens - 1);
    assert!(refused.status == 2 && refused.stderr.contains(&expected), "{}", refused.stderr);
}

/// Points side by side come apart as the model says.
#[test]
fn fused_projections_come_apart() {
    for (family, name) in [
        ("phi3", "model.layers.1.self_attn.qkv_proj"),
        ("phi3", "model.layers.1.mlp.gate_up_proj"),
        ("gpt_neox", "gpt_neox.layers.1.attention.query_key_value"),
    ] {
        let ground = Ground::new();
        let dump = ground.path("dump.safetensors");
        let model = families::folder(family);
        let graph = Graph::of(&model).unwrap();
        let points: &[&str] = if name.contains("gate_up") { &["ffn_gate", "ffn_up"] } else { &["q", "k", "v"] };
        let axes: Vec<_> = points.iter().map(|point| graph.site(Some(1), point).unwrap().axes).collect();
        let widths: Vec<usize> = axes.iter().map(|axes| axes.width().unwrap() as usize).collect();
        let whole: usize = widths.iter().sum();
        let values: Vec<f32> = (0..3 * whole).map(|at| at as f32).collect();
        write_safetensors(&dump, &[(name, "F32", &[1, 3, whole], bytes(&values))]);
        let args = ["--map", "hf", "--model", model.path().to_str().unwrap()];
        let imported = import_of(&ground, &[&dump], TOKENS, "fused", &args);
        assert_eq!(imported.status, 0, "{}", imported.stderr);
        let held = Held::of(&ground, "fused");
        for (part, point) in points.iter().enumerate() {
            let start: usize = widths[..part].iter().sum();
            let expected = |row: &[f32]| match axes[part] {
                // q, k and v of each head side by side.
                RowAxes::Heads { dim, .. } if family == "gpt_neox" => row
                    .chunks_exact(3 * dim as usize)
                    .flat_map(|head| head[part * dim as usize..][..dim as usize].to_vec())
                    .collect::<Vec<_>>(),
                _ => row[start..start + widths[part]].to_vec(),
            };
            let expected: Vec<f32> = values.chunks_exact(whole).flat_map(expected).collect();
            assert_eq!(held.bits(1, point), bits(&expected), "{family} {point}");
        }
        // One element more or less divides into nothing.
        let ground = Ground::new();
        write_safetensors(&dump, &[(name, "F32", &[3, whole - 1], vec![0; 3 * (whole - 1) * 4])]);
        let refused = import_of(&ground, &[&dump], TOKENS, "odd", &args);
        assert!(refused.status == 2 && refused.stderr.contains("do not divide into"), "{}", refused.stderr);
    }
}

#[test]
fn mappings_and_options_that_make_no_sense() {
    let ground = Ground::new();
    let dump = ground.path("dump.safetensors");
    write_safetensors(&dump, &[("00.ffn_up", "F32", &[3, 2], rows())]);
    let mapping = ground.path("wrong.toml");
    std::fs::write(&mapping, "[[tensor]]\nnames = [\"{layer}.ffn_up\"]\npoint = \"ffn_upp\"\n").unwrap();
    let wrong = mapping.to_str().unwrap();
    let lines = [
        refusal(&ground, &dump, &["--map", wrong]),
        refusal(&ground, &dump, &["--map", "huggingface"]),
        refusal(&ground, &ground.path("nothing"), &["--map", "hf"]),
        refusal(&ground, &mapping, &["--map", "hf"]),
        refusal(&ground, &fixture("tokenizer"), &["--map", "hf"]),
    ];
    insta::assert_snapshot!(lines.join("\n"), @r#"
    error: [dir]/wrong.toml: line 3: `ffn_upp` is no capture point: did you mean `ffn_up`?
    error: huggingface: cannot read the mapping (by name, without a path, there are hf and llama.cpp): No such file or directory (os error 2)
    error: [dir]/nothing: cannot open the dump: No such file or directory (os error 2)
    error: [dir]/wrong.toml: no dump: .safetensors and .npy files are, and folders of them
    error: [package]/tests/fixtures/tokenizer: no .safetensors and no .npy file is in this folder
    "#);

    let plain = fixture("llama/plain");
    let with_model = ["--map", "hf", "--model", plain.to_str().unwrap()];
    for (tokens, args, expected) in [
        ("", &["--map", "hf"][..], "no token is given"),
        ("1,2,x", &["--map", "hf"][..], "`x` is no token id"),
        ("1,2", &["--map", "hf"][..], "has 3 rows, and 2 tokens are given"),
        ("1,2,3,4", &["--map", "hf"][..], "has 3 rows, and 4 tokens are given"),
        ("1,2,9999", &with_model[..], "token id 9999 at position 2 is out of range"),
    ] {
        let refused = import_of(&ground, &[&dump], tokens, "x", args);
        assert!(refused.status == 2 && refused.stderr.contains(expected), "{tokens}: {}", refused.stderr);
    }

    let imported = import_of(&ground, &[&dump], TOKENS, "one", &["--map", "hf"]);
    assert_eq!(imported.status, 0, "{}", imported.stderr);
    let before = std::fs::read(ground.path("runs.actrace")).unwrap();
    let again = import_of(&ground, &[&dump], TOKENS, "one", &["--map", "hf"]);
    assert!(again.stderr.contains("the file already has a run `one`"), "{}", again.stderr);
    let empty = import_of(&ground, &[&dump], TOKENS, "", &["--map", "hf"]);
    assert!(empty.stderr.contains("an empty --label names nothing"), "{}", empty.stderr);
    assert!(std::fs::read(ground.path("runs.actrace")).unwrap() == before, "a refusal leaves the trace as it is");
}

/// What is left out is told with its reason, on stderr, in the report and in the run's record.
#[test]
fn what_is_left_out_is_told() {
    let ground = Ground::new();
    let dump = ground.path("dump.safetensors");
    let names = ["00.ffn_up", "h.0.mlp", "bias.a", "bias.b"];
    write_safetensors(&dump, &names.map(|name| (name, "F32", &[3usize, 2][..], rows())));
    let args = ["--map", "hf", "--layers", "1", "--ignore", "bias.*", "--json"];
    let imported = import_of(&ground, &[&dump], TOKENS, "x", &args);
    assert_eq!(imported.status, 0, "{}", imported.stderr);
    let reason = "a module that wraps others: its output is that of its last one";
    let told = format!("left out: 2 (--ignore bias.*): bias.a, bias.b\nleft out: 1 ({reason}): h.0.mlp\n");
    assert_eq!(imported.stderr, told);
    let report = imported.json();
    assert_eq!(report["left_out"].as_array().unwrap().len(), 3);
    assert_eq!(report["left_out"][2], serde_json::json!({ "name": "h.0.mlp", "reason": reason }));
    let held = Held::of(&ground, "x");
    let extra = held.run().identity.extra.iter().filter(|pair| pair.key == "left_out");
    let recorded: Vec<_> = extra.map(|pair| (pair.value.as_str(), pair.source.as_str())).collect();
    assert_eq!(recorded, [("bias.a", "--ignore bias.*"), ("bias.b", "--ignore bias.*"), ("h.0.mlp", reason)]);
}

#[test]
fn help_opens_with_an_example() {
    let help = run(actrace("import").arg("--help")).stdout;
    assert!(help.starts_with("Example:\n  actrace import dump.safetensors --map hf "), "{help}");
}

/// Takes everything and keeps nothing.
struct Sink(u64);

impl Observer for Sink {
    fn wants(&mut self, _: SiteId, positions: Range<usize>) -> Option<Wanted> {
        Some(Wanted { rows: 0..positions.len(), values: true })
    }
    fn capture(&mut self, _: u32, _: SiteId, _: usize, rows: Captured) -> actrace::Result<()> {
        self.0 += rows.rows() as u64;
        Ok(())
    }
    fn step(&mut self, _: &StepReport) -> actrace::Result<()> {
        Ok(())
    }
}

/// Opens a dump and reads every row; how many there are.
fn read_all(path: &Path, mapping: &Mapping, tokens: &[u32]) -> actrace::Result<u64> {
    let dump = Dump::open(&[path.to_owned()])?;
    let setting = Setting { tokens, model: None, architecture: None, layers: None, ignore: &[] };
    let mut sink = Sink(0);
    Import::new(&dump, mapping, setting)?.show(&mut sink)?;
    Ok(sink.0)
}

/// A safetensors file with this header and `data` bytes behind it, none of which is written.
fn sparse(path: &Path, header: &str, data: u64) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + data).unwrap();
}

#[test]
fn headers_that_lie() {
    let ground = Ground::new();
    let mapping = Mapping::open("hf").unwrap();
    let path = ground.path("dump.safetensors");
    let of = |header: &str, data: u64| {
        sparse(&path, header, data);
        ground.redacted(&read_all(&path, &mapping, &[1, 2, 3]).unwrap_err().to_string())
    };
    let tensor = |name: &str, shape: &str, start: u64, end: u64| {
        format!(r#""{name}":{{"dtype":"F32","shape":{shape},"data_offsets":[{start},{end}]}}"#)
    };
    let one = |shape: &str, start: u64, end: u64| format!("{{{}}}", tensor("logits", shape, start, end));
    let two = |first: u64, second: u64| {
        let (first, second) =
            (tensor("logits", "[3,2]", first, first + 24), tensor("embed", "[3,2]", second, second + 24));
        format!("{{{first},{second}}}")
    };
    let npy = |descr: &str, shape: &str, data: usize| {
        let path = ground.path("logits.npy");
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.bytes().chain(std::iter::repeat_n(0, data)));
        std::fs::write(&path, bytes).unwrap();
        ground.redacted(&read_all(&path, &mapping, &[1, 2, 3]).unwrap_err().to_string())
    };
    let lines = [
        of(&one("[3,2]", 0, 24), 23),
        of(&one("[3,3]", 0, 24), 24),
        of(&one("[3,2]", 24, 0), 24),
        of(&one("[18446744073709551615,18446744073709551615,2]", 0, 24), 24),
        of(&one("[3,18446744073709551616]", 0, 24), 24),
        of(&one("[0,18446744073709551615,18446744073709551615]", 0, 0), 24),
        of(&one("[3,2]", u64::MAX - 24, u64::MAX), 24),
        of(&two(0, 16), 64),
        of(&one("[]", 0, 4), 4),
        of("{", 0),
        of("{}", 0),
        // A row of 80 MB: more than a frame may hold, and refused before it is read.
        of(&one("[3,20000000]", 0, 240_000_000), 240_000_000),
        npy("<f4", "(3, 2)", 20),
        npy("<f4", "(3, 18446744073709551615)", 24),
        npy(">f4", "(3, 2)", 24),
        npy("<f8", "(3, 2)", 48),
        npy("<f4", "(3, -2)", 24),
    ];
    insta::assert_snapshot!(lines.join("\n"), @r#"
    [dir]/dump.safetensors: tensor logits: the file is cut short: data_offsets 0..24 end beyond its 93 bytes
    [dir]/dump.safetensors: tensor logits: at byte 70: 24 bytes do not hold [3, 3] of f32
    [dir]/dump.safetensors: tensor logits: data_offsets 24..0 end before they begin
    [dir]/dump.safetensors: tensor logits: at byte 110: 24 bytes do not hold [18446744073709551615, 18446744073709551615, 2] of f32
    [dir]/dump.safetensors: at byte 8: the safetensors header is no proper JSON: invalid type: floating point `1.8446744073709552e+19`, expected u64 at line 1 column 56
    [dir]/dump.safetensors: tensor logits: at byte 109: a tensor of shape [0, 18446744073709551615, 18446744073709551615] is too large
    [dir]/dump.safetensors: tensor logits: the file is cut short: data_offsets 18446744073709551591..18446744073709551615 end beyond its 131 bytes
    [dir]/dump.safetensors: tensor embed: at byte 147: it overlaps tensor logits
    [dir]/dump.safetensors: tensor logits: at byte 66: shape [] is not [tokens, width]
    [dir]/dump.safetensors: at byte 8: the safetensors header is no proper JSON: EOF while parsing an object at line 1 column 1
    no tensor of the dump is left: there is nothing to import
    [dir]/dump.safetensors: tensor logits: at byte 84: a row of it is above the 67108864 bytes that a frame may hold: leave it out with --ignore
    [dir]/logits.npy: tensor logits: at byte 69: 20 bytes do not hold [3, 2] of f32
    [dir]/logits.npy: tensor logits: at byte 88: 24 bytes do not hold [3, 18446744073709551615] of f32
    [dir]/logits.npy: tensor logits: at byte 69: element type >f4 makes no rows: f32, f16 and bf16 do
    [dir]/logits.npy: tensor logits: at byte 69: element type <f8 makes no rows: f32, f16 and bf16 do
    [dir]/logits.npy: at byte 64: the .npy header is not {'descr': '<f4', 'fortran_order': False, 'shape': (1, 2)}
    "#);
    std::fs::write(&path, b"").unwrap();
    assert!(read_all(&path, &mapping, &[1]).unwrap_err().to_string().contains("the file is cut short"));
    assert!(read_all(ground.path("").as_path(), &mapping, &[1]).is_err());
}

/// Whatever a header says after some of its bytes were changed, the import ends with rows or an error.
#[test]
fn damaged_dumps_never_panic() {
    let ground = Ground::new();
    let mapping = Mapping::open("hf").unwrap();
    let mut random = 88172645463325252u64;
    let mut below = |bound: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % bound as u64) as usize
    };
    let dump = ground.path("logits.safetensors");
    let tensors = [("00.attn_probs", "F32", &[2usize, 3, 3][..], vec![0; 72]), ("logits", "F16", &[3, 2], vec![0; 12])];
    write_safetensors(&dump, &tensors);
    let npy = fixture("npy/dump/logits.npy");
    let (mut accepted, mut refused) = (0, 0);
    for (file, original) in
        [("logits.safetensors", std::fs::read(&dump).unwrap()), ("logits.npy", std::fs::read(npy).unwrap())]
    {
        let path = ground.path(file);
        for _ in 0..1000 {
            let mut bytes = original.clone();
            for _ in 0..=below(3) {
                let at = below(bytes.len());
                bytes[at] = b"0123456789,[]{}()'\"-F\xff"[below(22)];
            }
            bytes.truncate(if below(4) == 0 { below(bytes.len()) } else { bytes.len() });
            std::fs::write(&path, bytes).unwrap();
            match read_all(&path, &mapping, &[1, 2, 3]) {
                Ok(rows) => accepted += usize::from(rows > 0),
                Err(error) => {
                    refused += 1;
                    assert_ne!(error.kind(), actrace::ErrorKind::Internal, "{error}");
                }
            }
        }
    }
    assert!(accepted > 50 && refused > 500, "{accepted} accepted, {refused} refused");
}
