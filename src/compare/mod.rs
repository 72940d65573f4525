//! Two runs side by side: what may be compared, every error metric, where they part, and what to call it.

mod answer;
mod assessment;
mod buffer;
mod metric;
mod metrics;
mod pairing;
mod row;
mod rows;
mod rules;
mod ruling;
mod site;
mod tolerance;
mod verdict;
mod warning;
mod weights;

pub use answer::{Answer, AnswerRow, AnswerStep, Chosen};
pub use assessment::{Assessment, Standing};
pub use metric::{Metric, Passes};
pub use metrics::{Allclose, Difference, LogitsMetrics, Quantiles, Sums};
pub use pairing::{LeftOut, Pairing, RowPair, SitePair};
pub use row::{Detail, Evidence, RowComparer, RowComparison};
pub use rows::{Row, RunRows, Token};
pub use rules::{Level, Over, Rule, Rules};
pub use ruling::{Finding, Measured, Outcome, Ruling, Rulings, stands_out};
pub use site::{SiteComparison, compare_sites};
pub use tolerance::{Tolerance, unlike};
pub use verdict::{Comparison, Divergence, Verdict};
pub use warning::{Suspicion, Warning};
pub use weights::{WeightDifference, WeightPair, WeightPairing, WeightState};
