//! Something that is wrong with a file.

/// What sort of fault it is: whether a lost tail explains it depends on that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Bytes are not those of a frame.
    Bytes,
    /// A whole frame speaks of another that is not there: behind lost bytes, their consequence.
    Missing,
    /// A whole frame says something that no writer says.
    Record,
}

impl Cause {
    /// The word in reports.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Bytes => "bytes",
            Cause::Missing => "missing",
            Cause::Record => "record",
        }
    }
}

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Sequence number of the frame, where one is concerned.
    pub seq: Option<u64>,
    /// Where in the file.
    pub offset: u64,
    /// Kind of the frame, where known.
    pub kind: Option<&'static str>,
    /// Run of the frame, where it belongs to one.
    pub run: Option<u32>,
    /// Capture points that the frame holds, as far as the rest of the file tells.
    pub points: Vec<String>,
    /// What sort of fault.
    pub cause: Cause,
    /// What is wrong.
    pub what: String,
}
