//! Every capture point that a run is expected to have, each with a status and a reason.

use crate::capture::{Point, Scope, Selection, vocabulary};
use crate::error::{Error, Result};
use crate::graph::{Graph, RowAxes, Site, SiteId};
use crate::model::{Model, Weight, WeightKey};
use crate::record::{PlanV1, SiteV1, WeightRefV1};
use std::collections::BTreeMap;
use std::ops::Range;

/// Whether an expected capture point was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Rows are (to be) there.
    Captured = 0,
    /// This model has no such place.
    NotApplicable = 1,
    /// The user left it out.
    Filtered = 2,
    /// The place exists, and this engine cannot show it.
    Unsupported = 3,
    /// It was to be captured, and something went wrong.
    Failed = 4,
}

impl Status {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Status::Captured => "captured",
            Status::NotApplicable => "not_applicable",
            Status::Filtered => "filtered",
            Status::Unsupported => "unsupported",
            Status::Failed => "failed",
        }
    }

    /// The status with number `code` in a trace file.
    pub fn from_code(code: u8) -> Option<Self> {
        [Status::Captured, Status::NotApplicable, Status::Filtered, Status::Unsupported, Status::Failed]
            .into_iter()
            .find(|status| *status as u8 == code)
    }
}

/// The plan of one run. Its first sites are the graph's, in the graph's order; what does not apply follows.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(super) record: PlanV1,
    pub(super) positions: Range<usize>,
    pub(super) axes: Vec<RowAxes>,
    /// Positions of the sites that have others than the run: an import may hold the last row alone.
    pub(super) own_positions: BTreeMap<SiteId, Range<usize>>,
}

impl Plan {
    /// Plans the capture of `graph` for a prompt of `prompt` tokens and `positions` evaluated positions in all.
    ///
    /// # Errors
    /// Usage, where the selection names a layer that the model lacks, or selects nothing at all.
    pub fn new(model: &Model, graph: &Graph, selection: &Selection, prompt: usize, positions: usize) -> Result<Self> {
        if let Some(layer) = selection.layers.beyond(graph.layers) {
            return Err(Error::usage(format!("layer {layer} is selected, but the model has {} layers", graph.layers)));
        }
        let mut weights = Weights::default();
        let mut sites = Vec::with_capacity(graph.sites.len());
        for site in &graph.sites {
            sites.push(planned(model, site, sites.len() as u32, graph.layers, selection, &mut weights)?);
        }
        not_applicable(graph, &mut sites);
        let range = selection.positions.resolve(prompt);
        let wanted = range.start.min(positions)..range.end.min(positions);
        if wanted.is_empty() {
            return Err(Error::usage(format!("no position is selected: the run has positions 0..{positions}")));
        }
        if sites.iter().all(|site| site.status != Status::Captured as u8) {
            return Err(Error::usage("nothing is selected: this model has none of the selected points and layers"));
        }
        let axes = graph.sites.iter().map(|site| site.axes).collect();
        Ok(Plan {
            record: PlanV1 { sites, weights: weights.list },
            positions: wanted,
            axes,
            own_positions: BTreeMap::new(),
        })
    }

    /// The plan as it is recorded.
    pub fn record(&self) -> &PlanV1 {
        &self.record
    }

    /// Leaves out a site that was to be captured: it is there, and for `reason` it cannot be shown.
    pub fn refuse(&mut self, site: SiteId, reason: &str) {
        if let Some(site) = self.record.sites.get_mut(site as usize) {
            (site.status, site.tensor) = (Status::Unsupported as u8, false);
            reason.clone_into(&mut site.reason);
        }
    }

    /// Selected positions of the run.
    pub fn positions(&self) -> Range<usize> {
        self.positions.clone()
    }

    /// Positions at which `site` is captured, if it is.
    pub fn positions_of(&self, site: SiteId) -> Range<usize> {
        self.own_positions.get(&site).unwrap_or(&self.positions).clone()
    }

    /// Rows of a batch of `positions` that are captured from `site`, by row number.
    pub fn wanted(&self, site: SiteId, positions: Range<usize>) -> Option<Range<usize>> {
        let captured = self.record.sites.get(site as usize)?.status == Status::Captured as u8;
        let wanted = self.positions_of(site);
        let start = wanted.start.max(positions.start);
        let end = wanted.end.min(positions.end);
        (captured && start < end).then(|| start - positions.start..end - positions.start)
    }

    /// Whether tensors of `site` are kept.
    pub fn keeps_tensor(&self, site: SiteId) -> bool {
        self.record.sites.get(site as usize).is_some_and(|site| site.tensor)
    }

    /// Raw bytes of tensors and statistics that the whole run records, before compression.
    pub fn expected_bytes(&self) -> u64 {
        const STATISTICS_ROW: u64 = 140;
        let rows = self.positions.len() as u64;
        let (first, last) = (self.positions.start as u64, self.positions.end as u64);
        let keys = |window: Option<u32>| {
            let most = u64::from(window.unwrap_or(u32::MAX));
            (first + 1..=last).map(|keys| u128::from(keys.min(most))).sum::<u128>()
        };
        let site = |(site, axes): (&SiteV1, &RowAxes)| {
            let elements = match axes {
                RowAxes::Keys { heads, window } => {
                    u64::try_from(keys(*window)).unwrap_or(u64::MAX).saturating_mul(u64::from(*heads))
                }
                other => rows.saturating_mul(u64::from(other.width().unwrap_or(0))),
            };
            let tensors = if site.tensor { elements.saturating_mul(4) } else { 0 };
            let captured = u64::from(site.status == Status::Captured as u8);
            captured * rows.saturating_mul(STATISTICS_ROW).saturating_add(tensors)
        };
        self.record.sites.iter().zip(&self.axes).map(site).fold(0, u64::saturating_add)
    }
}

