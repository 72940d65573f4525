//! The families: one table each.

mod gemma;
mod gpt2;
mod gpt_neox;
mod llama;
mod qwen3;

use super::family::Family;

pub(super) const ALL: [&Family; 6] =
    [&llama::FAMILY, &qwen3::FAMILY, &gemma::GEMMA2, &gemma::GEMMA3, &gpt2::FAMILY, &gpt_neox::FAMILY];
