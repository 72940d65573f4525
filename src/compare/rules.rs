//! Rules of a user: which error is allowed where, and what more than that comes to. docs/comparing.md explains every key.

use super::criterion::{Criterion, Passes};
use super::pairing::SitePair;
use crate::capture::{Layers, Scope, place_name, vocabulary};
use crate::error::{Error, ErrorKind, Result, nearest};
use globset::{Glob, GlobMatcher};
use serde::Deserialize;
use std::ops::Range;
use std::path::Path;
use toml::Spanned;

/// A file of rules has at most this many bytes.
const LONGEST_FILE: u64 = 1 << 20;

/// Patterns are tried on this many layers: one that fits no point of any is a slip.
const LAYERS: u32 = 1000;

/// What an error beyond the limit comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Nothing: the place is excepted from later rules.
    Pass,
    /// It is shown.
    Warn,
    /// The comparison fails.
    Fail,
}

impl Level {
    /// The name in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Level::Pass => "pass",
            Level::Warn => "warn",
            Level::Fail => "fail",
        }
    }
}

/// What a rule's metric is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Over {
    /// All compared rows of a place together.
    Tensor,
    /// Each row: the worst counts.
    Row,
}

/// One rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Line of the file where it begins.
    pub line: usize,
    /// Which places it is for, as written.
    pub places: String,
    /// What is measured.
    pub metric: Criterion,
    /// Of what.
    pub over: Over,
    /// The limit.
    pub limit: f64,
    /// What more comes to.
    pub level: Level,
    /// Whether it may fit no place.
    pub optional: bool,
    /// Why, as written; empty where nothing was.
    pub reason: String,
    fits: Fits,
}

#[derive(Debug, Clone)]
enum Fits {
    /// By the whole name of a place.
    Name(GlobMatcher),
    /// By point and layers.
    Point(GlobMatcher, Layers),
}

impl Fits {
    fn fits(&self, layer: Option<u32>, point: &str) -> bool {
        match self {
            Fits::Name(glob) => glob.is_match(place_name(layer, point)),
            Fits::Point(glob, layers) => glob.is_match(point) && layers.contains(layer),
        }
    }

    /// Whether there is a place that it fits, in a model of whatever depth.
    fn is_possible(&self) -> bool {
        vocabulary().iter().any(|point| match point.scope {
            Scope::Model => self.fits(None, &point.name),
            Scope::Layer | Scope::Expert => (0..LAYERS).any(|layer| self.fits(Some(layer), &point.name)),
        })
    }
}

impl Rule {
    /// Whether it is for the places of `site`.
    pub fn fits(&self, site: &SitePair) -> bool {
        self.fits.fits(site.layer(), &site.point)
    }

    /// What it asks, in words: `rel_l2 <= 0.01 at layers.*.ffn_*`.
    pub fn text(&self) -> String {
        let (metric, sign, limit) = (self.metric.name, self.metric.passes.sign(), self.limit);
        let row = if self.over == Over::Row && !self.metric.is_of_rows() { " of each row" } else { "" };
        format!("{metric}{row} {sign} {limit:?} at {}", self.places)
    }
}

/// Rules in the order of their file: of those that fit a place, the first decides for its metric.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// The rules.
    pub rules: Vec<Rule>,
}

