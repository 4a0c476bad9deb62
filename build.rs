//! Builds the kernels: lists them for the host, compiles them to cubins and PTX when nvcc is found, embeds
//! their sources, and with the feature `emulator` compiles them for the host processor. Embeds the mini system, too.

#[path = "build/emulator.rs"]
mod emulator;
#[path = "build/jobs.rs"]
mod jobs;
#[path = "build/judge.rs"]
mod judge;
#[path = "build/list.rs"]
mod list;
#[path = "build/mini.rs"]
mod mini;
#[path = "build/nvcc.rs"]
mod nvcc;
#[path = "build/scan.rs"]
mod scan;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Where things are.
pub struct Places {
    root: PathBuf,
    out: PathBuf,
    /// compiled kernels by the hash of all that went into them; survives a change of features
    cache: PathBuf,
}

fn build() -> Result<(), String> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).ok_or(format!("{name} is not set"));
    let (root, out) = (variable("CARGO_MANIFEST_DIR")?, variable("OUT_DIR")?);
    // OUT_DIR is <target>/<profile>/build/<package>/out.
    let cache = out.ancestors().nth(3).unwrap_or(&out).join("kernels");
    std::fs::create_dir_all(&cache).map_err(|e| format!("{}: {e}", cache.display()))?;
    let places = Places { root, out, cache };
    for path in ["kernels", "build", "build.rs"] {
        println!("cargo::rerun-if-changed={path}");
    }
    mini::write(&places)?;
    let product = scan::units(&places.root, Path::new("kernels"))?;
    let emulate = std::env::var_os("CARGO_FEATURE_EMULATOR").is_some();
    let mut planted = Vec::new();
    if emulate {
        println!("cargo::rerun-if-changed=tests/emulator");
        planted = scan::units(&places.root, Path::new("tests/emulator"))?;
    }
    let compiled = nvcc::compile(&places, &product)?;
    list::write(&places, &product, &planted, &compiled)?;
    if emulate {
        emulator::compile(&places, &product, &planted)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            for line in why.lines() {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}
