//! The vocabulary of capture points: `schema/capture-points.toml`, compiled in.

use serde::Deserialize;
use std::sync::LazyLock;

const SCHEMA: &str = include_str!("../../schema/capture-points.toml");

/// How often a point occurs in one forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Once, outside the layers.
    Model,
    /// Once per layer.
    Layer,
    /// Once per layer and chosen expert.
    Expert,
}

/// A capture point: one exact place of the forward pass, in every architecture that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// Its name, flat snake_case.
    pub name: String,
    /// Its place in forward order among all points, from 0.
    pub ordinal: u32,
    /// How often it occurs.
    pub scope: Scope,
    /// What it is.
    pub definition: String,
    /// Axes of one token's row; `keys` are those that the token sees.
    pub shape: Vec<String>,
    /// Which rows and elements belong to it.
    pub population: String,
    /// Names of the same place in other tools.
    pub aliases: Aliases,
}

/// A point's names in other tools.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Aliases {
    /// Modules of Hugging Face transformers.
    pub hugging_face: Vec<Alias>,
    /// Hooks of TransformerLens, without its weight processing.
    pub transformer_lens: Vec<Alias>,
    /// Nodes of llama.cpp's graph, without the layer's number.
    pub llama_cpp: Vec<Alias>,
    /// Slots of `apr trace`.
    pub apr: Vec<Alias>,
}

/// One name in another tool.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alias {
    /// The name; empty where the tool has none and the place is found by its operation and graph edges.
    pub name: String,
    /// Operation that tells several nodes of one name apart; empty where the name suffices.
    #[serde(default)]
    pub operation: String,
    /// Whether the tool's hook holds it as an input or as an output.
    #[serde(default)]
    pub side: Side,
    /// Architectures that the alias is for; empty for all.
    #[serde(default)]
    pub architectures: Vec<String>,
    /// How the tool's values differ, or when the alias applies.
    #[serde(default)]
    pub note: String,
}

/// Which end of a module an alias means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// What goes in.
    Input,
    /// What comes out.
    #[default]
    Output,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Schema {
    point: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    scope: Scope,
    definition: String,
    shape: Vec<String>,
    #[serde(default = "one_row_per_token")]
    population: String,
    #[serde(default)]
    aliases: Aliases,
}

fn one_row_per_token() -> String {
    "tokens".to_owned()
}

static VOCABULARY: LazyLock<Vec<Point>> = LazyLock::new(|| {
    #[allow(clippy::expect_used, reason = "the text is compiled in and the same for every caller; tests parse it")]
    let schema: Schema = toml::from_str(SCHEMA).expect("schema/capture-points.toml is well-formed");
    let points = schema.point.into_iter().zip(0..);
    points
        .map(|(entry, ordinal)| Point {
            name: entry.name,
            ordinal,
            scope: entry.scope,
            definition: entry.definition,
            shape: entry.shape,
            population: entry.population,
            aliases: entry.aliases,
        })
        .collect()
});

/// Every capture point in forward order.
pub fn vocabulary() -> &'static [Point] {
    &VOCABULARY
}

/// blake3 of what the points mean: names, scopes, definitions, shapes and populations in forward order.
///
/// Runs with equal hashes mean the same places by the same names. Aliases do not count: they say how others call
/// a place, not which place it is.
pub fn vocabulary_hash() -> [u8; 32] {
    hash_of(vocabulary())
}

fn hash_of(points: &[Point]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for point in points {
        let scope = match point.scope {
            Scope::Model => "model",
            Scope::Layer => "layer",
            Scope::Expert => "expert",
        };
        for text in [&point.name, scope, &point.definition, &point.shape.join(","), &point.population] {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
    }
    hasher.finalize().into()
}

/// The name of a place: `layers.3.ffn_out`, or `logits` outside the layers.
pub fn place_name(layer: Option<u32>, point: &str) -> String {
    layer.map_or_else(|| point.to_owned(), |layer| format!("layers.{layer}.{point}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_flat_and_described() {
        let names: BTreeSet<&str> = vocabulary().iter().map(|point| point.name.as_str()).collect();
        assert_eq!(names.len(), vocabulary().len());
        for point in vocabulary() {
            assert!(point.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{}", point.name);
            assert!(!point.definition.is_empty() && !point.shape.is_empty(), "{}", point.name);
        }
    }

    #[test]
    fn a_product_stands_right_before_its_value_and_has_its_shape() {
        let ordinals: Vec<u32> = vocabulary().iter().map(|point| point.ordinal).collect();
        assert_eq!(ordinals, (0..ordinals.len() as u32).collect::<Vec<_>>());
        for product in vocabulary().iter().filter(|point| point.name.ends_with("_matmul")) {
            let name = product.name.trim_end_matches("_matmul");
            let value = vocabulary().iter().find(|point| point.name == name).unwrap();
            assert_eq!(value.ordinal, product.ordinal + 1, "{}", product.name);
            assert_eq!(value.shape, product.shape, "{}", product.name);
        }
    }

    #[test]
    fn layers_stand_between_the_model_s_own_points() {
        let scopes = vocabulary().iter().map(|point| point.scope != Scope::Model);
        let changes = scopes.collect::<Vec<_>>().windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert_eq!(changes, 2);
    }

    #[test]
    fn meaning_and_order_enter_the_hash_and_aliases_do_not() {
        let whole = vocabulary_hash();
        let mut points = vocabulary().to_vec();
        points[0].aliases = Aliases::default();
        assert_eq!(hash_of(&points), whole);
        points[0].definition.push('.');
        assert_ne!(hash_of(&points), whole);
        let mut points = vocabulary().to_vec();
        points.swap(0, 1);
        assert_ne!(hash_of(&points), whole);
    }
}
