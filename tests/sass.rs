//! The machine code of the tensor-core kernels, read with cuobjdump: f16 and bf16 products must be HMMA, and HGMMA
//! in the kernels of sm_90a.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use tasr::device::gpu::kernels;
use tasr::error::Result;

/// File, architecture, code.
type Cubin = (&'static str, &'static str, Result<Vec<u8>>);

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
const TENSOR_CORES: [&str; 6] = [
    "attention/backward",
    "attention/forward",
    "attention/wide",
    "attention/wide_backward",
    "conv/conv",
    "gemm/gemm",
];

/// Files for sm_90a whose kernels must multiply by wgmma, and how many products a kernel sums.
const WARPGROUPS: [(&str, usize); 3] =
    [("attention/forward_sm90", 2), ("conv/conv_sm90", 1), ("gemm/gemm_sm90", 1)];

/// The cubins of the files `modules`, and cuobjdump; `None` and a word why where they are not.
fn code_of(modules: &[&str]) -> Option<(PathBuf, Vec<Cubin>)> {
    let code: Vec<_> = kernels::cubins().filter(|(module, ..)| modules.contains(module)).collect();
    let tool = cuobjdump().filter(|_| !code.is_empty());
    if tool.is_none() {
        eprintln!("NOT RUN: this build has no cubins, or there is no cuobjdump; .ci/nvcc installs both");
    }
    Some((tool?, code))
}

#[test]
fn halves_are_multiplied_on_tensor_cores_and_copied_asynchronously() {
    let Some((tool, code)) = code_of(&TENSOR_CORES) else { return };
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

#[test]
fn warpgroups_multiply_what_the_copy_engine_brings() {
    let Some((tool, code)) = code_of(&WARPGROUPS.map(|(module, _)| module)) else { return };
    assert_eq!(code.len(), WARPGROUPS.len(), "each file is compiled for sm_90a");
    for (module, architecture, cubin) in code {
        assert_eq!(architecture, "90a", "{module}");
        let kernels = disassemble(&tool, &cubin.unwrap());
        assert!(kernels.len() >= 2, "{module}: {} kernels", kernels.len());
        for (name, instructions) in kernels {
            assert!(!instructions.contains("STL"), "{name} writes local memory");
            // Adds what products with splits have left.
            if name.contains("_join_") {
                continue;
            }
            let products: Vec<_> = instructions.lines().filter(|line| line.contains("HGMMA.")).collect();
            assert!(products.len() >= 4, "{name}: {} products", products.len());
            let bf16 = products.iter().all(|line| line.contains(".F32.BF16"));
            assert_eq!(bf16, name.ends_with("bf16"), "{name}: {products:?}");
            // An accumulator is the same registers in every product: nothing moves sums between them.
            let sums: HashSet<_> = products.iter().filter_map(|line| accumulator(line)).collect();
            let wanted = WARPGROUPS.iter().find(|(file, _)| *file == module).map(|(_, sums)| *sums);
            assert_eq!(Some(sums.len()), wanted, "{name}: {sums:?}");
            for wanted in ["UTMALDG", "SYNCS.PHASECHK", "USETMAXREG", "WARPGROUP.DEPBAR"] {
                assert!(instructions.contains(wanted), "{name}: no {wanted}");
            }
            for unwanted in ["LDL", "HMMA"] {
                assert!(!instructions.contains(unwanted), "{name}: {unwanted}");
            }
        }
    }
}

/// "R24" of `HGMMA.64x256x16.F32 R24, gdesc[UR20], R24`.
fn accumulator(line: &str) -> Option<&str> {
    line.split_once("HGMMA.")?.1.split_once(' ')?.1.split(',').next()
}
