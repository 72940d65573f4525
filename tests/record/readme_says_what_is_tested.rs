//! The README's tables of families, formats, types of weights and devices: the tests that they name exist, and each cell
//! says what the fixtures and the limits of a card say.

use crate::cards_agree_with_the_processor::FILES;
use crate::running::open;
use crate::support::quantise;
use crate::support::{families, package};
use actrace::backend::cuda::{FORMATS, check_site, check_weight};
use actrace::graph::Graph;
use actrace::model::{Architecture, Model, TensorType};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// The letter of a test in the tables, and its name.
const TESTS: [(char, &str); 13] = [
    ('A', "families_match_hugging_face::safetensors"),
    ('B', "families_match_hugging_face::gguf"),
    ('C', "activations_match_hugging_face::safetensors_and_the_greedy_continuation"),
    ('D', "activations_match_hugging_face::dequantised_gguf_weights"),
    ('E', "apr_files_run_as_their_originals::bf16_runs_as_its_safetensors"),
    ('F', "quantised_models_are_their_values::a_quantised_model_runs_as_its_values_in_f32_do"),
    ('G', "activations_match_hugging_face::half_precision_gguf_weights"),
    ('P', "every_model_on_a_card::every_family_agrees_from_safetensors"),
    ('Q', "every_model_on_a_card::every_family_agrees_from_gguf"),
    ('R', "cards_agree_with_the_processor::every_point_of_every_file_agrees_with_the_processor"),
    ('S', "every_model_on_a_card::apr_files_agree"),
    ('T', "every_model_on_a_card::every_block_type_agrees"),
    ('U', "every_model_on_a_card::blocks_of_every_type_have_the_library_s_values_bit_for_bit"),
];

const SHIPPED: [&str; 2] = ["tiny-gpt2", "tiny-qwen2"];

fn readme() -> String {
    std::fs::read_to_string(package().join("README.md")).unwrap()
}

/// Whether a module of this binary has a test of that name.
fn exists(name: &str) -> bool {
    let (module, function) = name.split_once("::").unwrap();
    let source = std::fs::read_to_string(package().join(format!("tests/record/{module}.rs"))).unwrap_or_default();
    source.contains(&format!("#[test]\nfn {function}() {{"))
}

fn shipped_as(name: &str, kinds: &[&str]) -> bool {
    FILES.iter().filter_map(|file| file.split_once('.')).any(|(model, kind)| model == name && kinds.contains(&kind))
}

/// Letters of the tests that hold, in order.
fn cell(letters: &[(char, bool)]) -> String {
    let held: String = letters.iter().filter(|(_, held)| *held).map(|(letter, _)| format!("{letter} ")).collect();
    if held.is_empty() { "-".to_owned() } else { held.trim_end().to_owned() }
}

/// The table of families, from the fixtures.
fn family_table() -> String {
    let (gguf, mut models) = (families::gguf_names(), BTreeMap::<&str, Vec<String>>::new());
    let fixtures = families::names().into_iter().map(|name| (families::folder(&name).architecture(), name));
    let shipped = SHIPPED.map(|name| (open(&format!("{name}.safetensors")).architecture(), name.to_owned()));
    for (architecture, name) in fixtures.chain(shipped) {
        models.entry(architecture.name()).or_default().push(name);
    }
    let known: BTreeSet<&str> = Architecture::ALL.into_iter().map(Architecture::name).collect();
    assert_eq!(models.keys().copied().collect::<BTreeSet<_>>(), known, "each family has a model under test");
    let mut table = "| family | models | safetensors | GGUF | .apr | safetensors, card | GGUF, card | .apr, card |\n\
                     |---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for (family, names) in models {
        let fixture = names.iter().any(|name| !SHIPPED.contains(&name.as_str()));
        let in_gguf = names.iter().any(|name| gguf.contains(name));
        let shipped = |kinds: &[&str]| names.iter().any(|name| shipped_as(name, kinds));
        let (plain, quantised, half) = (shipped(&["safetensors"]), shipped(&["q8_0", "q4_k_m"]), shipped(&["f16"]));
        let apr = names.iter().any(|name| package().join(format!("tests/fixtures/apr/{name}.bf16.head.zst")).exists());
        let cells = [
            cell(&[('A', fixture), ('C', plain)]),
            cell(&[('B', in_gguf), ('D', quantised), ('G', half)]),
            cell(&[('E', apr)]),
            cell(&[('P', fixture), ('R', plain)]),
            cell(&[('Q', in_gguf), ('R', quantised || half)]),
            cell(&[('S', apr)]),
        ];
        writeln!(table, "| {family} | {} | {} |", names.join(", "), cells.join(" | ")).unwrap();
    }
    table
}

