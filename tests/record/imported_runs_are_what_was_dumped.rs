//! A run that was imported holds the dump's values bit for bit, at the points that its names mean.

use crate::command::{Ground, actrace, json, run};
use crate::imports::{Held, bits, bytes, import, import_of, tokens, whole, write_safetensors};
use crate::running::{json as fixture_json, prompt};
use crate::support::safetensors::{Tensor, read};
use crate::support::{fixture, model};
use actrace::backend::Choice;
use actrace::compare::{Comparison, Verdict};
use actrace::open::TraceSet;
use std::collections::BTreeMap;

/// Columns `part` of `parts` of rows of the last axis.
fn part(tensor: &Tensor, part: usize, parts: usize) -> Vec<f32> {
    let whole = *tensor.shape.last().unwrap();
    let width = whole / parts;
    tensor.values.chunks_exact(whole).flat_map(|row| row[part * width..][..width].to_vec()).collect()
}

/// `[head, query, key]` as rows of `[head, visible key]`.
fn visible(tensor: &Tensor) -> Vec<f32> {
    let [heads, queries, keys] = tensor.shape[..] else { panic!("shape {:?}", tensor.shape) };
    let row = |head: usize, query: usize| &tensor.values[(head * queries + query) * keys..][..=query];
    (0..queries).flat_map(|query| (0..heads).flat_map(move |head| row(head, query).to_vec())).collect()
}

/// Every point of a Hugging Face reference, with the values that it should have.
fn hf_points(tensors: &BTreeMap<String, Tensor>) -> Vec<(i32, String, String, Vec<f32>)> {
    let mut points = Vec::new();
    for (name, tensor) in tensors {
        let (layer, point) = match name.split_once('.') {
            Some((layer, point)) => (layer.parse().unwrap(), point),
            None => (-1, name.as_str()),
        };
        match point {
            "qkv" => points
                .extend((0..3).map(|at| (layer, ["q", "k", "v"][at].to_owned(), name.clone(), part(tensor, at, 3)))),
            "attn_probs" => points.push((layer, point.to_owned(), name.clone(), visible(tensor))),
            _ => points.push((layer, point.to_owned(), name.clone(), tensor.values.clone())),
        }
    }
    points
}

#[test]
fn hugging_face_references_with_the_model_and_without() {
    let ground = Ground::new();
    for name in ["tiny-qwen2", "tiny-gpt2"] {
        let path = fixture(&format!("reference/{name}.hf-f32.safetensors"));
        let folder = model(&format!("{name}.safetensors"));
        let with_model = ["--map", "hf", "--model", folder.to_str().unwrap()];
        for (label, args) in [(format!("{name} alone"), &with_model[..2]), (format!("{name} with model"), &with_model)]
        {
            let imported = import(&ground, &path, &label, args);
            assert_eq!(imported.status, 0, "{}", imported.stderr);
            let held = Held::of(&ground, &label);
            let points = hf_points(&read(&path));
            assert_eq!(held.captured(), points.len(), "{label}");
            for (layer, point, source, expected) in points {
                assert_eq!(held.bits(layer, &point), bits(&expected), "{label}: {layer} {point}");
                let site = held.site(layer, &point);
                assert_eq!((site.source_name.as_str(), site.confidence, site.dtype.as_str()), (&*source, 90, "f32"));
            }
        }
    }
}

