//! Captures of a few rows, gathered until they are worth a job and a payload.
//!
//! A decoded token shows hundreds of rows of some kilobytes. What a job, a zstd frame and a file frame cost whatever
//! their size is then more than the values cost, so the rows of a layer travel together. Of rows without values only the
//! job costs, and waking a thread for it: those travel with any layer's. What belongs together follows from the captures
//! alone, never from time: a run that is recorded again has the same payloads.

use super::pack::Capture;

/// Consecutive captures of one step; those that are kept are of one layer.
pub struct Group {
    /// Step of the run.
    pub step: u32,
    /// At least one, in forward order.
    pub captures: Vec<Capture>,
    /// Bytes of host memory that they hold.
    pub bytes: usize,
}

/// The group that is being put together.
pub struct Gather {
    limit: usize,
    /// Of the kept captures in the group.
    layer: Option<i32>,
    group: Option<Group>,
}

impl Gather {
    /// Gathers up to `limit` bytes; a larger capture is a group by itself.
    pub fn new(limit: usize) -> Self {
        Gather { limit, layer: None, group: None }
    }

    /// Whether a capture of `bytes` bytes, kept of `layer` or not kept at all, may join what is gathered.
    pub fn accepts(&self, step: u32, layer: Option<i32>, bytes: usize) -> bool {
        let together = layer.is_none() || self.layer.is_none() || self.layer == layer;
        let fits = |group: &Group| group.step == step && together && group.bytes + bytes <= self.limit;
        self.group.as_ref().is_none_or(fits)
    }

    /// Takes a capture that is accepted.
    pub fn add(&mut self, step: u32, layer: Option<i32>, capture: Capture, bytes: usize) {
        self.layer = self.layer.or(layer);
        let group = self.group.get_or_insert_with(|| Group { step, captures: Vec::new(), bytes: 0 });
        group.captures.push(capture);
        group.bytes += bytes;
    }

    /// Whether nothing may join any more.
    pub fn is_full(&self) -> bool {
        self.group.as_ref().is_some_and(|group| group.bytes >= self.limit)
    }

    /// Ends the group, if there is one.
    pub fn take(&mut self) -> Option<Group> {
        self.layer = None;
        self.group.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Captured;
    use crate::tensor::{Extent, Rows};
    use std::sync::Arc;

    /// Sizes of the groups that captures of (step, layer, bytes) come to, up to 100 bytes together.
    fn groups(captures: &[(u32, i32, usize)]) -> Vec<Vec<u32>> {
        let kept: Vec<_> = captures.iter().map(|(step, layer, bytes)| (*step, Some(*layer), *bytes)).collect();
        groups_of(&kept)
    }

    fn groups_of(captures: &[(u32, Option<i32>, usize)]) -> Vec<Vec<u32>> {
        let mut gather = Gather::new(100);
        let mut groups = Vec::new();
        for (site, (step, layer, bytes)) in (0..).zip(captures) {
            if !gather.accepts(*step, *layer, *bytes) {
                groups.extend(gather.take());
            }
            let rows = Captured::Host(Rows::new(Arc::new(Vec::new()), Extent::Width(1), 0).unwrap());
            gather.add(*step, *layer, Capture { site, first_position: 0, rows, keep: layer.is_some() }, *bytes);
            if gather.is_full() {
                groups.extend(gather.take());
            }
        }
        groups.extend(gather.take());
        groups.iter().map(|group| group.captures.iter().map(|capture| capture.site).collect()).collect()
    }

    #[test]
    fn a_group_is_of_one_step_and_layer_and_within_the_limit() {
        assert_eq!(groups(&[(0, 0, 40), (0, 0, 40), (0, 0, 40)]), [vec![0, 1], vec![2]]);
        assert_eq!(groups(&[(0, 0, 60), (0, 0, 40), (0, 0, 1)]), [vec![0, 1], vec![2]], "as much as fits");
        assert_eq!(groups(&[(0, -1, 1), (0, 0, 1), (0, 0, 1), (0, 1, 1)]), [vec![0], vec![1, 2], vec![3]]);
        assert_eq!(groups(&[(0, 3, 1), (1, 3, 1)]), [[0], [1]]);
        assert_eq!(groups(&[(0, 0, 1), (0, 0, 500), (0, 0, 1)]), [[0], [1], [2]], "what is large goes alone");
        assert!(groups(&[]).is_empty());
    }

    #[test]
    fn rows_without_values_go_with_any_layer() {
        let statistics = [(0, None, 30); 3];
        assert_eq!(groups_of(&statistics), [[0, 1, 2]], "whatever layers they are of");
        assert_eq!(groups_of(&[(0, Some(1), 1), (0, None, 1), (0, Some(2), 1), (0, None, 1)]), [[0, 1], [2, 3]]);
        assert_eq!(groups_of(&[(0, None, 1), (0, Some(2), 1), (0, Some(2), 1)]), [[0, 1, 2]]);
        assert_eq!(groups_of(&[(0, None, 60), (0, None, 60), (1, None, 1)]), [[0], [1], [2]]);
    }
}
