//! Rotary position embedding: how fast each pair of elements turns.

use crate::error::{Error, Result};
use std::f64::consts::TAU;
use std::fmt;

/// Rotary position embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeParameters {
    /// Base of the frequencies (`rope_theta`).
    pub base: f64,
    /// Leading elements of a head that turn.
    pub rotary_dim: u32,
    /// How frequencies are stretched for long contexts.
    pub scaling: RopeScaling,
}

/// How frequencies are stretched for long contexts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All are divided by the factor.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3.1: frequencies that turn less than `low` times in the original context are divided by the factor, those
    /// that turn more than `high` times are left alone, and those between are mixed linearly in the number of turns.
    Llama3 {
        /// The divisor of slow frequencies.
        factor: f64,
        /// Turns below which a frequency is slow.
        low: f64,
        /// Turns above which a frequency is fast.
        high: f64,
        /// Positions of the context before it was stretched.
        original_context: u32,
    },
    /// Each frequency is divided by its element of the weight [`super::Role::RopeFactors`].
    Stored,
}

impl RopeParameters {
    /// Radians per position for each pair, `rotary_dim / 2` of them, in f64; `stored` are the elements of the weight
    /// that [`RopeScaling::Stored`] asks for, and nothing otherwise.
    ///
    /// Sources: Su et al., RoFormer (2021), for `base^(-2 i / rotary_dim)`; the Llama 3.1 release for its scaling.
    pub fn frequencies(&self, stored: &[f32]) -> Vec<f64> {
        let dim = f64::from(self.rotary_dim);
        let plain = (0..self.rotary_dim / 2).map(|i| self.base.powf(-2.0 * f64::from(i) / dim));
        match self.scaling {
            RopeScaling::None => plain.collect(),
            RopeScaling::Linear { factor } => plain.map(|frequency| frequency / factor).collect(),
            RopeScaling::Llama3 { factor, low, high, original_context } => {
                let stretched = |frequency: f64| {
                    let turns = f64::from(original_context) * frequency / TAU;
                    let fast = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    fast * frequency + (1.0 - fast) * frequency / factor
                };
                plain.map(stretched).collect()
            }
            RopeScaling::Stored => {
                plain.zip(stored).map(|(frequency, factor)| frequency / f64::from(*factor)).collect()
            }
        }
    }

    /// Refuses numbers that no model can have.
    ///
    /// # Errors
    /// Malformed, with the name of the number.
    pub(super) fn validate(&self, head_dim: u32) -> Result<()> {
        if !self.base.is_finite() || self.base <= 0.0 {
            return Err(Error::malformed(format!("a RoPE base of {} makes no sense", self.base)));
        }
        if !self.rotary_dim.is_multiple_of(2) {
            return Err(Error::malformed(format!("RoPE turns pairs, {} elements are odd", self.rotary_dim)));
        }
        if self.rotary_dim == 0 || self.rotary_dim > head_dim {
            return Err(Error::malformed(format!("RoPE cannot turn {} of {head_dim} elements", self.rotary_dim)));
        }
        self.scaling.validate()
    }
}

/// As a run's identity has it: `linear, factor 4`.
impl fmt::Display for RopeScaling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RopeScaling::None => f.write_str("none"),
            RopeScaling::Linear { factor } => write!(f, "linear, factor {factor}"),
            RopeScaling::Llama3 { factor, low, high, original_context } => {
                write!(f, "llama3, factor {factor}, turns {low} to {high} of {original_context} positions")
            }
            RopeScaling::Stored => f.write_str("stored"),
        }
    }
}

impl RopeScaling {
    fn validate(self) -> Result<()> {
        let positive = |name: &str, number: f64| match number.is_finite() && number > 0.0 {
            true => Ok(()),
            false => Err(Error::malformed(format!("RoPE scaling: a {name} of {number} makes no sense"))),
        };
        match self {
            RopeScaling::None | RopeScaling::Stored => Ok(()),
            RopeScaling::Linear { factor } => positive("factor", factor),
            RopeScaling::Llama3 { factor, low, high, original_context } => {
                positive("factor", factor)?;
                positive("low_freq_factor", low)?;
                positive("original context", original_context.into())?;
                positive("distance from low_freq_factor to high_freq_factor", high - low)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frequencies(scaling: RopeScaling, stored: &[f32]) -> Vec<f64> {
        RopeParameters { base: 1e4, rotary_dim: 8, scaling }.frequencies(stored)
    }

    #[test]
    fn scaled_frequencies_are_parts_of_the_plain() {
        let plain = frequencies(RopeScaling::None, &[]);
        assert!(plain.iter().zip([1.0, 0.1, 0.01, 0.001]).all(|(a, b)| (a - b).abs() < 1e-15), "{plain:?}");
        let linear = frequencies(RopeScaling::Linear { factor: 4.0 }, &[]);
        assert!(linear.iter().zip(&plain).all(|(a, b)| *a == b / 4.0));
        let stored = frequencies(RopeScaling::Stored, &[1.0, 2.0, 4.0, 8.0]);
        assert!(stored.iter().zip(&plain).zip([1.0, 2.0, 4.0, 8.0]).all(|((a, b), c)| *a == b / c));
    }

    #[test]
    fn llama3_leaves_fast_frequencies_and_divides_slow_ones() {
        // Turns in 500 positions: 79.6, 7.96, 0.796, 0.0796.
        let scaling = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 16.0, original_context: 500 };
        let (plain, found) = (frequencies(RopeScaling::None, &[]), frequencies(scaling, &[]));
        let ratio = |i: usize| found[i] / plain[i];
        assert_eq!(ratio(0), 1.0);
        let fast = (500.0 * 0.1 / TAU - 1.0) / 15.0;
        assert!((ratio(1) - (fast + (1.0 - fast) / 8.0)).abs() < 1e-12);
        assert!((ratio(2) - 0.125).abs() < 1e-12 && (ratio(3) - 0.125).abs() < 1e-12);
    }
}
