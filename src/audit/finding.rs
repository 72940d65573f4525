//! What was found of one operation, and what follows for the run.

use super::{Bound, LocalError};
use crate::graph::Site;

/// Where a wrong operation goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The operation itself: another formula, another operand, a stale buffer.
    Kernel,
    /// The weights in the run's file.
    File,
    /// A number of the model: an epsilon, a base, a scale.
    HyperParameter,
    /// Other tokens than the run says.
    Tokens,
    /// What was read of the keys and values of earlier positions.
    Cache,
}

impl Class {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Class::Kernel => "kernel",
            Class::File => "file",
            Class::HyperParameter => "hyper-parameter",
            Class::Tokens => "tokens",
            Class::Cache => "cache",
        }
    }
}

/// What is said of one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// It did what its inputs, weights and rounding say.
    Right,
    /// It did so with another rounding, which is known by name.
    Rounding(&'static str),
    /// It did something else.
    Wrong(Class),
    /// It could not be judged; the reason.
    Undecided(&'static str),
}

impl Judgement {
    /// The name in tables: `right`, `rounding: NAME`, `wrong`, `undecided: REASON`.
    pub fn text(self) -> String {
        match self {
            Judgement::Right => "right".to_owned(),
            Judgement::Rounding(name) => format!("rounding: {name}"),
            Judgement::Wrong(_) => "wrong".to_owned(),
            Judgement::Undecided(reason) => format!("undecided: {reason}"),
        }
    }
}

/// One operation of a run, judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Number of the site in the graph: forward order.
    pub site: u32,
    /// The layer, `None` outside.
    pub layer: Option<u32>,
    /// Capture point.
    pub point: &'static str,
    /// Which of several.
    pub occurrence: u32,
    /// Name of the operation.
    pub operation: String,
    /// Recorded points that it was made from again.
    pub inputs: Vec<String>,
    /// Points in between that were not recorded, in forward order.
    pub through: Vec<String>,
    /// Tokens whose rows were judged.
    pub tokens: usize,
    /// Relative error over all rows; `None` where it was not judged.
    pub rel_l2: Option<f64>,
    /// What is allowed.
    pub bound: Option<f64>,
    /// The largest quotient of an error and what is allowed, of the whole and of each row.
    pub over_bound: Option<f64>,
    /// Recorded over expected, less one.
    pub slope: Option<f64>,
    /// Robust z of the channel that stands out most, and the channel.
    pub largest_z: Option<(f64, u32)>,
    /// Position of the row that is furthest off.
    pub worst_position: Option<u32>,
    /// The known rounding that fits best, and its relative error; tried where the declared one does not fit.
    pub alternative: Option<(&'static str, f64)>,
    /// What is said of it.
    pub judgement: Judgement,
    /// The smallest relative error that would have been called wrong.
    pub detects: Option<f64>,
    /// What else there is to say: which numbers of the model differ, which elements.
    pub note: String,
}

impl Finding {
    /// Nothing is said yet of the operation `operation` that makes `point`; `site` is its number in forward order.
    pub fn unjudged(
        site: u32,
        (layer, point, occurrence): (Option<u32>, &'static str, u32),
        operation: &str,
        reason: &'static str,
    ) -> Self {
        Finding {
            site,
            layer,
            point,
            occurrence,
            operation: operation.to_owned(),
            inputs: Vec::new(),
            through: Vec::new(),
            tokens: 0,
            rel_l2: None,
            bound: None,
            over_bound: None,
            slope: None,
            largest_z: None,
            worst_position: None,
            alternative: None,
            judgement: Judgement::Undecided(reason),
            detects: None,
            note: String::new(),
        }
    }

    /// [`Finding::unjudged`] of a site of a graph.
    pub fn of(site: &Site, reason: &'static str) -> Self {
        Finding::unjudged(site.id, (site.layer, site.point, site.occurrence), site.operation.name(), reason)
    }

    /// Takes over what was measured; right within `bound`, else of class `class`.
    pub fn measured(&mut self, error: &LocalError, bound: Bound, class: Class) {
        let over = error.over(bound);
        self.tokens = error.rows.len();
        self.rel_l2 = Some(error.rel_l2());
        self.bound = Some(bound.whole(error.last()));
        self.detects = self.bound;
        self.over_bound = Some(over);
        self.slope = error.slope();
        self.largest_z = error.channels.largest_z();
        self.worst_position = error.worst().and_then(|(position, _)| u32::try_from(position).ok());
        self.judgement = if over > 1.0 { Judgement::Wrong(class) } else { Judgement::Right };
    }

    /// Where a wrong operation goes wrong.
    pub fn class(&self) -> Option<Class> {
        match self.judgement {
            Judgement::Wrong(class) => Some(class),
            _ => None,
        }
    }
}

/// What two parts say of the same operations, as one finding each, in forward order: a fault of either part stands, and
/// the first part's where both have one.
pub fn together(first: Vec<Finding>, second: Vec<Finding>) -> Vec<Finding> {
    let mut all = first;
    for finding in second {
        let same = |known: &&mut Finding| {
            (known.layer, known.point, known.occurrence) == (finding.layer, finding.point, finding.occurrence)
        };
        match all.iter_mut().find(same) {
            Some(known) if known.class().is_none() && (finding.class().is_some() || known.rel_l2.is_none()) => {
                *known = Finding { site: known.site, ..finding };
            }
            Some(_) => {}
            None => all.push(finding),
        }
    }
    all.sort_by_key(|finding| (finding.site, finding.occurrence));
    all
}

/// What is said of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every operation that could be judged is right.
    Right,
    /// The same, some of them with another rounding than declared.
    Rounding,
    /// At least one is wrong.
    Wrong,
    /// Not one operation could be judged.
    Undecided,
}

impl Verdict {
    /// The name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Right => "right",
            Verdict::Rounding => "rounding",
            Verdict::Wrong => "wrong",
            Verdict::Undecided => "undecided",
        }
    }
}

/// The first wrong operation in forward order.
#[derive(Debug, Clone, PartialEq)]
pub struct Culprit {
    /// The layer, `None` outside.
    pub layer: Option<u32>,
    /// Capture point.
    pub point: &'static str,
    /// Which of several.
    pub occurrence: u32,
    /// Where it goes wrong.
    pub class: Class,
    /// Relative error over all rows.
    pub rel_l2: Option<f64>,
    /// Position of the row that is furthest off.
    pub position: Option<u32>,
    /// Channel that stands out most.
    pub channel: Option<u32>,
}

/// What follows from findings in forward order.
pub fn verdict(findings: &[Finding]) -> (Verdict, Option<Culprit>) {
    let culprit = findings.iter().find_map(|finding| {
        finding.class().map(|class| Culprit {
            layer: finding.layer,
            point: finding.point,
            occurrence: finding.occurrence,
            class,
            rel_l2: finding.rel_l2,
            position: finding.worst_position,
            channel: finding.largest_z.map(|(_, channel)| channel),
        })
    });
    let any = |wanted: fn(Judgement) -> bool| findings.iter().any(|finding| wanted(finding.judgement));
    let verdict = match &culprit {
        Some(_) => Verdict::Wrong,
        None if any(|judgement| matches!(judgement, Judgement::Rounding(_))) => Verdict::Rounding,
        None if any(|judgement| judgement == Judgement::Right) => Verdict::Right,
        None => Verdict::Undecided,
    };
    (verdict, culprit)
}
