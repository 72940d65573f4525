//! Mappings: files that say which name of a dump is which capture point, and how its tensor lies. `schema/mappings/`
//! has those that are compiled in; `schema/mappings.md` explains every key.

use super::pattern::Pattern;
use crate::capture::{Point, Scope, vocabulary};
use crate::error::{Error, ErrorKind, Result, nearest};
use crate::model::Architecture;
use globset::{Glob, GlobMatcher};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use toml::Spanned;

/// Mappings that are compiled in, by name.
pub const SHIPPED: [(&str, &str); 2] = [
    ("hf", include_str!("../../schema/mappings/hf.toml")),
    ("llama.cpp", include_str!("../../schema/mappings/llama.cpp.toml")),
];

/// A mapping has at most this many bytes: the shipped ones have a hundredth of it.
const LONGEST_FILE: u64 = 1 << 20;

/// How sure a point is that has its place by a name.
const BY_NAME: u8 = 90;

/// An axis of a stored tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// A row for each token.
    Tokens,
    /// All elements of a row.
    Width,
    /// Heads of a row.
    Heads,
    /// Elements of a head.
    Dim,
    /// Keys of a head, visible or not.
    Keys,
}

/// What stands where a query sees no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Masked {
    /// Zero, as behind a softmax.
    #[serde(rename = "zero")]
    Zero,
    /// Minus infinity, as behind the mask.
    #[serde(rename = "-inf")]
    MinusInfinity,
    /// Anything: the operation stands before the mask.
    #[serde(rename = "anything")]
    Anything,
}

/// Names of tensors, and what they are.
#[derive(Debug, Clone)]
pub struct Rule {
    names: Vec<Pattern>,
    /// The layer of names that say none.
    layer: Option<u32>,
    /// The points in the tensor: one, or several side by side.
    pub points: Vec<&'static Point>,
    /// Whether the points lie side by side within each head, not within the row.
    pub interleaved: bool,
    /// Whether points that lie side by side are of one width.
    pub equal: bool,
    /// Axes as stored, outermost first.
    pub axes: Vec<Axis>,
    /// Of rows of keys, what stands where none is seen.
    pub masked: Masked,
    /// Whether one row may stand for the last token alone.
    pub last_token: bool,
    /// Families that it is for; empty for all.
    pub architectures: Vec<String>,
    /// How sure it is.
    pub confidence: u8,
}

/// Names that are left out.
#[derive(Debug, Clone)]
struct Ignored {
    globs: Vec<GlobMatcher>,
    reason: String,
}

/// What names mean.
#[derive(Debug, Clone, Default)]
pub struct Mapping {
    engine: String,
    rules: Vec<Rule>,
    ignored: Vec<Ignored>,
}

