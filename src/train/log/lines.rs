//! The log of a run as JSON lines.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::image::write_whole;

/// A file of one JSON object a line, each with a `step`.
pub struct LineFile {
    path: PathBuf,
    file: File,
}

impl LineFile {
    /// Opens `path` to go on behind `step`: later lines, which a run that was cut off may have left, are dropped.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn resume(path: &Path, step: u64) -> Result<Self> {
        if path.exists() {
            let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, &e))?;
            let kept: String = text.split_inclusive('\n').filter(|line| is_kept(line, step)).collect();
            if kept.len() != text.len() {
                write_whole(path, kept.as_bytes())?;
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(path);
        Ok(LineFile { path: path.to_owned(), file: file.map_err(|e| Error::io("open", path, &e))? })
    }

    /// Adds one line.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&mut self, value: &Value) -> Result<()> {
        // One call, so that a line is there whole or not at all as far as the system can help it.
        self.file.write_all(format!("{value}\n").as_bytes()).map_err(|e| Error::io("write", &self.path, &e))
    }
}

/// Whether a line is whole and not beyond `step`.
fn is_kept(line: &str, step: u64) -> bool {
    let value: Option<Value> = line.strip_suffix('\n').and_then(|line| serde_json::from_str(line).ok());
    value.and_then(|value| value.get("step")?.as_u64()).is_some_and(|at| at <= step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_behind_the_checkpoint_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        let mut log = LineFile::resume(&path, 0).unwrap();
        (1..=5).for_each(|step| log.write(&json!({"step": step, "loss": 0.5})).unwrap());
        log.file.write_all(b"{\"step\": 6, \"lo").unwrap();
        let mut log = LineFile::resume(&path, 3).unwrap();
        log.write(&json!({"step": 4})).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let steps: Vec<u64> = text
            .lines()
            .map(|l| serde_json::from_str::<Value>(l).unwrap()["step"].as_u64().unwrap())
            .collect();
        assert_eq!(steps, [1, 2, 3, 4]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
