//! What a trace says: one frozen struct per record kind and version.
//!
//! rkyv does not know its own schema, so the frame header's (kind, version) picks the type here, and nothing else does.

mod append;
mod content;
mod framed;
mod meaning;
mod v1;
pub use content::Shape;
pub use framed::Framed;
pub use v1::*;

use crate::error::{Error, Result};
use crate::layout::Kind;
use rkyv::rancor::BoxedError;
use rkyv::util::AlignedVec;

/// Version of every record struct of this module.
pub const VERSION: u16 = 1;

/// A record that a frame carries.
pub trait Record: Sized {
    /// The kind of its frames.
    const KIND: Kind;

    /// Archives the record behind what `buffer` holds (reusing one is several times faster than fresh memory).
    fn encode(&self, buffer: AlignedVec) -> Result<AlignedVec>;

    /// Checks an archive and its meaning, and takes it out.
    ///
    /// # Errors
    /// Damaged, where the bytes are no archive of this record or say something impossible.
    fn decode(body: &[u8]) -> Result<Self>;
}

macro_rules! records {
    ($($record:ident, $archived:ident: $kind:ident;)*) => {$(
        impl Record for $record {
            const KIND: Kind = Kind::$kind;

            fn encode(&self, buffer: AlignedVec) -> Result<AlignedVec> {
                rkyv::api::high::to_bytes_in::<_, BoxedError>(self, buffer).map_err(|cause| {
                    Error::internal(concat!("cannot archive a ", stringify!($kind), " record")).because(cause)
                })
            }

            fn decode(body: &[u8]) -> Result<Self> {
                let archived = access::<$archived>(body)?;
                let record = rkyv::deserialize::<Self, BoxedError>(archived).map_err(not_an_archive)?;
                record.check()?;
                Ok(record)
            }
        }
    )*};
}

records! {
    RunV1, ArchivedRunV1: Run;
    PlanV1, ArchivedPlanV1: Plan;
    StatsV1, ArchivedStatsV1: Stats;
    PayloadV1, ArchivedPayloadV1: Payload;
    StepV1, ArchivedStepV1: Step;
    CoverageV1, ArchivedCoverageV1: Coverage;
    LossV1, ArchivedLossV1: Loss;
    SyncV1, ArchivedSyncV1: Sync;
    EndV1, ArchivedEndV1: End;
    IndexV1, ArchivedIndexV1: Index;
    PayloadIndexV1, ArchivedPayloadIndexV1: PayloadIndex;
    SealV1, ArchivedSealV1: Seal;
    WeightV1, ArchivedWeightV1: Weight;
}

/// Checks that `body` is an archive of `T` and gives it in place; its meaning is not checked.
pub fn access<T>(body: &[u8]) -> Result<&T>
where
    T: rkyv::Portable + for<'a> rkyv::bytecheck::CheckBytes<rkyv::api::high::HighValidator<'a, BoxedError>>,
{
    rkyv::access::<T, BoxedError>(body).map_err(not_an_archive)
}

fn not_an_archive(cause: BoxedError) -> Error {
    Error::damaged("the body is no archive of its record").because(cause)
}

/// Bytes of an archived [`SealV1`]: a seal is found by its fixed distance from the end of the file.
pub const SEAL_BYTES: usize = std::mem::size_of::<ArchivedSealV1>();
