//! Which stored tensor plays which role, per family and naming.
//!
//! A file's tensors must fit the table exactly: a missing one, one of another shape and one that plays no part are
//! all errors, so that no model runs with a piece silently left out.

mod gguf;
mod hugging_face;
mod table;

use super::stored::{StoredTensor, Tensors};
use super::{Architecture, HyperParameters, Layout, Role, Weight, WeightKey};
use crate::error::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
pub(super) use table::Presence;
use table::{Entry, Lie};

/// The tensor of GGUF files that divides rotary frequencies.
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// Those of models whose frequencies depend on the length of the context.
const LONG_ROPE: [&str; 2] = ["rope_factors_long.weight", "rope_factors_short.weight"];

/// Whose tensor names and layouts a file uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Naming {
    /// Hugging Face's; gpt2 matrices are stored `[in, out]`.
    HuggingFace,
    /// GGUF's; q and k of llama are stored in adjacent-pair order.
    Gguf,
}

/// What the tensors tell of a model's numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shapes {
    /// Rows of the token embedding.
    pub(super) vocabulary: u32,
    /// Whether there is an output head.
    pub(super) has_output: bool,
    /// Whether rotary frequencies have divisors.
    pub(super) has_rope_factors: bool,
    /// Tensors of the model: more layers than that cannot be.
    pub(super) tensors: usize,
}

impl Shapes {
    /// Refuses more layers than there are tensors, before anything is made for each.
    pub(super) fn check_layers(&self, layers: u32) -> Result<()> {
        match layers as usize > self.tensors {
            true => Err(Error::malformed(format!(
                "{layers} layers need more than the {} tensors that are there",
                self.tensors
            ))),
            false => Ok(()),
        }
    }
}

/// The names of one file: tables, prefixes, and tensors that carry no weight.
pub(super) struct Family {
    architecture: Architecture,
    naming: Naming,
    /// Before names outside the layers, except the output head.
    prefix: &'static str,
}

impl Family {
    /// The table of `architecture`, with the prefix (`model.`, `transformer.` or none) that `tensors` use.
    pub(super) fn new(architecture: Architecture, naming: Naming, tensors: &Tensors) -> Family {
        let prefix = match naming {
            Naming::Gguf => "",
            Naming::HuggingFace => hugging_face::prefix(architecture),
        };
        let with_prefix = Family { architecture, naming, prefix };
        match tensors.get(&with_prefix.token_embedding()) {
            Some(_) => with_prefix,
            None => Family { prefix: "", ..with_prefix },
        }
    }

    /// What the tensors tell of the model's numbers.
    ///
    /// # Errors
    /// Malformed without a token embedding, or where it is no matrix; unsupported for RoPE of two lengths.
    pub(super) fn shapes(&self, tensors: &Tensors) -> Result<Shapes> {
        if let Some(name) = LONG_ROPE.into_iter().find(|name| tensors.get(name).is_some()) {
            return Err(Error::unsupported(
                "RoPE with factors for short and long contexts (longrope) is not supported",
            )
            .of(name));
        }
        Ok(Shapes {
            vocabulary: self.vocabulary(tensors)?,
            has_output: tensors.get(self.output()).is_some(),
            has_rope_factors: self.naming == Naming::Gguf && tensors.get(ROPE_FACTORS).is_some(),
            tensors: tensors.len(),
        })
    }

    /// Rows of the token embedding: the size of the vocabulary.
    fn vocabulary(&self, tensors: &Tensors) -> Result<u32> {
        let name = self.token_embedding();
        let tensor = tensors.get(&name).ok_or_else(|| missing(&name, Role::TokenEmbedding))?;
        match tensor.shape[..] {
            [rows, _] => u32::try_from(rows)
                .map_err(|_| Error::malformed(format!("a vocabulary of {rows} tokens is too large")).of(&name)),
            _ => Err(Error::malformed(format!("a matrix is needed, its shape is {:?}", tensor.shape)).of(&name)),
        }
    }

    fn token_embedding(&self) -> String {
        let [(_, name, ..), ..] = self.outer() else { return String::new() };
        format!("{}{name}", self.prefix)
    }