/// The table of types, from the weights of the files that the tests run.
fn type_table() -> String {
    let mut run: BTreeMap<char, BTreeSet<TensorType>> = BTreeMap::new();
    let matrices = |model: &Model| -> BTreeSet<TensorType> {
        model.weights().filter(|weight| weight.key.role.is_matrix()).map(|weight| weight.tensor_type).collect()
    };
    for file in FILES {
        let types = matrices(&open(file));
        run.entry('R').or_default().extend(&types);
        let letter = match file.split_once('.').unwrap().1 {
            "safetensors" => 'C',
            "f16" => 'G',
            _ => 'D',
        };
        run.entry(letter).or_default().extend(types);
    }
    let of_families = |open: fn(&str) -> Model, names: Vec<String>| -> BTreeSet<TensorType> {
        names.into_iter().flat_map(|name| matrices(&open(&name))).collect()
    };
    for (letter, on_a_card, types) in [
        ('A', 'P', of_families(families::folder, families::names())),
        ('B', 'Q', of_families(families::gguf, families::gguf_names())),
    ] {
        run.insert(on_a_card, types.clone());
        run.insert(letter, types);
    }
    // That test holds blocks against runs in F32, and the one on a card runs both.
    let blocks = TensorType::ALL.into_iter().filter(|tensor_type| {
        *tensor_type == TensorType::F32 || quantise::FORMATS.iter().any(|f| f.name == tensor_type.name())
    });
    run.insert('F', blocks.clone().collect());
    run.insert('T', blocks.collect());
    let mut rows: Vec<(Vec<&str>, [String; 3])> = Vec::new();
    for tensor_type in TensorType::ALL {
        let letters =
            |letters: &[char]| cell(&letters.iter().map(|l| (*l, run[l].contains(&tensor_type))).collect::<Vec<_>>());
        let cells = [
            letters(&['A', 'B', 'C', 'D', 'F', 'G']),
            cell(&[('U', FORMATS.contains(&tensor_type))]),
            letters(&['P', 'Q', 'R', 'T']),
        ];
        match rows.iter_mut().find(|(_, same)| *same == cells) {
            Some((types, _)) => types.push(tensor_type.name()),
            None => rows.push((vec![tensor_type.name()], cells)),
        }
    }
    let mut table = "| types of weights | runs | values, card | runs, card |\n|---|---|---|---|\n".to_owned();
    for (types, cells) in rows {
        assert!(cells[0] != "-" && cells[2] != "-", "{types:?}: {cells:?}");
        writeln!(table, "| {} | {} |", types.join(", "), cells.join(" | ")).unwrap();
    }
    table
}

#[test]
fn the_tables_are_what_the_fixtures_say() {
    let readme = readme();
    for table in [family_table(), type_table()] {
        assert!(readme.contains(&table), "README.md lacks this table:\n{table}");
    }
}

#[test]
fn the_tests_that_it_names_exist() {
    let readme = readme();
    for (letter, name) in TESTS {
        assert!(exists(name), "no test {name}");
        assert!(
            readme.contains(&format!("| {letter} | `{name}` |")),
            "README.md does not say what {letter} is: {name}"
        );
    }
    assert!(!exists("families_match_hugging_face::no_such_test"));
}

/// What the columns of a card claim, a card does not refuse.
#[test]
fn a_card_refuses_nothing_that_the_tables_claim() {
    let fixtures = families::names().into_iter().map(|name| families::folder(&name));
    let gguf = families::gguf_names().into_iter().map(|name| families::gguf(&name));
    for model in fixtures.chain(gguf).chain(FILES.map(open)) {
        Graph::of(&model).unwrap().sites.iter().for_each(|site| check_site(site).unwrap());
        model.weights().for_each(|weight| check_weight(weight).unwrap());
    }
}
