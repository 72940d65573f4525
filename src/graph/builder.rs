//! The one builder that turns a family's table and a model into a graph.

use super::family::{Family, Norm, Rule, Step};
use super::{Graph, Operation, RowAxes, Site, SiteId, gpt2, llama};
use crate::error::{Error, Result};
use crate::model::{HyperParameters, Model, Role, WeightKey};
use std::collections::HashMap;

const FAMILIES: [&Family; 2] = [&llama::FAMILY, &gpt2::FAMILY];

pub(super) fn build(model: &Model) -> Result<Graph> {
    let family =
        FAMILIES.into_iter().find(|family| family.architectures.contains(&model.architecture())).ok_or_else(|| {
            let name = model.architecture().name();
            Error::unsupported(format!("the forward pass of architecture {name} is not built"))
        })?;
    let hyper = model.hyper();
    let mut builder = Builder { model, hyper, family, layer: None, sites: Vec::new(), made: HashMap::new() };
    builder.run(family.before)?;
    for layer in 0..hyper.layers {
        let (first, later) = family.layer_input;
        let input = builder.id(if layer == 0 { first } else { later })?;
        builder.layer = Some(layer);
        builder.made.insert("input", input);
        builder.run(family.layer)?;
    }
    builder.layer = None;
    builder.run(family.after)?;
    Ok(Graph { sites: builder.sites, layers: hyper.layers })
}

struct Builder<'a> {
    model: &'a Model,
    hyper: &'a HyperParameters,
    family: &'a Family,
    layer: Option<u32>,
    sites: Vec<Site>,
    /// The newest site of each point.
    made: HashMap<&'static str, SiteId>,
}

