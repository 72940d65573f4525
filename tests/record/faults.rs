//! Every fault that can be planted in a model or in its kernels, run, with the place that has to be named.

use crate::running::open;
use crate::support::broken::{self, Breakage};
use crate::support::plant::Damage;
use crate::tampering::{KERNEL_FAULTS, PROMPT, Place, Tampered, Tampering};
use crate::traces::trace_of;
use actrace::backend::{CpuBackend, Semantics};
use actrace::graph::Graph;
use actrace::model::{Model, Overrides, Role, WeightKey};
use actrace::open::RunRef;
use std::path::Path;

/// Tokens that a run decodes behind its prompt.
const DECODED: usize = 4;

/// A fault to plant in a model of some type.
pub struct Case {
    /// What it is, in words.
    pub name: String,
    /// Where it has to be found.
    pub expected: Place,
    planted: Planted,
}

enum Planted {
    Kernel(Vec<(Tampering, Place)>),
    Weight(WeightKey, Breakage),
    Exchanged(WeightKey, WeightKey),
    Number(String),
}

impl Case {
    /// The run of `model` with this fault, its prompt tokens `tokens`; broken files go to `folder`.
    pub fn run(&self, model: &Model, tokens: &[u32], folder: &Path) -> RunRef {
        let path = folder.join("broken.gguf");
        let _ = std::fs::remove_file(&path);
        let model = match &self.planted {
            Planted::Kernel(faults) => {
                let backend = Tampered::new(backend(model), faults);
                return trace_of(model, semantics(model), backend, tokens, DECODED + 1);
            }
            Planted::Weight(key, breakage) => {
                broken::write(model, &path, *key, *breakage);
                Model::open(&path).unwrap()
            }
            Planted::Exchanged(one, other) => {
                broken::write_exchanged(model, &path, *one, *other);
                Model::open(&path).unwrap()
            }
            Planted::Number(set) => Model::open_with(model.path(), &Overrides::parse(set.split(' ')).unwrap()).unwrap(),
        };
        run_of(&model, tokens)
    }
}

/// The unbroken run.
pub fn run_of(model: &Model, tokens: &[u32]) -> RunRef {
    run_with(model, semantics(model), tokens)
}

/// The unbroken run in semantics that may be another.
pub fn run_with(model: &Model, semantics: Semantics, tokens: &[u32]) -> RunRef {
    trace_of(model, semantics, CpuBackend::new(semantics, 2).unwrap(), tokens, DECODED + 1)
}

/// A run with one operation tampered with.
pub fn tampered(model: &Model, tampering: Tampering, place: Place) -> RunRef {
    let backend = Tampered::new(backend(model), &[(tampering, place)]);
    trace_of(model, semantics(model), backend, &prompt(), DECODED + 1)
}

/// `tokens` random ones, always the same.
pub fn tokens(count: usize) -> Vec<u32> {
    (0..count as u32).map(|at| (at * at * 31 + at * 7 + 609) % 1900).collect()
}

pub fn prompt() -> Vec<u32> {
    tokens(PROMPT)
}

fn semantics(model: &Model) -> Semantics {
    if model.path().is_dir() { Semantics::DequantizeF32 } else { Semantics::Ggml }
}

fn backend(model: &Model) -> CpuBackend {
    CpuBackend::new(semantics(model), 2).unwrap()
}

/// Every fault in every of `layers`.
pub fn all(model: &Model, layers: &[u32]) -> Vec<Case> {
    let graph = Graph::of(model).unwrap();
    let mut cases = kernels(model, &graph, layers);
    cases.extend(weights(model, &graph, layers));
    cases.extend(numbers(&graph));
    cases
}

fn has(graph: &Graph, layer: Option<u32>, point: &str) -> bool {
    graph.sites.iter().any(|site| site.layer == layer && site.point == point)
}

