//! Compiles the kernels with nvcc, when it is found: a cubin for each architecture, and PTX for later ones.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::Places;
use crate::jobs::{self, Check, Job};
use crate::judge::Exceptions;
use crate::scan::{Unit, read};

/// What cubins are made for. A GPU runs those of its own major version and an equal or lower minor one;
/// 90a runs on 9.0 only.
const ARCHITECTURES: [&str; 6] = ["80", "86", "89", "90a", "100", "120"];
const PTX: &str = "80";

/// Compiled code of one unit: (architecture, compressed file).
#[derive(Default)]
pub struct Compiled {
    pub cubins: Vec<(String, PathBuf)>,
    pub ptx: Option<PathBuf>,
}

/// Compiles every unit; nothing when there is no nvcc.
pub fn compile(places: &Places, units: &[Unit]) -> Result<HashMap<String, Compiled>, String> {
    for name in ["TASR_NVCC", "TASR_ARCHITECTURES", "CUDA_HOME", "PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let Some(nvcc) = find(places)? else { return Ok(HashMap::new()) };
    println!("cargo::rerun-if-changed={}", nvcc.display());
    let said =
        Command::new(&nvcc).arg("--version").output().map_err(|e| format!("{}: {e}", nvcc.display()))?;
    let version = String::from_utf8_lossy(&said.stdout).into_owned();
    let exceptions = Arc::new(Exceptions::parse(&read(&places.root.join("kernels/exceptions.txt"))?)?);
    let (mut compiled, mut jobs, mut made) = (HashMap::new(), Vec::new(), Vec::new());
    let architectures = architectures()?;
    for unit in units {
        let entry: &mut Compiled = compiled.entry(unit.name.clone()).or_default();
        for &architecture in &architectures {
            if !unit.architectures.is_empty() && !unit.architectures.iter().any(|own| own == architecture) {
                continue;
            }
            let flags = [format!("-arch=sm_{architecture}"), "-cubin".to_string()];
            let check = {
                let (e, a) = (exceptions.clone(), architecture);
                move |said: &str| e.judge(said, a)
            };
            let output = job(places, &nvcc, &version, unit, &flags, "cubin", Box::new(check), &mut jobs);
            made.push(output.clone());
            entry.cubins.push((architecture.to_string(), output.with_extension("cubin.z")));
        }
        if unit.architectures.is_empty() {
            let flags = [format!("-arch=compute_{PTX}"), "-ptx".to_string()];
            let output = job(places, &nvcc, &version, unit, &flags, "ptx", Box::new(|_| Ok(())), &mut jobs);
            made.push(output.clone());
            entry.ptx = Some(output.with_extension("ptx.z"));
        }
    }
    jobs::run(jobs)?;
    made.iter().try_for_each(|output| compress(output))?;
    Ok(compiled)
}

/// All of `ARCHITECTURES`, or those that TASR_ARCHITECTURES names, as in `90a` or `80,86`: a build for one GPU
/// takes a sixth of the time.
fn architectures() -> Result<Vec<&'static str>, String> {
    let Ok(wanted) = std::env::var("TASR_ARCHITECTURES") else { return Ok(ARCHITECTURES.to_vec()) };
    let find = |name: &str| {
        ARCHITECTURES.into_iter().find(|own| *own == name).ok_or(format!(
            "TASR_ARCHITECTURES: kernels are not made for {name}; name some of {}",
            ARCHITECTURES.join(",")
        ))
    };
    wanted.split(',').map(|name| find(name.trim())).collect()
}

/// Adds the compilation of `unit` with `flags` and returns what it makes.
#[expect(
    clippy::too_many_arguments,
    reason = "one call site a kind of output; a struct would only rename them"
)]
fn job(
    places: &Places,
    nvcc: &Path,
    version: &str,
    unit: &Unit,
    flags: &[String],
    extension: &str,
    check: Check,
    jobs: &mut Vec<Job>,
) -> PathBuf {
    const COMMON: [&str; 5] = ["-std=c++17", "-O3", "-lineinfo", "-Xptxas", "-v"];
    let hash = jobs::hash(&[version, &unit.source, &flags.join(" "), &COMMON.join(" ")]);
    let output = places.cache.join(format!("{}{}.{hash}.{extension}", unit.identifier(), flags[0]));
    let mut command = Command::new(nvcc);
    command.args(COMMON).args(flags).arg("-I").arg(places.root.join("kernels"));
    command.arg("-o").arg(Job::part(&output)).arg(&unit.path);
    jobs.push(Job { output: output.clone(), command, check });
    output
}

fn compress(path: &Path) -> Result<(), String> {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
    let target = path.with_extension(format!("{extension}.z"));
    if target.exists() {
        return Ok(());
    }
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let part = Job::part(&target);
    std::fs::write(&part, miniz_oxide::deflate::compress_to_vec(&bytes, 8))
        .and_then(|()| std::fs::rename(&part, &target))
        .map_err(|e| format!("{}: {e}", target.display()))
}

/// nvcc from TASR_NVCC (a path, or `none`), CUDA_HOME, PATH, or the wheels under target/nvcc.
fn find(places: &Places) -> Result<Option<PathBuf>, String> {
    if let Some(given) = std::env::var_os("TASR_NVCC").map(PathBuf::from) {
        return match given {
            none if none.as_os_str() == "none" => Ok(None),
            path if path.is_file() => Ok(Some(path)),
            path => {
                Err(format!("TASR_NVCC: there is no file {}; give the path of nvcc, or none", path.display()))
            }
        };
    }
    let home = std::env::var_os("CUDA_HOME").map(|home| PathBuf::from(home).join("bin/nvcc"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("nvcc"));
    let wheels = places.root.join("target/nvcc/nvidia/cu13/bin/nvcc");
    Ok(home.into_iter().chain(on_path).chain([wheels]).find(|nvcc| nvcc.is_file()))
}