#[test]
fn the_run_says_what_it_is() {
    let ground = Ground::new();
    let path = fixture("reference/tiny-qwen2.hf-f32.safetensors");
    let folder = model("tiny-qwen2.safetensors");
    let args = ["--map", "hf", "--engine-version", "5.0", "--device", "cpu", "--kv-type", "f32"];
    let imported = import(&ground, &path, "alone", &args);
    assert_eq!(imported.status, 0, "{}", imported.stderr);
    assert_eq!(imported.stderr, "layers: 6, as many as the dump has (no --model, no --layers)\n");
    let held = Held::of(&ground, "alone");
    let identity = &held.run().identity;
    let said = [&identity.kind, &identity.engine, &identity.engine_version, &identity.device_kind, &identity.kv_type];
    assert_eq!(said, ["import", "transformers", "5.0", "cpu", "f32"]);
    assert_eq!((identity.semantics.as_str(), identity.weight_type.as_str(), identity.cpu.as_str()), ("", "", ""));
    assert_eq!(identity.prompt_tokens, prompt());
    let dump = &identity.extra[0];
    let hash = actrace::open::hex(blake3::hash(&std::fs::read(&path).unwrap()).as_bytes());
    assert_eq!((dump.key.as_str(), dump.source.as_str()), ("dump", &*format!("blake3:{hash}")));

    let step = held.step();
    assert_eq!((step.token.clone(), step.position.clone()), (prompt(), (0..12).collect()));
    let continuation = &fixture_json("reference/prompt.json")["greedy_continuation_hf_f32"]["tiny-qwen2"];
    assert_eq!(u64::from(step.next_token), continuation[0].as_u64().unwrap());
    let logits = held.rows(-1, "logits")[&11].clone();
    assert_eq!(step.logits_fingerprint, Choice::of(&logits).fingerprint);

    // What the dump lacks is there as not captured, in forward order, and has no row.
    let missing = held.site(3, "q_rope");
    assert_eq!((missing.status, missing.reason.as_str()), (3, "not in the dump"));
    assert!(held.rows(3, "q_rope").is_empty());
    assert!(held.sites().is_sorted_by_key(|site| (site.ordinal, site.occurrence)));

    // With the model, operations, inputs and hashes are those of a recording of it.
    let imported = import(&ground, &path, "with model", &["--map", "hf", "--model", folder.to_str().unwrap()]);
    assert_eq!(imported.status, 0, "{}", imported.stderr);
    let mut record = actrace("record");
    record.arg("--model").arg(&folder).args(["--tokens", &tokens(), "--label", "own"]);
    assert_eq!(run(record.arg("--out").arg(ground.path("runs.actrace"))).status, 0);
    let (ours, theirs) = (Held::of(&ground, "own"), Held::of(&ground, "with model"));
    assert_eq!(ours.run().identity.model_hash, theirs.run().identity.model_hash);
    assert_eq!(ours.run().plan.weights, theirs.run().plan.weights);
    for (own, imported) in ours.sites().iter().zip(theirs.sites()) {
        let place = |site: &actrace::record::SiteV1| {
            let site = site.clone();
            (site.layer, site.point, site.ordinal, site.operation, site.inputs, site.weights, site.axes, site.width)
        };
        assert_eq!(place(own), place(imported));
    }
    let verified = run(actrace("verify").arg(ground.path("runs.actrace")));
    assert_eq!(verified.status, 0, "{}", verified.stderr);
    let info = run(actrace("info").arg(ground.path("runs.actrace"))).stdout;
    assert!(info.contains("finished, 1 steps; import of transformers; cpu\n"), "{info}");
}

