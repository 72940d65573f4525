//! What an obligation needs of a run, and what of that the run does not have.

use super::Sql;
use crate::capture::Status;
use crate::error::Result;
use crate::open::RunRef;
use crate::record::{CoverageV1, SiteV1};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Operations that contracts may name: those that make a row of rows at the same position, and of no weight or of vectors.
pub const OPERATIONS: [&str; 15] = [
    "identity",
    "add",
    "sum",
    "scale",
    "soft_cap",
    "bias",
    "multiply",
    "rms_norm",
    "layer_norm",
    "softmax",
    "row_softmax",
    "silu",
    "gelu_tanh",
    "gelu_erf",
    "gelu_quick",
];

/// What has to be in a run's trace for an obligation to be measured.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Needs {
    /// Points whose rows it reads.
    #[serde(default)]
    pub points: Vec<String>,
    /// Points whose values it reads.
    #[serde(default)]
    pub values: Vec<String>,
    /// Points of which the plan has to say how they are made; their rows it reads as well.
    #[serde(default)]
    pub planned: Vec<String>,
    /// Points whose values it reads together with those that their operations read.
    #[serde(default)]
    pub operations: Vec<String>,
    /// Operations whose points are meant, of [`OPERATIONS`]; sites that others make are no part of it. All where it is empty.
    #[serde(default)]
    pub made_by: Vec<String>,
    /// SQL that returns what else is missing, a sentence a row in its first column.
    pub gaps: Option<Sql>,
}

/// What a run has of an obligation's [`Needs`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Supply {
    /// Rows to look at; and what is missing beside them.
    Rows(Vec<String>),
    /// The model has none of the points.
    NotApplicable(String),
    /// There is nothing to look at, and why.
    Nothing(Vec<String>),
}

impl Needs {
    /// Every point that is named.
    pub fn points(&self) -> impl Iterator<Item = &String> {
        self.points.iter().chain(&self.values).chain(&self.planned).chain(&self.operations)
    }

    /// What `run` has of the points; [`Needs::gaps`] is for whoever asks SQL.
    ///
    /// # Errors
    /// Those of reading coverage.
    pub fn supply(&self, run: &RunRef) -> Result<Supply> {
        if self.points().next().is_none() {
            return Ok(Supply::Rows(Vec::new()));
        }
        let steps = run.view().steps.iter().map(|step| run.trace().step(&step.commit));
        let tokens = steps.map(|step| Ok(step?.token.len() as u64));
        let coverage = Covered {
            plan: &run.view().plan.sites,
            record: run.trace().coverage(run.view())?,
            positions: tokens.sum::<Result<u64>>()?,
        };
        let mut missing = Missing::default();
        let mut reasons = BTreeSet::new();
        let mut applicable = false;
        for point in self.points() {
            let sites: Vec<&SiteV1> = coverage.plan.iter().filter(|site| site.point == *point).collect();
            if sites.is_empty() {
                applicable = true;
                missing.add(point, -1, "the run's plan does not have it".to_owned());
            }
            for site in sites {
                match self.excludes(point, site) {
                    Some(reason) => drop(reasons.insert(reason)),
                    None => {
                        applicable = true;
                        self.look(&coverage, point, site, &mut missing);
                    }
                }
            }
        }
        Ok(match (applicable, missing.looked_at) {
            (false, _) => Supply::NotApplicable(reasons.into_iter().collect::<Vec<_>>().join("; ")),
            (true, 0) => Supply::Nothing(missing.sentences()),
            (true, _) => Supply::Rows(missing.sentences()),
        })
    }

    /// Why a site is none of those that are meant; `None` where it is one.
    fn excludes(&self, point: &str, site: &SiteV1) -> Option<String> {
        let other = !self.made_by.is_empty() && !site.operation.is_empty() && !self.made_by.contains(&site.operation);
        if site.status == Status::NotApplicable as u8 {
            Some(format!("{point}: {}", site.reason))
        } else if other {
            Some(format!("{point}: made by {}", site.operation))
        } else {
            None
        }
    }

