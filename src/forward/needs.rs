//! Which rows of which site a batch has to compute.

use crate::error::{Error, Result};
use crate::graph::{Graph, Operation};
use std::ops::Range;

/// One batch, as far as needs go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    /// Rows of the batch.
    pub(super) rows: usize,
    /// Whether the next token is chosen after the last row.
    pub(super) choose: bool,
    /// Whether a row's bits are the same whichever others are computed with it.
    pub(super) rows_stand_alone: bool,
}

/// For every site the rows of a batch that someone needs: the observer, who wants the rows `wanted`; a later site; the
/// cache, which keeps all; the choice of the next token, which reads the last row of the logits.
///
/// Every operation makes a row from the same row of its inputs and from the cache, so needs go backwards row by row.
/// Where rows do not stand alone, a site that anyone needs computes all of them, so that observing one more row
/// changes no other.
pub(super) fn needs(graph: &Graph, wanted: Vec<Range<usize>>, ask: Ask) -> Result<Vec<Range<usize>>> {
    let mut needs = wanted;
    if let (true, Some(logits)) = (ask.choose, needs.last_mut()) {
        *logits = hull(logits, &(ask.rows.saturating_sub(1)..ask.rows));
    }
    let last = graph.sites.len().saturating_sub(1);
    for (index, site) in graph.sites.iter().enumerate().rev() {
        let all = !ask.rows_stand_alone && index != last && !needs[index].is_empty();
        if all || site.operation == Operation::CacheStore {
            needs[index] = 0..ask.rows;
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

/// The parts of the logits' rows `need` that are computed one after the other: the row that the next token is chosen
/// by goes alone where rows do not stand alone, since unobserved nothing else is computed of the logits.
pub(super) fn logits_parts(need: Range<usize>, ask: Ask) -> Vec<Range<usize>> {
    let last = ask.rows.saturating_sub(1);
    if ask.rows_stand_alone || !ask.choose || need.start >= last {
        return vec![need];
    }
    vec![need.start..last, last..ask.rows]
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

    fn ask(choose: bool, rows_stand_alone: bool) -> Ask {
        Ask { rows: 8, choose, rows_stand_alone }
    }

    #[test]
    fn unobserved_rows_end_at_the_last_cache() {
        let needs = needs(&graph(), vec![0..0; 6], ask(true, true)).unwrap();
        assert_eq!(needs, [0..8, 0..8, 0..8, 7..8, 7..8, 7..8]);
    }

    #[test]
    fn what_is_wanted_is_computed_with_all_that_it_reads() {
        let mut wanted = vec![0..0; 6];
        wanted[4] = 2..3;
        let needs = needs(&graph(), wanted, ask(false, true)).unwrap();
        assert_eq!(needs, [0..8, 0..8, 0..8, 2..3, 2..3, 0..0]);
    }

    #[test]
    fn rows_that_do_not_stand_alone_are_all_computed_whoever_observes() {
        let unobserved = needs(&graph(), vec![0..0; 6], ask(true, false)).unwrap();
        let mut wanted = vec![0..0; 6];
        (wanted[3], wanted[5]) = (2..3, 0..8);
        let observed = needs(&graph(), wanted, ask(true, false)).unwrap();
        assert!(unobserved[..5].iter().chain(&observed[..5]).all(|need| *need == (0..8)));
        let parts = |need: &Range<usize>, stand_alone| logits_parts(need.clone(), ask(true, stand_alone));
        let (alone, others) = (7..8, 0..7);
        assert_eq!(parts(&unobserved[5], false), std::slice::from_ref(&alone));
        assert_eq!(parts(&observed[5], false), [others, alone]);
        assert_eq!(parts(&observed[5], true).len(), 1);
    }
}
