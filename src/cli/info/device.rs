//! What this machine computes with.

use std::fmt;

use serde::Serialize;
use sysinfo::System;

use crate::cli::memory::Memory;
use crate::device::MatrixUnit;
use crate::device::gpu::{GpuInfo, cuda};
use crate::weights::space::in_units;

/// All devices.
#[derive(Serialize)]
pub struct Devices {
    cpu: Cpu,
    cuda: Vec<Gpu>,
    /// why `cuda` is empty
    no_cuda: Option<String>,
}

#[derive(Serialize)]
struct Cpu {
    name: String,
    architecture: &'static str,
    /// instruction sets that the kernels choose among at run time
    features: Vec<&'static str>,
    /// what multiplies matrices of bf16
    matrix_unit: &'static str,
    threads: usize,
    memory: u64,
    available: u64,
}

#[derive(Serialize)]
struct Gpu {
    device: String,
    name: String,
    capability: String,
    memory: u64,
    driver: String,
    /// where its kernels come from: cubins, PTX or NVRTC
    kernels: String,
}

impl Devices {
    /// Looks for them.
    pub fn find() -> Devices {
        let (cuda, no_cuda) = match cuda::list() {
            Ok(gpus) => (gpus, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let dotted = |(major, minor): (i32, i32)| format!("{major}.{minor}");
        let gpu = |gpu: GpuInfo| Gpu {
            kernels: cuda::kernels_for(&gpu),
            device: gpu.device,
            name: gpu.name,
            capability: dotted(gpu.capability),
            memory: gpu.memory as u64,
            driver: dotted(gpu.driver),
        };
        Devices { cpu: Cpu::find(), cuda: cuda.into_iter().map(gpu).collect(), no_cuda }
    }
}

impl Cpu {
    fn find() -> Cpu {
        let mut system = System::new();
        system.refresh_cpu_list(sysinfo::CpuRefreshKind::nothing());
        let name = system.cpus().first().map_or("", |cpu| cpu.brand().trim());
        let memory = Memory::find();
        Cpu {
            name: if name.is_empty() { "processor".to_owned() } else { name.to_owned() },
            architecture: std::env::consts::ARCH,
            features: features(),
            matrix_unit: MatrixUnit::best().name(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            memory: memory.total.unwrap_or_default(),
            available: memory.available.unwrap_or_default(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn features() -> Vec<&'static str> {
    let found = [
        ("sse4.2", is_x86_feature_detected!("sse4.2")),
        ("avx", is_x86_feature_detected!("avx")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512vl", is_x86_feature_detected!("avx512vl")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
    ];
    found.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
}

#[cfg(target_arch = "aarch64")]
fn features() -> Vec<&'static str> {
    let found = [
        ("neon", std::arch::is_aarch64_feature_detected!("neon")),
        ("fp16", std::arch::is_aarch64_feature_detected!("fp16")),
        ("bf16", std::arch::is_aarch64_feature_detected!("bf16")),
        ("dotprod", std::arch::is_aarch64_feature_detected!("dotprod")),
        ("sve", std::arch::is_aarch64_feature_detected!("sve")),
    ];
    found.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> Vec<&'static str> {
    Vec::new()
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpu = &self.cpu;
        let features = if cpu.features.is_empty() { "none known".to_owned() } else { cpu.features.join(" ") };
        writeln!(f, "cpu: {} ({})", cpu.name, cpu.architecture)?;
        writeln!(
            f,
            "  {} threads, {} of {} free",
            cpu.threads,
            in_units(cpu.available),
            in_units(cpu.memory)
        )?;
        writeln!(f, "  instruction sets: {features}")?;
        writeln!(f, "  products in bf16: {}", cpu.matrix_unit)?;
        for gpu in &self.cuda {
            writeln!(f, "{}: {}", gpu.device, gpu.name)?;
            writeln!(
                f,
                "  {}, compute capability {}, CUDA {} driver",
                in_units(gpu.memory),
                gpu.capability,
                gpu.driver
            )?;
            writeln!(f, "  kernels: {}", gpu.kernels)?;
        }
        self.no_cuda.as_ref().map_or(Ok(()), |why| writeln!(f, "cuda: none ({why})"))
    }
}
