//! Part C: every recorded operation against the original's weights, where the run's own file is not at hand.
//!
//! Operations without weights, and those whose weights the run has in plain numbers, are judged as in part A: a plain
//! number follows from the original's. Products with blocks are judged by what rounding is expected to give.

use super::file::{check_depth, check_family};
use super::hypothesis::class_of;
use super::parameters::has_numbers;
use super::product_error::{Measure, ProductError, SAMPLE, Sample, Spread, judge, row_measure};
use super::quantised_rows::RowsError;
use super::yardstick::Yardstick;
use super::{Class, Finding, Judgement, LocalError};
use crate::backend::{Arithmetic, Matrix, ReferenceWeight};
use crate::capture::place_name;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Graph, Operation, Site, SiteId};
use crate::model::quant::scale_elements;
use crate::model::{Model, TensorType, WeightKey};
use crate::record::SiteV1;
use crate::replay::{Derivation, Emulation, Evaluation, Recorded, derive};
use crate::tensor::Rows;
use rayon::prelude::*;
use std::collections::{BTreeMap, HashMap};

/// Judges every operation of `recorded` whose result was kept, with the weights of `original`, whose graph is `graph`,
/// as far as the types of weights that the run's plan names let one see; in forward order. `emulation` is the rounding
/// that the run declared, and `done` is called after each operation.
///
/// # Errors
/// NotComparable, where the run is of another family, depth or shape; those of reading the trace and the weights.
pub fn audit_precision(
    original: &Model,
    graph: &Graph,
    recorded: &Recorded,
    emulation: &Emulation,
    done: &(dyn Fn() + Sync),
) -> Result<Vec<Finding>> {
    let run = recorded.run().view();
    check_family(&run.identity.architecture, original)?;
    let layers = run.identity.hyper_parameters.iter().find(|pair| pair.key == "layers");
    if let Some(layers) = layers.and_then(|pair| pair.value.parse().ok()) {
        check_depth(layers, graph.layers, original)?;
    }
    let types = run.plan.weights.iter().filter_map(|weight| {
        let kind = TensorType::ALL.into_iter().find(|kind| kind.name() == weight.dtype)?;
        Some((weight.canonical_name.as_str(), kind))
    });
    let audit = Audit { original, graph, recorded, emulation, types: types.collect() };
    let kept: Vec<&Site> = graph.sites.iter().filter(|site| recorded.has(site.id)).collect();
    let judge = |site: &&Site| {
        let finding = audit.site(site);
        done();
        finding
    };
    kept.par_iter().map(judge).collect()
}

struct Audit<'a> {
    original: &'a Model,
    graph: &'a Graph,
    recorded: &'a Recorded,
    emulation: &'a Emulation,
    /// Types of the run's weights by canonical name.
    types: HashMap<&'a str, TensorType>,
}

/// What an operation multiplies with, row by row.
enum Quantised<'a> {
    /// Nothing that is in blocks.
    Nothing,
    /// Rows of a table.
    Table,
    /// A product: the site itself, or the one before its bias.
    Product(&'a Site),
}

