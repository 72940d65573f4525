//! The weights of two runs side by side: which are equal, which differ and by how much, and which are on one side only.
//!
//! Weights are paired by canonical name. Hashes tell equality without reading a value; only what differs is read, a
//! payload of either side at a time.

use super::metrics::{Allclose, Difference, Sums};
use crate::error::{Error, ErrorKind, Result};
use crate::model::TensorType;
use crate::model::quant::{scale_elements, step};
use crate::open::{Payload, RunRef, Trace};
use crate::record::{WeightRefV1, WeightV1};
use crate::stats::Moments;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What two runs say of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightState {
    /// The stored bytes are equal, and mean the same.
    ByteEqual,
    /// Every canonical value has the same bits, though it is stored otherwise.
    Equal,
    /// Values differ.
    Different,
    /// Values differ, and were not kept on both sides: by how much, nobody can tell.
    DifferentNotKept,
    /// The canonical shapes differ.
    ShapesDiffer,
    /// The reference's model has no such weight.
    MissingInReference,
    /// The target's model has no such weight.
    MissingInTarget,
    /// The reference's model has it, and its record is not there: the run did not come so far, or it was lost.
    NotRecordedInReference,
    /// The same of the target.
    NotRecordedInTarget,
}

impl WeightState {
    /// The word in tables.
    pub fn name(self) -> &'static str {
        match self {
            WeightState::ByteEqual => "byte_equal",
            WeightState::Equal => "equal",
            WeightState::Different => "different",
            WeightState::DifferentNotKept => "different, values not kept",
            WeightState::ShapesDiffer => "shapes differ",
            WeightState::MissingInReference => "missing in reference",
            WeightState::MissingInTarget => "missing in target",
            WeightState::NotRecordedInReference => "not recorded in reference",
            WeightState::NotRecordedInTarget => "not recorded in target",
        }
    }
}

/// A weight that at least one of two runs has a record of.
#[derive(Debug)]
pub struct WeightPair {
    /// The reference's record.
    pub reference: Option<WeightV1>,
    /// The target's record.
    pub target: Option<WeightV1>,
    /// What they say.
    pub state: WeightState,
}

impl WeightPair {
    /// What is stored, by the reference where it has a record.
    pub fn weight(&self) -> Option<&WeightRefV1> {
        self.reference.as_ref().or(self.target.as_ref()).map(|record| &record.weight)
    }

    /// A bound that `rel_l2` cannot be below, from the norms alone: `|norm t - norm r| / norm r`.
    pub fn rel_l2_at_least(&self) -> Option<f64> {
        let (r, t) = (self.reference.as_ref()?, self.target.as_ref()?);
        if self.state == WeightState::ShapesDiffer {
            return None;
        }
        let (r, t) = (moments(r).l2()?, moments(t).l2()?);
        Some(if r == t { 0.0 } else { (t - r).abs() / r })
    }
}

/// The weights of two runs, paired.
#[derive(Debug)]
pub struct WeightPairing {
    /// The run that is compared with.
    pub reference: RunRef,
    /// The run that is asked about.
    pub target: RunRef,
    /// Every weight in the order of the reference's records; those of the target alone follow.
    pub pairs: Vec<WeightPair>,
}

impl WeightPairing {
    /// Reads the records of both runs; no payload is touched.
    ///
    /// # Errors
    /// Not comparable, where a run has no weights; Damaged, where it names one twice.
    pub fn new(reference: RunRef, target: RunRef) -> Result<Self> {
        let references = records(&reference)?;
        let mut targets: BTreeMap<String, WeightV1> = BTreeMap::new();
        let mut order = Vec::new();
        for record in records(&target)? {
            order.push(record.weight.canonical_name.clone());
            targets.insert(record.weight.canonical_name.clone(), record);
        }
        let (planned_r, planned_t) = (planned(&reference), planned(&target));
        let mut pairs = Vec::with_capacity(references.len());
        for record in references {
            let other = targets.remove(&record.weight.canonical_name);
            let state = match &other {
                Some(other) => state(&record, other),
                None if planned_t.contains(&record.weight.canonical_name) => WeightState::NotRecordedInTarget,
                None => WeightState::MissingInTarget,
            };
            pairs.push(WeightPair { reference: Some(record), target: other, state });
        }
        for record in order.iter().filter_map(|name| targets.remove(name)) {
            let state = match planned_r.contains(&record.weight.canonical_name) {
                true => WeightState::NotRecordedInReference,
                false => WeightState::MissingInReference,
            };
            pairs.push(WeightPair { reference: None, target: Some(record), state });
        }
        Ok(WeightPairing { reference, target, pairs })
    }

