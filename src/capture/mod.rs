//! What is captured: the vocabulary of capture points.

pub mod points;
