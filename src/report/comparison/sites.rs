//! The places of a comparison: a line and an object for each.

use crate::compare::{Comparison, Relative, SiteComparison, SitePair, Sums, stands_out};
use crate::report::number;
use serde_json::{Value, json};

/// A table of all places in forward order.
pub(super) fn text(comparison: &Comparison) -> String {
    let head = "layer  point             rows     rel_l2  worst_row  position     cosine  ratio_std  beyond\n";
    head.to_owned() + &pairs(comparison).map(|(at, pair, site)| line(comparison, at, pair, site)).collect::<String>()
}

/// The places with their numbers.
pub(super) fn pairs(comparison: &Comparison) -> impl Iterator<Item = (usize, &SitePair, &SiteComparison)> {
    let pairs = comparison.pairing.iter().flat_map(|pairing| &pairing.sites);
    pairs.zip(&comparison.sites).enumerate().map(|(at, (pair, site))| (at, pair, site))
}

fn line(comparison: &Comparison, at: usize, pair: &SitePair, site: &SiteComparison) -> String {
    let layer = pair.layer().map_or_else(|| "-".to_owned(), |layer| layer.to_string());
    let point = super::place(None, &pair.point, pair.occurrence);
    let number = |value: Option<f64>, digits: usize| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.digits$}"));
    let small = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2e}"));
    let beyond = match stands_out(comparison, at) {
        _ if !pair.missing.is_empty() => "  missing",
        true if !pair.uneven.is_empty() => "  other width",
        true => "  *",
        false => "",
    };
    let line = format!(
        "{layer:>5}  {point:16} {:>5} {:>10} {:>10} {:>9} {:>10} {:>10}{beyond}",
        pair.rows.len(),
        small(site.known().filter(|sums| sums.count > 0).and_then(Sums::rel_l2)),
        small(Some(site.worst_row)),
        site.worst_position.map_or_else(|| "-".to_owned(), |position| position.to_string()),
        number(site.known().and_then(Sums::cosine), 6),
        number(site.ratio_std(), 4),
    );
    line.trim_end().to_owned() + "\n"
}

/// An object for each place in forward order.
pub(super) fn json(comparison: &Comparison) -> Vec<Value> {
    pairs(comparison).map(|(at, pair, site)| object(comparison, at, pair, site)).collect()
}

fn object(comparison: &Comparison, at: usize, pair: &SitePair, site: &SiteComparison) -> Value {
    let sums = site.known();
    let of = |metric: fn(&Sums) -> Option<f64>| number(sums.and_then(metric));
    let own = comparison.inheritance.get(at).copied().unwrap_or_default();
    let relative = comparison.baseline.as_ref().and_then(|baseline| *baseline.sites.get(at)?);
    json!({
        "layer": pair.layer(),
        "point": pair.point,
        "occurrence": pair.occurrence,
        "rows": pair.rows.len(),
        "missing": pair.missing.len(),
        "uneven": pair.uneven.len(),
        "equal_rows": site.equal_rows,
        "tensor_rows": site.tensor_rows,
        "statistics_rows": site.undecided_rows,
        "beyond": stands_out(comparison, at),
        "rel_l2": of(Sums::rel_l2),
        "worst_row": number(Some(site.worst_row)),
        "worst_position": site.worst_position,
        "worst_element": site.worst_element.map(|worst| json!({
            "index": worst.index,
            "reference": number(Some(worst.reference)),
            "target": number(Some(worst.target)),
        })),
        "max_abs_diff": of(Sums::max_abs_diff),
        "mean_abs_diff": of(Sums::mean_abs_diff),
        "rmse": of(Sums::rmse),
        "rel_linf": of(Sums::rel_linf),
        "cosine": of(Sums::cosine),
        "rel_diff": of(Sums::rel_diff),
        "sqnr_db": of(Sums::sqnr_db),
        "nmse": of(Sums::nmse),
        "pearson": of(Sums::pearson),
        "slope": of(Sums::slope),
        "required_rtol": of(Sums::required_rtol),
        "ulp_max": sums.map(|sums| sums.ulp_max),
        "disagreeing": sums.map(|sums| sums.disagreeing),
        "ratio_std": number(site.ratio_std()),
        "inherited": number(own.inherited),
        "introduced": number(own.introduced),
        "introduced_is": own.introduced.map(|_| if own.measured { "measured" } else { "estimate" }),
        "amplification": number(own.amplification(site)),
        "baseline_rel_l2": number(relative.map(|relative| relative.baseline)),
        "noise_ratio": number(relative.map(Relative::ratio)),
    })
}