impl Mapping {
    /// The mapping of a shipped name, or of the file at a path.
    ///
    /// # Errors
    /// Environment where the file cannot be read; malformed with the line where it says nothing sensible.
    pub fn open(name_or_path: &str) -> Result<Mapping> {
        if let Some((_, text)) = SHIPPED.iter().find(|(name, _)| *name == name_or_path) {
            return Mapping::parse(text);
        }
        let path = Path::new(name_or_path);
        let failed = |cause: std::io::Error| {
            let missing = cause.kind() == std::io::ErrorKind::NotFound;
            let shipped = SHIPPED.map(|(name, _)| name).join(" and ");
            let hint = format!(" (by name, without a path, there are {shipped})");
            Error::io(&format!("read the mapping{}", if missing { &hint } else { "" }), path, cause)
        };
        let length = std::fs::metadata(path).map_err(failed)?.len();
        if length > LONGEST_FILE {
            return Err(Error::malformed(format!("a mapping of {length} bytes is no mapping")).in_file(path));
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        Mapping::parse(&text).map_err(|error| error.in_file(path))
    }

    /// Reads the text of a mapping.
    ///
    /// # Errors
    /// Malformed, with the line.
    pub fn parse(text: &str) -> Result<Mapping> {
        let wrong = |span: Option<Range<usize>>, message: &str| {
            let line = span.map_or(1, |span| 1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count());
            Error::new(ErrorKind::Malformed, format!("line {line}: {message}"))
        };
        let file: File = toml::from_str(text).map_err(|cause| wrong(cause.span(), cause.message()))?;
        let rules = file.tensor.iter().map(|entry| {
            let at = |(span, message): (Range<usize>, String)| wrong(Some(span), &message);
            entry.get_ref().rule(entry.span(), &file.words).map_err(at)
        });
        let ignored = file
            .ignore
            .iter()
            .map(|entry| entry.get_ref().matchers().map_err(|message| wrong(Some(entry.span()), &message)));
        Ok(Mapping {
            rules: rules.collect::<Result<_>>()?,
            ignored: ignored.collect::<Result<_>>()?,
            engine: file.engine,
        })
    }

    /// This mapping with everything that `other` says.
    #[must_use]
    pub fn and(mut self, other: Mapping) -> Mapping {
        self.rules.extend(other.rules);
        self.ignored.extend(other.ignored);
        if self.engine.is_empty() {
            self.engine = other.engine;
        }
        self
    }

    /// The engine that names its tensors so; empty where the mapping does not say.
    pub fn engine(&self) -> &str {
        &self.engine
    }

    /// Every rule that has `name` among its names, with the layer that the name says.
    pub fn rules<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a Rule, Option<u32>)> {
        self.rules.iter().filter_map(move |rule| {
            let found = rule.names.iter().find_map(|pattern| pattern.matches(name))?;
            Some((rule, found.layer.or(rule.layer)))
        })
    }