impl Rules {
    /// Reads a file.
    ///
    /// # Errors
    /// Environment where it cannot be read; malformed, with the line, where a rule says nothing sensible.
    pub fn open(path: &Path) -> Result<Rules> {
        let failed = |cause| Error::io("read the rules", path, cause);
        let length = std::fs::metadata(path).map_err(failed)?.len();
        if length > LONGEST_FILE {
            return Err(Error::malformed(format!("{length} bytes are no file of rules")).in_file(path));
        }
        Rules::parse(&std::fs::read_to_string(path).map_err(failed)?).map_err(|error| error.in_file(path))
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// Malformed, with the line.
    pub fn parse(text: &str) -> Result<Rules> {
        let line = |at: usize| 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
        let wrong = |span: Range<usize>, message: &str| {
            Error::new(ErrorKind::Malformed, format!("line {}: {message}", line(span.start)))
        };
        let file: File = toml::from_str(text).map_err(|cause| wrong(cause.span().unwrap_or(0..0), cause.message()))?;
        if file.rule.is_empty() {
            return Err(wrong(0..0, "there is no [[rule]]"));
        }
        let rule = |entry: &Spanned<Entry>| {
            let rule = entry.get_ref().rule(entry.span()).map_err(|(span, message)| wrong(span, &message))?;
            Ok(Rule { line: line(entry.span().start), ..rule })
        };
        Ok(Rules { rules: file.rule.iter().map(rule).collect::<Result<_>>()? })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    rule: Vec<Spanned<Entry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    pattern: Option<Spanned<String>>,
    point: Option<Spanned<String>>,
    layers: Option<Spanned<String>>,
    metric: Spanned<String>,
    limit: Spanned<f64>,
    level: Level,
    over: Option<Spanned<Over>>,
    #[serde(default)]
    optional: bool,
    #[serde(default)]
    reason: String,
}

/// Where something is wrong in a file, and what.
type Wrong = (Range<usize>, String);

impl Entry {
    fn rule(&self, place: Range<usize>) -> Result<Rule, Wrong> {
        let metric = known_metric(&self.metric)?;
        let (places, fits) = self.places(place)?;
        Ok(Rule {
            line: 0,
            places,
            metric,
            over: self.over(&metric)?,
            limit: self.limit(&metric)?,
            level: self.level,
            optional: self.optional,
            reason: self.reason.clone(),
            fits,
        })
    }

    fn places(&self, place: Range<usize>) -> Result<(String, Fits), Wrong> {
        let (text, fits, span) = match (&self.pattern, &self.point, &self.layers) {
            (Some(pattern), None, None) => (pattern.get_ref().clone(), Fits::Name(glob(pattern)?), pattern.span()),
            (None, Some(point), None) => {
                (point.get_ref().clone(), Fits::Point(glob(point)?, Layers::ALL), point.span())
            }
            (None, Some(point), Some(layers)) => {
                let set = Layers::parse(layers.get_ref()).map_err(|error| (layers.span(), error.to_string()))?;
                (
                    format!("{} of layers {}", point.get_ref(), layers.get_ref()),
                    Fits::Point(glob(point)?, set),
                    point.span(),
                )
            }
            _ => {
                let message =
                    "give `pattern`, a glob over places such as layers.3.ffn_*, or `point` and perhaps `layers`";
                return Err((place, message.to_owned()));
            }
        };
        if fits.is_possible() { Ok((text.clone(), fits)) } else { Err((span, impossible(&text))) }
    }

    fn over(&self, metric: &Criterion) -> Result<Over, Wrong> {
        match &self.over {
            Some(over) if metric.is_of_rows() && *over.get_ref() == Over::Tensor => {
                Err((over.span(), format!("`{}` is of single rows: over = \"row\"", metric.name)))
            }
            Some(over) => Ok(*over.get_ref()),
            None if metric.is_of_rows() => Ok(Over::Row),
            None => Ok(Over::Tensor),
        }
    }

    fn limit(&self, metric: &Criterion) -> Result<f64, Wrong> {
        let limit = *self.limit.get_ref();
        let sensible = match metric.passes {
            Passes::AtMost | Passes::Magnitude => limit >= 0.0,
            Passes::AtLeast => !limit.is_nan(),
            Passes::Factor => limit >= 1.0,
        };
        let message = match metric.passes {
            Passes::Factor => format!("the limit of `{}` is a factor from 1 on", metric.name),
            _ => format!("{limit} is no limit of `{}`: a number from 0 on", metric.name),
        };
        if sensible { Ok(limit) } else { Err((self.limit.span(), message)) }
    }
}

fn known_metric(name: &Spanned<String>) -> Result<Criterion, Wrong> {
    Criterion::named(name.get_ref()).ok_or_else(|| {
        let hint = match nearest(name.get_ref(), Criterion::names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are {}", Criterion::names().collect::<Vec<_>>().join(", ")),
        };
        (name.span(), format!("`{}` is no metric of a rule: {hint}", name.get_ref()))
    })
}

fn glob(pattern: &Spanned<String>) -> Result<GlobMatcher, Wrong> {
    let glob = Glob::new(pattern.get_ref()).map_err(|cause| (pattern.span(), cause.to_string()))?;
    Ok(glob.compile_matcher())
}

/// What is wrong with a pattern that fits nothing.
fn impossible(pattern: &str) -> String {
    let point = pattern.split(" of layers ").next().unwrap_or(pattern);
    let point = point.rsplit('.').next().unwrap_or(point);
    let hint = match nearest(point, vocabulary().iter().map(|known| known.name.as_str())) {
        Some(near) if near != point => format!("did you mean `{near}`?"),
        _ => "places are named layers.N.POINT or POINT, by schema/capture-points.toml".to_owned(),
    };
    format!("`{pattern}` fits no capture point: {hint}")
}
