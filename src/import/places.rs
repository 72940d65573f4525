//! From the names of a dump to capture points, and from its tensors to rows.

use super::dump::{Dump, DumpTensor, Element};
use super::layout::Layout;
use super::mapping::{Mapping, Rule};
use super::view::View;
use crate::backend::{Captured, Choice};
use crate::capture::{Imported, Plan, Point, Scope};
use crate::error::{Error, Result};
use crate::forward::{Observer, Phase, StepReport};
use crate::graph::{Graph, RowAxes, SiteId};
use crate::layout::MAX_PAYLOAD_BYTES;
use crate::model::Model;
use globset::{Glob, GlobMatcher};
use std::collections::BTreeMap;
use std::time::Duration;

/// A dump of more layers than this is a slip: a plan lists every point of every layer.
const MOST_LAYERS: u32 = 4096;

/// Names that an error lists.
const LISTED: usize = 8;

/// What is known of a dump beside its tensors.
#[derive(Debug, Clone, Copy)]
pub struct Setting<'a> {
    /// The tokens that its rows are of.
    pub tokens: &'a [u32],
    /// The model that ran, with its graph.
    pub model: Option<(&'a Model, &'a Graph)>,
    /// Its architecture, where it is known without the model.
    pub architecture: Option<&'a str>,
    /// How many layers it has, where that is known without the model; else those of the dump.
    pub layers: Option<u32>,
    /// Globs of names to leave out.
    pub ignore: &'a [String],
}

/// A tensor that is in the dump and not in the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// A dump, ready to be shown to an observer.
#[derive(Debug)]
pub struct Import<'a> {
    dump: &'a Dump,
    tokens: &'a [u32],
    plan: Plan,
    /// In forward order.
    places: Vec<(SiteId, Place)>,
    left_out: Vec<LeftOut>,
    layers: u32,
}

/// A capture point in a tensor of the dump.
#[derive(Debug)]
struct Place {
    layer: Option<u32>,
    point: &'static Point,
    name: String,
    confidence: u8,
    view: View,
}

/// A tensor whose name has one meaning.
struct Meant<'a> {
    name: &'a str,
    tensor: &'a DumpTensor,
    rule: &'a Rule,
    layer: Option<u32>,
}

impl<'a> Import<'a> {
    /// Finds the capture points of a dump.
    ///
    /// # Errors
    /// Usage for names that mean nothing or several things, and for `ignore` that matches none; malformed for tensors
    /// that are not what their names say; unsupported for element types and batches that make no rows.
    pub fn new(dump: &'a Dump, mapping: &Mapping, setting: Setting<'a>) -> Result<Self> {
        if setting.tokens.is_empty() {
            return Err(Error::usage("no token is given: the dump's rows need one each"));
        }
        let (meant, left_out) = meanings(dump, mapping, &setting)?;
        let layers = layers(&meant, &setting)?;
        let mut places = Vec::new();
        for meant in &meant {
            places.extend(meant.places(&setting).map_err(|error| dump.placed(error, meant.name, meant.tensor))?);
        }
        twice(&places)?;
        if places.is_empty() {
            return Err(Error::usage("no tensor of the dump is left: there is nothing to import"));
        }
        for place in &places {
            let checked = place.view.check_masked();
            checked.map_err(|error| place.placed(dump, error))?;
        }
        let found: Vec<Imported> = places.iter().map(Place::imported).collect();
        let (plan, sites) = Plan::imported(setting.model, layers, setting.tokens.len(), &found)?;
        let mut places: Vec<_> = sites.into_iter().zip(places).collect();
        places.sort_by_key(|(site, _)| *site);
        Ok(Import { dump, tokens: setting.tokens, plan, places, left_out, layers })
    }

    /// What the run is expected to hold.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Tensors that are in the dump and not in the run, by name.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// How many layers the run is taken to have.
    pub fn layers(&self) -> u32 {
        self.layers
    }

    /// Shows every tensor in forward order, as one prefill.
    ///
    /// # Errors
    /// Those of the observer.
    pub fn show(&self, observer: &mut dyn Observer) -> Result<()> {
        for (site, place) in &self.places {
            let shown = place.view.pieces(|position, rows| {
                if observer.wants(*site, position..position + rows.len()).is_none() {
                    return Ok(());
                }
                observer.capture(0, *site, position, Captured::Host(rows))
            });
            shown.map_err(|error| place.placed(self.dump, error))?;
        }
        let (next_token, logits_fingerprint) = match self.choice()? {
            Some(choice) => (choice.token, choice.fingerprint),
            None => (StepReport::NO_TOKEN, 0),
        };
        observer.step(&StepReport {
            step: 0,
            phase: Phase::Prefill,
            first_position: 0,
            tokens: self.tokens.to_vec(),
            next_token,
            logits_fingerprint,
            elapsed: Duration::ZERO,
        })
    }

