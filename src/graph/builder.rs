//! The one builder that turns a family's table and a model into a graph.

use super::families;
use super::family::{Block, Family, Norm, Rule, Step, When};
use super::{Graph, Operation, RowAxes, Site, SiteId};
use crate::error::{Error, Result};
use crate::model::{Experts, HyperParameters, Model, Role, RopeScaling, WeightKey};
use std::collections::HashMap;

pub(super) fn build(model: &Model) -> Result<Graph> {
    let mut known = families::ALL.into_iter();
    let family = known.find(|family| family.architectures.contains(&model.architecture())).ok_or_else(|| {
        let name = model.architecture().name();
        Error::unsupported(format!("the forward pass of architecture {name} is not built"))
    })?;
    let hyper = model.hyper();
    let mut builder = Builder { model, hyper, family, layer: None, slot: 0, sites: Vec::new(), made: HashMap::new() };
    builder.block((When::Always, family.before))?;
    for layer in 0..hyper.layers {
        let (first, later) = family.layer_input;
        let input = builder.id(if layer == 0 { first } else { later })?;
        builder.layer = Some(layer);
        builder.made.insert(("input", 0), input);
        family.layer.iter().copied().flatten().try_for_each(|block| builder.block(*block))?;
    }
    builder.layer = None;
    family.after.iter().try_for_each(|block| builder.block(*block))?;
    Ok(Graph { sites: builder.sites, layers: hyper.layers })
}

struct Builder<'a> {
    model: &'a Model,
    hyper: &'a HyperParameters,
    family: &'a Family,
    layer: Option<u32>,
    /// Which of the chosen experts.
    slot: u32,
    sites: Vec<Site>,
    /// The newest site of each point and slot.
    made: HashMap<(&'static str, u32), SiteId>,
}