    /// By how much the weights of `pair` differ; `None` where their values cannot be compared or were not kept.
    ///
    /// # Errors
    /// Damaged, where payloads do not hold what their weight says.
    pub fn compare(&self, pair: &WeightPair) -> Result<Option<WeightDifference>> {
        let (Some(reference), Some(target)) = (&pair.reference, &pair.target) else { return Ok(None) };
        match pair.state {
            WeightState::ByteEqual | WeightState::Equal => Ok(Some(WeightDifference::equal(reference, target))),
            WeightState::Different => {
                let reference = Values::new(self.reference.trace(), reference)?;
                let target = Values::new(self.target.trace(), target)?;
                WeightDifference::of(reference, target).map(Some)
            }
            _ => Ok(None),
        }
    }
}

fn records(run: &RunRef) -> Result<Vec<WeightV1>> {
    let label = &run.view().identity.label;
    if run.view().weights.is_empty() {
        return Err(Error::new(
            ErrorKind::NotComparable,
            format!("run `{label}` has no weights: record them by `actrace weights`, or by `actrace record --weights`"),
        ));
    }
    let mut names = BTreeSet::new();
    let mut records = Vec::with_capacity(run.view().weights.len());
    for frame in &run.view().weights {
        let record = run.trace().weight(frame)?;
        if !names.insert(record.weight.canonical_name.clone()) {
            let message = format!("run `{label}` has two records of this weight");
            return Err(Error::damaged(message).of(&record.weight.canonical_name).in_file(run.trace().path()));
        }
        records.push(record);
    }
    Ok(records)
}

/// Names of the weights that a run's plan knows.
fn planned(run: &RunRef) -> BTreeSet<String> {
    run.view().plan.weights.iter().map(|weight| weight.canonical_name.clone()).collect()
}

fn state(reference: &WeightV1, target: &WeightV1) -> WeightState {
    let kept = |weight: &WeightV1| weight.count == 0 || !weight.payloads.is_empty();
    if reference.weight.shape != target.weight.shape {
        WeightState::ShapesDiffer
    } else if reference.values_blake3 == target.values_blake3 {
        let same = reference.stored_blake3 == target.stored_blake3 && reference.weight.dtype == target.weight.dtype;
        if same { WeightState::ByteEqual } else { WeightState::Equal }
    } else if kept(reference) && kept(target) {
        WeightState::Different
    } else {
        WeightState::DifferentNotKept
    }
}

fn moments(weight: &WeightV1) -> Moments {
    Moments { count: weight.finite(), mean: weight.mean, m2: weight.m2 }
}

/// Two weights of one shape, compared.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WeightDifference {
    /// Sums over the elements.
    pub sums: Sums,
    /// The first element, in row-major order, whose bits differ.
    pub first: Option<u64>,
    /// The element with the largest error, and its place.
    pub worst: Option<(u64, Difference)>,
    over_step: Option<f64>,
}

impl WeightDifference {
    /// The largest error in steps of the element's block, the larger step of both sides; infinite where an element
    /// differs whose block can hold one value only. `None` where neither side has blocks, or a value is nonfinite on one
    /// side only.
    pub fn over_step(&self) -> Option<f64> {
        self.over_step.filter(|_| self.sums.disagreeing == 0)
    }

    fn equal(reference: &WeightV1, target: &WeightV1) -> Self {
        let absmax = (reference.finite() > 0).then_some(reference.absmax);
        let blocks = |weight: &WeightV1| TensorType::named(&weight.weight.dtype).and_then(scale_elements).is_some();
        let over_step = (blocks(reference) || blocks(target)).then_some(0.0);
        WeightDifference { sums: Sums::equal(moments(reference), absmax), first: None, worst: None, over_step }
    }

    fn of(mut reference: Values<'_>, mut target: Values<'_>) -> Result<Self> {
        let mut difference = WeightDifference::default();
        let mut index = 0;
        loop {
            let length = reference.ready()?.min(target.ready()?);
            if length == 0 {
                break;
            }
            difference.add(index, &reference.take(length), &target.take(length));
            index += length as u64;
        }
        reference.check_end(index)?;
        target.check_end(index)?;
        Ok(difference)
    }

