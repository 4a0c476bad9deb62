//! Devices: where tensors live and work is done.
//!
//! `cpu` needs nothing; `cuda` is the product; `plan` computes nothing and counts memory.
//! Only this module touches `cudarc`.

pub mod arena;
pub mod cpu;
pub mod cuda;
pub mod plan;
mod storage;

use std::sync::Arc;

use crate::error::{Error, Result};
use arena::Span;
pub use cpu::Cpu;
pub use plan::Plan;
pub use storage::{Bytes, Storage};

/// The kind of device whose plans and memory a computation uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Cpu,
}

/// A handle to a device; cloning it is cheap.
#[derive(Clone, Debug)]
pub enum Device {
    Cpu(Arc<Cpu>),
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

    /// A device that only counts what `target` would allocate.
    pub fn plan(target: Target) -> Self {
        Device::Plan(Arc::new(Plan::new(target)))
    }

    /// Opens what `--device` names: `auto`, `cpu`, `cuda`, `cuda:N`.
    ///
    /// # Errors
    /// The name is unknown, or the device is not there.
    pub fn open(name: &str) -> Result<Self> {
        match name {
            "auto" | "cpu" => Ok(Self::cpu()),
            "emulator" => Err(Error::device("this build has no emulator")
                .at("--device emulator")
                .fix("use --device cpu")),
            _ => match name.strip_prefix("cuda").map(|rest| rest.strip_prefix(':').unwrap_or(rest)) {
                Some(ordinal) if ordinal.is_empty() || ordinal.parse::<usize>().is_ok() => {
                    Self::open_cuda(ordinal)
                }
                _ => Err(Error::usage(format!("unknown device '{name}'"))
                    .at("--device")
                    .fix("give auto, cpu, cuda or cuda:N")),
            },
        }
    }

    fn open_cuda(ordinal: &str) -> Result<Self> {
        let gpus = cuda::list()?;
        let ordinal = ordinal.parse().unwrap_or(0);
        let gpu = gpus.get(ordinal).ok_or_else(|| {
            Error::device(format!("there is no GPU {ordinal}, the driver sees {}", gpus.len()))
                .at("--device")
                .fix(format!("give cuda:0 to cuda:{}", gpus.len() - 1))
        })?;
        Err(Error::device(format!("{} is there, but this build carries no CUDA kernels", gpu.name))
            .at("--device cuda")
            .fix("use --device cpu"))
    }

    /// The kind of device whose plans apply.
    pub fn target(&self) -> Target {
        match self {
            Device::Cpu(_) => Target::Cpu,
            Device::Plan(plan) => plan.target(),
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
            Device::Plan(_) => Ok(()),
        }
    }

    /// Gives activation memory that is not in use back to the system.
    pub fn trim(&self) {
        if let Device::Cpu(cpu) = self {
            cpu.trim();
        }
    }

    /// The most bytes of activations that were alive at once.
    pub fn peak(&self) -> usize {
        match self {
            Device::Cpu(cpu) => cpu.peak(),
            Device::Plan(plan) => plan.activation_bytes(),
        }
    }

    fn free(&self, span: Span) {
        match self {
            Device::Cpu(cpu) => cpu.free(span),
            Device::Plan(plan) => plan.free(span),
        }
    }
}