    fn output(&self) -> &'static str {
        match self.naming {
            Naming::HuggingFace => hugging_face::output(self.architecture),
            Naming::Gguf => "output.weight",
        }
    }

    fn outer(&self) -> &'static [Entry] {
        match self.naming {
            Naming::HuggingFace => hugging_face::outer(self.architecture),
            Naming::Gguf => gguf::outer(self.architecture),
        }
    }

    fn layer(&self, experts: bool) -> Vec<&'static [Entry]> {
        match self.naming {
            Naming::HuggingFace => hugging_face::layer(self.architecture, experts),
            Naming::Gguf => gguf::layer(self.architecture, experts),
        }
    }

    fn layer_prefix(&self, layer: u32) -> String {
        match self.naming {
            Naming::HuggingFace => format!("{}{}", self.prefix, hugging_face::layer_prefix(self.architecture, layer)),
            Naming::Gguf => format!("blk.{layer}."),
        }
    }

    /// Every weight of the model by key, its shape checked.
    ///
    /// # Errors
    /// Malformed for a missing tensor or one of another shape; unsupported for one that plays no part.
    pub(super) fn assemble(&self, hyper: &HyperParameters, tensors: &Tensors) -> Result<BTreeMap<WeightKey, Weight>> {
        let mut build = Build { hyper, tensors, weights: BTreeMap::new(), used: BTreeSet::new() };
        self.each(hyper, |key, name, entry| build.add(key, name, entry))?;
        if hyper.tied_embeddings {
            build.tie(self.output())?;
        }
        build.finish(|name| self.carries_no_weight(name))
    }

    /// The tensors that a model with these hyper-parameters may have, each with the weights in it.
    pub(super) fn holders(&self, hyper: &HyperParameters) -> Result<Vec<Holder>> {
        let mut holders: Vec<Holder> = Vec::new();
        self.each(hyper, |key, name, (role, _, lie, presence)| {
            let (shape, layout) = expected(key, lie, hyper);
            // The parts of a fused tensor stand side by side in the table, experts that are merged follow each other.
            match holders.last_mut() {
                Some(last) if last.name == name => last.parts.push((key, layout)),
                _ => holders.push(Holder { name, role, shape, presence, parts: vec![(key, layout)] }),
            }
            Ok(())
        })?;
        Ok(holders)
    }

    /// Shows every weight that a model with these hyper-parameters may have, with the name of its tensor; a tied output
    /// head is none.
    fn each(
        &self,
        hyper: &HyperParameters,
        mut show: impl FnMut(WeightKey, String, Entry) -> Result<()>,
    ) -> Result<()> {
        for entry in self.outer() {
            show(WeightKey::outside(entry.0), format!("{}{}", self.prefix, entry.1), *entry)?;
        }
        if !hyper.tied_embeddings {
            let entry = (Role::Output, "", Lie::Plain, Presence::Needed);
            show(WeightKey::outside(Role::Output), self.output().to_owned(), entry)?;
        }
        for layer in 0..hyper.layers {
            let prefix = self.layer_prefix(layer);
            let experts = hyper.experts_of(layer).map_or(0, |experts| experts.count);
            for entry in self.layer(experts > 0).into_iter().flatten() {
                let (role, name, ..) = *entry;
                if !role.is_expert() {
                    show(WeightKey::in_layer(layer, role), format!("{prefix}{name}"), *entry)?;
                    continue;
                }
                for expert in 0..experts {
                    let name = name.replace("{}", &expert.to_string());
                    show(WeightKey::in_expert(layer, expert, role), format!("{prefix}{name}"), *entry)?;
                }
            }
        }
        Ok(())
    }

    fn carries_no_weight(&self, name: &str) -> bool {
        self.naming == Naming::HuggingFace && hugging_face::carries_no_weight(self.architecture, name)
    }
}

/// A tensor of a family's files, and what it holds.
#[derive(Debug, Clone)]
pub(super) struct Holder {
    pub(super) name: String,
    /// Of the first weight in it.
    pub(super) role: Role,
    /// Outermost axis first.
    pub(super) shape: Vec<usize>,
    pub(super) presence: Presence,
    /// The weights in it, and how each lies there.
    pub(super) parts: Vec<(WeightKey, Layout)>,
}

struct Build<'a> {
    hyper: &'a HyperParameters,
    tensors: &'a Tensors,
    weights: BTreeMap<WeightKey, Weight>,
    used: BTreeSet<String>,
}

impl Build<'_> {
    fn add(&mut self, key: WeightKey, name: String, (role, _, lie, presence): Entry) -> Result<()> {
        let Some(tensor) = self.tensors.get(&name) else {
            return if presence == Presence::Needed { Err(missing(&name, role)) } else { Ok(()) };
        };
        let weight = place(key, &name, lie, tensor, self.hyper)?;
        self.weights.insert(key, weight);
        self.used.insert(name);
        Ok(())
    }

    /// Makes the token embedding the output head. A stored head must be a copy of it.
    fn tie(&mut self, output: &str) -> Result<()> {
        let key = WeightKey::outside(Role::TokenEmbedding);
        let embedding =
            self.weights.get(&key).ok_or_else(|| Error::internal("the output is tied before it is known"))?;
        if let Some(stored) = self.tensors.get(output) {
            let same = stored.tensor_type == embedding.tensor_type && *stored.data == *embedding.data;
            if !same || stored.scales != embedding.scales {
                return Err(Error::unsupported(
                    "the configuration ties it to the token embedding, and the file holds another one",
                )
                .of(output));
            }
            self.used.insert(output.to_owned());
        }
        let key = WeightKey::outside(Role::Output);
        let output = Weight { key, ..embedding.clone() };
        self.weights.insert(key, output);
        Ok(())
    }

    fn finish(self, carries_no_weight: impl Fn(&str) -> bool) -> Result<BTreeMap<WeightKey, Weight>> {
        let stray = self.tensors.names().find(|name| !self.used.contains(*name) && !carries_no_weight(name));
        match stray {
            Some(name) => Err(Error::unsupported(
                "it plays no part in this architecture as this version knows it; running without it would be wrong",
            )
            .of(name)),
            None => Ok(self.weights),
        }
    }
}

