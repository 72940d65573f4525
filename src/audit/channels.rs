//! Errors by output channel, and which channel stands out.

/// Sums over the tokens for each element of a row; only rows of one width have channels.
#[derive(Debug, Clone, Default)]
pub struct Channels {
    error_squares: Vec<f64>,
    expected_squares: Vec<f64>,
    /// Whether rows of other widths came along: then an element is no channel.
    ragged: bool,
}

impl Channels {
    /// Adds a row.
    pub fn add(&mut self, expected: &[f32], recorded: &[f32]) {
        if self.error_squares.is_empty() && !self.ragged {
            self.error_squares = vec![0.0; expected.len()];
            self.expected_squares = vec![0.0; expected.len()];
        }
        if self.ragged || expected.len() != self.error_squares.len() || expected.len() != recorded.len() {
            *self = Channels { ragged: true, ..Channels::default() };
            return;
        }
        let sums = self.error_squares.iter_mut().zip(&mut self.expected_squares);
        for ((error, square), (e, r)) in sums.zip(expected.iter().zip(recorded)) {
            let (e, r) = (f64::from(*e), f64::from(*r));
            *error += (r - e) * (r - e);
            *square += e * e;
        }
    }

    /// The channel whose error stands out most, as a robust z: distance from the median of the channels' root mean square
    /// errors, over 1.4826 times the median of such distances.
    pub fn largest_z(&self) -> Option<(f64, u32)> {
        let roots: Vec<f64> = self.error_squares.iter().map(|error| error.sqrt()).collect();
        robust_z(&roots)
    }
}

/// The largest robust z of `values` and where it is; `None` where more than half of them are equal, or not finite.
pub fn robust_z(values: &[f64]) -> Option<(f64, u32)> {
    let center = median(values.iter().copied())?;
    let spread = 1.4826 * median(values.iter().map(|value| (value - center).abs()))?;
    if !spread.is_finite() || spread == 0.0 {
        return None;
    }
    let z = values.iter().map(|value| (value - center).abs() / spread);
    let (index, z) = z.enumerate().max_by(|a, b| a.1.total_cmp(&b.1))?;
    Some((z, u32::try_from(index).ok()?))
}

pub(super) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    let middle = values.len() / 2;
    if values.is_empty() { None } else { Some(*values.select_nth_unstable_by(middle, f64::total_cmp).1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_channel_that_stands_out_is_found() {
        let mut values: Vec<f64> = (0..100u8).map(|i| f64::from(i % 10)).collect();
        values[37] = 100.0;
        let (z, channel) = robust_z(&values).unwrap();
        assert!(channel == 37 && z > 20.0);
        assert_eq!(robust_z(&[1.0; 9]), None);
        assert_eq!(robust_z(&[]), None);
    }

    #[test]
    fn ragged_rows_have_no_channels() {
        let mut channels = Channels::default();
        channels.add(&[1.0, 2.0], &[1.0, 2.5]);
        channels.add(&[1.0], &[1.0]);
        channels.add(&[1.0, 2.0], &[1.0, 2.5]);
        assert_eq!(channels.largest_z(), None);
    }
}
