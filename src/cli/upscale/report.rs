//! How the files of a run ended: told as progress, counted, printed as JSON.

use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::image::Job;
use crate::pipeline::progress::{FileEnd, Progress};

/// Counts of what became of the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub written: usize,
    pub skipped: usize,
    pub failed: usize,
}

/// Shared by the threads of a run.
pub struct Report<'a> {
    progress: &'a dyn Progress,
    json: bool,
    /// a file that fails ends the run
    strict: bool,
    seed: Option<u64>,
    start: Instant,
    counts: Mutex<Counts>,
}

impl<'a> Report<'a> {
    pub fn new(progress: &'a dyn Progress, json: bool, strict: bool, seed: Option<u64>) -> Report<'a> {
        Report { progress, json, strict, seed, start: Instant::now(), counts: Mutex::default() }
    }

    /// Where progress is told.
    pub fn progress(&self) -> &'a dyn Progress {
        self.progress
    }

    /// What has been counted so far.
    pub fn counts(&self) -> Counts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, add: impl FnOnce(&mut Counts)) {
        add(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The output is whole on the disk; `size` is its width and height.
    pub fn written(&self, job: &Job, size: [usize; 2], seconds: f64) {
        self.count(|counts| counts.written += 1);
        let (input, output) = names(job);
        self.print(|| {
            json!({"input": input, "output": output, "status": "written", "width": size[0], "height": size[1],
                "seconds": rounded(seconds), "seed": self.seed})
        });
        self.progress.end_file(&input, FileEnd::Written { output: &output });
    }

    /// The output was there.
    pub fn skipped(&self, job: &Job) {
        self.count(|counts| counts.skipped += 1);
        let (input, output) = names(job);
        self.print(|| json!({"input": input, "output": output, "status": "skipped"}));
        let why = format!("{output} is there (--overwrite makes it anew)");
        self.progress.end_file(&input, FileEnd::Skipped { why: &why });
    }

    /// Whether a file that fails ends the run: it is the only one, or rows of files stand for pictures.
    pub fn is_strict(&self) -> bool {
        self.strict
    }

    /// The file could not be done; `ends` if the run cannot go on.
    ///
    /// # Errors
    /// Gives `error` back when it ends the run.
    pub fn failed(&self, job: &Job, error: Error, ends: bool) -> Result<()> {
        self.count(|counts| counts.failed += 1);
        let (input, _) = names(job);
        let error = match error.to_string().contains(&input) {
            true => error,
            false => error.at(input.clone()),
        };
        self.print(|| json!({"input": input, "status": "failed", "error": error.to_string()}));
        if self.strict || ends {
            return Err(error);
        }
        self.progress.end_file(&input, FileEnd::Failed { error: &error });
        Ok(())
    }

    /// The last line.
    pub fn summary(&self) {
        let Counts { written, skipped, failed } = self.counts();
        let seconds = rounded(self.start.elapsed().as_secs_f64());
        self.print(|| json!({"written": written, "skipped": skipped, "failed": failed, "seconds": seconds}));
    }

    fn print(&self, line: impl FnOnce() -> Value) {
        if self.json {
            // A reader that has gone away must not stop the run.
            let _ = writeln!(std::io::stdout().lock(), "{}", line());
        }
    }
}

fn names(job: &Job) -> (String, String) {
    (job.input.display().to_string(), job.output.display().to_string())
}

fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}
