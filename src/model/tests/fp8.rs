//! Matrices of 8-bit floats: only where the configuration speaks of them, and never without their factors.

use super::build::{gpt2_config, gpt2_tensors, llama_config, llama_tensors, parts, with_header};
use super::refused;
use super::safetensors::open;
use crate::ErrorKind::{Malformed, Unsupported};
use crate::model::open::Contents;
use crate::model::{Role, TensorType, WeightKey};
use serde_json::{Value, json};

const DOWN: &str = "model.layers.0.mlp.down_proj.weight";

/// A llama whose down projection, 8 x 16, is of 8-bit floats: element `i` is byte `i`.
struct Fp8 {
    quantization: Value,
    /// Names behind the matrix's, shapes; factor `i` is `i + 1`.
    factors: Vec<(&'static str, Vec<u64>)>,
    /// What has 8-bit floats.
    name: &'static str,
}

impl Fp8 {
    fn blocks() -> Fp8 {
        let quantization = json!({
            "quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": [3, 4],
            "modules_to_not_convert": ["lm_head"], "scale_fmt": null
        });
        Fp8 { quantization, factors: vec![("_scale_inv", vec![3, 4])], name: DOWN }
    }

    fn open(&self) -> crate::Result<Contents> {
        let mut tensors = llama_tensors("model.");
        let matrix = tensors.iter().find(|(name, _)| name == self.name).unwrap().clone();
        tensors.retain(|(name, _)| name != self.name);
        let (mut header, mut data) = parts(&tensors);
        let mut add = |name: &str, dtype: &str, shape: &[u64], bytes: &[u8]| {
            let start = data.len();
            data.extend_from_slice(bytes);
            header[name] = json!({"dtype": dtype, "shape": shape, "data_offsets": [start, data.len()]});
        };
        for (suffix, shape) in &self.factors {
            let count = shape.iter().product::<u64>() as u16;
            let factors: Vec<u8> = (1..=count).flat_map(|i| f32::from(i).to_le_bytes()).collect();
            add(&format!("{}{suffix}", self.name), "F32", shape, &factors);
        }
        let bytes: Vec<u8> = (0..matrix.1.iter().product::<u64>()).map(|i| i as u8).collect();
        add(self.name, "F8_E4M3", &matrix.1, &bytes);
        let mut config = llama_config();
        config["quantization_config"] = self.quantization.clone();
        open(config.to_string().as_bytes(), with_header(&header.to_string(), &data))
    }
}

/// Values of the down projection over those of its bytes: the factors.
fn factors(contents: &Contents) -> Vec<Vec<f32>> {
    let weight = contents.weight(WeightKey::in_layer(0, Role::FfnDown)).unwrap();
    assert_eq!((weight.tensor_type, weight.rows, weight.columns), (TensorType::F8E4M3, 8, 16));
    let row = |row: usize| {
        let (mut scaled, mut plain) = (vec![f32::NAN; 16], vec![f32::NAN; 16]);
        weight.dequantize_row(row, &mut scaled).unwrap();
        crate::model::quant::dequantize(TensorType::F8E4M3, weight.row_bytes(row).unwrap(), &mut plain).unwrap();
        // 0 and NaN say nothing of a factor.
        scaled
            .iter()
            .zip(plain)
            .map(|(scaled, plain)| if plain == 0.0 || plain.is_nan() { 0.0 } else { scaled / plain })
            .collect()
    };
    (0..8).map(row).collect()
}

#[test]
fn each_block_has_its_factor() {
    let found = factors(&Fp8::blocks().open().unwrap());
    for (row, factors) in found.iter().enumerate() {
        for (column, factor) in factors.iter().enumerate() {
            let expected = (row / 3 * 4 + column / 4 + 1) as f32;
            let silent = (row, column) == (0, 0) || (row, column) == (7, 15);
            assert_eq!(*factor, if silent { 0.0 } else { expected }, "{row}, {column}");
        }
    }
}

/// Without blocks the factor is one for the matrix, under either name; where the configuration is silent, blocks are
/// 128 x 128, and a lone number is still one for all.
#[test]
fn a_matrix_may_have_one_factor() {
    for size in [json!(null), json!([128, 128]), json!([8, 16])] {
        for (suffix, shape) in [("_scale", vec![]), ("_scale_inv", vec![1]), ("_scale", vec![1, 1])] {
            let mut file = Fp8::blocks();
            file.quantization["weight_block_size"] = size.clone();
            file.factors = vec![(suffix, shape)];
            assert_eq!(factors(&file.open().unwrap())[1], [1.0; 16]);
            file.quantization.as_object_mut().unwrap().remove("weight_block_size");
            assert_eq!(factors(&file.open().unwrap())[1], [1.0; 16]);
        }
    }
    let lone = Fp8 { factors: vec![("_scale", vec![])], ..Fp8::blocks() };
    assert_eq!(factors(&lone.open().unwrap())[7][0], 1.0);
}

#[test]
fn factors_that_are_missing_or_do_not_fit_are_malformed() {
    type Case = (&'static str, fn(&mut Fp8));
    let cases: [Case; 8] = [
        ("neither a _scale nor a _scale_inv", |f| f.factors.clear()),
        ("both a _scale and a _scale_inv", |f| f.factors.push(("_scale", vec![3, 4]))),
        ("its shape is [4, 3], and 8 x 16 elements in blocks of 3 x 4 need [3, 4]", |f| f.factors[0].1 = vec![4, 3]),
        ("its shape is [3]", |f| f.factors[0].1 = vec![3]),
        ("need [1, 1]", |f| f.quantization["weight_block_size"] = Value::Null),
        ("weight_block_size is [0,4]", |f| f.quantization["weight_block_size"] = json!([0, 4])),
        ("weight_block_size is [4]", |f| f.quantization["weight_block_size"] = json!([4])),
        ("weight_block_size is 4", |f| f.quantization["weight_block_size"] = json!(4)),
    ];
    for (words, change) in cases {
        let mut file = Fp8::blocks();
        change(&mut file);
        refused(file.open(), Malformed, words);
    }
    let mut config = llama_config();
    config["quantization_config"] = Fp8::blocks().quantization;
    let plain = super::build::safetensors(&llama_tensors("model."));
    refused(open(config.to_string().as_bytes(), plain), Malformed, "says fp8, and no tensor is F8_E4M3");
}

#[test]
fn another_quantisation_is_refused_by_name() {
    type Case = (&'static str, fn(&mut Fp8));
    let cases: [Case; 11] = [
        ("config.json has no quantization_config", |f| f.quantization = Value::Null),
        ("quantization_config (gptq) is not supported", |f| f.quantization["quant_method"] = json!("gptq")),
        ("quantization_config (unnamed)", |f| f.quantization = json!({})),
        ("activation_scheme = \"static\"", |f| f.quantization["activation_scheme"] = json!("static")),
        ("fmt = \"e5m2\"", |f| f.quantization["fmt"] = json!("e5m2")),
        ("scale_fmt = \"ue8m0\"", |f| f.quantization["scale_fmt"] = json!("ue8m0")),
        ("expert_dtype = \"fp4\"", |f| f.quantization["expert_dtype"] = json!("fp4")),
        ("modules_to_convert = [\"embed\"]", |f| f.quantization["modules_to_convert"] = json!(["embed"])),
        ("kv_cache_scheme = \"fp8\"", |f| f.quantization["kv_cache_scheme"] = json!("fp8")),
        ("F8_E4M3 of shape [8] is not supported, only matrices", |f| f.name = "model.norm.weight"),
        ("_input_scale: it plays no part", |f| f.factors.push(("_input_scale", vec![]))),
    ];
    for (words, change) in cases {
        let mut file = Fp8::blocks();
        change(&mut file);
        refused(file.open(), Unsupported, words);
    }
}

/// Factors of rows and columns would change places.
#[test]
fn transposed_matrices_are_refused() {
    let mut tensors = gpt2_tensors("");
    let name = "h.0.mlp.c_proj.weight";
    let shape = tensors.iter().find(|(known, _)| known == name).unwrap().1.clone();
    tensors.retain(|(known, _)| known != name);
    tensors.push((format!("{name}_scale"), vec![1]));
    let (mut header, mut data) = parts(&tensors);
    let start = data.len();
    data.resize(start + shape.iter().product::<u64>() as usize, 0);
    header[name] = json!({"dtype": "F8_E4M3", "shape": shape, "data_offsets": [start, data.len()]});
    let mut config = gpt2_config();
    config["quantization_config"] = json!({"quant_method": "fp8"});
    let file = with_header(&header.to_string(), &data);
    refused(open(config.to_string().as_bytes(), file), Unsupported, "stored transposed");
}
