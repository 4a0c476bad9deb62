//! Compiling the embedded sources at first use, for a build that was made without nvcc. What is compiled is
//! kept on disk, keyed by source, architecture and compiler version.

use std::ffi::{CStr, CString};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use cudarc::nvrtc::{result, sys};

use crate::error::{Error, Result};

const OPTIONS: [&str; 3] = ["--std=c++17", "--generate-line-info", "--device-as-default-execution-space"];

fn problem(what: impl std::fmt::Display) -> Error {
    Error::device(format!("this build carries kernel sources only, and NVRTC {what}"))
        .at("--device cuda")
        .fix("install the CUDA toolkit's libnvrtc, or use --device cpu")
}

/// `source` compiled for `architecture` ("sm_86"), from the disk cache when it is there.
pub fn cubin(name: &str, source: &str, architecture: &str) -> Result<Vec<u8>> {
    // SAFETY: only tries to open the library; nothing of it is called yet.
    if !unsafe { sys::is_culib_present() } {
        return Err(problem("is not installed"));
    }
    let key = file_name(name, source, architecture, version()?);
    cached(cache_folder().map(|folder| folder.join(key)), || compile(source, architecture))
}

/// What a cubin is kept as: another source, architecture, compiler or program has another name.
fn file_name(name: &str, source: &str, architecture: &str, version: (i32, i32)) -> String {
    let mut hasher = DefaultHasher::new();
    (source, architecture, version, OPTIONS, env!("CARGO_PKG_VERSION")).hash(&mut hasher);
    format!("{}-{architecture}-{:016x}.cubin", name.replace('/', "-"), hasher.finish())
}

/// The cubin kept at `path`, or else the one that `compile` makes, kept from now on.
fn cached(path: Option<PathBuf>, compile: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
    if let Some(bytes) = path
        .as_deref()
        .and_then(|path| std::fs::read(path).ok())
        .filter(|bytes| bytes.starts_with(b"\x7fELF"))
    {
        return Ok(bytes);
    }
    let bytes = compile()?;
    // A cache that cannot be written costs time at the next start and nothing else.
    if let Some(path) = path {
        let _ = keep(&path, &bytes);
    }
    Ok(bytes)
}

fn version() -> Result<(i32, i32)> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: writes two integers, which outlive the call.
    unsafe { sys::nvrtcVersion(&mut major, &mut minor) }.result().map_err(problem)?;
    Ok((major, minor))
}

/// $XDG_CACHE_HOME/tasr or ~/.cache/tasr.
fn cache_folder() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache"))).map(|path| path.join("tasr"))
}

fn keep(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let part = path.with_extension(format!("{}.part", std::process::id()));
    std::fs::write(&part, bytes)?;
    std::fs::rename(&part, path)
}

fn compile(source: &str, architecture: &str) -> Result<Vec<u8>> {
    let text = CString::new(source).map_err(|_| Error::internal("a kernel source holds a zero"))?;
    let program = Program(result::create_program(&text, None).map_err(problem)?);
    let mut options: Vec<String> = OPTIONS.iter().map(|option| option.to_string()).collect();
    options.push(format!("--gpu-architecture={architecture}"));
    // SAFETY: the program is alive; the options hold no zero.
    let done = unsafe { result::compile_program(program.0, &options) };
    if let Err(error) = done {
        // SAFETY: the program is alive.
        let log = unsafe { result::get_program_log(program.0) }.unwrap_or_default();
        let log: Vec<u8> = log.iter().map(|&c| c as u8).collect();
        let log = CStr::from_bytes_until_nul(&log)
            .map(|text| text.to_string_lossy().into_owned())
            .unwrap_or_default();
        return Err(problem(format!("failed for {architecture} ({error}):\n{log}")));
    }
    let mut size = 0;
    // SAFETY: writes one integer.
    unsafe { sys::nvrtcGetCUBINSize(program.0, &mut size) }.result().map_err(problem)?;
    let mut bytes = vec![0u8; size];
    // SAFETY: NVRTC writes the size that it has just told.
    unsafe { sys::nvrtcGetCUBIN(program.0, bytes.as_mut_ptr().cast()) }.result().map_err(problem)?;
    Ok(bytes)
}

/// Destroys itself.
struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: made by `create_program` and destroyed once; a failure only leaks it.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::kernels::MODULES;
    use super::{Error, cached, file_name};

    #[test]
    fn what_is_compiled_is_kept_and_damage_is_compiled_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er").join(file_name("gemm/gemm", "source", "sm_86", (13, 0)));
        let fails = || Err(Error::internal("compiled again"));
        let cubin = b"\x7fELF and more".to_vec();
        assert!(cached(Some(path.clone()), fails).is_err());
        assert_eq!(cached(Some(path.clone()), || Ok(cubin.clone())), Ok(cubin.clone()));
        assert_eq!(cached(Some(path.clone()), fails), Ok(cubin.clone()));
        std::fs::write(&path, "half a file").unwrap();
        assert!(cached(Some(path.clone()), fails).is_err());
        assert_eq!(cached(Some(path.clone()), || Ok(cubin.clone())), Ok(cubin.clone()));
        assert_eq!(std::fs::read(&path).unwrap(), cubin);
        // Without a folder, or in one that cannot be made, it is compiled each time.
        assert_eq!(cached(None, || Ok(cubin.clone())), Ok(cubin.clone()));
        assert_eq!(cached(Some(path.join("below a file")), || Ok(cubin.clone())), Ok(cubin));
    }

    #[test]
    fn whatever_changes_the_code_changes_its_name_in_the_cache() {
        let names = [
            file_name("a/b", "source", "sm_86", (13, 0)),
            file_name("a/b", "Source", "sm_86", (13, 0)),
            file_name("a/b", "source", "sm_89", (13, 0)),
            file_name("a/b", "source", "sm_86", (13, 1)),
            file_name("a/c", "source", "sm_86", (13, 0)),
        ];
        let distinct: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
        assert!(names.iter().all(|name| !name.contains('/') && name.ends_with(".cubin")));
    }

    #[test]
    fn every_source_compiles_without_a_header() {
        // SAFETY: only tries to open the library.
        if !unsafe { super::sys::is_culib_present() } {
            eprintln!("NOT RUN: there is no libnvrtc");
            return;
        }
        for module in MODULES {
            let architectures: &[&str] =
                if module.architectures.is_empty() { &["80", "90a"] } else { module.architectures };
            for architecture in architectures {
                let cubin = super::compile(module.source, &format!("sm_{architecture}"));
                let cubin = cubin.unwrap_or_else(|error| panic!("{}: {error}", module.name));
                assert_eq!(&cubin[..4], b"\x7fELF", "{}", module.name);
            }
        }
    }
}
