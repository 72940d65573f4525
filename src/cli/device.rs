//! `--device`: where the model runs.

use super::note;
use crate::backend::cuda::{ComputeType, CudaBackend};
use crate::backend::{CpuBackend, Semantics};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Format, Model};
use std::str::FromStr;

/// A device as the command line names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    Cpu,
    /// An NVIDIA card, by number.
    Cuda(usize),
    /// Card 0 where there is one, else the processor.
    Auto,
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = |text: &str| text.parse().ok().map(Device::Cuda);
        let device = match text.split_once(':') {
            None if text == "cpu" => Some(Device::Cpu),
            None if text == "auto" => Some(Device::Auto),
            None if text == "cuda" => Some(Device::Cuda(0)),
            Some(("cuda", ordinal)) => number(ordinal),
            _ => None,
        };
        device.ok_or_else(|| Error::usage(format!("`{text}` is no device: cpu, cuda[:N] or auto")))
    }
}

/// A backend that is ready to load a model.
pub enum Opened {
    /// The processor's.
    Cpu(CpuBackend),
    /// A card's.
    Cuda(Box<CudaBackend>),
}

/// What the command line says of a backend.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// Where.
    pub device: Device,
    /// How products round; the format's own where not said.
    pub semantics: Option<Semantics>,
    /// Operands of large products on a card.
    pub compute: Option<ComputeType>,
    /// Threads.
    pub threads: usize,
}

impl Wish {
    /// Opens the device, and says what `auto` chose.
    ///
    /// # Errors
    /// Environment where a card was asked for by name and cannot be used; unsupported where it cannot do what was
    /// asked.
    pub fn open(self, model: &Model) -> Result<(Opened, Semantics)> {
        match self.device {
            Device::Cpu => self.cpu(model),
            Device::Cuda(ordinal) => self.cuda(ordinal),
            Device::Auto => match self.cuda(0) {
                Ok((Opened::Cuda(backend), semantics)) => {
                    note(&format!("device: {}", crate::backend::Backend::identity(&*backend).device_name));
                    Ok((Opened::Cuda(backend), semantics))
                }
                Err(error) if error.kind() != ErrorKind::Internal => {
                    note(&format!("device: cpu ({error})"));
                    self.cpu(model)
                }
                other => other,
            },
        }
    }

    fn cpu(self, model: &Model) -> Result<(Opened, Semantics)> {
        if let Some(compute) = self.compute.filter(|compute| *compute != ComputeType::F32) {
            let message = format!("--compute {} is for --device cuda: the processor multiplies in f32", compute.name());
            return Err(Error::unsupported(message));
        }
        let semantics = self.semantics.unwrap_or(match model.format() {
            Format::Gguf => Semantics::Ggml,
            // As the file with the same weights in the other formats, so that the two can be compared.
            Format::Apr if model.weight_type().block_elements() > 1 => Semantics::Ggml,
            Format::Apr | Format::Safetensors => Semantics::DequantizeF32,
        });
        Ok((Opened::Cpu(CpuBackend::new(semantics, self.threads)?), semantics))
    }

    fn cuda(self, ordinal: usize) -> Result<(Opened, Semantics)> {
        if self.semantics == Some(Semantics::Ggml) {
            return Err(Error::unsupported(
                "--semantics ggml is not built for CUDA: use dequantize-f32, on both devices where they are to be compared",
            ));
        }
        let backend = CudaBackend::new(ordinal, self.compute.unwrap_or(ComputeType::F32), self.threads)?;
        Ok((Opened::Cuda(Box::new(backend)), Semantics::DequantizeF32))
    }
}

/// The semantics called `name`.
///
/// # Errors
/// Usage for an unknown name.
pub fn semantics(name: &str) -> Result<Semantics> {
    [Semantics::Ggml, Semantics::DequantizeF32]
        .into_iter()
        .find(|semantics| semantics.name() == name)
        .ok_or_else(|| Error::usage(format!("`{name}` is no semantics: ggml or dequantize-f32")))
}

/// The compute type called `name`.
///
/// # Errors
/// Usage for an unknown name.
pub fn compute(name: &str) -> Result<ComputeType> {
    [ComputeType::F32, ComputeType::F16, ComputeType::Bf16]
        .into_iter()
        .find(|compute| compute.name() == name)
        .ok_or_else(|| Error::usage(format!("`{name}` is no compute type: f32, f16 or bf16")))
}

#[cfg(test)]
mod tests {
    use super::Device;

    #[test]
    fn devices_are_named_with_a_number_or_without() {
        let device = |text: &str| text.parse::<Device>().ok();
        assert_eq!((device("cpu"), device("auto")), (Some(Device::Cpu), Some(Device::Auto)));
        assert_eq!((device("cuda"), device("cuda:3")), (Some(Device::Cuda(0)), Some(Device::Cuda(3))));
        assert_eq!((device("cuda:"), device("cuda:x"), device("gpu")), (None, None, None));
    }
}
