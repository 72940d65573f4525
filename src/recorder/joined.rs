//! Rows of several tensors as rows of one payload.

use crate::error::{Error, Result};
use crate::stats::RowStatistics;
use crate::tensor::{Extent, Rows};
use std::collections::HashMap;
use std::sync::Arc;

/// Rows one behind the other, each content once: a value and its copy in the cache are the same row.
#[derive(Default)]
pub struct Joined {
    values: Vec<f32>,
    ends: Vec<usize>,
    /// The first row with a fingerprint.
    seen: HashMap<u64, usize>,
}

impl Joined {
    /// Adds rows with their statistics and says where each of them is.
    pub fn add(&mut self, rows: &Rows, statistics: &[RowStatistics]) -> Vec<u32> {
        self.values.reserve(rows.values().len());
        let places = statistics.iter().enumerate().map(|(row, statistics)| {
            let row = rows.row(row);
            let seen = *self.seen.entry(statistics.fingerprint).or_insert(self.ends.len());
            if self.holds(seen, row) {
                return seen as u32;
            }
            self.values.extend_from_slice(row);
            self.ends.push(self.values.len());
            self.ends.len() as u32 - 1
        });
        places.collect()
    }

    /// Whether row `at` has exactly the bits of `row`.
    fn holds(&self, at: usize, row: &[f32]) -> bool {
        let start = if at == 0 { Some(&0) } else { self.ends.get(at - 1) };
        let held = start.zip(self.ends.get(at)).and_then(|(start, end)| self.values.get(*start..*end));
        held.is_some_and(|held| {
            held.len() == row.len() && held.iter().zip(row).all(|(a, b)| a.to_bits() == b.to_bits())
        })
    }

    /// All rows.
    pub fn rows(self) -> Result<Rows> {
        let count = self.ends.len();
        let offsets = std::iter::once(0).chain(self.ends).collect();
        Rows::new(Arc::new(self.values), Extent::Offsets(offsets), count)
            .ok_or_else(|| Error::internal("joined rows do not fill their values"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(values: &[f32], width: usize) -> (Rows, Vec<RowStatistics>) {
        let statistics = values.chunks(width).map(RowStatistics::of).collect();
        let rows = Rows::new(Arc::new(values.to_vec()), Extent::Width(width), values.len() / width);
        (rows.unwrap(), statistics)
    }

    #[test]
    fn equal_rows_are_held_once_and_every_row_has_its_bits() {
        let mut joined = Joined::default();
        let mut add = |values: &[f32], width| {
            let (rows, statistics) = rows(values, width);
            joined.add(&rows, &statistics)
        };
        assert_eq!(add(&[1.0, 2.0, 3.0, 4.0], 2), [0, 1]);
        assert_eq!(add(&[5.0, f32::NAN, -0.0], 3), [2]);
        assert_eq!(add(&[3.0, 4.0, 1.0, 2.0], 2), [1, 0], "rows that were there");
        assert_eq!(add(&[5.0, f32::NAN, 0.0], 3), [3], "a zero of another sign is another row");
        assert_eq!(add(&[5.0, f32::NAN, -0.0], 3), [2]);
        let all = joined.rows().unwrap();
        assert_eq!((all.len(), all.width()), (4, None));
        assert_eq!(all.row(1), [3.0, 4.0]);
        assert_eq!(all.row(3)[2].to_bits(), 0);
    }

    #[test]
    fn equal_fingerprints_of_unlike_rows_mix_nothing_up() {
        let mut joined = Joined::default();
        let (first, mut statistics) = rows(&[1.0, 2.0], 2);
        let (second, _) = rows(&[1.0, 3.0], 2);
        statistics[0].fingerprint = 7;
        assert_eq!(joined.add(&first, &statistics), [0]);
        assert_eq!(joined.add(&second, &statistics), [1], "statistics say the same, bits do not");
        assert_eq!(joined.add(&first, &statistics), [0]);
    }
}
