//! Runs the program, and what its tests share.

#[path = "../support/program.rs"]
mod shared;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use shared::*;

impl Folder {
    /// One that holds the tiny synthetic weights.
    pub fn tiny(dtype: &str) -> Folder {
        let folder = Folder::new();
        tasr_ok(&["synth", "--preset", "tiny", "--dtype", dtype, "-q", "-o", &folder.text("")]);
        folder
    }
}

/// Names (behind `prefix`) and shapes of a published file.
pub fn published(name: &str, prefix: &str) -> BTreeSet<(String, Vec<usize>)> {
    manifest("keys", name, prefix)
}

/// Names and shapes that the reference has.
pub fn recorded(name: &str) -> BTreeSet<(String, Vec<usize>)> {
    manifest("synth", name, "")
}

fn manifest(folder: &str, name: &str, prefix: &str) -> BTreeSet<(String, Vec<usize>)> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let file = File::open(fixtures.join(folder).join(format!("{name}.txt.gz"))).expect("fixture");
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("gzip");
    let line = |line: &str| {
        let mut words = line.split(' ');
        let (name, _dtype, shape) = (words.next()?, words.next()?, words.next()?);
        let sizes = shape.split('x').filter(|size| !size.is_empty());
        Some((format!("{prefix}{name}"), sizes.map(|size| size.parse().expect("size")).collect()))
    };
    text.lines().map(|text| line(text).expect("name, dtype and shape")).collect()
}
