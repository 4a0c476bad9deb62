//! Runs the program, and what its tests share.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A run that has ended.
pub struct Run {
    command: String,
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  exit code {}\n{}{}", self.command, self.code, self.stdout, self.stderr)
    }
}

/// Runs `tasr` with these arguments.
pub fn tasr<A: AsRef<std::ffi::OsStr>>(args: &[A]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tasr"));
    command.args(args);
    let output = command.output().expect("the program starts");
    Run {
        command: format!("{command:?}"),
        code: output.status.code().expect("no signal ended it"),
        stdout: String::from_utf8(output.stdout).expect("utf-8"),
        stderr: String::from_utf8(output.stderr).expect("utf-8"),
    }
}

/// As [`tasr`], for a run that must succeed.
#[track_caller]
pub fn tasr_ok<A: AsRef<std::ffi::OsStr>>(args: &[A]) -> Run {
    let run = tasr(args);
    assert_eq!(run.code, 0, "{run}");
    run
}

/// A scratch folder, removed at the end.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().expect("folder"))
    }

    /// One that holds the tiny synthetic weights.
    pub fn tiny(dtype: &str) -> Folder {
        let folder = Folder::new();
        tasr_ok(&["synth", "--preset", "tiny", "--dtype", dtype, "-q", "-o", &folder.text("")]);
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("utf-8").to_owned()
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