fn missing(name: &str, role: Role) -> Error {
    Error::malformed(format!("the model has no such tensor, and needs it as {}", role.name())).of(name)
}

/// Where a part of fused rows begins, and how many there are; of a vector, rows are its elements.
fn part(role: Role, parts: &[Role], hyper: &HyperParameters) -> (usize, usize) {
    let length = |role: &Role| {
        let (rows, columns) = role.shape(hyper);
        if role.is_matrix() { rows } else { columns }
    };
    let before = parts.iter().take_while(|part| **part != role);
    let sum = |first: usize, part: &Role| first.saturating_add(length(part));
    (before.fold(0, sum), parts.iter().fold(0, sum))
}

/// The shape that the tensor should have, and how the weight lies in it.
fn expected(key: WeightKey, lie: Lie, hyper: &HyperParameters) -> (Vec<usize>, Layout) {
    let (rows, columns) = key.role.shape(hyper);
    let matrix = key.role.is_matrix();
    let whole = if matrix { vec![rows, columns] } else { vec![columns] };
    let head_dim = hyper.head_dim as usize;
    match lie {
        Lie::Plain | Lie::Row => (whole, Layout::Rows { first: 0 }),
        Lie::Pairs => (whole, Layout::HeadPairs { head_dim }),
        Lie::HeadThird(part) => {
            let thirds = whole.iter().enumerate();
            let thirds = thirds.map(|(axis, length)| if axis == 0 { length.saturating_mul(3) } else { *length });
            (thirds.collect(), Layout::HeadThirds { head_dim, part })
        }
        Lie::Fused(parts) if matrix => {
            let (first, total) = part(key.role, parts, hyper);
            (vec![total, columns], Layout::Rows { first })
        }
        Lie::Fused(parts) => {
            // Vectors are rows of one length: where they are not, the shape does not come out whole.
            let (first, total) = part(key.role, parts, hyper);
            (vec![total], Layout::Rows { first: first.checked_div(columns).unwrap_or(0) })
        }
        Lie::Transposed => (vec![columns, rows], Layout::Columns { first: 0, stored_columns: rows }),
        Lie::FusedTransposed(parts) => {
            let (first, stored_columns) = part(key.role, parts, hyper);
            (vec![columns, stored_columns], Layout::Columns { first, stored_columns })
        }
        Lie::Merged => {
            let experts = hyper.experts.as_ref().map_or(0, |experts| experts.count as usize);
            let first = (key.expert.unwrap_or(0) as usize).saturating_mul(rows);
            (vec![experts, rows, columns], Layout::Rows { first })
        }
    }
}

fn place(key: WeightKey, name: &str, lie: Lie, tensor: &StoredTensor, hyper: &HyperParameters) -> Result<Weight> {
    let (rows, columns) = key.role.shape(hyper);
    let (expected, layout) = expected(key, lie, hyper);
    let as_row = matches!(lie, Lie::Row) && tensor.shape == [1, columns];
    if tensor.shape != expected && !as_row {
        return Err(Error::malformed(format!(
            "its shape is {:?}, and the hyper-parameters ask for {expected:?}",
            tensor.shape
        ))
        .of(name));
    }
    // Fused rows of blocks begin on a block only where a row is whole blocks.
    tensor.tensor_type.row_bytes(columns).map_err(|error| error.of(name))?;
    if tensor.scales.is_some() && matches!(layout, Layout::Columns { .. }) {
        let message = format!(
            "{} with factors is not supported in matrices that are stored transposed",
            tensor.tensor_type.name()
        );
        return Err(Error::unsupported(message).of(name));
    }
    Ok(Weight {
        stored_name: name.to_owned(),
        key,
        tensor_type: tensor.tensor_type,
        rows,
        columns,
        layout,
        file: tensor.file,
        offset: tensor.offset,
        data: tensor.data.clone(),
        scales: tensor.scales.clone(),
    })
}
