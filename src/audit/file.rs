//! Part B: the run's model file against the original weights and numbers.

use super::parameters::{difference, has_numbers};
use super::weight_error::{Pair, WeightError};
use super::{Class, Finding, Judgement};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Graph, Operation, Site};
use crate::model::{Architecture, Layout, Model, Role, Weight, WeightKey};
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

/// Judges every operation that reads weights or has numbers of its own: the weights of `run_model` against those of
/// `original_model`, and the numbers of the two graphs; in forward order. A weight that several operations read is
/// measured once. `done` is called after each operation.
///
/// # Errors
/// NotComparable, where the models are of different families or depths; those of reading weights.
pub fn audit_files(
    run_model: &Model,
    run_graph: &Graph,
    original_model: &Model,
    original_graph: &Graph,
    done: &(dyn Fn() + Sync),
) -> Result<Vec<Finding>> {
    check_comparable(run_model, run_graph, original_model, original_graph)?;
    let run = Side::of(run_model, run_graph);
    let original = Side::of(original_model, original_graph);
    let mut audit = Audit { run, original, measured: HashMap::new() };
    let mut findings = Vec::new();
    for (own, other) in aligned(&audit.run, &audit.original) {
        findings.extend(audit.site(own, other)?);
        done();
    }
    Ok(findings)
}

/// Refuses models whose operations cannot be told to be the same.
fn check_comparable(run: &Model, run_graph: &Graph, original: &Model, other_graph: &Graph) -> Result<()> {
    check_family(run.architecture().name(), original)?;
    check_depth(run_graph.layers, other_graph.layers, original)
}

/// Refuses a run of another family; by GGUF's names, because files of that format do not tell mistral from llama.
pub(super) fn check_family(run: &str, original: &Model) -> Result<()> {
    let own = Architecture::ALL.iter().find(|known| known.name() == run).map(|known| known.gguf());
    if own == Some(original.architecture().gguf()) {
        return Ok(());
    }
    Err(refused("architecture", &run, &original.architecture().name(), original))
}

/// Refuses a run of another depth.
pub(super) fn check_depth(run: u32, layers: u32, original: &Model) -> Result<()> {
    if run == layers { Ok(()) } else { Err(refused("layers:", &run, &layers, original)) }
}

fn refused(what: &str, run: &dyn std::fmt::Display, other: &dyn std::fmt::Display, original: &Model) -> Error {
    let message = format!("the run's model has {what} {run}, the original {other}: give the original of this model");
    Error::new(ErrorKind::NotComparable, message).in_file(original.path())
}

type Place = (Option<u32>, &'static str, u32);

fn place(site: &Site) -> Place {
    (site.layer, site.point, site.occurrence)
}

/// A model with its graph, and what its operations read.
struct Side<'a> {
    model: &'a Model,
    graph: &'a Graph,
    places: HashMap<Place, &'a Site>,
    reads: BTreeSet<WeightKey>,
}

impl<'a> Side<'a> {
    fn of(model: &'a Model, graph: &'a Graph) -> Self {
        let places = graph.sites.iter().map(|site| (place(site), site)).collect();
        let reads = graph.sites.iter().flat_map(|site| site.weights.iter().copied()).collect();
        Side { model, graph, places, reads }
    }

    fn inputs(&self, site: &Site) -> Vec<Option<Place>> {
        site.inputs.iter().map(|id| self.graph.sites.get(*id as usize).map(place)).collect()
    }
}

type Sites<'a> = (Option<&'a Site>, Option<&'a Site>);

/// The sites of both graphs in forward order, those of one place together.
fn aligned<'a>(run: &Side<'a>, original: &Side<'a>) -> Vec<Sites<'a>> {
    let mut all = Vec::new();
    let mut others = original.graph.sites.iter().peekable();
    for own in &run.graph.sites {
        while let Some(other) = others.next_if(|other| !run.places.contains_key(&place(other))) {
            all.push((None, Some(other)));
        }
        let other = original.places.get(&place(own)).copied();
        if other.is_some() {
            others.next();
        }
        all.push((Some(own), other));
    }
    all.extend(others.filter(|other| !run.places.contains_key(&place(other))).map(|other| (None, Some(other))));
    all
}

/// What makes two pairs of weights one: where both lie, and what is added to them.
type Stored = (usize, u64, Layout, usize, u32);

fn stored(weight: &Weight, offset: f32) -> Stored {
    (weight.file, weight.offset, weight.layout, weight.rows, offset.to_bits())
}

struct Audit<'a> {
    run: Side<'a>,
    original: Side<'a>,
    measured: HashMap<(Stored, Stored), Rc<WeightError>>,
}