fn planned(
    model: &Model,
    site: &Site,
    number: u32,
    layers: u32,
    selection: &Selection,
    weights: &mut Weights,
) -> Result<SiteV1> {
    let reason = if !selection.points.contains(site) {
        "point not selected"
    } else if !selection.layers.contains(site.layer) {
        "layer not selected"
    } else {
        ""
    };
    let status = if reason.is_empty() { Status::Captured } else { Status::Filtered };
    Ok(SiteV1 {
        status: status as u8,
        reason: reason.to_owned(),
        tensor: status == Status::Captured && selection.tensors.contains(site),
        ..described(model, site, number, layers, weights)?
    })
}

/// A site of the graph as a plan has it: captured, with its tensor.
pub(super) fn described(model: &Model, site: &Site, number: u32, layers: u32, weights: &mut Weights) -> Result<SiteV1> {
    let mut described = unknown(number, site.layer, site.point, layers);
    set_axes(&mut described, site.axes);
    Ok(SiteV1 {
        occurrence: site.occurrence,
        operation: site.operation.name().to_owned(),
        inputs: site.inputs.clone(),
        weights: site.weights.iter().map(|key| weights.number(model, *key)).collect::<Result<_>>()?,
        dtype: "f32".to_owned(),
        status: Status::Captured as u8,
        reason: String::new(),
        tensor: true,
        ..described
    })
}

/// A point of which nothing is known but its place: not applicable, for no reason yet.
pub(super) fn unknown(number: u32, layer: Option<u32>, point: &str, layers: u32) -> SiteV1 {
    SiteV1 {
        site: number,
        layer: layer_code(layer),
        point: point.to_owned(),
        occurrence: 0,
        ordinal: ordinal(point, layer, layers),
        operation: String::new(),
        inputs: Vec::new(),
        weights: Vec::new(),
        dtype: String::new(),
        axes: String::new(),
        width: 0,
        heads: 0,
        status: Status::NotApplicable as u8,
        reason: String::new(),
        tensor: false,
        source_name: String::new(),
        confidence: 100,
    }
}

/// Says of `site` what a row is.
pub(super) fn set_axes(site: &mut SiteV1, axes: RowAxes) {
    let (name, heads) = match axes {
        RowAxes::Flat { .. } => ("width", 0),
        RowAxes::Heads { heads, .. } => ("heads,dim", heads),
        RowAxes::Keys { heads, .. } => ("heads,keys", heads),
    };
    (site.axes, site.heads, site.width) = (name.to_owned(), heads, axes.width().unwrap_or(0));
}

/// Adds the vocabulary's points that the graph does not have.
pub(super) fn not_applicable(graph: &Graph, sites: &mut Vec<SiteV1>) {
    let has = |point: &str, layer: Option<u32>| graph.sites.iter().any(|s| s.point == point && s.layer == layer);
    for (point, layer) in every_place(graph.layers).filter(|(point, layer)| !has(&point.name, *layer)) {
        let reason = "the model has no such operation".to_owned();
        sites.push(SiteV1 { reason, ..unknown(sites.len() as u32, layer, &point.name, graph.layers) });
    }
}

/// Every point of the vocabulary in every layer that it can be in.
pub(super) fn every_place(layers: u32) -> impl Iterator<Item = (&'static Point, Option<u32>)> {
    vocabulary().iter().flat_map(move |point| {
        let (outside, inside) = match point.scope {
            Scope::Layer | Scope::Expert => (None, 0..layers),
            Scope::Model => (Some(None), 0..0),
        };
        outside.into_iter().chain(inside.map(Some)).map(move |layer| (point, layer))
    })
}

fn layer_code(layer: Option<u32>) -> i32 {
    layer.map_or(-1, |layer| layer as i32)
}

/// Forward order: blocks (input, each layer, output) of one length, within a block the vocabulary's order. It is the
/// same for every model of one depth, so that runs of different families line up.
fn ordinal(point: &str, layer: Option<u32>, layers: u32) -> u32 {
    let points = vocabulary();
    let place = points.iter().position(|known| known.name == point).unwrap_or(0);
    let before_layers = points.iter().position(|known| known.scope == Scope::Layer).unwrap_or(0);
    let block = match layer {
        Some(layer) => layer + 1,
        None if place < before_layers => 0,
        None => layers + 1,
    };
    block * points.len() as u32 + place as u32
}

/// Weights of a plan, each once.
#[derive(Default)]
pub(super) struct Weights {
    numbers: BTreeMap<WeightKey, u32>,
    pub(super) list: Vec<WeightRefV1>,
}

impl Weights {
    fn number(&mut self, model: &Model, key: WeightKey) -> Result<u32> {
        if let Some(number) = self.numbers.get(&key) {
            return Ok(*number);
        }
        let number = self.list.len() as u32;
        self.list.push(weight_ref(model.weight(key)?));
        self.numbers.insert(key, number);
        Ok(number)
    }
}

/// A weight as records name it.
pub fn weight_ref(weight: &Weight) -> WeightRefV1 {
    WeightRefV1 {
        stored_name: weight.stored_name.clone(),
        canonical_name: weight.key.to_string(),
        layer: layer_code(weight.key.layer),
        role: weight.key.role.name().to_owned(),
        dtype: weight.tensor_type.name().to_owned(),
        layout: weight.layout.name().to_owned(),
        shape: vec![weight.rows as u64, weight.columns as u64],
        file: weight.file as u32,
        offset: weight.offset,
        bytes: weight.data.len() as u64,
    }
}
