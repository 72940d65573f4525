//! What a comparison comes to, and what that rests on.

/// What two runs are to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every compared row is bit-equal.
    Equal,
    /// Different, and not more than right runs of these kinds may be.
    WithinTolerance,
    /// More different than right runs may be.
    Diverged,
    /// What is at hand decides nothing; the reason says what would.
    Undecided,
    /// Nothing may be said.
    NotComparable,
}

impl Verdict {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Equal => "equal",
            Verdict::WithinTolerance => "within_tolerance",
            Verdict::Diverged => "diverged",
            Verdict::Undecided => "undecided",
            Verdict::NotComparable => "not_comparable",
        }
    }
}

/// What a verdict rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judge {
    /// Two deterministic runs of one arithmetic: the first bit that differs.
    Twins,
    /// A run that is known to be right.
    Baseline,
    /// Operations made again from their recorded inputs, and model files held against each other.
    Audit,
    /// A bound on f32 sums in another order, or one that the user gave.
    Tolerance,
    /// A bound on what rounding does to a whole run, below which faults may hide.
    Floor,
}

impl Judge {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Judge::Twins => "twins",
            Judge::Baseline => "baseline",
            Judge::Audit => "audit",
            Judge::Tolerance => "tolerance",
            Judge::Floor => "floor",
        }
    }
}
