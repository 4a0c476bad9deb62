//! The rules of `docs/architecture.md` that a machine can check: imports point one way, and only the
//! device floor knows CUDA.

use std::fs;
use std::path::{Path, PathBuf};

/// Floors from top to bottom; a floor may import those below it, never one beside it.
const LEVELS: [&[&str]; 10] = [
    &["cli"],
    &["train"],
    &["metrics", "pipeline", "scenes"],
    &["models", "sampler", "weights", "image"],
    &["nn"],
    &["ops"],
    &["autograd"],
    &["tensor"],
    &["device"],
    &["error"],
];

fn level(floor: &str) -> Option<usize> {
    LEVELS.iter().position(|names| names.contains(&floor))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Floors named by `crate::FLOOR` in code, comments left out.
fn imports(text: &str) -> Vec<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut found = Vec::new();
    for line in code {
        for rest in line.split("crate::").skip(1) {
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if level(&name).is_some() {
                found.push(name);
            } else if rest.starts_with('{') {
                panic!("a grouped import from the crate root hides its floors: {line}");
            }
        }
    }
    found
}

#[test]
fn imports_point_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for path in files {
        let relative = path.strip_prefix(&root).unwrap();
        let first = relative.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
        let floor = first.trim_end_matches(".rs");
        let Some(own) = level(floor) else {
            assert!(["main", "lib"].contains(&floor), "{} is on no floor", relative.display());
            continue;
        };
        let text = fs::read_to_string(&path).unwrap();
        for import in imports(&text) {
            seen += 1;
            let target = level(&import).unwrap();
            if import != floor && target <= own {
                wrong.push(format!("{} imports {import}", relative.display()));
            }
        }
        if text.contains("cudarc::") && floor != "device" {
            wrong.push(format!("{} touches cudarc", relative.display()));
        }
    }
    assert!(seen > 100, "only {seen} imports were found: the scan is broken");
    assert!(wrong.is_empty(), "imports against the rule of docs/architecture.md:\n{}", wrong.join("\n"));
}

#[test]
fn the_scan_sees_what_it_should() {
    let text = "use crate::ops::Cx;\n// use crate::cli::x;\nlet x = crate::weights::Dtype::F32;\nuse crate::error::{Error};";
    assert_eq!(imports(text), ["ops", "weights", "error"]);
}