impl Audit<'_> {
    fn site(&self, site: &Site) -> Result<Finding> {
        let undecided = |reason| Finding::of(site, reason);
        if let Some((class, note)) = self.other_operation(site) {
            let mut finding = undecided("");
            finding.judgement = Judgement::Wrong(class);
            finding.over_bound = Some(f64::INFINITY);
            finding.note = note;
            return Ok(finding);
        }
        let Some(mut derivation) = derive(self.graph, self.recorded, site.id) else {
            return Ok(undecided("input not recorded"));
        };
        derivation.keep(|position| self.recorded.has_at(site.id, position));
        if derivation.positions.is_empty() {
            return Ok(undecided("input recorded at other positions"));
        }
        let mut finding = undecided("");
        if self.weights(&derivation).any(|key| !self.types.contains_key(key.to_string().as_str())) {
            return Ok(undecided("type of the run's weights unknown"));
        }
        if self.weights(&derivation).any(|key| self.is_scaled(key)) {
            return Ok(undecided("weights under factors that the trace does not hold"));
        }
        finding.inputs = self.names(derivation.reads.iter().copied());
        finding.through = self.names(derivation.through.iter().copied());
        match self.quantised(site, &derivation) {
            Some(Quantised::Nothing) => self.plain(site, &derivation, &mut finding)?,
            Some(Quantised::Table) => self.table(site, &derivation, &mut finding)?,
            Some(Quantised::Product(product)) => self.product(site, product, &derivation, &mut finding)?,
            None => return Ok(undecided("a product that was not recorded lies between")),
        }
        Ok(finding)
    }

    /// What the plan says of the place, where it is not this operation: a bias that the run's file has not, another
    /// activation.
    fn other_operation(&self, site: &Site) -> Option<(Class, String)> {
        let planned = self.planned(site)?;
        if planned.operation.is_empty() || planned.operation == site.operation.name() {
            return None;
        }
        let product = |name: &str| ["mat_mul", "linear", "bias"].contains(&name);
        let (own, original) = (planned.operation.as_str(), site.operation.name());
        let class = if product(own) && product(original) { Class::File } else { Class::HyperParameter };
        Some((class, format!("{own} (original: {original})")))
    }

    fn planned(&self, site: &Site) -> Option<&SiteV1> {
        let layer = site.layer.map_or(-1, |layer| layer as i32);
        let place = |planned: &&SiteV1| {
            (planned.layer, planned.point.as_str(), planned.occurrence) == (layer, site.point, site.occurrence)
        };
        self.recorded.run().view().plan.sites.iter().find(place)
    }

    /// Every weight that is read on the way to a site.
    fn weights<'s>(&'s self, derivation: &'s Derivation) -> impl Iterator<Item = &'s WeightKey> {
        let sites = derivation.through.iter().chain([&derivation.site]);
        sites.filter_map(|id| self.graph.sites.get(*id as usize)).flat_map(|site| &site.weights)
    }

    fn kind(&self, key: WeightKey) -> TensorType {
        self.types.get(key.to_string().as_str()).copied().unwrap_or(TensorType::F32)
    }

    /// Whether the run's values of a weight are not known: blocks, made from something else.
    fn is_unknown(&self, key: &WeightKey) -> bool {
        let kind = self.kind(*key);
        let same = self.original.get(*key).is_some_and(|weight| weight.tensor_type == kind);
        scale_elements(kind).is_some() && !same
    }

    /// Whether the run's values follow from factors beside the elements, which only its file has.
    fn is_scaled(&self, key: &WeightKey) -> bool {
        let eight = TensorType::F8E4M3;
        self.kind(*key) == eight && self.original.get(*key).is_some_and(|weight| weight.tensor_type != eight)
    }

    /// What of a site's own making is in blocks; `None` where something on the way to its inputs is.
    fn quantised(&self, site: &Site, derivation: &Derivation) -> Option<Quantised<'_>> {
        let reads_blocks = |site: &&Site| site.weights.iter().any(|key| self.is_unknown(key));
        let blocks = |id: &SiteId| self.graph.sites.get(*id as usize).filter(reads_blocks);
        let mut unknown = derivation.through.iter().chain([&derivation.site]).filter_map(blocks);
        let Some(first) = unknown.next() else { return Some(Quantised::Nothing) };
        if unknown.next().is_some() {
            return None;
        }
        let own = first.id == site.id;
        match first.operation {
            Operation::TokenEmbedding | Operation::PositionEmbedding if own => Some(Quantised::Table),
            Operation::MatMul if !own => {
                let biased = site.operation == Operation::Bias && site.inputs == [first.id];
                biased.then_some(Quantised::Product(first))
            }
            Operation::MatMul | Operation::Linear | Operation::GatedMatMul | Operation::ExpertMatMul { .. } if own => {
                Some(Quantised::Product(first))
            }
            _ => None,
        }
    }

    fn load(&self, key: WeightKey) -> Result<ReferenceWeight> {
        Ok(ReferenceWeight::new(self.original.weight(key)?)?.read_as(self.kind(key)))
    }

    fn evaluation<'e>(&'e self, derivation: &'e Derivation, arithmetic: Arithmetic) -> Result<Evaluation<'e>> {
        Evaluation::with_weights(self.graph, self.recorded, derivation, arithmetic, |key| self.load(key))
    }

    /// Calls `each` with the position of the first, the expected and the recorded rows of every piece.
    fn pieces(
        &self,
        derivation: &Derivation,
        arithmetic: Arithmetic,
        mut each: impl FnMut(usize, &Rows, &Rows) -> Result<()>,
    ) -> Result<()> {
        let mut evaluation = self.evaluation(derivation, arithmetic)?;
        for piece in evaluation.pieces() {
            let expected = evaluation.rows(piece.clone())?;
            let recorded = self.recorded.values(derivation.site, piece.clone())?;
            check_widths(&expected, &recorded)?;
            each(piece.start, &expected, &recorded)?;
        }
        Ok(())
    }

    fn plain(&self, site: &Site, derivation: &Derivation, finding: &mut Finding) -> Result<()> {
        let load = |key| self.load(key);
        let yardstick = Yardstick { graph: self.graph, recorded: self.recorded, emulation: self.emulation, load };
        yardstick.judge(site, derivation, self.class(site, derivation), finding).map(drop)
    }

    /// The class of a fault: a number where the run says that its file has another one, else the weights, where there are
    /// any; whether it was the kernel instead only part A can tell.
    fn class(&self, site: &Site, derivation: &Derivation) -> Class {
        if has_numbers(site.operation) && self.says_other_numbers(site.operation) {
            return Class::HyperParameter;
        }
        match self.weights(derivation).next() {
            Some(_) => Class::File,
            None => class_of(site.operation.name()),
        }
    }

    /// Whether the run's identity has other numbers for an operation than the original.
    fn says_other_numbers(&self, operation: Operation) -> bool {
        let part = match operation {
            Operation::RmsNorm { .. } | Operation::LayerNorm { .. } => "epsilon",
            Operation::Rope { .. } => "rope",
            Operation::Scale { .. } => "embedding_scale",
            Operation::SoftCap { .. } => "softcap",
            Operation::Activate(_) => "activation",
            Operation::TopK { .. } | Operation::ExpertWeights { .. } => "expert",
            _ => "",
        };
        let attention = ["attn_", "window", "heads", "head_dim"];
        let concerns = |key: &str| match part {
            "" => attention.iter().any(|part| key.contains(part)),
            part => key.contains(part),
        };
        let same = |own: &str, other: &str| match (own.parse::<f32>(), other.parse::<f32>()) {
            (Ok(own), Ok(other)) => own == other,
            _ => own == other,
        };
        let said = &self.recorded.run().view().identity.hyper_parameters;
        self.original.facts().iter().filter(|fact| concerns(fact.key)).any(|fact| {
            let own = said.iter().find(|pair| pair.key == fact.key);
            own.is_some_and(|own| !same(&own.value, &fact.value))
        })
    }

    /// Rows of a table in blocks.
    fn table(&self, site: &Site, derivation: &Derivation, finding: &mut Finding) -> Result<()> {
        let Some(key) = site.weights.first() else { return Ok(()) };
        let mut rows = RowsError::new(self.kind(*key));
        let mut local = LocalError::default();
        let tokens = self.recorded.tokens();
        let arithmetic = self.emulation.arithmetics.first().copied().unwrap_or_default();
        self.pieces(derivation, arithmetic, |first, expected, recorded| {
            local.add(first, expected, recorded);
            for row in 0..expected.len() {
                let entry = match site.operation {
                    Operation::TokenEmbedding => tokens.get(first + row).map_or(0, |id| *id as usize),
                    _ => first + row,
                };
                rows.add(entry, first + row, expected.row(row), recorded.row(row));
            }
            Ok(())
        })?;
        let found = rows.judged();
        self.describe(&local, found, finding);
        Ok(())
    }

    fn product(&self, site: &Site, product: &Site, derivation: &Derivation, finding: &mut Finding) -> Result<()> {
        let mut best: Option<(f64, LocalError, ProductError)> = None;
        for arithmetic in &self.emulation.arithmetics {
            let (local, found) = self.product_error(site, product, derivation, *arithmetic)?;
            let over = found.over();
            if best.as_ref().is_none_or(|(least, ..)| over < *least) {
                best = Some((over, local, found));
            }
        }
        if let Some((_, local, found)) = best {
            self.describe(&local, found, finding);
        }
        Ok(())
    }

    fn product_error(
        &self,
        site: &Site,
        product: &Site,
        derivation: &Derivation,
        arithmetic: Arithmetic,
    ) -> Result<(LocalError, ProductError)> {
        let Some(mut source) = derive(self.graph, self.recorded, product.id) else {
            return Err(Error::internal("a product without its input"));
        };
        source.positions.clone_from(&derivation.positions);
        let mut reader = self.evaluation(&source, arithmetic)?;
        let mut groups: BTreeMap<WeightKey, Group> = BTreeMap::new();
        let total: usize = derivation.positions.iter().map(ExactSizeIterator::len).sum();
        let every = if product.weights.len() > 2 { 1 } else { total.div_ceil(SAMPLE).max(1) };
        let tail = self.tail(site, product)?;
        let mut local = LocalError::default();
        let mut error = ProductError::default();
        self.pieces(derivation, arithmetic, |first, expected, recorded| {
            local.add(first, expected, recorded);
            let inputs = reader.inputs(first..first + expected.len())?;
            for row in 0..expected.len() {
                let Some(key) = chosen(product, &inputs, row) else { continue };
                let group = match groups.entry(key) {
                    std::collections::btree_map::Entry::Occupied(group) => group.into_mut(),
                    std::collections::btree_map::Entry::Vacant(place) => {
                        place.insert(Group::new(self.load(key)?, self.kind(key))?)
                    }
                };
                let x = inputs.first().map(|x| x.row(row)).unwrap_or_default();
                let rows = tail.before(inputs.get(1).map(|y| y.row(row)), expected.row(row), recorded.row(row));
                let Some((expected, recorded)) = rows else { continue };
                error.measures.push(group.add(first + row, x, expected, recorded, every));
                error.keep_worst();
            }
            Ok(())
        })?;
        for group in groups.values().filter(|group| !group.sample.positions.is_empty()) {
            error.join(judge(&group.sample, &group.weight, group.kind, &group.spread)?);
        }
        Ok((local, error))
    }

    /// What stands behind the product alone.
    fn tail(&self, site: &Site, product: &Site) -> Result<Tail> {
        let vector = |key: Option<&WeightKey>| -> Result<Vec<f32>> {
            key.map_or(Ok(Vec::new()), |key| Ok(self.load(*key)?.vector().to_vec()))
        };
        Ok(match (site.id == product.id, product.operation) {
            (false, _) => Tail::Bias(vector(site.weights.first())?),
            (_, Operation::Linear) => Tail::Bias(vector(product.weights.get(1))?),
            (_, Operation::GatedMatMul) => Tail::Gate(vector(product.weights.get(1))?),
            _ => Tail::Bias(Vec::new()),
        })
    }

    fn describe(&self, local: &LocalError, found: ProductError, finding: &mut Finding) {
        finding.tokens = local.rows.len();
        finding.rel_l2 = Some(local.rel_l2());
        finding.bound = Some(found.expected);
        finding.over_bound = Some(found.over());
        finding.slope = Some(found.slope).filter(|slope| slope.is_finite());
        finding.largest_z = found.output;
        finding.worst_position = found.worst_position.and_then(|position| u32::try_from(position).ok());
        finding.detects = Some(found.detects).filter(|detects| detects.is_finite());
        finding.judgement = if found.over() > 1.0 { Judgement::Wrong(Class::File) } else { Judgement::Right };
        if let Some(Measure { what, value, limit }) = found.worst() {
            finding.note = format!("{what}: {value:.4} of {limit:.4}");
        }
        let (output, input) = found.sees;
        if output > 0.0 {
            let said = |factor: f64| if factor < 100.0 { format!("{factor:.2}") } else { "none".to_owned() };
            finding.note += &format!("; factors seen: {} of an output, {} of an input", said(output), said(input));
        }
    }

    fn names(&self, sites: impl Iterator<Item = SiteId>) -> Vec<String> {
        let mut places: Vec<(Option<u32>, &str)> =
            sites.filter_map(|id| self.graph.sites.get(id as usize)).map(|site| (site.layer, site.point)).collect();
        places.sort_unstable();
        places.dedup();
        places.into_iter().map(|(layer, point)| place_name(layer, point)).collect()
    }
}