impl Builder<'_> {
    fn run(&mut self, steps: &[Step]) -> Result<()> {
        steps.iter().try_for_each(|step| self.step(step))
    }

    fn id(&self, point: &str) -> Result<SiteId> {
        let id = self.made.get(point).copied();
        id.ok_or_else(|| Error::internal(format!("the family's table reads `{point}` before it is made")))
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        let inputs = step.inputs.iter().map(|point| self.id(point)).collect::<Result<Vec<_>>>()?;
        match (step.rule, step.weights) {
            (Rule::Product, [matrix]) => self.product(step.point, *matrix, inputs),
            (Rule::Biased { matmul }, [matrix, bias]) => {
                if self.model.get(self.key(*bias)).is_none() {
                    return self.product(step.point, *matrix, inputs);
                }
                self.product(matmul, *matrix, inputs)?;
                let product = vec![self.id(matmul)?];
                let axes = self.input_axes(&product)?;
                let bias = vec![self.checked(*bias, axes)?];
                self.push(step.point, Operation::Bias, product, bias, axes)
            }
            (rule, weights) => {
                let axes = self.axes(rule, &inputs)?;
                let keys = weights.iter().map(|role| self.checked(*role, axes)).collect::<Result<_>>()?;
                let operation = self.operation(rule, &inputs)?;
                self.push(step.point, operation, inputs, keys, axes)
            }
        }
    }

    fn product(&mut self, point: &'static str, matrix: Role, inputs: Vec<SiteId>) -> Result<()> {
        let axes = self.product_axes(matrix, &inputs)?;
        let keys = vec![self.key(matrix)];
        self.push(point, Operation::MatMul, inputs, keys, axes)
    }

    fn push(
        &mut self,
        point: &'static str,
        operation: Operation,
        inputs: Vec<SiteId>,
        weights: Vec<WeightKey>,
        axes: RowAxes,
    ) -> Result<()> {
        let id = SiteId::try_from(self.sites.len())
            .map_err(|_| Error::malformed(format!("{} layers are more than a graph can hold", self.hyper.layers)))?;
        self.made.insert(point, id);
        self.sites.push(Site { id, layer: self.layer, point, occurrence: 0, operation, inputs, weights, axes });
        Ok(())
    }

    fn operation(&self, rule: Rule, inputs: &[SiteId]) -> Result<Operation> {
        let HyperParameters { heads, kv_heads, head_dim, norm_epsilon: epsilon, .. } = *self.hyper;
        Ok(match rule {
            Rule::TokenEmbedding => Operation::TokenEmbedding,
            Rule::PositionEmbedding => Operation::PositionEmbedding,
            Rule::Identity => Operation::Identity,
            Rule::Add => Operation::Add,
            Rule::Multiply => Operation::Multiply,
            Rule::Norm if self.family.norm == Norm::Rms => Operation::RmsNorm { epsilon },
            Rule::Norm => Operation::LayerNorm { epsilon },
            Rule::Product | Rule::Biased { .. } => Operation::MatMul,
            Rule::Rope => self.rope(inputs)?,
            Rule::Store => Operation::CacheStore,
            Rule::Scores => Operation::AttnScores { heads, kv_heads, head_dim, scale: 1.0 / (head_dim as f32).sqrt() },
            Rule::Softmax => Operation::Softmax { heads },
            Rule::Context => Operation::AttnContext { heads, kv_heads, head_dim },
            Rule::Activate => Operation::Activate(self.hyper.activation),
        })
    }

    fn rope(&self, inputs: &[SiteId]) -> Result<Operation> {
        let rope = self.hyper.rope.as_ref().ok_or_else(|| {
            Error::malformed("the model says nothing of its rotary embedding, and its architecture needs one")
        })?;
        match self.input_axes(inputs)? {
            RowAxes::Heads { heads, dim } if rope.rotary_dim <= dim && rope.rotary_dim % 2 == 0 => {
                Ok(Operation::Rope { heads, head_dim: dim, rotary_dim: rope.rotary_dim, base: rope.base })
            }
            axes => Err(Error::malformed(format!(
                "a rotary embedding of {} elements does not fit rows of {axes:?}",
                rope.rotary_dim
            ))),
        }
    }

    fn axes(&self, rule: Rule, inputs: &[SiteId]) -> Result<RowAxes> {
        let hyper = self.hyper;
        Ok(match rule {
            Rule::TokenEmbedding | Rule::PositionEmbedding => RowAxes::Flat { width: hyper.hidden },
            Rule::Scores | Rule::Softmax => RowAxes::Keys { heads: hyper.heads },
            Rule::Context => RowAxes::Flat { width: width_of(hyper.heads, hyper.head_dim)? },
            _ => self.input_axes(inputs)?,
        })
    }

    fn input_axes(&self, inputs: &[SiteId]) -> Result<RowAxes> {
        let first = inputs.first().and_then(|id| self.sites.get(*id as usize));
        first.map(|site| site.axes).ok_or_else(|| Error::internal("the family's table has a step without input"))
    }

    /// The axes of a product; its weight has to fit the input and what the hyper-parameters say.
    fn product_axes(&self, matrix: Role, inputs: &[SiteId]) -> Result<RowAxes> {
        let hyper = self.hyper;
        let axes = match matrix {
            Role::Q => RowAxes::Heads { heads: hyper.heads, dim: hyper.head_dim },
            Role::K | Role::V => RowAxes::Heads { heads: hyper.kv_heads, dim: hyper.head_dim },
            Role::FfnGate | Role::FfnUp => RowAxes::Flat { width: hyper.ffn },
            Role::Output => RowAxes::Flat { width: hyper.vocabulary },
            _ => RowAxes::Flat { width: hyper.hidden },
        };
        self.check(matrix, axes.width(), self.input_axes(inputs)?.width())?;
        Ok(axes)
    }

    fn key(&self, role: Role) -> WeightKey {
        WeightKey { layer: self.layer, role }
    }

    /// The key of an embedding or a vector that has to be as wide as a row of `axes`.
    fn checked(&self, role: Role, axes: RowAxes) -> Result<WeightKey> {
        let rows = match role {
            Role::TokenEmbedding => self.hyper.vocabulary,
            Role::PositionEmbedding => self.hyper.context,
            _ => 1,
        };
        self.check(role, Some(rows), axes.width())?;
        Ok(self.key(role))
    }

    fn check(&self, role: Role, rows: Option<u32>, columns: Option<u32>) -> Result<()> {
        let weight = self.model.weight(self.key(role))?;
        let fits = |found: usize, expected: Option<u32>| expected.is_some_and(|n| u32::try_from(found) == Ok(n));
        if fits(weight.rows, rows) && fits(weight.columns, columns) {
            return Ok(());
        }
        Err(Error::malformed(format!(
            "{} is {} x {} where the hyper-parameters ask for {} x {}",
            self.key(role),
            weight.rows,
            weight.columns,
            rows.unwrap_or(0),
            columns.unwrap_or(0)
        ))
        .of(&weight.stored_name))
    }
}

fn width_of(heads: u32, dim: u32) -> Result<u32> {
    heads
        .checked_mul(dim)
        .ok_or_else(|| Error::malformed(format!("{heads} heads of {dim} elements are wider than a row can be")))
}