/// llama.cpp's name of a point in a fixture, and which third of it.
fn node(architecture: &str, layer: i32, point: &str) -> Option<(String, usize)> {
    let third = ["q", "k", "v"].iter().position(|part| point.trim_end_matches("_matmul") == *part);
    let name = match (architecture, point) {
        (_, "tok_embed") => "embd#0:GET_ROWS".to_owned(),
        (_, "logits") => "result_output#0:MUL_MAT".to_owned(),
        (_, "attn_ctx") => format!("kqv_out-{layer}#0:CONT"),
        (_, "resid_mid") => format!("ffn_inp-{layer}#0:ADD"),
        (_, "resid_post") => format!("l_out-{layer}#0:ADD"),
        ("qwen2", "attn_norm" | "ffn_norm") => format!("{point}-{layer}#0:MUL"),
        ("qwen2", "q_matmul") => format!("Qcur-{layer}#0:MUL_MAT"),
        ("qwen2", "k_matmul") => format!("Kcur-{layer}#0:MUL_MAT"),
        ("qwen2", "v_matmul") => format!("Vcur-{layer}#0:MUL_MAT"),
        ("qwen2", "q") => format!("Qcur-{layer}#1:ADD"),
        ("qwen2", "k") => format!("Kcur-{layer}#1:ADD"),
        ("qwen2", "v") => format!("Vcur-{layer}#1:ADD"),
        ("qwen2", "q_rope") => format!("Qcur-{layer}#3:ROPE"),
        ("qwen2", "k_rope") => format!("Kcur-{layer}#3:ROPE"),
        ("qwen2", "attn_out") => format!("node_{}#0:MUL_MAT", 34 + 39 * layer),
        ("qwen2", "ffn_gate" | "ffn_up" | "ffn_out") => format!("{point}-{layer}#0:MUL_MAT"),
        ("qwen2", "ffn_glu") => format!("ffn_swiglu-{layer}#0:SWIGLU"),
        ("qwen2", "final_norm") => "result_norm#0:MUL".to_owned(),
        ("gpt2", "pos_embed") => "pos_embd#0:GET_ROWS".to_owned(),
        ("gpt2", "embed") => "inpL#0:ADD".to_owned(),
        ("gpt2", "attn_norm" | "ffn_norm" | "ffn_out") => format!("{point}-{layer}#0:ADD"),
        ("gpt2", "q_matmul" | "k_matmul" | "v_matmul") => format!("wqkv-{layer}#0:MUL_MAT"),
        ("gpt2", "q" | "k" | "v") => format!("wqkv_b-{layer}#0:ADD"),
        ("gpt2", "attn_out_matmul") => format!("node_{}#0:MUL_MAT", 31 + 37 * layer),
        ("gpt2", "attn_out") => format!("node_{}#0:ADD", 32 + 37 * layer),
        ("gpt2", "ffn_up_matmul") => format!("ffn_up-{layer}#0:MUL_MAT"),
        ("gpt2", "ffn_up") => format!("ffn_up_b-{layer}#0:ADD"),
        ("gpt2", "ffn_act") => format!("ffn_gelu-{layer}#0:GELU"),
        ("gpt2", "ffn_out_matmul") => format!("ffn_down-{layer}#0:MUL_MAT"),
        ("gpt2", "final_norm") => "result_norm#0:ADD".to_owned(),
        _ => return None,
    };
    Some((name, third.filter(|_| architecture == "gpt2").map_or(usize::MAX, |third| third)))
}

#[test]
fn llama_cpp_nodes() {
    for architecture in ["qwen2", "gpt2"] {
        let name = format!("tiny-{architecture}");
        let nodes = fixture(&format!("reference/{name}.nodes.toml"));
        for file in ["f16", "q8_0", "q4_k_m"] {
            let ground = Ground::new();
            let tensors = read(&fixture(&format!("reference/{name}.llama-{file}.safetensors")));
            let path = whole(&ground, &tensors);
            let gguf = model(&format!("{name}.{file}"));
            let map = ["--map", "llama.cpp", "--map", nodes.to_str().unwrap()];
            let args = [&map[..], &["--model", gguf.to_str().unwrap()]].concat();
            let imported = import(&ground, &path, file, &args);
            assert_eq!(imported.status, 0, "{}", imported.stderr);
            let held = Held::of(&ground, file);
            let mut sources = 0;
            for site in held.sites().iter().filter(|site| site.status == 0) {
                let (node, third) = node(architecture, site.layer, &site.point).unwrap();
                assert_eq!(site.source_name, node);
                let tensor = &tensors[&node];
                let expected = if third == usize::MAX { tensor.values.clone() } else { part(tensor, third, 3) };
                assert_eq!(held.bits(site.layer, &site.point), bits(&expected), "{file}: {node}");
                // A third of a fused node counts once.
                sources += usize::from(third == usize::MAX || third == 0);
            }
            assert_eq!(sources, tensors.len(), "{name} {file}: every node of the fixture is a point");
            assert_eq!(held.run().identity.engine, "llama.cpp");
        }
    }
}