impl Audit<'_> {
    /// The finding of one operation; `None` where it has neither weights nor numbers, or where it stands in the original
    /// alone and the run reads its weights elsewhere.
    fn site(&mut self, own: Option<&Site>, other: Option<&Site>) -> Result<Option<Finding>> {
        let Some(shown) = own.or(other) else { return Ok(None) };
        let mut wrong = Wrong::default();
        let mut finding = Finding { judgement: Judgement::Right, ..Finding::of(shown, "") };
        if let Some(own) = own {
            self.weights(own, other, &mut finding, &mut wrong)?;
        }
        let missing = other.map(|other| other.weights.as_slice()).unwrap_or_default();
        for key in missing.iter().filter(|key| is_weight(key) && !self.run.reads.contains(key)) {
            wrong.file(format!("the run's file has no {key}"));
        }
        if let (Some(own), Some(other)) = (own, other) {
            self.numbers(own, other, &mut wrong)?;
        }
        let says = own.is_some_and(|own| !own.weights.is_empty() || has_numbers(own.operation));
        if let Some(class) = wrong.class {
            finding.judgement = Judgement::Wrong(class);
            finding.over_bound = Some(finding.over_bound.filter(|over| *over > 1.0).unwrap_or(f64::INFINITY));
            finding.note = wrong.notes.join("; ");
        }
        Ok((says || wrong.class.is_some()).then_some(finding))
    }

    /// Measures the weights of a site; the finding takes the figures of the one that is furthest off.
    fn weights(&mut self, own: &Site, other: Option<&Site>, finding: &mut Finding, wrong: &mut Wrong) -> Result<()> {
        let mut worst: Option<f64> = None;
        for key in own.weights.iter().filter(|key| is_weight(key)) {
            let run = self.run.model.weight(*key)?;
            let Some(original) = self.original.model.get(*key) else {
                wrong.file(format!("the original has no {key}"));
                continue;
            };
            if (run.rows, run.columns) != (original.rows, original.columns) {
                let of = |weight: &Weight| format!("{} x {}", weight.rows, weight.columns);
                wrong.file(format!("{key} is {} (original: {})", of(run), of(original)));
                continue;
            }
            let offset = |site: Option<&Site>| match site.map(|site| site.operation) {
                Some(Operation::RmsNorm { weight_offset, .. }) => weight_offset,
                _ => 0.0,
            };
            let error = self.error(Pair { run: (run, offset(Some(own))), original: (original, offset(other)) })?;
            if error.unknown {
                finding.judgement = Judgement::Undecided("the steps of its elements are not known");
                continue;
            }
            if !error.is_right() {
                wrong.file(told(*key, &error));
            }
            if worst.is_none_or(|worst| error.over() > worst) {
                worst = Some(error.over());
                describe(&error, finding);
                finding.note = format!("{key}: {} of {}", run.tensor_type.name(), original.tensor_type.name());
            }
        }
        Ok(())
    }

    fn error(&mut self, pair: Pair<'_>) -> Result<Rc<WeightError>> {
        let key = (stored(pair.run.0, pair.run.1), stored(pair.original.0, pair.original.1));
        if let Some(error) = self.measured.get(&key) {
            return Ok(Rc::clone(error));
        }
        let error = Rc::new(pair.measure()?);
        self.measured.insert(key, Rc::clone(&error));
        Ok(error)
    }

    /// Numbers of the operation, or what it is and reads where that is another.
    fn numbers(&self, own: &Site, other: &Site, wrong: &mut Wrong) -> Result<()> {
        let same = std::mem::discriminant(&own.operation) == std::mem::discriminant(&other.operation);
        if same {
            if let Some(note) = difference((self.run.model, own), (self.original.model, other))? {
                wrong.number(note);
            }
            if wrong.class.is_none() && self.run.inputs(own) != self.original.inputs(other) {
                wrong.number(format!("{} reads other points than in the original", own.operation.name()));
            }
        } else if wrong.class.is_none() && !(is_product(own.operation) && is_product(other.operation)) {
            // A product alone where the original has the bias behind it is a missing weight, which was told.
            wrong.number(format!("{} (original: {})", own.operation.name(), other.operation.name()));
        }
        Ok(())
    }
}

/// Divisors of frequencies are compared with the rotation that they are a part of.
fn is_weight(key: &WeightKey) -> bool {
    key.role != Role::RopeFactors
}

fn is_product(operation: Operation) -> bool {
    matches!(operation, Operation::MatMul | Operation::Linear | Operation::Bias)
}

/// What is wrong with an operation. A wrong weight says more than a wrong number.
#[derive(Default)]
struct Wrong {
    class: Option<Class>,
    notes: Vec<String>,
}

impl Wrong {
    fn file(&mut self, note: String) {
        self.class = Some(Class::File);
        self.notes.push(note);
    }

    fn number(&mut self, note: String) {
        self.class.get_or_insert(Class::HyperParameter);
        self.notes.push(note);
    }
}

fn describe(error: &WeightError, finding: &mut Finding) {
    finding.rel_l2 = Some(error.rel_l2());
    finding.bound = Some(error.bound());
    finding.over_bound = Some(error.over());
    finding.slope = error.slope();
    finding.largest_z = error.largest_row();
    finding.detects = Some(error.detects()).filter(|detects| detects.is_finite());
}

/// A wrong weight in words.
fn told(key: WeightKey, error: &WeightError) -> String {
    let place = |element: &super::weight_error::Element| {
        format!("[{}, {}] {} (original: {})", element.row, element.column, element.run, element.original)
    };
    match (&error.not_finite, &error.first) {
        (Some(element), _) => format!("{key}: not finite at {}", place(element)),
        (_, Some(element)) => format!(
            "{key}: {} of {} elements are further off than rounding, first {}",
            error.beyond,
            error.elements,
            place(element)
        ),
        _ => format!("{key}: a slope that rounding cannot give"),
    }
}
