//! Finds the kernel files, what they include and which kernels they define.

use std::fs;
use std::path::{Path, PathBuf};

/// One `.cu` file.
pub struct Unit {
    /// "elementwise/diffusion"
    pub name: String,
    pub path: PathBuf,
    /// The file with its includes in place, each once.
    pub source: String,
    /// Names of its kernels, in order.
    pub kernels: Vec<String>,
    /// From a line `// architectures: 90a`; empty for all.
    pub architectures: Vec<String>,
}

impl Unit {
    /// The name as an identifier.
    pub fn identifier(&self) -> String {
        self.name.replace(['/', '-', '.'], "_")
    }
}

/// Every unit below `root/folder`, sorted, without those of `common` and `emulator`.
pub fn units(root: &Path, folder: &Path) -> Result<Vec<Unit>, String> {
    let mut files = Vec::new();
    collect(&root.join(folder), &mut files)?;
    files.sort();
    files.into_iter().map(|path| unit(root, folder, path)).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(format!("{}: {e}", folder.display())),
    };
    for entry in entries {
        let path = entry.map_err(|e| format!("{}: {e}", folder.display()))?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "cu") {
            files.push(path);
        }
    }
    Ok(())
}

fn unit(root: &Path, folder: &Path, path: PathBuf) -> Result<Unit, String> {
    let name = path.strip_prefix(root.join(folder)).unwrap_or(&path).with_extension("");
    let name = name.to_string_lossy().replace('\\', "/");
    let text = read(&path)?;
    let mut source = String::new();
    flatten(&root.join("kernels"), &path, &format!("{name}.cu"), &mut Vec::new(), &mut source)?;
    let architectures = text
        .lines()
        .find_map(|line| line.strip_prefix("// architectures:"))
        .map(|list| list.split_whitespace().map(str::to_string).collect())
        .unwrap_or_default();
    let kernels = kernels(&text).map_err(|why| format!("{}: {why}", path.display()))?;
    Ok(Unit { name, path, source, kernels, architectures })
}

/// The kernels that the KERNEL macros of `text` define.
fn kernels(text: &str) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let Some((head, rest)) = line.split_once('(').filter(|(head, _)| head.starts_with("KERNEL")) else {
            continue;
        };
        let name = rest.split([',', ')']).next().unwrap_or("").trim();
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        {
            return Err(format!("line {}: '{name}' is no kernel name", number + 1));
        }
        let suffixes: &[&str] = match head.trim() {
            "KERNEL" | "KERNEL_RESIDENT_" => &[""],
            "KERNEL_HALF" | "KERNEL_HALF_RESIDENT" => &["_f16", "_bf16"],
            "KERNEL_ALL" => &["_f32", "_f16", "_bf16"],
            other => return Err(format!("line {}: there is no macro {other}", number + 1)),
        };
        found.extend(suffixes.iter().map(|suffix| format!("{name}{suffix}")));
    }
    Ok(found)
}

/// Appends `path` with every `#include "..."` replaced by the file below `kernels`, once each. What the
/// emulator includes is left out.
fn flatten(
    kernels: &Path,
    path: &Path,
    shown: &str,
    seen: &mut Vec<PathBuf>,
    out: &mut String,
) -> Result<(), String> {
    let text = read(path)?;
    out.push_str(&format!("#line 1 \"{shown}\"\n"));
    for (number, line) in text.lines().enumerate() {
        let included = line.trim().strip_prefix("#include \"").and_then(|rest| rest.strip_suffix('"'));
        match included {
            Some(name) if name.starts_with("emulator/") => out.push('\n'),
            Some(name) => {
                let inner = kernels.join(name);
                if !seen.contains(&inner) {
                    seen.push(inner.clone());
                    flatten(kernels, &inner, name, seen, out)?;
                    out.push_str(&format!("#line {} \"{shown}\"\n", number + 2));
                } else {
                    out.push('\n');
                }
            }
            None if line.trim() == "#pragma once" => out.push('\n'),
            None => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    Ok(())
}

pub fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}