    /// Adds the elements from number `first` on.
    fn add(&mut self, first: u64, reference: &Stretch<'_>, target: &Stretch<'_>) {
        let (sums, worst) = Sums::of(reference.values, target.values, Allclose::default());
        if let Some(worst) = worst.filter(|_| sums.error_max > self.sums.error_max) {
            self.worst = Some((first + u64::from(worst.index), worst));
        }
        self.sums = self.sums.merge(sums);
        let mut pairs = reference.values.iter().zip(target.values);
        if self.first.is_none() {
            let differs = pairs.clone().position(|(r, t)| r.to_bits() != t.to_bits());
            self.first = differs.map(|index| first + index as u64);
        }
        if reference.scales.is_some() || target.scales.is_some() {
            let over = pairs.by_ref().enumerate().map(|(at, (r, t))| {
                let error = (f64::from(*t) - f64::from(*r)).abs();
                // Nonfinite pairs are counted by the sums; zero over zero is no error.
                if error == 0.0 || !error.is_finite() { 0.0 } else { error / reference.step(at).max(target.step(at)) }
            });
            self.over_step = Some(over.fold(self.over_step.unwrap_or(0.0), f64::max));
        }
    }
}

/// The values of a weight as they are read: one payload at a time, with the scales of its elements.
struct Values<'a> {
    trace: &'a Trace,
    weight: &'a WeightV1,
    kind: Option<TensorType>,
    next: usize,
    values: Option<Arc<Payload>>,
    scales: Option<Arc<Payload>>,
    /// How much of the payload was taken.
    taken: usize,
}

/// Consecutive values of a weight.
struct Stretch<'a> {
    values: &'a [f32],
    /// Type, scales of the payload, elements under each, and where in the payload the values begin.
    scales: Option<(TensorType, &'a [f32], usize, usize)>,
}

impl Stretch<'_> {
    /// The step of element `at`; 0 where elements are plain.
    fn step(&self, at: usize) -> f64 {
        let Some((kind, scales, shared, first)) = self.scales else { return 0.0 };
        let scale = scales.get((first + at) / shared);
        scale.zip(self.values.get(at)).map_or(0.0, |(scale, value)| f64::from(step(kind, *scale, *value)))
    }
}

impl<'a> Values<'a> {
    fn new(trace: &'a Trace, weight: &'a WeightV1) -> Result<Self> {
        let kind = TensorType::named(&weight.weight.dtype).filter(|_| weight.scale_elements > 0);
        let values = Values { trace, weight, kind, next: 0, values: None, scales: None, taken: 0 };
        if weight.scale_elements > 0 && kind.and_then(scale_elements).is_none() {
            return Err(values.damaged(&format!("elements of type {} have no scales", weight.weight.dtype)));
        }
        Ok(values)
    }

    fn damaged(&self, what: &str) -> Error {
        Error::damaged(what).of(&self.weight.weight.canonical_name).in_file(self.trace.path())
    }

    fn row(payload: &Option<Arc<Payload>>) -> &[f32] {
        payload.as_ref().and_then(|payload| payload.row(0)).unwrap_or_default()
    }

    /// How many values can be taken at once; 0 at the end.
    fn ready(&mut self) -> Result<usize> {
        while self.taken == Self::row(&self.values).len() {
            let Some(number) = self.weight.payloads.get(self.next) else { return Ok(0) };
            self.values = Some(self.trace.payload(*number)?);
            self.scales = match self.weight.scale_payloads.get(self.next) {
                Some(number) => Some(self.trace.payload(*number)?),
                None => None,
            };
            (self.next, self.taken) = (self.next + 1, 0);
            let (values, scales) = (Self::row(&self.values).len(), Self::row(&self.scales).len());
            if values == 0 {
                return Err(self.damaged("a payload of no values"));
            }
            if self.kind.is_some() && scales.checked_mul(self.weight.scale_elements as usize) != Some(values) {
                return Err(self.damaged(&format!("{scales} scales of {values} values")));
            }
        }
        Ok(Self::row(&self.values).len() - self.taken)
    }

    /// The next `length` values, which are ready.
    fn take(&mut self, length: usize) -> Stretch<'_> {
        let first = self.taken;
        self.taken += length;
        let scales = self.kind.map(|kind| (kind, Self::row(&self.scales), self.weight.scale_elements as usize, first));
        Stretch { values: Self::row(&self.values).get(first..first + length).unwrap_or_default(), scales }
    }

    /// Checks that the values ended at `index`, where they should.
    fn check_end(&mut self, index: u64) -> Result<()> {
        if self.ready()? > 0 || index != self.weight.count {
            let count = self.weight.count;
            return Err(self.damaged(&format!("its payloads do not hold {count} values")));
        }
        Ok(())
    }
}
