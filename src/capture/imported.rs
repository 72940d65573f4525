//! The plan of a run that another engine made: what its dump holds is captured, the rest is not.

use super::plan::{Plan, Status, Weights, described, every_place, not_applicable, set_axes, unknown};
use crate::error::{Error, Result};
use crate::graph::{Graph, RowAxes, SiteId};
use crate::model::Model;
use crate::record::{PlanV1, SiteV1};
use crate::tensor::Dtype;
use std::collections::BTreeMap;
use std::ops::Range;

/// A capture point that a dump holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// The layer, or `None` outside the layers.
    pub layer: Option<u32>,
    /// The point's name.
    pub point: &'static str,
    /// What a row is.
    pub axes: RowAxes,
    /// Positions that have a row.
    pub positions: Range<usize>,
    /// Type of the dumped values; rows hold them as f32, which loses nothing.
    pub dtype: Dtype,
    /// Name in the dump.
    pub source_name: String,
    /// How sure the mapping is.
    pub confidence: u8,
}

impl Plan {
    /// The plan of a run of `positions` tokens of which `found` was dumped, and the site of each. Operations, inputs and
    /// weights come from the graph of the model, where it is at hand; without it the plan has points alone.
    ///
    /// # Errors
    /// Malformed where the model has no such point, or a point is found twice.
    pub fn imported(
        model: Option<(&Model, &Graph)>,
        layers: u32,
        positions: usize,
        found: &[Imported],
    ) -> Result<(Plan, Vec<SiteId>)> {
        let mut weights = Weights::default();
        let mut sites = match model {
            Some((model, graph)) => of_graph(model, graph, &mut weights)?,
            None => of_vocabulary(layers),
        };
        let mut axes = match model {
            Some((_, graph)) => graph.sites.iter().map(|site| site.axes).collect(),
            None => vec![RowAxes::Flat { width: 0 }; sites.len()],
        };
        let mut own_positions = BTreeMap::new();
        let mut numbers = Vec::with_capacity(found.len());
        for imported in found {
            let site = place(&mut sites, imported)?;
            fill(site, imported);
            let number = site.site;
            if let Some(axes) = axes.get_mut(number as usize) {
                *axes = imported.axes;
            }
            own_positions.insert(number, imported.positions.clone());
            numbers.push(number);
        }
        if let Some((_, graph)) = model {
            not_applicable(graph, &mut sites);
        }
        let record = PlanV1 { sites, weights: weights.list };
        Ok((Plan { record, positions: 0..positions, axes, own_positions }, numbers))
    }
}

/// The graph's sites, none of them captured yet.
fn of_graph(model: &Model, graph: &Graph, weights: &mut Weights) -> Result<Vec<SiteV1>> {
    let site = |(number, site)| Ok(not_dumped(described(model, site, number, graph.layers, weights)?));
    (0..).zip(&graph.sites).map(site).collect()
}

/// Every point of a model of `layers` layers in forward order, none of them captured yet.
fn of_vocabulary(layers: u32) -> Vec<SiteV1> {
    let mut sites: Vec<SiteV1> =
        every_place(layers).map(|(point, layer)| not_dumped(unknown(0, layer, &point.name, layers))).collect();
    sites.sort_by_key(|site| site.ordinal);
    for (number, site) in (0..).zip(&mut sites) {
        site.site = number;
    }
    sites
}

fn not_dumped(site: SiteV1) -> SiteV1 {
    SiteV1 { status: Status::Unsupported as u8, reason: "not in the dump".to_owned(), tensor: false, ..site }
}

fn place<'a>(sites: &'a mut [SiteV1], imported: &Imported) -> Result<&'a mut SiteV1> {
    let layer = imported.layer.map_or(-1, |layer| layer as i32);
    let site = sites.iter_mut().find(|site| site.layer == layer && site.point == imported.point);
    let wrong = |message: &str| {
        let layer = imported.layer.map_or_else(String::new, |layer| format!(" in layer {layer}"));
        Error::malformed(format!("{message} {}{layer}", imported.point)).of(&imported.source_name)
    };
    let site = site.ok_or_else(|| wrong("the model has no"))?;
    if site.status == Status::Captured as u8 {
        return Err(wrong(&format!("tensor {} too is", site.source_name)));
    }
    Ok(site)
}

fn fill(site: &mut SiteV1, imported: &Imported) {
    set_axes(site, imported.axes);
    site.dtype = imported.dtype.name().to_owned();
    site.status = Status::Captured as u8;
    site.reason = String::new();
    site.tensor = true;
    site.source_name.clone_from(&imported.source_name);
    site.confidence = imported.confidence;
}
