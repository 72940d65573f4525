//! What other engines dumped, made into a run: names become capture points by a mapping, tensors become token rows,
//! and an observer sees them as it sees a forward pass. Nothing is guessed: a name that means nothing or two things is
//! an error.

mod dump;
mod layout;
mod mapping;
mod npy;
mod pattern;
mod places;
mod view;

pub use dump::{Dump, DumpFile, DumpTensor, Element};
pub use mapping::{Axis, Mapping, Masked, SHIPPED};
pub use places::{Import, LeftOut, Setting};