#[test]
fn half_precision_transposed_and_odd_values() {
    let ground = Ground::new();
    let path = ground.path("dump.safetensors");
    let odd = [f32::NAN, f32::INFINITY, -0.0, f32::from_bits(1), -1.5, f32::MAX];
    let halves = [0x3c00u16, 0x7e00, 0xfc00, 0x8000, 0x0001, 0xc100];
    let raw: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
    write_safetensors(
        &path,
        &[
            ("00.attn_norm", "F32", &[2, 3], bytes(&odd)),
            ("00.ffn_norm", "F16", &[2, 3], raw.clone()),
            ("batch.0", "BF16", &[1, 2, 3], raw),
            ("past_key_values.0.key", "F32", &[3, 2, 1], bytes(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])),
            ("turned", "F32", &[3, 2], bytes(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])),
        ],
    );
    let map = ground.path("map.toml");
    let text = "[[tensor]]\nnames = [\"batch.{layer}\"]\npoint = \"resid_mid\"\nconfidence = 40\n\n\
                [[tensor]]\nnames = [\"turned\"]\npoint = \"final_norm\"\naxes = [\"width\", \"tokens\"]\n";
    std::fs::write(&map, text).unwrap();
    let imported = import_of(&ground, &[&path], "5 6", "odd", &["--map", "hf", "--map", map.to_str().unwrap()]);
    assert_eq!(imported.status, 0, "{}", imported.stderr);
    let held = Held::of(&ground, "odd");
    assert_eq!(held.bits(0, "attn_norm"), bits(&odd));
    let half = halves.map(|half| half::f16::from_bits(half).to_f32());
    assert_eq!(held.bits(0, "ffn_norm"), bits(&half));
    assert_eq!(held.bits(0, "resid_mid"), bits(&halves.map(|half| half::bf16::from_bits(half).to_f32())));
    for (layer, point) in [(0, "k_cache"), (-1, "final_norm")] {
        let rows = held.rows(layer, point);
        assert_eq!((rows[&0].as_slice(), rows[&1].as_slice()), (&[1.0, 3.0, 5.0][..], &[2.0, 4.0, 6.0][..]));
    }
    let described = |layer, point| {
        let site = held.site(layer, point);
        (site.dtype.as_str(), site.axes.as_str(), site.heads, site.confidence)
    };
    assert_eq!(described(0, "ffn_norm"), ("f16", "width", 0, 90));
    assert_eq!(described(0, "resid_mid"), ("bf16", "width", 0, 40));
    assert_eq!(described(0, "k_cache"), ("f32", "heads,dim", 3, 90));
    // Without logits nothing is known of the next token, and nothing is made up.
    assert_eq!((held.step().next_token, held.step().logits_fingerprint), (u32::MAX, 0));
}

/// Files that numpy itself wrote, with the bits that it says they hold.
#[test]
fn npy_files_of_numpy() {
    let ground = Ground::new();
    let expected = fixture_json("npy/expected.json");
    let folder = fixture("npy/dump");
    let imported = import_of(&ground, &[&folder], "7,8,9", "npy", &["--map", "hf", "--layers", "4"]);
    assert_eq!(imported.status, 0, "{}", imported.stderr);
    let held = Held::of(&ground, "npy");
    let points = expected.as_object().unwrap();
    assert_eq!(held.captured(), points.len());
    for (place, expected) in points {
        let (layer, point) = place.split_once('.').map_or((-1, &**place), |(l, point)| (l.parse().unwrap(), point));
        let expected: Vec<u32> = serde_json::from_value(expected.clone()).unwrap();
        assert_eq!(held.bits(layer, point), expected, "{place}");
    }
    // Four layers were said: a place outside the layers stands where it stands in a run of that depth.
    let deep = held.sites().iter().filter(|site| site.point == "resid_post").count();
    assert_eq!(deep, 4);

    // The same files one by one, and a folder of nothing.
    let files = ["00.q", "01.attn_probs", "logits"].map(|name| folder.join(format!("{name}.npy")));
    let paths: Vec<&std::path::Path> = files.iter().map(|file| file.as_path()).collect();
    let listed = import_of(&ground, &paths, "7,8,9", "listed", &["--map", "hf"]);
    assert_eq!(listed.status, 0, "{}", listed.stderr);
    assert_eq!(Held::of(&ground, "listed").bits(-1, "logits"), held.bits(-1, "logits"));
}

