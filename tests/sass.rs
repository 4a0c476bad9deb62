//! The machine code of the tensor-core kernels, read with cuobjdump: f16 and bf16 products must be HMMA.

use std::path::{Path, PathBuf};
use std::process::Command;

use tasr::device::gpu::kernels;

/// cuobjdump from CUDA_HOME, PATH, or the wheels under target/nvcc.
fn cuobjdump() -> Option<PathBuf> {
    let home = std::env::var_os("CUDA_HOME").map(|home| PathBuf::from(home).join("bin/cuobjdump"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("cuobjdump"));
    let wheels = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/nvcc/nvidia/cu13/bin/cuobjdump");
    home.into_iter().chain(on_path).chain([wheels]).find(|tool| tool.is_file())
}

/// (kernel, its instructions) of a cubin.
fn disassemble(tool: &Path, cubin: &[u8]) -> Vec<(String, String)> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kernels.cubin");
    std::fs::write(&file, cubin).unwrap();
    let path = std::env::join_paths(
        std::iter::once(tool.parent().unwrap().to_path_buf())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    )
    .unwrap();
    let said = Command::new(tool).arg("-sass").arg(&file).env("PATH", path).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let text = String::from_utf8(said.stdout).unwrap();
    text.split("Function : ")
        .skip(1)
        .filter_map(|part| part.split_once('\n'))
        .map(|(name, code)| (name.trim().to_string(), code.to_string()))
        .collect()
}

/// Files whose kernels for halves must multiply on tensor cores.
const TENSOR_CORES: [&str; 5] =
    ["attention/backward", "attention/forward", "attention/wide", "attention/wide_backward", "gemm/gemm"];

#[test]
fn halves_are_multiplied_on_tensor_cores_and_copied_asynchronously() {
    let code: Vec<_> = kernels::cubins().filter(|(module, ..)| TENSOR_CORES.contains(module)).collect();
    let Some(tool) = cuobjdump().filter(|_| !code.is_empty()) else {
        eprintln!("NOT RUN: this build has no cubins, or there is no cuobjdump; .ci/nvcc installs both");
        return;
    };
    for (module, architecture, cubin) in code {
        let mut seen = 0;
        for (name, instructions) in disassemble(&tool, &cubin.unwrap()) {
            let halves = name.ends_with("f16");
            let tensor = instructions.contains("HMMA.16816.F32");
            assert_eq!(tensor, halves, "{name} on sm_{architecture}: HMMA.16816.F32 {tensor}");
            assert_eq!(instructions.contains("LDGSTS"), halves, "{name} on sm_{architecture}: cp.async");
            assert_eq!(instructions.contains("LDSM"), halves, "{name} on sm_{architecture}: ldmatrix");
            assert!(!instructions.contains("STL"), "{name} on sm_{architecture} writes local memory");
            seen += usize::from(halves);
        }
        assert!(seen >= 2, "{module} on sm_{architecture}: {seen} kernels for halves");
    }
}
