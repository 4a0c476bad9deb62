//! Runs the program as a user does.

use std::fmt;
use std::path::PathBuf;
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
    command
        .env("NO_PROXY", "127.0.0.1") // what a test serves is not asked for elsewhere
        .args(args);
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

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("utf-8").to_owned()
    }
}