    /// Notes what is missing of a site.
    fn look(&self, coverage: &Covered<'_>, point: &String, site: &SiteV1, missing: &mut Missing) {
        let made = self.operations.contains(point);
        // An import without a model has points of which nothing else is known.
        if site.operation.is_empty() && (made || self.planned.contains(point)) {
            return missing.add(point, site.layer, "the plan does not say how it is made".to_owned());
        }
        let values = made || self.values.contains(point);
        missing.look(coverage, site, values);
        // How a point is made is the same at every position.
        if values || self.points.contains(point) {
            missing.look_for_positions(coverage, site);
        }
        if made {
            let inputs = site.inputs.iter().filter_map(|input| coverage.plan.get(*input as usize));
            inputs.for_each(|input| missing.look(coverage, input, true));
        }
    }
}

struct Covered<'a> {
    plan: &'a [SiteV1],
    record: CoverageV1,
    /// Positions that the run evaluated.
    positions: u64,
}

impl Covered<'_> {
    fn rows(column: &[u64], site: &SiteV1) -> u64 {
        column.get(site.site as usize).copied().unwrap_or(0)
    }

    fn status(&self, site: &SiteV1) -> Option<Status> {
        self.record.status.get(site.site as usize).copied().and_then(Status::from_code)
    }
}

/// What is missing: for each point and reason the layers.
#[derive(Default)]
struct Missing {
    layers: BTreeMap<(String, String), BTreeSet<i32>>,
    /// Rows that are there.
    looked_at: u64,
}

impl Missing {
    fn add(&mut self, point: &str, layer: i32, reason: String) {
        self.layers.entry((point.to_owned(), reason)).or_default().insert(layer);
    }

    fn look(&mut self, coverage: &Covered<'_>, site: &SiteV1, values: bool) {
        let of = |column: &[u64]| Covered::rows(column, site);
        let (expected, captured) = (of(&coverage.record.rows_expected), of(&coverage.record.rows_captured));
        let status = coverage.status(site);
        let reason = coverage.record.reason.get(site.site as usize).filter(|reason| !reason.is_empty());
        let kept = if values { of(&coverage.record.rows_with_tensor) } else { captured };
        self.looked_at += kept;
        let name = status.map_or("unknown", Status::name);
        if status != Some(Status::Captured) {
            let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
            self.add(&site.point, site.layer, format!("{name}{reason}"));
        } else if captured == 0 {
            self.add(&site.point, site.layer, "no row was captured".to_owned());
        } else if captured < expected {
            self.add(&site.point, site.layer, format!("{captured} of {expected} rows were captured"));
        } else if kept < captured {
            self.add(&site.point, site.layer, format!("values were kept of {kept} of {captured} rows"));
        }
    }

    /// Rows of some positions say nothing of the others.
    fn look_for_positions(&mut self, coverage: &Covered<'_>, site: &SiteV1) {
        let (expected, positions) = (Covered::rows(&coverage.record.rows_expected, site), coverage.positions);
        if coverage.status(site) == Some(Status::Captured) && 0 < expected && expected < positions {
            self.add(&site.point, site.layer, format!("rows of {expected} of {positions} positions were selected"));
        }
    }

    fn sentences(&self) -> Vec<String> {
        let sentence = |((point, reason), layers): (&(String, String), &BTreeSet<i32>)| {
            let layers: Vec<i32> = layers.iter().copied().filter(|layer| *layer >= 0).collect();
            let place = match layers.as_slice() {
                [] => String::new(),
                [layer] => format!(" (layer {layer})"),
                layers => format!(" (layers {})", ranges(layers)),
            };
            format!("{point}{place}: {reason}")
        };
        self.layers.iter().map(sentence).collect()
    }
}

/// `0-3, 7` of ascending numbers.
fn ranges(numbers: &[i32]) -> String {
    let mut ranges: Vec<(i32, i32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*number) => *last = *number,
            _ => ranges.push((*number, *number)),
        }
    }
    let text = |(first, last): &(i32, i32)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    ranges.iter().map(text).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_layers_are_one_range() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2, 5, 7-8");
    }
}