    /// The greedy choice after the last token, where the dump has its logits.
    fn choice(&self) -> Result<Option<Choice>> {
        let logits = self.places.iter().find(|(_, place)| place.point.name == "logits");
        let row = logits.map(|(_, place)| place.view.last_row().map_err(|error| place.placed(self.dump, error)));
        Ok(row.transpose()?.map(|row| Choice::of(&row)))
    }
}

impl Place {
    fn imported(&self) -> Imported {
        Imported {
            layer: self.layer,
            point: &self.point.name,
            axes: self.view.axes,
            positions: self.view.positions(),
            dtype: self.view.dtype,
            source_name: self.name.clone(),
            confidence: self.confidence,
        }
    }

    /// Says of an error where in the dump it is.
    fn placed(&self, dump: &Dump, error: Error) -> Error {
        match dump.tensors().get(&self.name) {
            Some(tensor) => dump.placed(error, &self.name, tensor),
            None => error.of(&self.name),
        }
    }

    fn text(&self) -> String {
        place_text(self.point, self.layer)
    }
}

impl Meant<'_> {
    /// The points in the tensor, each with its rows.
    fn places(&self, setting: &Setting<'_>) -> Result<Vec<Place>> {
        let Element::Known(dtype) = self.tensor.element else {
            let Element::Other(name) = &self.tensor.element else { return Ok(Vec::new()) };
            return Err(Error::unsupported(format!("element type {name} makes no rows: f32, f16 and bf16 do")));
        };
        let layout = Layout::of(self.tensor, &self.rule.axes)?;
        let first_position = self.first_position(&layout, setting.tokens.len())?;
        let points = self.rule.points.iter().zip(self.parts(&layout, setting)?);
        let place = |(point, layout): (&&'static Point, Layout)| {
            let axes = self.row_axes(point, &layout, setting)?;
            Ok(Place {
                layer: self.layer,
                point,
                name: self.name.to_owned(),
                confidence: self.rule.confidence,
                view: View {
                    data: self.tensor.data.clone(),
                    dtype,
                    layout,
                    axes,
                    masked: self.rule.masked,
                    first_position,
                },
            })
        };
        points.map(place).collect()
    }

    /// The position of the tensor's first row: 0, or the last where the only row is that of the last token.
    fn first_position(&self, layout: &Layout, tokens: usize) -> Result<usize> {
        let rows = layout.tokens.count;
        if rows == tokens {
            return Ok(0);
        }
        if rows == 1 && self.rule.last_token {
            return Ok(tokens - 1);
        }
        let last = if self.rule.last_token { ", or one for the last" } else { "" };
        let (shape, rows) = (&self.tensor.shape, if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") });
        Err(Error::malformed(format!(
            "shape {shape:?} has {rows}, and {tokens} tokens are given: a dump has one row for each token{last}"
        )))
    }

    /// The layout of every point in the tensor.
    fn parts(&self, whole: &Layout, setting: &Setting<'_>) -> Result<Vec<Layout>> {
        let points = &self.rule.points;
        if points.len() == 1 {
            return Ok(vec![*whole]);
        }
        let names = points.iter().map(|point| point.name.as_str()).collect::<Vec<_>>().join(", ");
        let known: Option<Vec<RowAxes>> = points.iter().map(|point| self.known_axes(point, setting)).collect();
        let width = whole.inner.count;
        let parts = match known {
            Some(known) if self.rule.interleaved => interleaved(whole, &known),
            Some(known) => columns(whole, known.iter().map(|axes| axes.width().unwrap_or(0) as usize)),
            None if self.rule.equal && !self.rule.interleaved => {
                columns(whole, points.iter().map(|_| width / points.len()))
            }
            None => {
                return Err(Error::usage(format!(
                    "{names} lie side by side, and how wide each is says only the model: give --model"
                )));
            }
        };
        parts.ok_or_else(|| Error::malformed(format!("rows of {width} elements do not divide into {names}")))
    }

    /// What the model says of a point's rows.
    fn known_axes(&self, point: &Point, setting: &Setting<'_>) -> Option<RowAxes> {
        let (_, graph) = setting.model?;
        graph.site(self.layer, &point.name).map(|site| site.axes)
    }

    /// What a row of a point is: as the tensor says, and the model too where it is at hand.
    fn row_axes(&self, point: &Point, layout: &Layout, setting: &Setting<'_>) -> Result<RowAxes> {
        let stored = layout.row_axes(&self.rule.axes)?;
        let tokens = setting.tokens.len();
        let keys = matches!(stored, RowAxes::Keys { .. });
        if keys && layout.inner.count < tokens {
            let keys = layout.inner.count;
            return Err(Error::malformed(format!("rows of {keys} keys, and {tokens} tokens are given")));
        }
        let inner = if keys { tokens } else { layout.inner.count };
        let bytes = layout.outer.count.checked_mul(inner).and_then(|elements| elements.checked_mul(size_of::<f32>()));
        if bytes.is_none_or(|bytes| bytes > MAX_PAYLOAD_BYTES) {
            return Err(Error::unsupported(format!(
                "a row of it is above the {MAX_PAYLOAD_BYTES} bytes that a frame may hold: leave it out with --ignore"
            )));
        }
        if setting.model.is_none() {
            return Ok(stored);
        }
        let place = place_text(point, self.layer);
        let Some(known) = self.known_axes(point, setting) else {
            return Err(Error::malformed(format!("the model has no {place}")));
        };
        let agree = match (stored, known) {
            (RowAxes::Keys { heads, .. }, RowAxes::Keys { heads: known, .. }) => heads == known,
            (RowAxes::Heads { .. }, RowAxes::Heads { .. }) => stored == known,
            _ => stored.width().is_some() && stored.width() == known.width(),
        };
        if agree {
            Ok(known)
        } else {
            Err(Error::malformed(format!("a row is {}, and {place} has {}", row_text(stored), row_text(known))))
        }
    }
}

