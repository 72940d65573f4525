//! What is furthest off at one place: the element, the head, the channel.

use super::pairing::{Pairing, SitePair};
use super::row::{Detail, RowComparer};
use crate::error::Result;

/// The worst of a place. Errors of heads and channels are summed over all rows that differ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Worst {
    /// Position of the element.
    pub position: u32,
    /// Its index in the row.
    pub index: u32,
    /// The reference's value.
    pub reference: f32,
    /// The target's value.
    pub target: f32,
    /// The head with the largest error, where rows have heads: a block of the row, as wide as the row over the heads.
    pub head: Option<u32>,
    /// The column with the largest error, where all rows have one width.
    pub channel: Option<u32>,
}

impl Worst {
    /// Reads the rows of `site` that differ: the element is that of the largest error, in the row of `position` where that
    /// is given; a value that is nonfinite on one side alone is worse than any number. `None` where no values were kept.
    ///
    /// # Errors
    /// Those of reading.
    pub fn of(pairing: &Pairing, site: &SitePair, position: Option<u32>) -> Result<Option<Self>> {
        let mut comparer = RowComparer::new(pairing, Detail::default());
        let kept = |row: &&super::RowPair| row.reference.payload != 0 && row.target.payload != 0;
        let differing = site.rows.iter().filter(|row| row.reference.fingerprint != row.target.fingerprint).filter(kept);
        let (mut worst, mut largest): (Option<Worst>, f64) = (None, 0.0);
        let (mut heads, mut channels) = (Vec::new(), Some(Vec::new()));
        for row in differing {
            let (reference, target) = comparer.values(site, row)?;
            let wanted = position.is_none_or(|position| position == row.position);
            let width = reference.len().checked_div(site.heads as usize).unwrap_or(0);
            // A plan may say any number: a row has no more heads than elements.
            if width > 0 {
                heads.resize(site.heads as usize, 0.0);
            }
            if let Some(sums) = channels.as_mut().filter(|sums| !sums.is_empty())
                && sums.len() != reference.len()
            {
                channels = None;
            }
            if let Some(sums) = channels.as_mut() {
                sums.resize(reference.len(), 0.0);
            }
            for (index, (&r, &t)) in reference.iter().zip(target).enumerate() {
                let error = error(r, t);
                if error == 0.0 {
                    continue;
                }
                if let Some(head) = index.checked_div(width).and_then(|head| heads.get_mut(head)) {
                    *head += error * error;
                }
                if let Some(channel) = channels.as_mut().and_then(|sums: &mut Vec<f64>| sums.get_mut(index)) {
                    *channel += error * error;
                }
                if wanted && error > largest {
                    largest = error;
                    let index = index as u32;
                    worst = Some(Worst {
                        position: row.position,
                        index,
                        reference: r,
                        target: t,
                        head: None,
                        channel: None,
                    });
                }
            }
        }
        let channel = channels.and_then(|channels| first_largest(&channels));
        Ok(worst.map(|worst| Worst { head: first_largest(&heads), channel, ..worst }))
    }
}

/// |t - r|; infinite where one alone is nonfinite, or both in different ways.
fn error(r: f32, t: f32) -> f64 {
    match r.is_finite() && t.is_finite() {
        true => (f64::from(t) - f64::from(r)).abs(),
        false if r == t || r.is_nan() && t.is_nan() => 0.0,
        false => f64::INFINITY,
    }
}

/// The first of the largest sums, where there is one above 0.
fn first_largest(sums: &[f64]) -> Option<u32> {
    let (mut found, mut largest) = (None, 0.0);
    for (number, sum) in (0u32..).zip(sums) {
        if *sum > largest {
            (found, largest) = (Some(number), *sum);
        }
    }
    found
}