impl Builder<'_> {
    fn block(&mut self, (when, steps): Block) -> Result<()> {
        let experts = self.layer.and_then(|layer| self.hyper.experts_of(layer));
        let slots = match when {
            When::Always => 1,
            When::Plain => u32::from(experts.is_none()),
            When::Experts => u32::from(experts.is_some()),
            When::EverySlot => experts.map_or(0, |experts| experts.used),
            When::Routed => u32::from(experts.is_some_and(|experts| experts.shared_ffn == 0)),
            When::Shared => u32::from(experts.is_some_and(|experts| experts.shared_ffn > 0)),
            When::Parallel => u32::from(self.hyper.parallel_residual),
            When::Sequential => u32::from(!self.hyper.parallel_residual),
            When::Capped => u32::from(self.hyper.logit_softcap.is_some()),
            When::Uncapped => u32::from(self.hyper.logit_softcap.is_none()),
        };
        for step in steps {
            for slot in 0..slots {
                self.slot = slot;
                self.step(step)?;
            }
        }
        self.slot = 0;
        Ok(())
    }

    /// The newest site of `point`, in the slot at hand where there is one for each.
    fn id(&self, point: &'static str) -> Result<SiteId> {
        let id = self.made.get(&(point, self.slot)).or_else(|| self.made.get(&(point, 0))).copied();
        id.ok_or_else(|| Error::internal(format!("the family's table reads `{point}` before it is made")))
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        let inputs = step.inputs.iter().map(|point| self.id(point)).collect::<Result<Vec<_>>>()?;
        match (step.rule, step.weights) {
            (Rule::Product, [matrix]) => self.product(step.point, *matrix, inputs),
            (Rule::Biased { .. } | Rule::Linear, [matrix, bias]) if self.model.get(self.key(*bias)).is_none() => {
                self.product(step.point, *matrix, inputs)
            }
            (Rule::Biased { matmul }, [matrix, bias]) => {
                self.product(matmul, *matrix, inputs)?;
                let product = vec![self.id(matmul)?];
                let axes = self.input_axes(&product)?;
                let bias = vec![self.checked(*bias, axes)?];
                self.push(step.point, Operation::Bias, product, bias, axes)
            }
            (Rule::Linear, [matrix, bias]) => {
                let axes = self.product_axes(*matrix, &inputs)?;
                let keys = vec![self.key(*matrix), self.checked(*bias, axes)?];
                self.push(step.point, Operation::Linear, inputs, keys, axes)
            }
            (Rule::GatedProduct, [matrix, gate]) => {
                let axes = self.product_axes(*matrix, &inputs)?;
                let gated = self.input_axes(inputs.get(1..).unwrap_or_default())?;
                let keys = vec![self.key(*matrix), self.checked(*gate, gated)?];
                self.push(step.point, Operation::GatedMatMul, inputs, keys, axes)
            }
            (Rule::ExpertProduct, [matrix]) => {
                let (axes, keys) = self.expert_product(*matrix, &inputs)?;
                self.push(step.point, Operation::ExpertMatMul { slot: self.slot }, inputs, keys, axes)
            }
            (Rule::ExpertSum, _) => self.expert_sum(step, inputs),
            (rule, weights) => {
                let axes = self.axes(rule, &inputs)?;
                let operation = self.operation(rule, &inputs)?;
                let weights = match operation {
                    Operation::Rope { rope, .. } if rope.scaling == RopeScaling::Stored => &[Role::RopeFactors],
                    _ => weights,
                };
                let keys = weights.iter().map(|role| self.checked(*role, axes)).collect::<Result<_>>()?;
                self.push(step.point, operation, inputs, keys, axes)
            }
        }
    }

    fn product(&mut self, point: &'static str, matrix: Role, inputs: Vec<SiteId>) -> Result<()> {
        let axes = self.product_axes(matrix, &inputs)?;
        let keys = vec![self.key(matrix)];
        self.push(point, Operation::MatMul, inputs, keys, axes)
    }

    /// The axes of an expert's product and the matrices of all experts, the first expert's first.
    fn expert_product(&self, matrix: Role, inputs: &[SiteId]) -> Result<(RowAxes, Vec<WeightKey>)> {
        let axes = self.made_by(matrix);
        let columns = self.input_axes(inputs)?.width();
        let (layer, experts) = self.experts()?;
        let keys = (0..experts).map(|expert| {
            let key = WeightKey::in_expert(layer, expert, matrix);
            self.check(key, axes.width(), columns).map(|()| key)
        });
        Ok((axes, keys.collect::<Result<_>>()?))
    }

    /// Weights of the chosen, and the rows of every slot.
    fn expert_sum(&mut self, step: &Step, inputs: Vec<SiteId>) -> Result<()> {
        let [weights, point] = step.inputs else {
            return Err(Error::internal("a weighted sum reads weights and rows"));
        };
        let used = self.layer.and_then(|layer| self.hyper.experts_of(layer)).map_or(0, |experts| experts.used);
        let slots = (0..used).filter_map(|slot| self.made.get(&(*point, slot)).copied());
        let all: Vec<SiteId> = [self.id(weights)?].into_iter().chain(slots).collect();
        let axes = self.input_axes(inputs.get(1..).unwrap_or_default())?;
        self.push(step.point, Operation::ExpertSum, all, Vec::new(), axes)
    }

    fn experts(&self) -> Result<(u32, u32)> {
        let experts = self.layer.and_then(|layer| Some((layer, self.hyper.experts_of(layer)?.count)));
        experts.ok_or_else(|| Error::internal("the family's table asks for experts where there are none"))
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
        self.made.insert((point, self.slot), id);
        let (layer, occurrence) = (self.layer, self.slot);
        self.sites.push(Site { id, layer, point, occurrence, operation, inputs, weights, axes });
        Ok(())
    }

    fn operation(&self, rule: Rule, inputs: &[SiteId]) -> Result<Operation> {
        let hyper = self.hyper;
        let HyperParameters { heads, kv_heads, head_dim, norm_epsilon: epsilon, .. } = *hyper;
        let weight_offset = hyper.norm_weight_offset;
        let window = self.layer.and_then(|layer| hyper.window_of(layer));
        Ok(match rule {
            Rule::TokenEmbedding => Operation::TokenEmbedding,
            Rule::PositionEmbedding => Operation::PositionEmbedding,
            Rule::Identity => Operation::Identity,
            Rule::Add => Operation::Add,
            Rule::Sum => Operation::Sum,
            Rule::Scale => Operation::Scale { factor: hyper.embedding_scale.unwrap_or(1.0) },
            Rule::SoftCap => Operation::SoftCap { cap: hyper.logit_softcap.ok_or_else(misplaced)? },
            Rule::Multiply => Operation::Multiply,
            Rule::Norm if self.family.norm == Norm::Rms => Operation::RmsNorm { epsilon, weight_offset, groups: 1 },
            Rule::Norm => Operation::LayerNorm { epsilon },
            Rule::HeadNorm => {
                let RowAxes::Heads { heads: groups, .. } = self.input_axes(inputs)? else { return Err(misplaced()) };
                Operation::RmsNorm { epsilon, weight_offset, groups }
            }
            Rule::Rope => self.rope(inputs)?,
            Rule::Store => Operation::CacheStore,
            Rule::Scores => {
                let (scale, softcap) = (hyper.attn_scale, hyper.attn_softcap);
                Operation::AttnScores { heads, kv_heads, head_dim, scale, softcap, window }
            }
            Rule::Softmax => Operation::Softmax { heads, window },
            Rule::Context => Operation::AttnContext { heads, kv_heads, head_dim, window },
            Rule::Activate => Operation::Activate(hyper.activation),
            Rule::RowSoftmax => Operation::RowSoftmax,
            Rule::TopK => Operation::TopK { count: hyper.experts.as_ref().ok_or_else(misplaced)?.used },
            Rule::ExpertWeights => {
                Operation::ExpertWeights { normalised: hyper.experts.as_ref().ok_or_else(misplaced)?.normalised }
            }
            Rule::Product
            | Rule::Biased { .. }
            | Rule::Linear
            | Rule::ExpertProduct
            | Rule::ExpertSum
            | Rule::GatedProduct => return Err(misplaced()),
        })
    }

    fn rope(&self, inputs: &[SiteId]) -> Result<Operation> {
        let rope = self.layer.and_then(|layer| self.hyper.rope_of(layer)).ok_or_else(|| {
            Error::malformed("the model says nothing of its rotary embedding, and its architecture needs one")
        })?;
        match self.input_axes(inputs)? {
            RowAxes::Heads { heads, dim } if rope.rotary_dim <= dim && rope.rotary_dim % 2 == 0 => {
                Ok(Operation::Rope { heads, head_dim: dim, rope })
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
            Rule::Scores => {
                RowAxes::Keys { heads: hyper.heads, window: self.layer.and_then(|layer| hyper.window_of(layer)) }
            }
            Rule::Context => RowAxes::Flat { width: width_of(hyper.heads, hyper.head_dim)? },
            Rule::TopK => RowAxes::Flat { width: hyper.experts.as_ref().map_or(0, |experts| experts.used) },
            Rule::ExpertWeights => self.input_axes(inputs.get(1..).unwrap_or_default())?,
            _ => self.input_axes(inputs)?,
        })
    }

    fn input_axes(&self, inputs: &[SiteId]) -> Result<RowAxes> {
        let first = inputs.first().and_then(|id| self.sites.get(*id as usize));
        first.map(|site| site.axes).ok_or_else(|| Error::internal("the family's table has a step without input"))
    }

    /// The axes of a product; its weight has to fit the input and what the hyper-parameters say.
    fn product_axes(&self, matrix: Role, inputs: &[SiteId]) -> Result<RowAxes> {
        let axes = self.made_by(matrix);
        self.check(self.key(matrix), axes.width(), self.input_axes(inputs)?.width())?;
        Ok(axes)
    }

    fn made_by(&self, matrix: Role) -> RowAxes {
        let hyper = self.hyper;
        let experts = |width: fn(&Experts) -> u32| hyper.experts.as_ref().map_or(0, width);
        match matrix {
            Role::Q => RowAxes::Heads { heads: hyper.heads, dim: hyper.head_dim },
            Role::K | Role::V => RowAxes::Heads { heads: hyper.kv_heads, dim: hyper.head_dim },
            Role::FfnGate | Role::FfnUp => RowAxes::Flat { width: hyper.ffn },
            Role::Router => RowAxes::Flat { width: experts(|experts| experts.count) },
            Role::ExpertGate | Role::ExpertUp => RowAxes::Flat { width: experts(|experts| experts.ffn) },
            Role::SharedGate | Role::SharedUp => RowAxes::Flat { width: experts(|experts| experts.shared_ffn) },
            Role::Output => RowAxes::Flat { width: hyper.vocabulary },
            _ => RowAxes::Flat { width: hyper.hidden },
        }
    }

    fn key(&self, role: Role) -> WeightKey {
        match (self.layer, role) {
            (Some(layer), role) if role != Role::RopeFactors => WeightKey::in_layer(layer, role),
            _ => WeightKey::outside(role),
        }
    }

    /// The key of an embedding or a vector that has to be as wide as a row of `axes`, or as a head of it.
    fn checked(&self, role: Role, axes: RowAxes) -> Result<WeightKey> {
        let rows = match role {
            Role::TokenEmbedding => self.hyper.vocabulary,
            Role::PositionEmbedding => self.hyper.context,
            _ => 1,
        };
        let columns = match (role, axes) {
            (Role::QNorm | Role::KNorm, RowAxes::Heads { dim, .. }) => Some(dim),
            (Role::RopeFactors, _) => self.hyper.rope.map(|rope| rope.rotary_dim / 2),
            _ => axes.width(),
        };
        let key = self.key(role);
        self.check(key, Some(rows), columns)?;
        Ok(key)
    }

    fn check(&self, key: WeightKey, rows: Option<u32>, columns: Option<u32>) -> Result<()> {
        let weight = self.model.weight(key)?;
        let fits = |found: usize, expected: Option<u32>| expected.is_some_and(|n| u32::try_from(found) == Ok(n));
        if fits(weight.rows, rows) && fits(weight.columns, columns) {
            return Ok(());
        }
        Err(Error::malformed(format!(
            "{} is {} x {} where the hyper-parameters ask for {} x {}",
            key,
            weight.rows,
            weight.columns,
            rows.unwrap_or(0),
            columns.unwrap_or(0)
        ))
        .of(&weight.stored_name))
    }
}

fn misplaced() -> Error {
    Error::internal("the family's table has a step that its model cannot make")
}

fn width_of(heads: u32, dim: u32) -> Result<u32> {
    heads
        .checked_mul(dim)
        .ok_or_else(|| Error::malformed(format!("{heads} heads of {dim} elements are wider than a row can be")))
}
