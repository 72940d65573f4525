//! A processor whose operations are tampered with: any change of rows, of an operation's numbers, of what is read.

use actrace::Result;
use actrace::backend::{Backend, BackendIdentity, Batch, Captured, Choice, CpuBackend, CpuWeight};
use actrace::graph::{Operation, RowAxes, Site};
use actrace::model::{Layout, Weight};
use actrace::tensor::{Extent, Rows};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// One row on its way, and what it was made from.
pub struct Made<'a> {
    /// The row.
    pub row: &'a mut Vec<f32>,
    /// The same row of the first input, and of the second where there is one.
    pub inputs: [&'a [f32]; 2],
    /// Its position.
    pub position: usize,
    /// Heads in a row, 1 where it has none.
    pub heads: usize,
    /// Rows of the batch.
    pub batch: usize,
}

impl Made<'_> {
    /// Elements of a head.
    pub fn head(&mut self, number: usize) -> &mut [f32] {
        let width = self.row.len() / self.heads;
        &mut self.row[number * width..(number + 1) * width]
    }
}

/// What is done.
#[derive(Clone, Copy)]
pub enum Tampering {
    /// Each row is changed.
    Rows(fn(&mut Made<'_>)),
    /// The operation is another one.
    Operation(fn(Operation) -> Operation),
    /// It is told a position that is off by one.
    Position,
    /// A weight is read with rows and columns exchanged.
    Transposed,
    /// The rows are those of the same point in the layer before.
    Stale,
    /// Rows are stored in the cache one position late; what it shows is right.
    CacheLate,
}

/// Where.
pub type Place = (Option<u32>, &'static str);

/// The processor, tampered with at some places.
pub struct Tampered {
    inner: CpuBackend,
    faults: Vec<(Tampering, Place)>,
    /// Rows that a place had last, for faults that need them.
    before: HashMap<&'static str, Rows>,
    stored: Vec<f32>,
}

impl Tampered {
    pub fn new(inner: CpuBackend, faults: &[(Tampering, Place)]) -> Self {
        Tampered { inner, faults: faults.to_vec(), before: HashMap::new(), stored: Vec::new() }
    }

    /// The rows with the row before the first, one place late each.
    fn late(&mut self, rows: &Rows) -> Rows {
        let width = rows.width().unwrap();
        let mut values = if self.stored.is_empty() { rows.row(0).to_vec() } else { self.stored.clone() };
        values.extend_from_slice(rows.values());
        self.stored = values.split_off(values.len() - width);
        Rows::new(Arc::new(values), Extent::Width(width), rows.len()).unwrap()
    }
}

fn changed(change: fn(&mut Made<'_>), site: &Site, inputs: &[&Rows], made: &Rows, batch: Batch<'_>) -> Rows {
    let heads = match (site.axes, site.operation) {
        (RowAxes::Heads { heads, .. } | RowAxes::Keys { heads, .. }, _) => heads as usize,
        (_, Operation::AttnContext { heads, .. }) => heads as usize,
        (RowAxes::Flat { .. }, _) => 1,
    };
    let mut offsets = vec![0];
    let mut values = Vec::new();
    for number in 0..made.len() {
        let mut row = made.row(number).to_vec();
        let input = |which: usize| {
            inputs.get(which).filter(|rows| number < rows.len()).map_or(&[][..], |rows| rows.row(number))
        };
        let position = batch.first_position + number;
        change(&mut Made { row: &mut row, inputs: [input(0), input(1)], position, heads, batch: made.len() });
        assert_eq!(row.len(), made.row(number).len());
        values.extend(row);
        offsets.push(values.len());
    }
    let extent = made.width().map_or(Extent::Offsets(offsets.into()), Extent::Width);
    Rows::new(Arc::new(values), extent, made.len()).unwrap()
}

impl Backend for Tampered {
    type Tensor = Rows;
    type Weight = CpuWeight;

    fn identity(&self) -> BackendIdentity {
        self.inner.identity()
    }
    fn rows_stand_alone(&self) -> bool {
        self.inner.rows_stand_alone()
    }
    fn chunk_bytes(&self) -> usize {
        self.inner.chunk_bytes()
    }
    fn load(&mut self, weight: &Weight) -> Result<CpuWeight> {
        let here = |(tampering, (layer, role)): &(Tampering, Place)| {
            matches!(tampering, Tampering::Transposed) && weight.key.layer == *layer && weight.key.role.name() == *role
        };
        if !self.faults.iter().any(here) {
            return self.inner.load(weight);
        }
        let mut transposed = weight.clone();
        transposed.layout = match weight.layout {
            Layout::Columns { .. } => Layout::Rows { first: 0 },
            _ => Layout::Columns { first: 0, stored_columns: weight.columns },
        };
        self.inner.load(&transposed)
    }
    fn reset_cache(&mut self, sites: &[Site], positions: usize) -> Result<()> {
        self.inner.reset_cache(sites, positions + 1)
    }
    fn begin(&mut self, batch: Batch<'_>) -> Result<()> {
        self.inner.begin(batch)
    }
    fn execute(&mut self, site: &Site, inputs: &[&Rows], weights: &[&CpuWeight], batch: Batch<'_>) -> Result<Rows> {
        let here: Vec<Tampering> =
            self.faults.iter().filter(|(_, place)| *place == (site.layer, site.point)).map(|fault| fault.0).collect();
        let stale =
            self.faults.iter().any(|(what, (_, point))| matches!(what, Tampering::Stale) && *point == site.point);
        let (mut site, mut batch) = (site.clone(), batch);
        for tampering in &here {
            match tampering {
                Tampering::Operation(other) => site.operation = other(site.operation),
                Tampering::Position => batch = Batch { first_position: batch.first_position + 1, ..batch },
                Tampering::CacheLate => {
                    let late = self.late(inputs[0]);
                    self.inner.execute(&site, &[&late], weights, batch)?;
                    return Ok(inputs[0].clone());
                }
                _ => {}
            }
        }
        let mut made = self.inner.execute(&site, inputs, weights, batch)?;
        for tampering in &here {
            if let Tampering::Rows(change) = tampering {
                made = changed(*change, &site, inputs, &made, batch);
            }
        }
        if stale {
            let last = self.before.insert(site.point, made.clone());
            if let Some(last) = last.filter(|_| here.iter().any(|what| matches!(what, Tampering::Stale))) {
                made = last;
            }
        }
        Ok(made)
    }
    fn slice(&self, tensor: &Rows, rows: Range<usize>) -> Result<Rows> {
        self.inner.slice(tensor, rows)
    }
    fn capture(&mut self, tensor: &Rows, rows: Range<usize>, values: bool) -> Result<Captured> {
        self.inner.capture(tensor, rows, values)
    }
    fn choose(&mut self, logits: &Rows) -> Result<Choice> {
        self.inner.choose(logits)
    }
}

/// Rows of a prompt of this many tokens; later ones are decoded.
pub const PROMPT: usize = 12;

/// A fault by name: what is done, and at which points it can be.
pub struct KernelFault {
    pub name: &'static str,
    pub points: &'static [&'static str],
    pub tampering: Tampering,
}

const fn fault(name: &'static str, points: &'static [&'static str], tampering: Tampering) -> KernelFault {
    KernelFault { name, points, tampering }
}

fn scaled(row: &mut [f32], factor: f32) {
    row.iter_mut().for_each(|x| *x *= factor);
}

fn another(operation: Operation) -> Operation {
    use actrace::model::{Activation, RopeParameters};
    match operation {
        Operation::RmsNorm { epsilon, weight_offset, groups } => {
            Operation::RmsNorm { epsilon: epsilon * 1000.0, weight_offset, groups }
        }
        Operation::LayerNorm { epsilon } => Operation::LayerNorm { epsilon: epsilon * 1000.0 },
        Operation::Rope { heads, head_dim, rope } => {
            Operation::Rope { heads, head_dim, rope: RopeParameters { base: rope.base * 1.1, ..rope } }
        }
        Operation::AttnScores { heads, kv_heads, head_dim, scale, softcap, window } => {
            Operation::AttnScores { heads, kv_heads, head_dim, scale: scale * 1.02, softcap, window }
        }
        Operation::Activate(Activation::Silu) => Operation::Activate(Activation::GeluQuick),
        Operation::Activate(_) => Operation::Activate(Activation::GeluErf),
        other => other,
    }
}

/// As [`another`], by as little as still shows.
fn slightly_another(operation: Operation) -> Operation {
    match operation {
        Operation::RmsNorm { epsilon, weight_offset, groups } => {
            Operation::RmsNorm { epsilon: epsilon * 1.5, weight_offset, groups }
        }
        Operation::LayerNorm { epsilon } => Operation::LayerNorm { epsilon: epsilon * 1.5 },
        other => another(other),
    }
}

const PRODUCTS: &[&str] =
    &["q_matmul", "v_matmul", "attn_out", "attn_out_matmul", "ffn_up", "ffn_up_matmul", "ffn_out"];
const ANYWHERE: &[&str] = &["attn_norm", "v", "attn_ctx", "resid_mid", "ffn_act", "ffn_out"];

/// Faults of kernels.
pub const KERNEL_FAULTS: &[KernelFault] = &[
    fault("permuted outputs", PRODUCTS, Tampering::Rows(|made| made.row.rotate_left(1))),
    fault("bias left out", &["q", "k", "v"], Tampering::Rows(|made| made.row.copy_from_slice(made.inputs[0]))),
    fault(
        "bias added twice",
        &["q", "k", "v"],
        Tampering::Rows(|made| {
            let product = made.inputs[0].to_vec();
            made.row.iter_mut().zip(product).for_each(|(x, product)| *x += *x - product);
        }),
    ),
    fault(
        "another number",
        &["attn_norm", "q_rope", "attn_scores", "ffn_norm", "ffn_act"],
        Tampering::Operation(another),
    ),
    fault("another epsilon, by half", &["attn_norm", "ffn_norm"], Tampering::Operation(slightly_another)),
    fault("transposed square matrix", &["q", "attn_out"], Tampering::Transposed),
    fault(
        "exchanged heads",
        &["q_matmul", "attn_scores", "attn_ctx"],
        Tampering::Rows(|made| {
            let width = made.row.len() / made.heads.max(2);
            made.row[..2 * width].rotate_left(width);
        }),
    ),
    fault("NaN in a channel", ANYWHERE, Tampering::Rows(|made| made.row[5] = f32::NAN)),
    fault(
        "infinity at one position",
        ANYWHERE,
        Tampering::Rows(|made| {
            if made.position == 5 {
                made.row[5] = f32::INFINITY;
            }
        }),
    ),
    fault("one channel half as large again", ANYWHERE, Tampering::Rows(|made| made.row[7] *= 1.5)),
    fault("scaled by 2 %", PRODUCTS, Tampering::Rows(|made| scaled(made.row, 1.02))),
    fault("scaled by 5 %", PRODUCTS, Tampering::Rows(|made| scaled(made.row, 1.05))),
    fault(
        "residual added twice",
        &["resid_mid", "resid_post"],
        Tampering::Rows(|made| {
            let twice = made.inputs[1].to_vec();
            made.row.iter_mut().zip(twice).for_each(|(x, twice)| *x += twice);
        }),
    ),
    fault(
        "first key masked",
        &["attn_scores"],
        Tampering::Rows(|made| {
            for head in 0..made.heads {
                made.head(head)[0] = -1e9;
            }
        }),
    ),
    fault(
        "last key without probability",
        &["attn_probs"],
        Tampering::Rows(|made| {
            for head in 0..made.heads {
                let head = made.head(head);
                if let Some(last) = head.last_mut() {
                    *last = 0.0;
                }
            }
        }),
    ),
    fault("keys stored late", &["k_cache"], Tampering::CacheLate),
    fault("values stored late", &["v_cache"], Tampering::CacheLate),
    fault("rotated by one position more", &["q_rope", "k_rope"], Tampering::Position),
    fault("stale buffer", &["ffn_up", "ffn_up_matmul", "attn_ctx", "v"], Tampering::Stale),
    fault(
        "decode steps only",
        ANYWHERE,
        Tampering::Rows(|made| {
            if made.position >= PROMPT {
                scaled(made.row, 1.01);
            }
        }),
    ),
    fault(
        "one position only",
        ANYWHERE,
        Tampering::Rows(|made| {
            if made.position == 6 {
                scaled(made.row, 0.99);
            }
        }),
    ),
    fault(
        "last two rows of a batch",
        ANYWHERE,
        Tampering::Rows(|made| {
            if made.position + 2 >= made.batch {
                scaled(made.row, 1.03);
            }
        }),
    ),
    fault("one head by 1 %", &["q", "attn_probs", "attn_ctx"], Tampering::Rows(|made| scaled(made.head(1), 1.01))),
    fault("sign of a channel", ANYWHERE, Tampering::Rows(|made| made.row[3] = -made.row[3])),
    fault("sign of everything", &["ffn_out", "attn_ctx", "k_matmul"], Tampering::Rows(|made| scaled(made.row, -1.0))),
    fault("one element by 1e-3", ANYWHERE, Tampering::Rows(|made| made.row[9] *= 1.001)),
    fault(
        "results in f16",
        ANYWHERE,
        Tampering::Rows(|made| {
            made.row.iter_mut().for_each(|x| *x = half::f16::from_f32(*x).to_f32());
        }),
    ),
    fault(
        "results in bf16",
        ANYWHERE,
        Tampering::Rows(|made| {
            made.row.iter_mut().for_each(|x| *x = half::bf16::from_f32(*x).to_f32());
        }),
    ),
    fault("clipped", ANYWHERE, Tampering::Rows(|made| made.row.iter_mut().for_each(|x| *x = x.clamp(-0.3, 0.3)))),
    fault(
        "zeros in one row",
        ANYWHERE,
        Tampering::Rows(|made| {
            if made.position == 4 {
                made.row.fill(0.0);
            }
        }),
    ),
    fault(
        "left out",
        &["resid_mid", "resid_post", "attn_norm", "ffn_act"],
        Tampering::Rows(|made| {
            made.row.copy_from_slice(made.inputs[0]);
        }),
    ),
    fault("shifted by an element", ANYWHERE, Tampering::Rows(|made| made.row.rotate_right(1))),
    fault(
        "noise of 3e-6",
        ANYWHERE,
        Tampering::Rows(|made| {
            made.row.iter_mut().enumerate().for_each(|(at, x)| *x *= if at % 2 == 0 { 1.000_003 } else { 0.999_997 });
        }),
    ),
];
