//! Two runs side by side: what may be compared, every error metric, where they part, and what to call it.

mod baseline;
mod comparison;
mod culprit;
mod inheritance;
mod likeness;
mod metrics;
mod pairing;
mod reason;
mod row;
mod rows;
mod site;
mod tolerance;
mod verdict;
mod weights;
mod worst;

pub use baseline::{Baseline, RATIO, Relative};
pub use comparison::Comparison;
pub use culprit::Divergence;
pub use inheritance::Inheritance;
pub use likeness::{Relation, unlike, unlike_numbers};
pub use metrics::{Allclose, Difference, LogitsMetrics, Quantiles, Sums};
pub use pairing::{LeftOut, Pairing, RowPair, SitePair};
pub use row::{Detail, Evidence, RowComparer, RowComparison};
pub use rows::{Row, RunRows, Token};
pub use site::{SiteComparison, compare_sites};
pub use tolerance::Tolerance;
pub use verdict::{Judge, Verdict};
pub use weights::{WeightDifference, WeightPair, WeightPairing, WeightState};
pub use worst::Worst;