/// A trace says itself how wide its rows are.
fn check_widths(expected: &Rows, recorded: &Rows) -> Result<()> {
    let differs = |row: &usize| expected.row(*row).len() != recorded.row(*row).len();
    let Some(row) = (0..expected.len().min(recorded.len())).find(differs) else { return Ok(()) };
    let (own, other) = (recorded.row(row).len(), expected.row(row).len());
    let message = format!("a recorded row has {own} elements where the original gives {other}: it is another model");
    Err(Error::new(ErrorKind::NotComparable, message))
}

/// The matrix that a row is multiplied with: of experts that of the one in the slot.
fn chosen(product: &Site, inputs: &[Rows], row: usize) -> Option<WeightKey> {
    let index = match product.operation {
        Operation::ExpertMatMul { slot } => {
            let number = *inputs.get(1)?.row(row).get(slot as usize)?;
            (number >= 0.0 && number.fract() == 0.0).then_some(number as usize)?
        }
        _ => 0,
    };
    product.weights.get(index).copied()
}

/// What is done to a product before it is recorded.
enum Tail {
    /// Added; empty where nothing is.
    Bias(Vec<f32>),
    /// Multiplied with the sigmoid of a dot.
    Gate(Vec<f32>),
}

impl Tail {
    /// The expected and the recorded product; `None` where a factor of 0 hides it.
    fn before(&self, gated: Option<&[f32]>, expected: &[f32], recorded: &[f32]) -> Option<(Vec<f64>, Vec<f64>)> {
        let wide = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<_>>();
        let (mut expected, mut recorded) = (wide(expected), wide(recorded));
        match self {
            Tail::Bias(bias) => {
                for row in [&mut expected, &mut recorded] {
                    row.iter_mut().zip(bias).for_each(|(y, bias)| *y -= f64::from(*bias));
                }
            }
            Tail::Gate(gate) => {
                let dot: f64 = gated?.iter().zip(gate).map(|(y, gate)| f64::from(*y) * f64::from(*gate)).sum();
                let factor = 1.0 / (1.0 + (-dot).exp());
                if factor < f64::from(f32::MIN_POSITIVE) {
                    return None;
                }
                for row in [&mut expected, &mut recorded] {
                    row.iter_mut().for_each(|y| *y /= factor);
                }
            }
        }
        Some((expected, recorded))
    }
}

