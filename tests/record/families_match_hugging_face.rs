//! Every family, from safetensors and from GGUF, at every point that Hugging Face transformers computes, on a tiny random
//! model; and the greedy continuation.
//!
//! Tolerance 1e-5: sums of up to 96 f32 products in two orders differ by about sqrt(96) * 2^-24 = 6e-7, RoPE's angles are
//! f32 there and f64 here (20 * 2^-24 = 1.2e-6), and the residual stream of two or three layers adds such errors.

use crate::running::{capture, forward, ids, json, site};
use crate::support::safetensors::{Tensor, read};
use crate::support::{families, fixture, rel_l2};
use actrace::ErrorKind;
use actrace::backend::{CpuBackend, Semantics};
use actrace::capture::vocabulary;
use actrace::forward::Forward;
use actrace::graph::{Graph, RowAxes, Site};
use actrace::model::{Model, Role};
use std::collections::{BTreeMap, BTreeSet};

const TOLERANCE: f64 = 1e-5;

/// Points that no reference holds, with the one that has to hold the same values: a cache keeps what it is given.
const SAME: [(&str, &str); 2] = [("k_cache", "k_rope"), ("v_cache", "v")];

/// Points that are checked in every model that has them.
fn reference_of(site: &Site) -> String {
    let same = SAME.iter().find(|(point, _)| *point == site.point).map(|(_, other)| *other);
    let point = same.unwrap_or(site.point);
    site.layer.map_or_else(|| point.to_owned(), |layer| format!("{layer:02}.{point}"))
}

/// What the reference holds of one token for `site`.
fn expected(site: &Site, reference: &Tensor, row: usize, position: usize) -> Vec<f32> {
    let elements: usize = reference.shape[1..].iter().product();
    let values = &reference.values[row * elements..(row + 1) * elements];
    match site.axes {
        RowAxes::Keys { .. } => {
            let keys = reference.shape[2];
            values.chunks_exact(keys).flat_map(|head| head[..=position].to_vec()).collect()
        }
        // Of points inside experts, the slot.
        _ if reference.shape.len() == 3 => {
            values.chunks_exact(reference.shape[2]).nth(site.occurrence as usize).unwrap().to_vec()
        }
        _ => values.to_vec(),
    }
}

/// A ragged row with zeros in front of each head's keys, where the window hides them.
fn padded(site: &Site, values: &[f32], position: usize, window: Option<usize>) -> Vec<f32> {
    let RowAxes::Keys { heads, .. } = site.axes else { return values.to_vec() };
    let seen = values.len() / heads as usize;
    assert_eq!(seen, window.unwrap_or(usize::MAX).min(position + 1), "{} at {position}", site.point);
    let hidden = vec![0.0; position + 1 - seen];
    values.chunks_exact(seen).flat_map(|head| [hidden.as_slice(), head].concat()).collect()
}

/// The window of a layer as config.json of the fixture says it.
fn window(config: &serde_json::Value, layer: Option<u32>) -> Option<usize> {
    let size = config["sliding_window"].as_u64()? as usize;
    let layer = layer? as usize;
    let kind = config["model_type"].as_str().unwrap();
    let windowed = match &config["layer_types"] {
        serde_json::Value::Array(kinds) => kinds[layer] == "sliding_attention",
        _ if kind.starts_with("qwen2") || kind.starts_with("qwen3") => {
            config["use_sliding_window"] == true && layer as u64 >= config["max_window_layers"].as_u64().unwrap()
        }
        _ if kind == "gemma3_text" => {
            !(layer as u64 + 1).is_multiple_of(config["sliding_window_pattern"].as_u64().unwrap())
        }
        _ => true,
    };
    windowed.then_some(size)
}

/// The largest error of `model` against the reference of `name`, and where.
fn check(name: &str, model: &Model) -> (f64, String) {
    let prompt = json("families/prompt.json");
    let tokens = ids(&prompt["token_ids"]);
    let rows = ids(&prompt["rows"]);
    let continuation = ids(&prompt["greedy_continuation_hf_f32"][name]);
    let config = json(&format!("families/{name}/config.json"));
    let reference = read(&fixture(&format!("families/{name}.hf-f32.safetensors")));
    let mut forward = forward(model, Semantics::DequantizeF32);
    let (capture, generation) = capture(&mut forward, &tokens, continuation.len());
    let mut worst = (0f64, String::new());
    let mut used = BTreeSet::new();
    for site in &forward.graph().sites {
        let held = reference_of(site);
        let tensor = reference.get(&held).unwrap_or_else(|| panic!("{name}: nothing to check {held} against"));
        let found = &capture.rows[&(0, site.id)];
        let [found] = found.as_slice() else { panic!("{held}: the prompt is one chunk") };
        for (row, position) in rows.iter().map(|row| *row as usize).enumerate() {
            let expected = expected(site, tensor, row, position);
            let window = window(&config, site.layer);
            let found = padded(site, found.row(position), position, window);
            let error = rel_l2(&expected, &found);
            assert!(error <= TOLERANCE, "{name}: {held} #{} at {position}: {error:e}", site.occurrence);
            if error > worst.0 {
                worst = (error, held.clone());
            }
        }
        used.insert(held);
    }
    let unused: Vec<&String> = reference.keys().filter(|held| !used.contains(*held)).collect();
    assert!(unused.is_empty(), "{name}: transformers computes {unused:?}, and the graph has no such point");
    assert_eq!(generation.tokens, continuation, "{name}");
    worst
}

