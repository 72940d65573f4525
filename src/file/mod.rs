//! The bytes of a trace file.

/// Kind of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
pub enum Kind {
    /// Identity of a run, at its start.
    Run = 1,
    /// Expected capture points of a run.
    Plan = 2,
    /// Statistics of token rows.
    Stats = 3,
    /// Values of token rows.
    Payload = 4,
    /// Commit mark of a step.
    Step = 5,
    /// What was captured of what was expected.
    Coverage = 6,
    /// Something was dropped.
    Loss = 7,
    /// End of a run.
    End = 8,
    /// Durability mark.
    Sync = 9,
    /// Directory of frames that are not payloads.
    Index = 10,
    /// Directory of payload frames.
    PayloadIndex = 11,
    /// Everything before is complete.
    Seal = 12,
}

impl Kind {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Run => "run",
            Kind::Plan => "plan",
            Kind::Stats => "stats",
            Kind::Payload => "payload",
            Kind::Step => "step",
            Kind::Coverage => "coverage",
            Kind::Loss => "loss",
            Kind::End => "end",
            Kind::Sync => "sync",
            Kind::Index => "index",
            Kind::PayloadIndex => "payload_index",
            Kind::Seal => "seal",
        }
    }
}
