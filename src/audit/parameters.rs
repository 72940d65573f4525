//! Whether two operations have the same numbers.

use crate::error::Result;
use crate::graph::{Operation, Site};
use crate::model::{Model, RopeParameters, RopeScaling};

/// Relative difference of two frequencies of a rotary embedding that are computed from the same numbers: bases and factors
/// may be stored in f32 (half a unit of 2^-23 each), and a stored divisor is the rounded quotient of two of them.
const FREQUENCY: f64 = 4.0 / (1u64 << 24) as f64;

/// What differs between the numbers of `run` and `original`, in words with both values; `None` where nothing does.
///
/// An offset of a norm's weights is no difference: weights are compared with it.
pub(super) fn difference(run: (&Model, &Site), original: (&Model, &Site)) -> Result<Option<String>> {
    let (own, other) = (run.1.operation, original.1.operation);
    if let (
        Operation::Rope { heads, head_dim, rope },
        Operation::Rope { heads: other_heads, head_dim: other_dim, rope: other_rope },
    ) = (own, other)
    {
        if (heads, head_dim) != (other_heads, other_dim) {
            return Ok(Some(said(&format!("{heads} heads of {head_dim}"), &format!("{other_heads} of {other_dim}"))));
        }
        return rotation((run.0, run.1, rope), (original.0, original.1, other_rope));
    }
    let (own, other) = (numbers(own), numbers(other));
    let differing: Vec<String> = own
        .iter()
        .zip(&other)
        .filter(|(own, other)| own != other)
        .map(|((name, own), (_, other))| said(&format!("{name} {own}"), other))
        .collect();
    Ok((!differing.is_empty()).then(|| differing.join("; ")))
}

fn said(run: &str, original: &str) -> String {
    format!("{run} (original: {original})")
}

/// Rotations are compared by their frequencies: a file may store divisors where another has the numbers that they follow
/// from.
fn rotation(
    (model, site, rope): (&Model, &Site, RopeParameters),
    (other_model, other_site, other): (&Model, &Site, RopeParameters),
) -> Result<Option<String>> {
    if rope.rotary_dim != other.rotary_dim {
        return Ok(Some(said(&format!("{} turning elements", rope.rotary_dim), &other.rotary_dim.to_string())));
    }
    let (own, expected) = (frequencies(model, site, rope)?, frequencies(other_model, other_site, other)?);
    let agree = |(a, b): (&f64, &f64)| (a - b).abs() <= FREQUENCY * b.abs();
    if own.len() == expected.len() && own.iter().zip(&expected).all(agree) {
        return Ok(None);
    }
    let text = |rope: RopeParameters| format!("base {}, scaling {}", rope.base as f32, rope.scaling);
    Ok(Some(said(&format!("RoPE {}", text(rope)), &text(other))))
}

fn frequencies(model: &Model, site: &Site, rope: RopeParameters) -> Result<Vec<f64>> {
    let mut stored = Vec::new();
    if rope.scaling == RopeScaling::Stored
        && let Some(key) = site.weights.first()
    {
        let weight = model.weight(*key)?;
        stored = vec![0f32; weight.columns];
        weight.dequantize_row(0, &mut stored)?;
    }
    Ok(rope.frequencies(&stored))
}

/// The numbers of an operation by name; f32 as they are, so that equal text is equal numbers.
fn numbers(operation: Operation) -> Vec<(&'static str, String)> {
    let all = |window: Option<u32>| window.map_or_else(|| "none".to_owned(), |window| window.to_string());
    match operation {
        Operation::Scale { factor } => vec![("factor", factor.to_string())],
        Operation::SoftCap { cap } => vec![("cap", cap.to_string())],
        Operation::RmsNorm { epsilon, weight_offset: _, groups } => {
            vec![("epsilon", epsilon.to_string()), ("groups", groups.to_string())]
        }
        Operation::LayerNorm { epsilon } => vec![("epsilon", epsilon.to_string())],
        Operation::AttnScores { heads, kv_heads, head_dim, scale, softcap, window } => vec![
            ("heads", heads.to_string()),
            ("key heads", kv_heads.to_string()),
            ("elements of a head", head_dim.to_string()),
            ("scale", scale.to_string()),
            ("cap", softcap.map_or_else(|| "none".to_owned(), |cap| cap.to_string())),
            ("window", all(window)),
        ],
        Operation::Softmax { heads, window } => vec![("heads", heads.to_string()), ("window", all(window))],
        Operation::AttnContext { heads, kv_heads, head_dim, window } => vec![
            ("heads", heads.to_string()),
            ("value heads", kv_heads.to_string()),
            ("elements of a head", head_dim.to_string()),
            ("window", all(window)),
        ],
        Operation::Activate(_) => vec![("activation", operation.name().to_owned())],
        Operation::TopK { count } => vec![("experts", count.to_string())],
        Operation::ExpertWeights { normalised } => vec![("normalised", normalised.to_string())],
        Operation::TokenEmbedding
        | Operation::PositionEmbedding
        | Operation::Identity
        | Operation::Add
        | Operation::Sum
        | Operation::MatMul
        | Operation::Linear
        | Operation::Bias
        | Operation::Rope { .. }
        | Operation::CacheStore
        | Operation::Multiply
        | Operation::RowSoftmax
        | Operation::ExpertMatMul { .. }
        | Operation::ExpertSum
        | Operation::GatedMatMul => Vec::new(),
    }
}

/// Whether an operation has numbers that two models can differ in.
pub(super) fn has_numbers(operation: Operation) -> bool {
    matches!(operation, Operation::Rope { .. }) || !numbers(operation).is_empty()
}
