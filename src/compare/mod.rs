//! Two runs side by side: what may be compared, every error metric, where they part, and what to call it.

mod element;
mod logits;
mod metrics;
mod named;
mod pairing;
mod row;
mod rows;
mod site;
mod tolerance;
mod verdict;
mod weights;

pub use element::{ElementDifference, top_differences};
pub use logits::{LogitsMetrics, top1_gap, topk_overlap};
pub use metrics::{Allclose, Difference, Quantiles, Sums, ratio};
pub use named::{METRICS, Metric, Needs, Reading};
pub use pairing::{LeftOut, Pairing, RowPair, SitePair};
pub use row::{Detail, Evidence, RowComparer, RowComparison};
pub use rows::{Row, RunRows, Token};
pub use site::{SiteComparison, compare_sites};
pub use tolerance::{Tolerance, unlike};
pub use verdict::{Comparison, Divergence, Verdict};
pub use weights::{WeightDifference, WeightPair, WeightPairing, WeightState};