    /// Why `name` is left out, if it is. Rules go first.
    pub fn ignored(&self, name: &str) -> Option<&str> {
        let of = |ignored: &&Ignored| ignored.globs.iter().any(|glob| glob.is_match(name));
        self.ignored.iter().find(of).map(|ignored| ignored.reason.as_str())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    engine: String,
    #[serde(default)]
    words: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    tensor: Vec<Spanned<Entry>>,
    #[serde(default)]
    ignore: Vec<Spanned<IgnoreEntry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    names: Vec<Spanned<String>>,
    point: Option<Spanned<String>>,
    side_by_side: Option<Vec<Spanned<String>>>,
    layer: Option<Spanned<u32>>,
    #[serde(default)]
    interleaved: bool,
    #[serde(default)]
    equal: bool,
    axes: Option<Spanned<Vec<Axis>>>,
    masked: Option<Spanned<Masked>>,
    #[serde(default)]
    last_token: bool,
    #[serde(default)]
    architectures: Vec<Spanned<String>>,
    confidence: Option<Spanned<u8>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IgnoreEntry {
    names: Vec<String>,
    reason: String,
}

/// Where something is wrong in a mapping, and what.
type Wrong = (Range<usize>, String);

impl Entry {
    fn rule(&self, place: Range<usize>, words: &BTreeMap<String, Vec<String>>) -> Result<Rule, Wrong> {
        let points = self.points(&place)?;
        let layered = points.iter().any(|point| point.scope == Scope::Layer);
        if points.iter().any(|point| (point.scope == Scope::Layer) != layered) {
            return Err((place, "points inside and outside the layers cannot lie in one tensor".to_owned()));
        }
        if let Some(layer) = self.layer.as_ref().filter(|_| !layered) {
            return Err((layer.span(), "a point outside the layers has no `layer`".to_owned()));
        }
        let names = self.names(layered && self.layer.is_none(), &place, words)?;
        let keys = points.iter().any(|point| point.shape.iter().any(|axis| axis == "keys"));
        Ok(Rule {
            names,
            layer: self.layer.as_ref().map(|layer| *layer.get_ref()),
            interleaved: self.interleaved,
            equal: self.equal,
            axes: self.axes(keys, points.len() > 1, &place)?,
            masked: self.masked(keys, &place)?,
            last_token: self.last_token,
            architectures: self.architectures()?,
            confidence: self.confidence()?,
            points,
        })
    }

    fn points(&self, place: &Range<usize>) -> Result<Vec<&'static Point>, Wrong> {
        match (&self.point, &self.side_by_side) {
            (Some(_), None) if self.interleaved || self.equal => {
                Err((place.clone(), "`interleaved` and `equal` are for points that lie `side_by_side`".to_owned()))
            }
            (Some(point), None) => Ok(vec![known_point(point)?]),
            (None, Some(points)) if points.len() >= 2 => points.iter().map(known_point).collect(),
            _ => Err((place.clone(), "give `point`, or two points or more as `side_by_side`".to_owned())),
        }
    }

    fn names(
        &self,
        layered: bool,
        place: &Range<usize>,
        words: &BTreeMap<String, Vec<String>>,
    ) -> Result<Vec<Pattern>, Wrong> {
        let mut patterns = Vec::new();
        for name in &self.names {
            let expanded = Pattern::expand(name.get_ref(), words).map_err(|message| (name.span(), message))?;
            if expanded.iter().any(|pattern| pattern.has_layer() != layered) {
                let message = if layered {
                    "a point inside the layers needs a name with {layer}, or a `layer`"
                } else {
                    "{layer} in a name is for a point inside the layers, and for no rule with a `layer`"
                };
                return Err((name.span(), message.to_owned()));
            }
            patterns.extend(expanded);
        }
        if patterns.is_empty() { Err((place.clone(), "`names` is empty".to_owned())) } else { Ok(patterns) }
    }

    fn axes(&self, keys: bool, fused: bool, place: &Range<usize>) -> Result<Vec<Axis>, Wrong> {
        let wrong = |message: &str| {
            let place = self.axes.as_ref().map_or_else(|| place.clone(), Spanned::span);
            Err((place, message.to_owned()))
        };
        let Some(axes) = &self.axes else {
            return if keys {
                wrong("rows of keys need `axes`: tokens, heads and keys in the order they are stored in")
            } else {
                Ok(vec![Axis::Tokens, Axis::Width])
            };
        };
        let axes = axes.get_ref();
        let are = |these: &[Axis]| axes.len() == these.len() && these.iter().all(|axis| axes.contains(axis));
        let of_keys = are(&[Axis::Tokens, Axis::Heads, Axis::Keys]);
        let flat = are(&[Axis::Tokens, Axis::Width]);
        match keys {
            true if of_keys => Ok(axes.clone()),
            true => wrong("rows of keys have the axes tokens, heads and keys"),
            false if flat || (!fused && are(&[Axis::Tokens, Axis::Heads, Axis::Dim])) => Ok(axes.clone()),
            false if fused => wrong("points side by side have the axes tokens and width"),
            false => wrong("rows have the axes tokens and width, or tokens, heads and dim"),
        }
    }

    fn masked(&self, keys: bool, place: &Range<usize>) -> Result<Masked, Wrong> {
        match (&self.masked, keys) {
            (Some(masked), true) => Ok(*masked.get_ref()),
            (None, true) => Err((place.clone(), "rows of keys need `masked`: zero, -inf or anything".to_owned())),
            (Some(masked), false) => Err((masked.span(), "`masked` is for rows of keys".to_owned())),
            (None, false) => Ok(Masked::Anything),
        }
    }

    fn architectures(&self) -> Result<Vec<String>, Wrong> {
        let known = Architecture::ALL.map(Architecture::name);
        let check = |name: &Spanned<String>| match known.contains(&name.get_ref().as_str()) {
            true => Ok(name.get_ref().clone()),
            false => Err((name.span(), format!("`{}` is no architecture: {}", name.get_ref(), suggest(name, known)))),
        };
        self.architectures.iter().map(check).collect()
    }

    fn confidence(&self) -> Result<u8, Wrong> {
        match &self.confidence {
            None => Ok(BY_NAME),
            Some(confidence) if (1..=100).contains(confidence.get_ref()) => Ok(*confidence.get_ref()),
            Some(confidence) => Err((confidence.span(), "`confidence` is from 1 to 100".to_owned())),
        }
    }
}

impl IgnoreEntry {
    fn matchers(&self) -> Result<Ignored, String> {
        if self.reason.is_empty() || self.names.is_empty() {
            return Err("what is left out needs `names` and a `reason`".to_owned());
        }
        let matcher = |name: &String| Glob::new(name).map(|glob| glob.compile_matcher());
        let globs = self.names.iter().map(matcher).collect::<Result<_, _>>().map_err(|cause| cause.to_string())?;
        Ok(Ignored { globs, reason: self.reason.clone() })
    }
}

/// The point of a name. Slots hold the chosen experts in ascending order, and a dump does not say in which order its
/// engine chose them: such points are not imported.
fn known_point(name: &Spanned<String>) -> Result<&'static Point, Wrong> {
    let found = vocabulary().iter().find(|point| point.name == *name.get_ref());
    let Some(point) = found else {
        let names = vocabulary().iter().map(|point| point.name.as_str());
        return Err((name.span(), format!("`{}` is no capture point: {}", name.get_ref(), suggest(name, names))));
    };
    if point.scope == Scope::Expert || point.shape.iter().any(|axis| axis == "slots") {
        let message = format!("`{}` is by slots of experts, whose order a dump does not say", point.name);
        return Err((name.span(), format!("{message}: it cannot be imported")));
    }
    Ok(point)
}