fn kernels(model: &Model, graph: &Graph, layers: &[u32]) -> Vec<Case> {
    let mut cases = Vec::new();
    // No kernel reads a column of blocks: files of such types have the matrix itself exchanged.
    let blocks = model.weight_type().block_elements() > 1;
    for fault in KERNEL_FAULTS {
        for layer in layers {
            for point in fault.points {
                let (planted, shown) = match (fault.tampering, *point) {
                    (Tampering::Transposed, "q") => (*point, "q_matmul"),
                    (Tampering::Transposed, _) if has(graph, Some(*layer), "attn_out_matmul") => {
                        (*point, "attn_out_matmul")
                    }
                    (Tampering::CacheLate, "k_cache") => (*point, "attn_scores"),
                    (Tampering::CacheLate, _) => (*point, "attn_ctx"),
                    _ => (*point, *point),
                };
                let is_bias = ["q", "k", "v"].contains(point) && fault.name.starts_with("bias");
                let there = has(graph, Some(*layer), if is_bias { "q_matmul" } else { shown });
                let stale = matches!(fault.tampering, Tampering::Stale) && *layer == 0;
                let possible = !(stale || blocks && matches!(fault.tampering, Tampering::Transposed));
                if there && has(graph, Some(*layer), shown) && possible {
                    cases.push(Case {
                        name: format!("{} at {point}", fault.name),
                        expected: (Some(*layer), shown),
                        planted: Planted::Kernel(vec![(fault.tampering, (Some(*layer), planted))]),
                    });
                }
            }
        }
    }
    let rows = |change| Tampering::Rows(change);
    let outside: [(&str, &'static str, Tampering); 4] = [
        ("logits in another order", "logits", rows(|made| made.row.reverse())),
        ("logits of one token", "logits", rows(|made| made.row[100] += 1.0)),
        ("last norm scaled", "final_norm", rows(|made| made.row.iter_mut().for_each(|x| *x *= 1.02))),
        ("an embedding shifted", "tok_embed", rows(|made| made.row.rotate_left(1))),
    ];
    for (name, point, tampering) in outside.into_iter().filter(|(_, point, _)| has(graph, None, point)) {
        let planted = Planted::Kernel(vec![(tampering, (None, point))]);
        cases.push(Case { name: name.to_owned(), expected: (None, point), planted });
    }
    let (first, last) = ((Some(1), "attn_ctx"), (Some(graph.layers - 1), "ffn_out"));
    let one_position = rows(|made| {
        if made.position == 9 {
            made.row.iter_mut().for_each(|x| *x *= 1.02);
        }
    });
    let negated = rows(|made| made.row.iter_mut().for_each(|x| *x = -*x));
    let planted = Planted::Kernel(vec![(negated, last), (one_position, first)]);
    cases.push(Case { name: "two layers at fault".to_owned(), expected: first, planted });
    cases
}

/// The first point that reads a weight.
fn reader(graph: &Graph, key: WeightKey) -> Option<Place> {
    let site = graph.sites.iter().find(|site| site.weights.contains(&key))?;
    Some((site.layer, site.point))
}

fn weights(model: &Model, graph: &Graph, layers: &[u32]) -> Vec<Case> {
    let matrices = [Role::Q, Role::K, Role::V, Role::AttnOut, Role::FfnGate, Role::FfnUp, Role::FfnDown];
    let vectors =
        [Role::QBias, Role::KBias, Role::VBias, Role::AttnNorm, Role::FfnNorm, Role::FfnUpBias, Role::FfnDownBias];
    let mut cases = Vec::new();
    let add = |cases: &mut Vec<Case>, key: WeightKey, breakage: Breakage| {
        let (Some(expected), Some(weight)) = (reader(graph, key), model.get(key)) else { return };
        let square = weight.rows == weight.columns;
        let heads = [Role::Q, Role::K, Role::V].contains(&key.role);
        match breakage {
            Breakage::Values(Damage::Transposed) if !square => return,
            Breakage::Values(Damage::ExchangedHeads) if !heads => return,
            _ => {}
        }
        let name = format!("{breakage:?} of {}", key.role.name());
        cases.push(Case { name, expected, planted: Planted::Weight(key, breakage) });
    };
    for layer in layers {
        for role in matrices {
            let key = WeightKey::in_layer(*layer, role);
            Damage::ALL.into_iter().for_each(|damage| add(&mut cases, key, Breakage::Values(damage)));
            add(&mut cases, key, Breakage::Scalar(f32::NAN));
            add(&mut cases, key, Breakage::Scalar(f32::INFINITY));
        }
        for role in vectors {
            let key = WeightKey::in_layer(*layer, role);
            for breakage in [Breakage::LeftOut, Breakage::Twice, Breakage::OneElement, Breakage::Scalar(f32::NAN)] {
                add(&mut cases, key, breakage);
            }
        }
        let (gate, up) = (WeightKey::in_layer(*layer, Role::FfnGate), WeightKey::in_layer(*layer, Role::FfnUp));
        if model.get(gate).is_some() {
            let expected = reader(graph, gate).unwrap();
            let planted = Planted::Exchanged(gate, up);
            cases.push(Case { name: "gate and up exchanged".to_owned(), expected, planted });
        }
    }
    let tokens = prompt();
    let embedding = WeightKey { layer: None, expert: None, role: Role::TokenEmbedding };
    let breakage = Breakage::ExchangedRows(tokens[3] as usize, tokens[7] as usize);
    let planted = Planted::Weight(embedding, breakage);
    cases.push(Case { name: "rows of the embedding exchanged".to_owned(), expected: (None, "tok_embed"), planted });
    cases
}

fn numbers(graph: &Graph) -> Vec<Case> {
    let rotary = has(graph, Some(0), "q_rope");
    // Half as wide heads turn otherwise; without a rotation the scores are the first that know of heads.
    let heads = if rotary { ("heads=8 kv_heads=4", "q_rope") } else { ("heads=8", "attn_scores") };
    let mut settings = vec![("norm_epsilon=0.001", "attn_norm"), heads];
    settings.extend(rotary.then_some(("rope_base=20000", "q_rope")));
    let case = |(set, point): (&str, &'static str)| Case {
        name: set.to_owned(),
        expected: (Some(0), point),
        planted: Planted::Number(set.to_owned()),
    };
    settings.into_iter().map(case).collect()
}

/// The GGUF files that faults are planted in.
pub fn files() -> Vec<Model> {
    ["tiny-qwen2", "tiny-gpt2"]
        .iter()
        .flat_map(|name| ["f16", "q8_0", "q4_k_m"].map(|kind| open(&format!("{name}.{kind}"))))
        .collect()
}

/// The safetensors that a GGUF file was made from.
pub fn original(model: &Model) -> Model {
    let name = model.path().file_name().unwrap().to_str().unwrap().split('.').next().unwrap();
    open(&format!("{name}.safetensors"))
}
