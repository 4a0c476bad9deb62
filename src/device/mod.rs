//! Devices: where tensors live and work is done.
//!
//! `cpu` needs nothing; `gpu` is CUDA, the product, or its emulator; `plan` computes nothing and counts memory.
//! Only this module touches `cudarc`.

pub mod arena;
pub mod cpu;
mod dtype;
pub mod gpu;
pub mod plan;
mod storage;

use std::sync::Arc;

use crate::error::{Error, Result};
pub use cpu::Cpu;
pub use dtype::{DType, Element};
pub use gpu::Gpu;
pub use plan::Plan;
pub use storage::{Bytes, Storage};

/// The kind of device whose plans and memory a computation uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Cpu,
    /// CUDA or the emulator.
    Gpu,
}

/// A handle to a device; cloning it is cheap.
#[derive(Clone, Debug)]
pub enum Device {
    Cpu(Arc<Cpu>),
    Gpu(Arc<Gpu>),
    Plan(Arc<Plan>),
}

/// What an allocation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Lives as long as the model; taken from the system directly.
    Weight,
    /// Comes and goes within a run; taken from the arena.
    Activation,
}

impl Device {
    /// The CPU with rayon's current pool.
    pub fn cpu() -> Self {
        Device::Cpu(Arc::new(Cpu::new()))
    }

    /// A device that only counts what `target` would allocate; a GPU is one of sm_80.
    pub fn plan(target: Target) -> Self {
        Device::Plan(Arc::new(Plan::new(target)))
    }

    /// A device that only counts what this one would allocate.
    pub fn planned(&self) -> Self {
        Device::Plan(Arc::new(Plan::new(self.target()).specialised_as(self.specialised())))
    }

    /// True when plans may choose the kernels of sm_90a.
    pub fn specialised(&self) -> bool {
        match self {
            Device::Cpu(_) => false,
            Device::Gpu(gpu) => gpu.specialised(),
            Device::Plan(plan) => plan.specialised(),
        }
    }

    /// Opens what `--device` names: `auto`, `cpu`, `cuda`, `cuda:N`, `emulator`.
    ///
    /// # Errors
    /// The name is unknown, or the device is not there.
    pub fn open(name: &str) -> Result<Self> {
        match name {
            "auto" | "cpu" => Ok(Self::cpu()),
            "emulator" => Self::open_emulator(),
            _ => match name.strip_prefix("cuda").map(|rest| rest.strip_prefix(':').unwrap_or(rest)) {
                Some(ordinal) if ordinal.is_empty() || ordinal.parse::<usize>().is_ok() => {
                    gpu::cuda::open(ordinal.parse().unwrap_or(0))
                }
                _ => Err(Error::usage(format!("unknown device '{name}'"))
                    .at("--device")
                    .fix("give auto, cpu, cuda, cuda:N or emulator")),
            },
        }
    }

    #[cfg(feature = "emulator")]
    fn open_emulator() -> Result<Self> {
        let path = gpu::ArchPath::from_environment()?;
        Ok(gpu::emulator::open(gpu::emulator::Options { path, ..Default::default() }))
    }

    #[cfg(not(feature = "emulator"))]
    fn open_emulator() -> Result<Self> {
        Err(Error::device("this build has no emulator")
            .at("--device emulator")
            .fix("build it with --features emulator, or use --device cpu"))
    }

    /// The kind of device whose plans apply.
    pub fn target(&self) -> Target {
        match self {
            Device::Cpu(_) => Target::Cpu,
            Device::Gpu(_) => Target::Gpu,
            Device::Plan(plan) => plan.target(),
        }
    }

    /// The GPU, when the device is one or its emulator.
    pub fn gpu(&self) -> Option<&Arc<Gpu>> {
        match self {
            Device::Gpu(gpu) => Some(gpu),
            Device::Cpu(_) | Device::Plan(_) => None,
        }
    }

    /// True for the device that computes nothing.
    pub fn is_plan(&self) -> bool {
        matches!(self, Device::Plan(_))
    }

    /// Readable memory of `bytes` bytes: zeros when fresh, anything when the arena hands it out again.
    pub fn allocate(&self, bytes: usize, purpose: Purpose) -> Result<Storage> {
        Storage::allocate(self, bytes, purpose)
    }

    /// Makes room for a run that needs `bytes` of activations, in one piece.
    pub fn reserve(&self, bytes: usize) -> Result<()> {
        match self {
            Device::Cpu(cpu) => cpu.reserve(bytes),
            Device::Gpu(gpu) => gpu.reserve(bytes),
            Device::Plan(_) => Ok(()),
        }
    }

    /// Gives activation memory that is not in use back to the system.
    pub fn trim(&self) {
        match self {
            Device::Cpu(cpu) => cpu.trim(),
            Device::Gpu(gpu) => gpu.trim(),
            Device::Plan(_) => {}
        }
    }

    /// The most bytes of activations that were alive at once.
    pub fn peak(&self) -> usize {
        match self {
            Device::Cpu(cpu) => cpu.peak(),
            Device::Gpu(gpu) => gpu.peak(),
            Device::Plan(plan) => plan.activation_bytes(),
        }
    }
}
