//! What a user asks to be captured: points, layers, positions, and of which points the tensors are kept.

use crate::capture::vocabulary;
use crate::error::{Error, Result, nearest};
use crate::graph::{Operation, Site};
use globset::{Glob, GlobSet, GlobSetBuilder};
use std::ops::Range;

/// Which token positions are captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Positions {
    /// All of them.
    All,
    /// The last token of every step.
    Last,
    /// From the first up to, and not including, the second.
    Range(Range<usize>),
}

impl Positions {
    /// Reads `all`, `last` or `A..B`.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "all" => Ok(Positions::All),
            "last" => Ok(Positions::Last),
            range => parse_range(range).map(Positions::Range),
        }
    }

    /// The positions that are captured of a run whose prompt has `prompt` tokens.
    pub fn resolve(&self, prompt: usize) -> Range<usize> {
        match self {
            Positions::All => 0..usize::MAX,
            // Every later position is a decode step of its own, and so the last of its step.
            Positions::Last => prompt.saturating_sub(1)..usize::MAX,
            Positions::Range(range) => range.clone(),
        }
    }
}

/// A set of names by glob patterns; `all`, `none` and `replay` are patterns too.
#[derive(Debug, Clone)]
pub struct Names {
    set: GlobSet,
    /// Whether points are in the set too that a replay needs.
    replay: bool,
}

impl Names {
    /// Reads comma-separated globs over the names of capture points.
    ///
    /// # Errors
    /// Usage, for a pattern that matches no point of the vocabulary.
    pub fn parse(text: &str) -> Result<Self> {
        let mut set = GlobSetBuilder::new();
        let patterns = || text.split(',').map(str::trim);
        for pattern in patterns().filter(|pattern| !matches!(*pattern, "none" | "replay")) {
            let glob = if pattern == "all" { "*" } else { pattern };
            let glob = Glob::new(glob)
                .map_err(|cause| Error::usage(format!("`{pattern}` is no pattern for points")).because(cause))?;
            let matcher = glob.compile_matcher();
            let mut names = vocabulary().iter().map(|point| point.name.as_str());
            if !names.any(|name| matcher.is_match(name)) {
                return Err(unknown_point(pattern));
            }
            set.add(glob);
        }
        let set = set.build().map_err(|cause| Error::usage("too many patterns").because(cause))?;
        Ok(Names { set, replay: patterns().any(|pattern| pattern == "replay") })
    }

    /// Whether the point of `site` is in the set. `replay` has every point but those that only give another one's values
    /// a second name: each operation can be judged from them.
    pub fn contains(&self, site: &Site) -> bool {
        let copy = matches!(site.operation, Operation::Identity | Operation::CacheStore);
        self.set.is_match(site.point) || self.replay && !copy
    }
}

fn unknown_point(pattern: &str) -> Error {
    if pattern.is_empty() {
        return Error::usage("an empty pattern names no capture point: write all, none or globs");
    }
    let hint = nearest(pattern, vocabulary().iter().map(|point| point.name.as_str()))
        .map_or_else(String::new, |name| format!("; did you mean `{name}`?"));
    Error::usage(format!("no capture point is named `{pattern}`{hint}"))
}

/// A set of layers: all, or ranges such as `0..3,7`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers(Option<Vec<Range<usize>>>);

impl Layers {
    /// Every layer, and what stands outside the layers.
    pub const ALL: Layers = Layers(None);

    /// Reads `all`, or comma-separated layers and ranges `A..B` (B not included).
    pub fn parse(text: &str) -> Result<Self> {
        if text == "all" {
            return Ok(Layers::ALL);
        }
        let part = |part: &str| match part.parse::<usize>() {
            Ok(layer) => Ok(layer..layer.saturating_add(1)),
            Err(_) => parse_range(part),
        };
        text.split(',').map(|text| part(text.trim())).collect::<Result<Vec<_>>>().map(|ranges| Layers(Some(ranges)))
    }

    /// Whether a site of `layer` is selected; a list of layers leaves out what stands outside the layers.
    pub fn contains(&self, layer: Option<u32>) -> bool {
        match (&self.0, layer) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(ranges), Some(layer)) => ranges.iter().any(|range| range.contains(&(layer as usize))),
        }
    }

    /// The first selected layer that a model of `layers` layers does not have.
    pub fn beyond(&self, layers: u32) -> Option<usize> {
        self.0.iter().flatten().find(|range| range.end > layers as usize).map(|range| range.end - 1)
    }
}

fn parse_range(text: &str) -> Result<Range<usize>> {
    let wrong = || Error::usage(format!("`{text}` is no range: write A..B with A below B; B is not included"));
    let (start, end) = text.split_once("..").ok_or_else(wrong)?;
    let range = start.trim().parse().map_err(|_| wrong())?..end.trim().parse().map_err(|_| wrong())?;
    if range.start < range.end { Ok(range) } else { Err(wrong()) }
}

/// Everything that selects.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Capture points.
    pub points: Names,
    /// Layers.
    pub layers: Layers,
    /// Token positions.
    pub positions: Positions,
    /// Points whose tensors are kept; statistics are kept of all.
    pub tensors: Names,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::RowAxes;

    fn site(point: &'static str, operation: Operation) -> Site {
        let axes = RowAxes::Flat { width: 1 };
        Site { id: 0, layer: None, point, occurrence: 0, operation, inputs: vec![], weights: vec![], axes }
    }

    #[test]
    fn a_replay_needs_every_point_but_second_names() {
        let has = |names: &str, point, operation| Names::parse(names).unwrap().contains(&site(point, operation));
        assert!(has("replay", "q", Operation::MatMul) && !has("replay", "k_cache", Operation::CacheStore));
        assert!(has("replay,k_*", "k_cache", Operation::CacheStore));
        assert!(has("replay", "embed", Operation::Add) && !has("replay", "embed", Operation::Identity));
    }

    #[test]
    fn ranges_end_before_their_end() {
        let layers = Layers::parse("0..3,7").unwrap();
        let selected: Vec<u32> = (0..10).filter(|layer| layers.contains(Some(*layer))).collect();
        assert_eq!(selected, [0, 1, 2, 7]);
        assert!(!layers.contains(None));
        assert_eq!((layers.beyond(8), layers.beyond(7)), (None, Some(7)));
        assert!(Layers::parse("3..3").is_err() && Layers::parse("x").is_err());
    }

    #[test]
    fn positions_resolve_against_the_prompt() {
        assert_eq!(Positions::parse("last").unwrap().resolve(12), 11..usize::MAX);
        assert_eq!(Positions::parse("2..5").unwrap().resolve(12), 2..5);
        assert!(Positions::parse("5..2").is_err());
    }

    #[test]
    fn names_are_globs_and_a_slip_gets_a_suggestion() {
        let has = |names: &str, point| Names::parse(names).unwrap().contains(&site(point, Operation::MatMul));
        assert!(has("ffn_*,logits", "ffn_gate") && has("ffn_*,logits", "logits") && !has("ffn_*,logits", "q"));
        assert!(has("all", "q") && !has("none", "q"));
        let error = Names::parse("ffn_gat").unwrap_err().to_string();
        assert!(error.contains("did you mean `ffn_gate`?"), "{error}");
    }
}
