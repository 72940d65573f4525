//! Which rows of which site a batch has to compute.

use crate::error::{Error, Result};
use crate::graph::{Graph, Operation};
use std::ops::Range;

/// For every site the rows of a batch of `rows` tokens that someone needs: the observer, who wants the rows
/// `wanted`; a later site; the cache, which keeps all; the choice of the next token, which reads the last row
/// of the logits if `choose`.
///
/// Every operation makes a row from the same row of its inputs and from the cache, so needs go backwards row
/// by row, and a row's bits do not depend on which others are computed.
pub(super) fn needs(graph: &Graph, wanted: Vec<Range<usize>>, rows: usize, choose: bool) -> Result<Vec<Range<usize>>> {
    let mut needs = wanted;
    if let (true, Some(logits)) = (choose, needs.last_mut()) {
        *logits = hull(logits, &(rows.saturating_sub(1)..rows));
    }
    for (index, site) in graph.sites.iter().enumerate().rev() {
        if site.operation == Operation::CacheStore {
            needs[index] = 0..rows;
        }
        let need = needs[index].clone();
        for input in &site.inputs {
            let input = needs[..index].get_mut(*input as usize).ok_or_else(|| {
                Error::internal(format!("`{}` reads a site that does not stand before it", site.point))
            })?;
            *input = hull(input, &need);
        }
    }
    Ok(needs)
}

fn hull(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    match (a.is_empty(), b.is_empty()) {
        (true, _) => b.clone(),
        (_, true) => a.clone(),
        _ => a.start.min(b.start)..a.end.max(b.end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{RowAxes, Site, SiteId};

    fn site(id: SiteId, point: &'static str, operation: Operation, inputs: &[SiteId]) -> Site {
        let axes = RowAxes::Flat { width: 4 };
        Site { id, layer: None, point, occurrence: 0, operation, inputs: inputs.to_vec(), weights: vec![], axes }
    }

    fn graph() -> Graph {
        let sites = vec![
            site(0, "embed", Operation::TokenEmbedding, &[]),
            site(1, "k", Operation::MatMul, &[0]),
            site(2, "k_cache", Operation::CacheStore, &[1]),
            site(3, "q", Operation::MatMul, &[0]),
            site(4, "resid_post", Operation::Add, &[0, 3]),
            site(5, "logits", Operation::MatMul, &[4]),
        ];
        Graph { sites, layers: 1 }
    }

    #[test]
    fn unobserved_rows_end_at_the_last_cache() {
        let needs = needs(&graph(), vec![0..0; 6], 8, true).unwrap();
        assert_eq!(needs, [0..8, 0..8, 0..8, 7..8, 7..8, 7..8]);
    }

    #[test]
    fn what_is_wanted_is_computed_with_all_that_it_reads() {
        let mut wanted = vec![0..0; 6];
        wanted[4] = 2..3;
        let needs = needs(&graph(), wanted, 8, false).unwrap();
        assert_eq!(needs, [0..8, 0..8, 0..8, 2..3, 2..3, 0..0]);
    }
}
