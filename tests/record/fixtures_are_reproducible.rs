//! The tree holds no more than it must: what can be computed from other fixtures is, and has to come
//! out as the tool that first made it wrote it.

use crate::support::{fixture, model, rel_l2, safetensors};

/// `model` compares the blake3 of the whole file.
#[test]
fn gguf_files_are_rebuilt_as_llama_cpp_wrote_them() {
    for model_name in ["tiny-qwen2", "tiny-gpt2"] {
        for kind in ["f16", "q8_0", "q4_k_m"] {
            let path = model(&format!("{model_name}.{kind}"));
            assert_eq!(&std::fs::read(path).unwrap()[..4], b"GGUF");
        }
    }
}

/// Hugging Face's residual stream stands beside llama.cpp's, which is stored as sums.
///
/// Each product of an f16 file rounds its input to 11 bits, 2^-12 of the value at most, and such
/// errors add up as a random walk over the 7 products of 6 layers: 6.5 * 2^-12 = 1.6e-3. A wrong
/// operand of a sum is an error of order 1.
#[test]
fn sums_of_trimmed_references_are_the_residual_stream() {
    for (model_name, layers) in [("tiny-qwen2", 6), ("tiny-gpt2", 4)] {
        let read = |kind| safetensors::read(&fixture(&format!("reference/{model_name}.{kind}.safetensors")));
        let (huggingface, llama) = (read("hf-f32"), read("llama-f16"));
        for layer in 0..layers {
            for (point, node) in [("resid_mid", "ffn_inp"), ("resid_post", "l_out")] {
                let reference = &huggingface[&format!("{layer:02}.{point}")];
                let target = &llama[&format!("{node}-{layer}#0:ADD")];
                assert_eq!(reference.shape, target.shape);
                let error = rel_l2(&reference.values, &target.values);
                assert!(error < 1.6e-3, "{model_name} layer {layer} {point}: {error:e}");
            }
        }
    }
}

#[test]
fn rel_l2_is_relative_to_the_reference() {
    assert_eq!(rel_l2(&[3.0, 4.0], &[3.0, 5.0]), 0.2);
    assert_eq!(rel_l2(&[0.0], &[0.0]), 0.0);
    assert_eq!(rel_l2(&[0.0], &[1.0]), f64::INFINITY);
    assert!(rel_l2(&[1.0], &[f32::NAN]).is_nan());
}
