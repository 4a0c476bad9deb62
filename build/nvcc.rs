//! Compiles the kernels with nvcc, when it is found: a cubin for each architecture, and PTX for later ones.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::Places;
use crate::jobs::{self, Check, Job};
use crate::judge::Exceptions;
use crate::scan::{Unit, read};

/// What cubins are made for, by the architecture whose PTX they are made from: the compiler's front end takes most of
/// the time, and makes the same for those of one row (but for the arithmetic of addresses in two small files for 86). A
/// GPU runs cubins of its own major version and an equal or lower minor one; 90a runs on 9.0 only.
const ARCHITECTURES: [(&str, &[&str]); 3] =
    [(PTX, &["80", "86", "89"]), ("90a", &["90a"]), ("100", &["100", "120"])];
/// Whose PTX is kept for GPUs with no cubin.
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
    let compiler = Compiler { places, nvcc, version };
    let (mut compiled, mut made) = (HashMap::new(), Vec::new());
    let (mut fronts, mut cubins) = (Vec::new(), Vec::new());
    let wanted = wanted()?;
    for unit in units {
        let entry: &mut Compiled = compiled.entry(unit.name.clone()).or_default();
        for (front, architectures) in ARCHITECTURES {
            let made_for = |name: &&&str| {
                wanted.contains(*name)
                    && (unit.architectures.is_empty() || unit.architectures.iter().any(|own| own == **name))
            };
            let keeps_ptx = front == PTX && unit.architectures.is_empty();
            let architectures: Vec<&str> = architectures.iter().filter(made_for).copied().collect();
            if architectures.is_empty() && !keeps_ptx {
                continue;
            }
            let arch = format!("-arch=compute_{front}");
            let ptx = compiler.job(unit, &unit.path, &[&arch, "-ptx"], "ptx", Box::new(|_| Ok(())));
            for architecture in architectures {
                let check = {
                    let e = exceptions.clone();
                    move |said: &str| e.judge(said, architecture)
                };
                let arch = format!("-arch=sm_{architecture}");
                let job = compiler.job(unit, &ptx.output, &[&arch, "-cubin"], "cubin", Box::new(check));
                made.push(job.output.clone());
                entry.cubins.push((architecture.to_string(), job.output.with_extension("cubin.z")));
                cubins.push(job);
            }
            if keeps_ptx {
                made.push(ptx.output.clone());
                entry.ptx = Some(ptx.output.with_extension("ptx.z"));
            }
            fronts.push(ptx);
        }
    }
    jobs::run(fronts)?;
    jobs::run(cubins)?;
    made.iter().try_for_each(|output| compress(output))?;
    Ok(compiled)
}

/// All of `ARCHITECTURES`, or those that TASR_ARCHITECTURES names, as in `90a` or `80,86`: a build for one GPU
/// takes half of the time or less.
fn wanted() -> Result<Vec<&'static str>, String> {
    let all: Vec<&str> = ARCHITECTURES.iter().flat_map(|(_, row)| row.iter().copied()).collect();
    let Ok(wanted) = std::env::var("TASR_ARCHITECTURES") else { return Ok(all) };
    let find = |name: &str| {
        all.iter().copied().find(|own| *own == name).ok_or(format!(
            "TASR_ARCHITECTURES: kernels are not made for {name}; name some of {}",
            all.join(",")
        ))
    };
    wanted.split(',').map(|name| find(name.trim())).collect()
}

/// nvcc, and where it reads and writes.
struct Compiler<'a> {
    places: &'a Places,
    nvcc: PathBuf,
    version: String,
}

impl Compiler<'_> {
    /// The compilation of `from`, which is the source of `unit` or PTX made of it, with `flags`.
    fn job(&self, unit: &Unit, from: &Path, flags: &[&str], extension: &str, check: Check) -> Job {
        const COMMON: [&str; 5] = ["-std=c++17", "-O3", "-lineinfo", "-Xptxas", "-v"];
        // PTX is called by its architecture: what is made of another one is another thing.
        let name = from.file_name().unwrap_or_default().to_string_lossy();
        let hash = jobs::hash(&[&self.version, &unit.source, &name, &flags.join(" "), &COMMON.join(" ")]);
        let output = self.places.cache.join(format!("{}{}.{hash}.{extension}", unit.identifier(), flags[0]));
        let mut command = Command::new(&self.nvcc);
        command.args(COMMON).args(flags).arg("-I").arg(self.places.root.join("kernels"));
        command.arg("-o").arg(Job::part(&output)).arg(from);
        Job { output, command, check }
    }
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
