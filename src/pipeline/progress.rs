//! What a long run tells about itself, and how it is told to stop.
//!
//! The pipeline reports to a trait object, so that it neither knows nor imports the command line.

use crate::error::{Error, Result};

/// How a file ended.
#[derive(Clone, Copy, Debug)]
pub enum FileEnd<'a> {
    /// Done; `output` is the path written.
    Written { output: &'a str },
    /// Left alone, because of `why`.
    Skipped { why: &'a str },
    /// Could not be done; the run goes on.
    Failed { error: &'a Error },
}

/// Receives the events of a run. Methods take `&self`: decoding and encoding report from threads of their own.
///
/// Files may overlap: a batch begins several before it ends them. Steps belong to the files that are open.
pub trait Progress: Send + Sync {
    /// A run over `files` files starts.
    fn begin_run(&self, files: usize);

    /// Work on the file `name` starts.
    fn begin_file(&self, name: &str);

    /// A stage of `total` equal steps starts; it replaces the previous stage. `stage` says what is being done:
    /// "denoising", "decoding".
    fn steps(&self, stage: &str, total: usize);

    /// One step of the stage is done.
    fn step(&self);

    /// Work on `name` has ended.
    fn end_file(&self, name: &str, end: FileEnd<'_>);

    /// One sentence that the user should read: a fallback taken, the memory planned for.
    fn note(&self, text: &str);

    /// Called between steps; an error stops the run there.
    ///
    /// # Errors
    /// [`Error::interrupted`] once the user has asked to stop.
    fn check_interrupt(&self) -> Result<()>;
}

/// Says nothing and never stops: for tests and for use as a library.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin_run(&self, _files: usize) {}
    fn begin_file(&self, _name: &str) {}
    fn steps(&self, _stage: &str, _total: usize) {}
    fn step(&self) {}
    fn end_file(&self, _name: &str, _end: FileEnd<'_>) {}
    fn note(&self, _text: &str) {}
    fn check_interrupt(&self) -> Result<()> {
        Ok(())
    }
}
