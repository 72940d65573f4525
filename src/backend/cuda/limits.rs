//! Which operations a card has kernels for; every other one is refused by name.

use crate::error::{Error, Result};
use crate::graph::{Operation, RowAxes, Site};
use crate::model::{Activation, RopeScaling};

/// Elements that kernels of attention read at a time.
const RUN: u32 = 4;

/// Refuses a site whose operation has no kernel, or none for its parameters.
///
/// # Errors
/// Unsupported, with operation, parameter and place.
pub(super) fn check(site: &Site) -> Result<()> {
    match missing(site) {
        None => Ok(()),
        Some(parameter) => Err(unsupported(site, &parameter)),
    }
}

/// What has no kernel: a parameter in words, or nothing where the whole operation has none.
fn missing(site: &Site) -> Option<String> {
    if let RowAxes::Keys { window: Some(window), .. } = site.axes {
        return Some(windowed(window));
    }
    match site.operation {
        Operation::TokenEmbedding
        | Operation::PositionEmbedding
        | Operation::Identity
        | Operation::Add
        | Operation::Multiply
        | Operation::LayerNorm { .. }
        | Operation::MatMul
        | Operation::Bias
        | Operation::CacheStore
        | Operation::Activate(Activation::Silu | Activation::GeluTanh) => None,
        Operation::RmsNorm { groups, .. } if groups != 1 => Some(format!(" in {groups} parts of a row")),
        Operation::RmsNorm { weight_offset, .. } if weight_offset != 0.0 => {
            Some(format!(" with {weight_offset} added to its weights"))
        }
        Operation::RmsNorm { .. } => None,
        Operation::Rope { rope, .. } if rope.scaling == RopeScaling::Stored => {
            Some(" with stored divisors of its frequencies".to_owned())
        }
        Operation::Rope { .. } => None,
        Operation::AttnScores { head_dim, .. } if !head_dim.is_multiple_of(RUN) => {
            Some(format!(" of heads of {head_dim} elements, which {RUN} does not divide,"))
        }
        Operation::AttnScores { softcap: Some(cap), .. } => Some(format!(" with scores capped at {cap}")),
        Operation::AttnScores { window, .. }
        | Operation::Softmax { window, .. }
        | Operation::AttnContext { window, .. } => window.map(windowed),
        Operation::Sum
        | Operation::Scale { .. }
        | Operation::SoftCap { .. }
        | Operation::Linear
        | Operation::Activate(Activation::GeluErf | Activation::GeluQuick)
        | Operation::RowSoftmax
        | Operation::TopK { .. }
        | Operation::ExpertWeights { .. }
        | Operation::ExpertMatMul { .. }
        | Operation::ExpertSum
        | Operation::GatedMatMul => Some(String::new()),
    }
}

fn windowed(window: u32) -> String {
    format!(" in a window of {window} positions")
}

/// The refusal of a site's operation; `parameter` says what of it is missing.
pub(super) fn unsupported(site: &Site, parameter: &str) -> Error {
    let place = site.layer.map_or_else(String::new, |layer| format!(" of layer {layer}"));
    Error::unsupported(format!(
        "operation {}{parameter} is not supported on CUDA, and point `{}`{place} needs it; use --device cpu",
        site.operation.name(),
        site.point
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::model::RopeParameters;

    const FLAT: RowAxes = RowAxes::Flat { width: 8 };

    fn refusal(operation: Operation, axes: RowAxes) -> Option<String> {
        let (inputs, weights) = (Vec::new(), Vec::new());
        let site = Site { id: 0, layer: Some(2), point: "p", occurrence: 0, operation, inputs, weights, axes };
        check(&site).err().map(|error| {
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            error.to_string()
        })
    }

    fn rope(scaling: RopeScaling) -> Operation {
        let rope = RopeParameters { base: 1e4, rotary_dim: 2, scaling };
        Operation::Rope { heads: 2, head_dim: 4, rope }
    }

    fn norm(weight_offset: f32, groups: u32) -> Operation {
        Operation::RmsNorm { epsilon: 1e-6, weight_offset, groups }
    }

    fn scores(softcap: Option<f32>, window: Option<u32>) -> Operation {
        Operation::AttnScores { heads: 2, kv_heads: 1, head_dim: 4, scale: 0.5, softcap, window }
    }

    #[test]
    fn what_has_a_kernel_is_let_through() {
        let llama3 = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original_context: 8 };
        for operation in [
            Operation::MatMul,
            norm(0.0, 1),
            rope(RopeScaling::None),
            rope(RopeScaling::Linear { factor: 2.0 }),
            rope(llama3),
            scores(None, None),
            Operation::Activate(Activation::GeluTanh),
        ] {
            assert_eq!(refusal(operation, FLAT), None);
        }
        assert_eq!(refusal(scores(None, None), RowAxes::Keys { heads: 2, window: None }), None);
    }

    #[test]
    fn what_has_none_is_refused_by_name() {
        let (heads, kv_heads, head_dim, window) = (2, 1, 4, Some(16));
        let odd_heads = Operation::AttnScores { heads, kv_heads, head_dim: 6, scale: 0.5, softcap: None, window: None };
        let cases = [
            (Operation::Sum, "sum is"),
            (Operation::Scale { factor: 2.0 }, "scale is"),
            (Operation::SoftCap { cap: 30.0 }, "soft_cap is"),
            (norm(0.0, 4), "rms_norm in 4 parts of a row is"),
            (norm(1.0, 1), "rms_norm with 1 added to its weights is"),
            (Operation::Linear, "linear is"),
            (rope(RopeScaling::Stored), "rope with stored divisors of its frequencies is"),
            (scores(Some(50.0), None), "attn_scores with scores capped at 50 is"),
            (scores(None, window), "attn_scores in a window of 16 positions is"),
            (odd_heads, "attn_scores of heads of 6 elements, which 4 does not divide, is"),
            (Operation::Softmax { heads, window }, "softmax in a window of 16 positions is"),
            (
                Operation::AttnContext { heads, kv_heads, head_dim, window },
                "attn_context in a window of 16 positions is",
            ),
            (Operation::Activate(Activation::GeluErf), "gelu_erf is"),
            (Operation::Activate(Activation::GeluQuick), "gelu_quick is"),
            (Operation::RowSoftmax, "row_softmax is"),
            (Operation::TopK { count: 2 }, "top_k is"),
            (Operation::ExpertWeights { normalised: true }, "expert_weights is"),
            (Operation::ExpertMatMul { slot: 0 }, "expert_mat_mul is"),
            (Operation::ExpertSum, "expert_sum is"),
            (Operation::GatedMatMul, "gated_mat_mul is"),
        ];
        for (operation, words) in cases {
            let error = refusal(operation, FLAT).unwrap();
            let expected = format!("operation {words} not supported on CUDA, and point `p` of layer 2 needs it");
            assert!(error.contains(&expected), "{error}");
        }
        let softmax = Operation::Softmax { heads, window: None };
        let error = refusal(softmax, RowAxes::Keys { heads, window }).unwrap();
        assert!(error.contains("softmax in a window of 16 positions"), "{error}");
    }
}
