//! Imports as their users run them: dumps that tests write, and the values that a trace then holds.

use crate::command::{Finished, Ground, actrace, run};
use crate::running::prompt;
use crate::support::safetensors::Tensor;
use actrace::open::Trace;
use actrace::record::{SiteV1, StepV1};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The shipped prompt as `--tokens` takes it.
pub fn tokens() -> String {
    prompt().iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

/// `actrace import DUMP --map ... --label NAME` into the ground's `runs.actrace`, tokens of the shipped prompt.
pub fn import(ground: &Ground, dump: &Path, label: &str, args: &[&str]) -> Finished {
    import_of(ground, &[dump], &tokens(), label, args)
}

/// The same of several paths and other tokens.
pub fn import_of(ground: &Ground, dump: &[&Path], tokens: &str, label: &str, args: &[&str]) -> Finished {
    let mut command = actrace("import");
    command.args(dump).args(["--tokens", tokens, "--label", label]).args(args);
    run(command.arg("--out").arg(ground.path("runs.actrace")))
}

/// A safetensors file of tensors: name, type, shape, little-endian values.
pub fn write_safetensors(path: &Path, tensors: &[(&str, &str, &[usize], Vec<u8>)]) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let place = [data.len(), data.len() + bytes.len()];
        let info = serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": place });
        header.insert((*name).to_owned(), info);
        data.extend_from_slice(bytes);
    }
    let header = serde_json::to_vec(&header).unwrap();
    std::fs::write(path, [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()).unwrap();
}

/// f32 values as bytes.
pub fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A reference as its engine dumped it: with the nodes that the fixture leaves out.
pub fn whole(ground: &Ground, tensors: &BTreeMap<String, Tensor>) -> PathBuf {
    let path = ground.path("whole.safetensors");
    let tensors: Vec<_> = tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), "F32", tensor.shape.as_slice(), bytes(&tensor.values)))
        .collect();
    write_safetensors(&path, &tensors);
    path
}

/// What an imported run holds.
pub struct Held {
    pub trace: Arc<Trace>,
    number: usize,
}

impl Held {
    /// The run with `label` in the ground's trace.
    pub fn of(ground: &Ground, label: &str) -> Held {
        let trace = Trace::open(&ground.path("runs.actrace")).unwrap();
        let number = trace.runs().iter().position(|run| run.identity.label == label).unwrap();
        Held { trace, number }
    }

    pub fn run(&self) -> &actrace::open::RunView {
        &self.trace.runs()[self.number]
    }

    pub fn sites(&self) -> &[SiteV1] {
        &self.run().plan.sites
    }

    pub fn site(&self, layer: i32, point: &str) -> &SiteV1 {
        let mut sites = self.sites().iter();
        sites.find(|site| (site.layer, site.point.as_str()) == (layer, point)).unwrap()
    }

    pub fn captured(&self) -> usize {
        self.sites().iter().filter(|site| site.status == 0).count()
    }

    pub fn step(&self) -> StepV1 {
        self.trace.step(&self.run().steps[0].commit).unwrap()
    }

    /// Rows of a point by position.
    pub fn rows(&self, layer: i32, point: &str) -> BTreeMap<u32, Vec<f32>> {
        let site = self.site(layer, point).site;
        let mut rows = BTreeMap::new();
        for frame in &self.run().steps[0].stats {
            let stats = self.trace.stats(frame).unwrap();
            let record = stats.record();
            for at in (0..record.site.len()).filter(|at| record.site[*at] == site) {
                let payload = self.trace.payload(record.payload[at].to_native()).unwrap();
                let row = payload.row(record.payload_row[at].to_native() as usize).unwrap();
                rows.insert(record.position[at].to_native(), row.to_vec());
            }
        }
        rows
    }

    /// The bits of all rows of a point, one after the other.
    pub fn bits(&self, layer: i32, point: &str) -> Vec<u32> {
        bits(&self.rows(layer, point).into_values().flatten().collect::<Vec<_>>())
    }
}

/// Bits, which compare where values are NaN too.
pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}
