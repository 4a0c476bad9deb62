//! What a run tells in the end: files written, skipped, failed; JSON lines; the exit code.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::cli::progress::Reporter;
use crate::error::{Error, Result};
use crate::image::Job;
use crate::pipeline::progress::{FileEnd, Progress};

#[derive(Default)]
struct Counts {
    written: usize,
    skipped: usize,
    failed: usize,
    /// the first failure of a kind decides the exit code
    first: Option<Error>,
}

/// Counts how files end, and says it.
pub struct Tally<'a> {
    progress: &'a Reporter,
    json: bool,
    counts: Mutex<Counts>,
}

impl<'a> Tally<'a> {
    pub fn new(progress: &'a Reporter, json: bool) -> Self {
        Tally { progress, json, counts: Mutex::default() }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, value: Value) {
        if self.json {
            println!("{value}");
        }
    }

    /// The output was there.
    pub fn skipped(&self, job: &Job) {
        let (input, output) = (job.input.display().to_string(), job.output.display().to_string());
        self.counts().skipped += 1;
        self.progress.begin_file(&input);
        self.progress
            .end_file(&input, FileEnd::Skipped { why: "its output exists; --overwrite makes it anew" });
        self.line(json!({"input": input, "output": output, "status": "skipped"}));
    }

    /// The picture could not be made; it had begun.
    pub fn failed(&self, job: &Job, error: &Error) {
        let input = job.input.display().to_string();
        let mut counts = self.counts();
        counts.failed += 1;
        counts.first.get_or_insert_with(|| error.clone());
        drop(counts);
        self.progress.end_file(&input, FileEnd::Failed { error });
        self.line(json!({"input": input, "status": "failed", "error": error.to_string()}));
    }

    /// Writing ended with notes or an error; `parameters` made the picture.
    pub fn written(&self, job: &Job, written: Result<Vec<String>>, parameters: Value, seconds: f64) {
        match written {
            Err(error) => self.failed(job, &error),
            Ok(notes) => {
                let (input, output) = (job.input.display().to_string(), job.output.display().to_string());
                self.counts().written += 1;
                notes.iter().for_each(|note| self.progress.note(note));
                self.progress.end_file(&input, FileEnd::Written { output: &output });
                self.line(json!({
                    "input": input, "output": output, "status": "written", "seconds": seconds,
                    "seed": parameters["seed"], "parameters": parameters,
                }));
            }
        }
    }

    /// The end of the run: `stopped` is what ended it early.
    ///
    /// # Errors
    /// What stopped the run, or that files failed.
    pub fn finish(&self, stopped: Result<()>) -> Result<()> {
        let counts = self.counts();
        let Counts { written, skipped, failed, .. } = *counts;
        self.line(json!({"written": written, "skipped": skipped, "failed": failed}));
        stopped?;
        match &counts.first {
            None => Ok(()),
            // One picture was asked for: its own error is the answer, said once, in the end.
            Some(error) if written + skipped + failed == 1 => Err(error.clone()),
            Some(error) => Err(Error::new(
                error.kind(),
                format!("{failed} of {} files failed, see above", written + skipped + failed),
            )),
        }
    }
}