/// Points side by side, one behind the other; all of a row.
fn columns(whole: &Layout, widths: impl Iterator<Item = usize>) -> Option<Vec<Layout>> {
    let mut start = 0;
    let mut parts = Vec::new();
    for width in widths {
        parts.push(whole.columns(start, width)?);
        start += width;
    }
    (start == whole.inner.count).then_some(parts)
}

/// Points side by side within each head.
fn interleaved(whole: &Layout, known: &[RowAxes]) -> Option<Vec<Layout>> {
    let RowAxes::Heads { heads, .. } = known.first()? else { return None };
    let parts = known.iter().enumerate();
    parts
        .map(|(part, axes)| {
            let layout = whole.interleaved(part, known.len(), *heads as usize)?;
            let dim = u32::try_from(layout.inner.count).ok()?;
            (*axes == RowAxes::Heads { heads: *heads, dim }).then_some(layout)
        })
        .collect()
}

/// Gives every name its one meaning, or a reason to leave it out.
fn meanings<'a>(dump: &'a Dump, mapping: &'a Mapping, setting: &Setting<'_>) -> Result<(Vec<Meant<'a>>, Vec<LeftOut>)> {
    let mut ignore = setting.ignore.iter().map(|glob| Ignore::new(glob)).collect::<Result<Vec<_>>>()?;
    let (mut meant, mut left_out, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    for (name, tensor) in dump.tensors() {
        if let Some(ignore) = ignore.iter_mut().find(|ignore| ignore.glob.is_match(name)) {
            ignore.used = true;
            left_out.push(LeftOut { name: name.clone(), reason: format!("--ignore {}", ignore.glob.glob()) });
            continue;
        }
        let rule = meaning(name, mapping, setting).map_err(|error| dump.placed(error, name, tensor))?;
        match (rule, mapping.ignored(name)) {
            (Some((rule, layer)), _) => meant.push(Meant { name, tensor, rule, layer }),
            (None, Some(reason)) => left_out.push(LeftOut { name: name.clone(), reason: reason.to_owned() }),
            (None, None) => unknown.push(name.as_str()),
        }
    }
    if !unknown.is_empty() {
        let (count, verb) = (unknown.len(), if unknown.len() == 1 { "tensor has" } else { "tensors have" });
        return Err(Error::usage(format!(
            "{count} {verb} no meaning in the mapping: {}; add a --map that says what they are, or leave them out with \
             --ignore GLOB",
            list(&unknown)
        )));
    }
    match ignore.iter().find(|ignore| !ignore.used) {
        Some(ignore) => Err(Error::usage(format!("--ignore {} matches no tensor of the dump", ignore.glob.glob()))),
        None => Ok((meant, left_out)),
    }
}

/// A glob that the user gave, and whether it matched a name.
struct Ignore {
    glob: GlobMatcher,
    used: bool,
}

impl Ignore {
    fn new(text: &str) -> Result<Self> {
        let glob = Glob::new(text)
            .map_err(|cause| Error::usage(format!("`{text}` is no pattern for names")).because(cause))?;
        Ok(Ignore { glob: glob.compile_matcher(), used: false })
    }
}

/// The rule that `name` falls under; `None` where there is none.
fn meaning<'a>(name: &'a str, mapping: &'a Mapping, setting: &Setting<'_>) -> Result<Option<(&'a Rule, Option<u32>)>> {
    let architecture = setting.model.map(|(model, _)| model.architecture().name()).or(setting.architecture);
    let may = |rule: &Rule| match architecture {
        _ if rule.architectures.is_empty() => true,
        Some(architecture) => rule.architectures.iter().any(|known| known == architecture),
        None => true,
    };
    let mut rules = mapping.rules(name).filter(|(rule, _)| may(rule));
    let Some((first, layer)) = rules.next() else { return Ok(None) };
    let others: Vec<&Rule> = rules.map(|(rule, _)| rule).collect();
    if architecture.is_none()
        && [first].into_iter().chain(others.iter().copied()).any(|rule| !rule.architectures.is_empty())
    {
        return Err(Error::usage(
            "what this name means depends on the architecture: give --model, or --architecture NAME",
        ));
    }
    let same = |other: &&&Rule| {
        let points = |rule: &Rule| rule.points.iter().map(|point| point.ordinal).collect::<Vec<_>>();
        points(other) != points(first) || other.axes != first.axes || other.masked != first.masked
    };
    match others.iter().find(same) {
        None => Ok(Some((first, layer))),
        Some(other) => {
            let text = |rule: &Rule| rule.points.iter().map(|p| p.name.clone()).collect::<Vec<_>>().join(" and ");
            Err(Error::usage(format!(
                "the mapping has two meanings for it, {} and {}: leave it out with --ignore, or change the mapping",
                text(first),
                text(other)
            )))
        }
    }
}