#[test]
fn safetensors() {
    for name in families::names() {
        let (error, place) = check(&name, &families::folder(&name));
        println!("{name}: worst {error:e} at {place}");
    }
}

#[test]
fn gguf() {
    for name in families::gguf_names() {
        let (error, place) = check(&name, &families::gguf(&name));
        println!("{name}.gguf: worst {error:e} at {place}");
    }
}

/// Every point of the vocabulary is checked in some family, here or in `activations_match_hugging_face`.
#[test]
fn the_families_reach_every_point() {
    let mut reached = BTreeSet::from(["pos_embed".to_owned()]);
    for name in families::names() {
        let graph = Graph::of(&families::folder(&name)).unwrap();
        reached.extend(graph.sites.iter().map(|site| site.point.to_owned()));
    }
    let missing: Vec<&str> =
        vocabulary().iter().map(|point| point.name.as_str()).filter(|point| !reached.contains(*point)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Rows of the prompt are the same whether they are evaluated together or one by one, windows and experts included.
#[test]
fn chunks_of_the_prompt_change_no_bit() {
    let tokens = ids(&json("families/prompt.json")["token_ids"]);
    for name in ["mistral", "gemma2", "gemma3", "qwen2_moe"] {
        let model = families::folder(name);
        let whole = &mut forward(&model, Semantics::DequantizeF32);
        let single: &mut Forward<_> = &mut forward(&model, Semantics::DequantizeF32).with_chunk_bytes(1);
        let (whole, single) = (capture(whole, &tokens, 2), capture(single, &tokens, 2));
        assert_eq!(whole.1, single.1, "{name}");
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        for (step, site) in whole.0.rows.keys() {
            assert_eq!(bits(whole.0.values(*step, *site)), bits(single.0.values(*step, *site)), "{name}: site {site}");
        }
    }
}

/// A GGUF file gives the same hyper-parameters and the same weights as the safetensors that it was made from, but for what
/// the format says in another way.
#[test]
fn both_formats_hold_the_same_model() {
    for name in families::gguf_names() {
        let (original, converted) = (families::folder(&name), families::gguf(&name));
        let mut hyper = converted.hyper().clone();
        // Gemma's norm weights hold the 1, and llama3's scaling is a tensor.
        hyper.norm_weight_offset = original.hyper().norm_weight_offset;
        if name == "llama3" {
            hyper.rope = original.hyper().rope;
        }
        assert_eq!(&hyper, original.hyper(), "{name}");
        let others: BTreeMap<_, _> = converted.weights().map(|weight| (weight.key, weight)).collect();
        for weight in original.weights() {
            let other = others[&weight.key];
            let (mut ours, mut theirs) = (vec![0.0; weight.columns], vec![0.0; weight.columns]);
            let offset = if is_norm(weight.key.role) { original.hyper().norm_weight_offset } else { 0.0 };
            for row in 0..weight.rows {
                weight.dequantize_row(row, &mut ours).unwrap();
                other.dequantize_row(row, &mut theirs).unwrap();
                ours.iter_mut().for_each(|x| *x += offset);
                assert_eq!(ours, theirs, "{name}: {} row {row}", weight.key);
            }
        }
        let extra = others.len() - original.weights().count();
        assert_eq!(extra, usize::from(name == "llama3"), "{name}: only llama3 holds its scaling as a weight");
    }
}

fn is_norm(role: Role) -> bool {
    use Role::*;
    matches!(role, AttnNorm | AttnPostNorm | FfnNorm | FfnPostNorm | FinalNorm | QNorm | KNorm)
}

/// Weights of 8 bits are dequantised; what ggml would make of them is not known.
#[test]
fn ggml_semantics_are_refused_for_8_bit_floats() {
    let backend = CpuBackend::new(Semantics::Ggml, 1).unwrap();
    let error = Forward::new(&families::folder("qwen3-fp8"), backend).err().unwrap();
    assert_eq!(
        (error.kind(), error.tensor()),
        (ErrorKind::Unsupported, Some("model.layers.0.self_attn.q_proj.weight"))
    );
    assert!(error.to_string().contains("ggml has no products with f8_e4m3: use --semantics dequantize-f32"), "{error}");
}

/// In layers with experts, the occurrence is the slot, and the row of the chosen says which expert it was.
#[test]
fn experts_are_a_set_in_ascending_order() {
    let tokens = ids(&json("families/prompt.json")["token_ids"]);
    let model = families::folder("qwen2_moe");
    let mut forward = forward(&model, Semantics::DequantizeF32);
    let (capture, _) = capture(&mut forward, &tokens, 0);
    let chosen = site(forward.graph(), Some(0), "moe_topk").id;
    let rows: Vec<Vec<f32>> = capture.values(0, chosen).chunks_exact(3).map(<[f32]>::to_vec).collect();
    assert_eq!(rows.len(), tokens.len());
    assert!(rows.iter().all(|row| row[0] < row[1] && row[1] < row[2] && row[2] < 6.0), "{rows:?}");
    assert!(rows.iter().any(|row| row != &rows[0]), "tokens choose different experts");
    let slots = forward.graph().sites.iter().filter(|site| site.layer == Some(0) && site.point == "moe_down");
    assert_eq!(slots.map(|site| site.occurrence).collect::<Vec<_>>(), [0, 1, 2]);
}
