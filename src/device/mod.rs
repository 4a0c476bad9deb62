//! Devices: where tensors live and work is done.
//!
//! `cpu` needs nothing; `gpu` is CUDA, the product, or its emulator; `plan` computes nothing and counts memory.
//! Only this module touches `cudarc`.

pub mod arena;
pub mod cpu;
mod dtype;
pub mod gpu;
mod matrix_unit;
pub mod plan;
mod storage;

use std::sync::Arc;

use crate::error::{Error, Result};
pub use cpu::Cpu;
pub use dtype::{DType, Element};
pub use gpu::Gpu;
pub use matrix_unit::MatrixUnit;
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

    /// The first GPU that opens, else the CPU; and why a GPU that is there does not open.
    pub fn best() -> (Self, Option<Error>) {
        let mut refused = None;
        // With no driver or no GPU there is nothing to say.
        for gpu in gpu::cuda::list().unwrap_or_default() {
            match gpu::cuda::open(gpu.ordinal) {
                Ok(device) => return (device, None),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        (Self::cpu(), refused)
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
            "auto" => Ok(Self::best().0),
            "cpu" => Ok(Self::cpu()),
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

    /// What `--device` calls it.
    pub fn name(&self) -> String {
        match self {
            Device::Cpu(_) => "cpu".to_owned(),
            Device::Gpu(gpu) => gpu.info().device.clone(),
            Device::Plan(_) => "plan".to_owned(),
        }
    }

    /// What it is, in a few words.
    pub fn describe(&self) -> String {
        match self {
            Device::Cpu(cpu) => format!("the CPU, {} threads", cpu.threads()),
            Device::Gpu(gpu) => format!("{} ({})", gpu.info().name, gpu.info().device),
            Device::Plan(_) => "a plan".to_owned(),
        }
    }

    /// Bytes that it could still give, if it tells: a GPU of memory of its own. Elsewhere the system has to be asked.
    pub fn available(&self) -> Option<usize> {
        self.gpu().and_then(|gpu| gpu.available())
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

    /// Seconds that the device takes for what `work` starts: by a GPU's own clock, else by the host's.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn time(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
        match self {
            Device::Gpu(gpu) => gpu.time(work),
            Device::Cpu(_) | Device::Plan(_) => {
                let start = std::time::Instant::now();
                work()?;
                Ok(start.elapsed().as_secs_f64())
            }
        }
    }

    /// Waits for all work of a GPU and reports what failed.
    pub fn synchronize(&self) -> Result<()> {
        self.gpu().map_or(Ok(()), |gpu| gpu.synchronize())
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