/// How many layers the model has.
fn layers(meant: &[Meant<'_>], setting: &Setting<'_>) -> Result<u32> {
    let deepest = meant.iter().filter_map(|meant| Some((meant.layer?, meant.name))).max();
    let dumped = deepest.map_or(0, |(layer, _)| layer.saturating_add(1));
    let known = setting.model.map(|(_, graph)| graph.layers).or(setting.layers);
    let layers = known.unwrap_or(dumped);
    if let Some((layer, name)) = deepest.filter(|_| dumped > layers) {
        return Err(Error::malformed(format!("it is of layer {layer}, and the model has {layers} layers")).of(name));
    }
    if layers <= MOST_LAYERS {
        return Ok(layers);
    }
    let error = Error::unsupported(format!("{layers} layers are more than the {MOST_LAYERS} that are supported"));
    Err(match deepest.filter(|_| known.is_none()) {
        Some((_, name)) => error.of(name),
        None => error,
    })
}

/// Refuses a point that two tensors hold.
fn twice(places: &[Place]) -> Result<()> {
    let mut seen: BTreeMap<(Option<u32>, u32), &Place> = BTreeMap::new();
    for place in places {
        if let Some(other) = seen.insert((place.layer, place.point.ordinal), place) {
            return Err(Error::usage(format!(
                "{} is in two tensors, {} and {}: leave one out with --ignore",
                place.text(),
                other.name,
                place.name
            )));
        }
    }
    Ok(())
}

/// A place in words: `layer 3 ffn_out`, `logits`.
fn place_text(point: &Point, layer: Option<u32>) -> String {
    match (point.scope, layer) {
        (Scope::Model, _) | (_, None) => point.name.clone(),
        (_, Some(layer)) => format!("layer {layer} {}", point.name),
    }
}

/// What a row is, in words: `4 heads of 16`.
fn row_text(axes: RowAxes) -> String {
    match axes {
        RowAxes::Flat { width } => format!("{width} elements"),
        RowAxes::Heads { heads, dim } => format!("{heads} heads of {dim}"),
        RowAxes::Keys { heads, .. } => format!("{heads} heads of keys"),
    }
}

/// Some names, and how many more there are.
fn list(names: &[&str]) -> String {
    let shown = names.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
    let more = names.len().saturating_sub(LISTED);
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}