#[test]
fn logits_of_the_last_token_alone() {
    let ground = Ground::new();
    let mut tensors = read(&fixture("reference/tiny-qwen2.hf-f32.safetensors"));
    let logits = tensors.get_mut("logits").unwrap();
    let last = logits.row(11).to_vec();
    *logits = Tensor { shape: vec![1, 1, last.len()], values: last.clone() };
    let path = whole(&ground, &tensors);
    let folder = model("tiny-qwen2.safetensors");
    let args = ["--map", "hf", "--model", folder.to_str().unwrap(), "--device", "cpu"];
    let imported = import(&ground, &path, "last", &args);
    assert_eq!(imported.status, 0, "{}", imported.stderr);
    let held = Held::of(&ground, "last");
    let rows = held.rows(-1, "logits");
    assert_eq!(rows.keys().copied().collect::<Vec<_>>(), [11]);
    assert_eq!(bits(&rows[&11]), bits(&last));
    let coverage = held.trace.coverage(held.run()).unwrap();
    let site = held.site(-1, "logits").site as usize;
    let of_site = (coverage.status[site], coverage.rows_expected[site], coverage.rows_captured[site]);
    assert_eq!(of_site, (0, 1, 1), "one row was dumped, and it is there");

    // Eleven rows of the other run have no counterpart, which is no divergence.
    let whole_dump = fixture("reference/tiny-qwen2.hf-f32.safetensors");
    let imported = import(&ground, &whole_dump, "all", &args);
    assert_eq!(imported.status, 0, "{}", imported.stderr);
    for (reference, target) in [("all", "last"), ("last", "all")] {
        let set = TraceSet::open(&[ground.path("runs.actrace")]).unwrap();
        let of = |label: &str| set.resolve(label).unwrap();
        let compared = Comparison::new(of(reference), of(target), None, false).unwrap();
        assert_eq!(compared.verdict, Verdict::Equal, "{}", compared.reason);
        let left_out: Vec<_> = compared.pairing.unwrap().left_out.into_iter().map(|l| (l.reason, l.rows)).collect();
        assert_eq!(left_out, [("position captured by one run only".to_owned(), 11)]);
    }
}

/// Against the imported run an own recording is as near as against the file that it came from: `activations_match_hugging_face`
/// has the reason of 1e-5.
#[test]
fn an_own_recording_is_compared_with_it() {
    let ground = Ground::new();
    for name in ["tiny-qwen2", "tiny-gpt2"] {
        let folder = model(&format!("{name}.safetensors"));
        let folder = folder.to_str().unwrap();
        let path = fixture(&format!("reference/{name}.hf-f32.safetensors"));
        let engine = ["--device", "cpu", "--semantics", "dequantize-f32", "--compute-type", "f32", "--kv-type", "f32"];
        let args = [&["--map", "hf", "--model", folder][..], &engine].concat();
        let imported = import(&ground, &path, &format!("{name} theirs"), &args);
        assert_eq!(imported.status, 0, "{}", imported.stderr);
        let mut record = actrace("record");
        record.args(["--model", folder, "--tokens", &tokens(), "--label", &format!("{name} ours")]);
        let (status, report) = json(record.arg("--out").arg(ground.path("runs.actrace")));
        assert_eq!(status, 0, "{report}");
        let set = TraceSet::open(&[ground.path("runs.actrace")]).unwrap();
        let of = |side: &str| set.resolve(&format!("{name} {side}")).unwrap();
        let compared = Comparison::new(of("theirs"), of("ours"), None, false).unwrap();
        assert_eq!(
            (compared.verdict, compared.tolerance.value),
            (Verdict::WithinTolerance, 1e-5),
            "{}",
            compared.reason
        );
        let pairing = compared.pairing.unwrap();
        assert_eq!(pairing.sites.len(), Held::of(&ground, &format!("{name} theirs")).captured());
        // What the engine does not say is no agreement.
        assert!(compared.unlike.contains(&"attention (unknown against plain)".to_owned()), "{:?}", compared.unlike);
    }
}