fn suggest<'a>(name: &Spanned<String>, known: impl IntoIterator<Item = &'a str>) -> String {
    let near = nearest(name.get_ref(), known);
    near.map_or_else(|| "see schema/capture-points.toml".to_owned(), |near| format!("did you mean `{near}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Mapping::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn shipped_mappings_are_well_formed() {
        for (name, text) in SHIPPED {
            let mapping = Mapping::parse(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(!mapping.rules.is_empty() && !mapping.engine.is_empty(), "{name}");
        }
    }

    #[test]
    fn the_documented_mapping_is_one() {
        let page = include_str!("../../schema/mappings.md");
        let examples: Vec<&str> =
            page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
        assert_eq!(examples.len(), 1);
        let mapping = Mapping::parse(examples[0]).unwrap();
        assert_eq!(mapping.rules("node_34#0:MUL_MAT").next().unwrap().1, Some(0));
        assert_eq!(mapping.rules("h.3.ln_2").next().unwrap().1, Some(3));
        for key in ["names", "point", "side_by_side", "equal", "interleaved", "layer", "axes", "masked", "last_token"] {
            assert!(page.contains(&format!("| `{key}` |")), "{key}");
        }
    }

    /// Names of the vocabulary's aliases, as the mappings have them.
    #[test]
    fn aliases_of_the_vocabulary_are_named_so() {
        let (hf, llama) = (Mapping::open("hf").unwrap(), Mapping::open("llama.cpp").unwrap());
        let means = |mapping: &Mapping, name: &str, point: &Point| {
            mapping.rules(name).any(|(rule, _)| rule.points.iter().any(|known| known.name == point.name))
        };
        let mut checked = 0;
        for point in vocabulary().iter().filter(|point| point.scope == Scope::Layer) {
            for alias in &point.aliases.hugging_face {
                let input = if alias.side == crate::capture::Side::Input { ".input" } else { "" };
                let name = format!("model.layers.7.{}{input}", alias.name);
                // Names of families that are not supported, and others that no rule has, are no meaning of another point.
                let rules: Vec<_> = hf.rules(&name).collect();
                assert!(rules.is_empty() || means(&hf, &name, point), "{name} is {}", point.name);
                checked += rules.len();
            }
            for alias in point.aliases.llama_cpp.iter().filter(|alias| !alias.operation.is_empty()) {
                let name = format!("{}-7#0:{}", alias.name, alias.operation);
                let rules: Vec<_> = llama.rules(&name).collect();
                assert!(rules.is_empty() || means(&llama, &name, point), "{name} is {}", point.name);
                checked += rules.len();
            }
        }
        assert!(checked > 40, "{checked}");
    }

    #[test]
    fn every_mistake_is_named_with_its_line() {
        let cases = [
            ("engine = 3", "line 1: invalid type: integer `3`, expected a string"),
            ("\n\n[[tensor]]\nnames = [\"a\"]\npiont = \"q\"", "line 5: unknown field `piont`"),
            ("[[tensor]]\nnames = [\"{layer}.a\"]\npoint = \"qq\"", "line 3: `qq` is no capture point"),
            ("[[tensor]]\nnames = [\"{layer}.a\"]\npoint = \"ffn_gat\"", "did you mean `ffn_gate`?"),
            (
                "[[tensor]]\nnames = [\"a\"]\npoint = \"q\"",
                "line 2: a point inside the layers needs a name with {layer}",
            ),
            ("[[tensor]]\nnames = [\"{layer}\"]\npoint = \"logits\"", "line 2: {layer} in a name is for"),
            ("[[tensor]]\nnames = [\"a\"]\npoint = \"logits\"\nlayer = 0", "line 4: a point outside the layers has no"),
            ("[[tensor]]\nnames = [\"{layer}\"]\npoint = \"q\"\nlayer = 0", "line 2: {layer} in a name is for"),
            ("[[tensor]]\nnames = [\"{x}\"]\npoint = \"logits\"", "line 2: {x} is neither"),
            ("[[tensor]]\nnames = []\npoint = \"logits\"", "line 1: `names` is empty"),
            ("[[tensor]]\nnames = [\"a\"]", "line 1: give `point`"),
            ("[[tensor]]\nnames = [\"a\"]\npoint = \"logits\"\nequal = true", "are for points that lie `side_by_side`"),
            ("[[tensor]]\nnames = [\"{layer}\"]\npoint = \"moe_act\"", "line 3: `moe_act` is by slots of experts"),
            ("[[tensor]]\nnames = [\"{layer}\"]\npoint = \"moe_topk\"", "line 3: `moe_topk` is by slots of experts"),
            ("[[tensor]]\nnames = [\"{layer}\"]\npoint = \"attn_probs\"", "line 1: rows of keys need `axes`"),
            (
                "[[tensor]]\nnames = [\"{layer}\"]\npoint = \"attn_probs\"\naxes = [\"heads\", \"tokens\", \"keys\"]",
                "line 1: rows of keys need `masked`",
            ),
            ("[[tensor]]\nnames = [\"{layer}\"]\npoint = \"q\"\naxes = [\"tokens\"]", "line 4: rows have the axes"),
            (
                "[[tensor]]\nnames = [\"{layer}\"]\npoint = \"q\"\nmasked = \"zero\"",
                "line 4: `masked` is for rows of keys",
            ),
            (
                "[[tensor]]\nnames = [\"{layer}\"]\npoint = \"q\"\narchitectures = [\"qwen\"]",
                "line 4: `qwen` is no archit",
            ),
            (
                "[[tensor]]\nnames = [\"{layer}\"]\npoint = \"q\"\nconfidence = 0",
                "line 4: `confidence` is from 1 to 100",
            ),
            ("[[ignore]]\nnames = [\"[\"]\nreason = \"x\"", "line 1: error parsing glob"),
            ("[[ignore]]\nnames = [\"a\"]\nreason = \"\"", "line 1: what is left out needs"),
        ];
        for (text, expected) in cases {
            let refusal = refusal(text);
            assert!(refusal.contains(expected), "{text}\n{refusal}\nis not {expected}");
        }
    }
}
