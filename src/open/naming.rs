//! Which capture points a damaged frame holds: what the rest of the file says of it.

use super::fault::Fault;
use super::input::Input;
use crate::file::{FrameHeader, Kind};
use crate::record::{IndexV1, PayloadIndexV1, PlanV1, Record, SiteV1, StatsV1, WeightV1};
use std::collections::{BTreeMap, BTreeSet};

/// Names the points of every faulty payload or statistics frame, as far as whole frames tell: plans, indexes, and
/// statistics rows and weights that name a payload. Read once more, and only where there are faults.
pub(super) fn name_points(input: &Input, headers: &[FrameHeader], faults: &mut [Fault]) {
    let wanted: BTreeSet<u64> = faults.iter().filter_map(|fault| fault.seq).collect();
    if wanted.is_empty() {
        return;
    }
    let mut known = Known::default();
    for header in headers {
        match header.kind {
            Kind::Plan => known.plan(header.run, decoded(input, header)),
            Kind::Payload => known.payload(header.seq, header.payload, &wanted),
            Kind::PayloadIndex => known.payload_index(&decoded(input, header).unwrap_or_default(), &wanted),
            Kind::Index => known.index(&decoded(input, header).unwrap_or_default(), &wanted),
            _ => {}
        }
    }
    for header in headers {
        match header.kind {
            Kind::Stats => known.rows(header.run, &decoded(input, header).unwrap_or_default()),
            Kind::Weight => known.weight(decoded(input, header)),
            _ => {}
        }
    }
    for fault in faults {
        if let Some(points) = fault.seq.and_then(|seq| known.points.get(&seq)) {
            fault.points = points.iter().cloned().collect();
        }
    }
}

/// A frame that cannot be read says nothing here; its own fault says so.
fn decoded<R: Record>(input: &Input, header: &FrameHeader) -> Option<R> {
    input.body(header).and_then(|body| R::decode(&body)).ok()
}

#[derive(Default)]
struct Known {
    plans: BTreeMap<u32, PlanV1>,
    /// Sequence number of each wanted payload, by its number.
    payloads: BTreeMap<u64, u64>,
    points: BTreeMap<u64, BTreeSet<String>>,
}

impl Known {
    fn plan(&mut self, run: u32, plan: Option<PlanV1>) {
        self.plans.extend(plan.map(|plan| (run, plan)));
    }

    fn payload(&mut self, seq: u64, payload: u64, wanted: &BTreeSet<u64>) {
        if wanted.contains(&seq) {
            self.payloads.insert(payload, seq);
        }
    }

    fn payload_index(&mut self, index: &PayloadIndexV1, wanted: &BTreeSet<u64>) {
        for (seq, payload) in index.seq.iter().zip(index.first_payload..) {
            self.payload(*seq, payload, wanted);
        }
    }

    /// Statistics frames: the index knows their range of sites.
    fn index(&mut self, index: &IndexV1, wanted: &BTreeSet<u64>) {
        for row in (0..index.seq.len()).filter(|row| wanted.contains(&index.seq[*row])) {
            let sites = [index.first_site[row], index.last_site[row]];
            if Kind::from_code(index.kind[row]) == Kind::Stats {
                let names: Vec<String> = sites.iter().filter_map(|site| self.site(index.run[row], *site)).collect();
                self.points.entry(index.seq[row]).or_default().insert(names.join(" to "));
            }
        }
    }

    fn rows(&mut self, run: u32, stats: &StatsV1) {
        for (site, payload) in stats.site.iter().zip(&stats.payload) {
            if let (Some(seq), Some(name)) = (self.payloads.get(payload), self.site(run, *site)) {
                self.points.entry(*seq).or_default().insert(name);
            }
        }
    }

    fn weight(&mut self, weight: Option<WeightV1>) {
        let Some(weight) = weight else { return };
        for payload in weight.payloads.iter().chain(&weight.scale_payloads) {
            if let Some(seq) = self.payloads.get(payload) {
                self.points.entry(*seq).or_default().insert(format!("weight {}", weight.weight.canonical_name));
            }
        }
    }

    fn site(&self, run: u32, site: u32) -> Option<String> {
        self.plans.get(&run)?.sites.get(site as usize).map(place)
    }
}

fn place(site: &SiteV1) -> String {
    match site.layer {
        -1 => site.point.clone(),
        layer => format!("layer {layer} {}", site.point),
    }
}
