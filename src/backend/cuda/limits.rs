//! What a card has no kernel for; that is refused by name.

use crate::error::{Error, Result};
use crate::graph::{Operation, Site};
use crate::model::Weight;

/// Elements that kernels read at a time.
const RUN: u32 = 4;

/// Refuses a site whose operation has no kernel for its parameters.
///
/// # Errors
/// Unsupported, with operation, parameter and place.
pub fn check_site(site: &Site) -> Result<()> {
    let Operation::AttnScores { head_dim, .. } = site.operation else { return Ok(()) };
    if head_dim.is_multiple_of(RUN) {
        return Ok(());
    }
    let place = site.layer.map_or_else(String::new, |layer| format!(" of layer {layer}"));
    Err(Error::unsupported(format!(
        "operation {} of heads of {head_dim} elements, which {RUN} does not divide, is not supported on CUDA, and point \
         `{}`{place} needs it; use --device cpu",
        site.operation.name(),
        site.point
    )))
}

/// Refuses a matrix that kernels cannot read.
///
/// # Errors
/// Unsupported, with the stored name.
pub fn check_weight(weight: &Weight) -> Result<()> {
    if !weight.key.role.is_matrix() || weight.columns.is_multiple_of(RUN as usize) {
        return Ok(());
    }
    let message = format!(
        "rows of {} elements, which {RUN} does not divide, are not supported on CUDA; use --device cpu",
        weight.columns
    );
    Err(Error::unsupported(message).of(&weight.stored_name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::graph::RowAxes;
    use crate::model::{Layout, Role, TensorType, WeightKey};

    fn refusal(head_dim: u32) -> Option<Error> {
        let operation = Operation::AttnScores {
            heads: 2,
            kv_heads: 1,
            head_dim,
            scale: 0.5,
            softcap: Some(50.0),
            window: Some(16),
        };
        let axes = RowAxes::Keys { heads: 2, window: Some(16) };
        let (inputs, weights) = (Vec::new(), Vec::new());
        check_site(&Site { id: 0, layer: Some(2), point: "p", occurrence: 0, operation, inputs, weights, axes }).err()
    }

    #[test]
    fn heads_that_cannot_be_read_four_elements_at_a_time_are_refused_by_name() {
        assert!(refusal(8).is_none());
        let error = refusal(6).unwrap();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let words = "operation attn_scores of heads of 6 elements, which 4 does not divide, is not supported on CUDA, \
                     and point `p` of layer 2 needs it";
        assert!(error.to_string().contains(words), "{error}");
    }

    #[test]
    fn rows_that_cannot_be_read_four_elements_at_a_time_are_refused_by_name() {
        let weight = |role, columns| Weight {
            stored_name: "blk.0.w".into(),
            key: WeightKey::outside(role),
            tensor_type: TensorType::F32,
            rows: 1,
            columns,
            layout: Layout::Rows { first: 0 },
            file: 0,
            offset: 0,
            data: vec![0; 4 * columns].into(),
            scales: None,
        };
        assert!(check_weight(&weight(Role::Q, 8)).is_ok());
        assert!(check_weight(&weight(Role::FinalNorm, 6)).is_ok(), "vectors are read one by one");
        let error = check_weight(&weight(Role::Q, 6)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let text = error.to_string();
        assert!(text.contains("rows of 6 elements, which 4 does not divide") && text.contains("blk.0.w"), "{text}");
    }
}
