//! Contracts: held on right runs of every kind of family, unmeasured where what they need was not captured, broken by a
//! planted fault each.

mod broken;
mod command;
mod held;
mod just;
pub mod recording;
mod refused;
mod unmeasured;