/// Rows that are multiplied with one matrix.
struct Group {
    weight: ReferenceWeight,
    kind: TensorType,
    spread: Spread,
    sample: Sample,
    /// Sum of the variances of its rows.
    variance: f64,
    seen: usize,
}

impl Group {
    fn new(weight: ReferenceWeight, kind: TensorType) -> Result<Self> {
        let spread = Spread::of(&weight, kind)?;
        let variance = spread.rows.iter().sum();
        Ok(Group { weight, kind, spread, sample: Sample::default(), variance, seen: 0 })
    }

    /// Takes a row, every so often into the sample, and says how large its errors are.
    fn add(&mut self, position: usize, x: &[f32], expected: Vec<f64>, recorded: Vec<f64>, every: usize) -> Measure {
        let squares: f64 = expected.iter().zip(&recorded).map(|(e, r)| (r - e) * (r - e)).sum();
        let floor: f64 = expected.iter().map(|y| 1e-12 * y * y).sum();
        let variance = self.variance * self.spread.covariance(x, x) + floor;
        let measure = row_measure(position, squares, variance, self.weight.rows());
        if self.seen.is_multiple_of(every) && self.sample.positions.len() < SAMPLE {
            self.sample.positions.push(position);
            self.sample.x.extend_from_slice(x);
            self.sample.expected.extend(expected);
            self.sample.recorded.extend(recorded);
        }
        self.seen += 1;
        measure
    }
}
