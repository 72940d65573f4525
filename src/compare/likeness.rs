//! What two runs' identities have in common, of what changes the arithmetic.

use crate::open::RunView;
use crate::record::{RunV1, WeightRefV1};
use std::collections::BTreeMap;

/// How the arithmetic of two runs is related, by what they say of themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// Both recorded here, by one version on one kind of hardware with one rounding of every weight: right twins are equal
    /// in every bit, so whatever differs first was made there.
    Twins,
    /// One was made from the other, each operation on recorded inputs: nothing is inherited.
    Replay,
    /// Neither: right runs may differ by rounding.
    Unlike,
}

impl Relation {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Relation::Twins => "twins",
            Relation::Replay => "replay",
            Relation::Unlike => "unlike",
        }
    }

    /// The relation of two runs.
    pub fn of(reference: &RunView, target: &RunView) -> Self {
        let (r, t) = (&reference.identity, &target.identity);
        if replays(r, t) || replays(t, r) {
            return Relation::Replay;
        }
        let recorded = |run: &RunV1| run.kind == "record";
        let types = weights_of_other_type(reference, target, |_| true);
        match recorded(r) && recorded(t) && unlike(reference, target).is_empty() && types.is_empty() {
            true => Relation::Twins,
            false => Relation::Unlike,
        }
    }
}

/// Whether `run` is `original` made again from its own inputs, with the same file and rounding.
fn replays(run: &RunV1, original: &RunV1) -> bool {
    let same = run.model_hash == original.model_hash && run.semantics == original.semantics;
    run.kind == "replay" && same && run.parents.iter().any(|parent| parent.run_id == original.run_id)
}

/// What the runs' identities differ in, of what changes the arithmetic.
pub fn unlike(reference: &RunView, target: &RunView) -> Vec<String> {
    let (r, t) = (&reference.identity, &target.identity);
    let (cards, fused) = ((card(r), card(t)), (r.fused.join(" "), t.fused.join(" ")));
    let fields = [
        ("engine", &r.engine, &t.engine),
        ("engine version", &r.engine_version, &t.engine_version),
        ("device", &r.device_kind, &t.device_kind),
        ("card", &cards.0, &cards.1),
        ("kernel path", &r.kernel_path, &t.kernel_path),
        ("fused operations", &fused.0, &fused.1),
        ("instruction set", &r.instruction_set, &t.instruction_set),
        ("semantics", &r.semantics, &t.semantics),
        ("weight type", &r.weight_type, &t.weight_type),
        ("compute type", &r.compute_type, &t.compute_type),
        ("cache type", &r.kv_type, &t.kv_type),
        ("attention", &r.attention, &t.attention),
    ];
    // A version means nothing between two engines, nor a card where only one run had one.
    let second_hand = |name: &str| match name {
        "engine version" => r.engine != t.engine,
        "card" => r.device_kind != t.device_kind,
        _ => false,
    };
    let mut differing: Vec<String> = fields
        .into_iter()
        .filter(|(name, reference, target)| reference != target && !second_hand(name))
        .map(|(name, reference, target)| format!("{name} ({} against {})", said(reference), said(target)))
        .collect();
    let matrices = weights_of_other_type(reference, target, |weight| weight.shape.len() > 1);
    if r.weight_type == t.weight_type
        && let Some((name, reference, target)) = matrices.first()
    {
        let count = matrices.len();
        differing.push(format!("type of {count} matrices ({name}: {reference} against {target})"));
    }
    differing
}

/// What has a part in a card's arithmetic; nothing on a processor, where the instruction set says it all.
fn card(run: &RunV1) -> String {
    if run.device_kind != "cuda" {
        return String::new();
    }
    [run.device_name.as_str(), &run.driver, &run.cuda].join(" ").trim().to_owned()
}

/// Weights that both plans name with unlike types: canonical name, the reference's type, the target's.
pub(super) fn weights_of_other_type<'a>(
    reference: &'a RunView,
    target: &'a RunView,
    wanted: impl Fn(&WeightRefV1) -> bool,
) -> Vec<(&'a str, &'a str, &'a str)> {
    let types: BTreeMap<&str, &str> =
        target.plan.weights.iter().map(|weight| (weight.canonical_name.as_str(), weight.dtype.as_str())).collect();
    let other = |weight: &&WeightRefV1| types.get(weight.canonical_name.as_str()).is_some_and(|t| *t != weight.dtype);
    let found = reference.plan.weights.iter().filter(|weight| wanted(weight)).filter(other);
    found
        .filter_map(|weight| {
            let name = weight.canonical_name.as_str();
            Some((name, weight.dtype.as_str(), *types.get(name)?))
        })
        .collect()
}

/// Numbers of the model that both identities name with unlike values, as `epsilon (1e-6 against 1e-5)`.
pub fn unlike_numbers(reference: &RunV1, target: &RunV1) -> Vec<String> {
    let other = |key: &str| target.hyper_parameters.iter().find(|pair| pair.key == key).map(|pair| &pair.value);
    let pairs = reference.hyper_parameters.iter().filter_map(|pair| Some((pair, other(&pair.key)?)));
    let differing = pairs.filter(|(pair, value)| {
        // One number is written in many ways: files store f32.
        match (pair.value.parse::<f32>(), value.parse::<f32>()) {
            (Ok(ours), Ok(theirs)) => ours != theirs,
            _ => pair.value != **value,
        }
    });
    differing.map(|(pair, value)| format!("{} ({} against {value})", pair.key, pair.value)).collect()
}

/// What a run rounds, in words: its weights, and what is multiplied with them.
pub(super) fn rounding_text(run: &RunV1) -> String {
    let products = match (run.semantics.as_str(), run.compute_type.as_str()) {
        ("ggml", _) => "activations rounded to the type that ggml pairs with each weight's".to_owned(),
        (_, kind @ ("f16" | "bf16")) => format!("operands of large products rounded to {kind}"),
        ("dequantize-f32" | "exact", _) => "activations not rounded beyond f32".to_owned(),
        _ => "rounding of activations unknown".to_owned(),
    };
    format!("weights {}, {products}, cache {}", said(&run.weight_type), said(&run.kv_type))
}

/// What a run says of itself; an import need not know.
fn said(text: &str) -> &str {
    if text.is_empty() { "unknown" } else { text }
}
