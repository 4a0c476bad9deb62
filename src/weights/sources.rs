//! What layers load from: a checkpoint, synthetic values, or nothing but a list of names.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;

use super::{Checkpoint, Report, synthetic};
use crate::error::Result;
use crate::nn::Source;

/// A checkpoint as a source. Problems are gathered; [`CheckpointSource::finish`] reports them together.
pub struct CheckpointSource<'a> {
    file: &'a Checkpoint,
    report: RefCell<Report>,
    used: RefCell<BTreeSet<String>>,
}

impl<'a> CheckpointSource<'a> {
    pub fn new(file: &'a Checkpoint) -> Self {
        let report = RefCell::new(Report::new(file.label()));
        CheckpointSource { file, report, used: RefCell::default() }
    }

    /// The file, as the user knows it.
    pub fn label(&self) -> &str {
        self.file.label()
    }

    /// Ends the loading of the networks under `prefixes`: whatever lies there and was not expected is
    /// reported with what was missing or mis-shaped.
    ///
    /// # Errors
    /// One error that lists all problems.
    pub fn finish(self, prefixes: &[&str]) -> Result<()> {
        let (mut report, used) = (self.report.into_inner(), self.used.into_inner());
        for name in self.file.names() {
            if prefixes.iter().any(|prefix| name.starts_with(prefix)) && !used.contains(name) {
                report.unexpected(name);
            }
        }
        report.into_result()
    }
}

impl Source for CheckpointSource<'_> {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.file.get(name).map(|entry| entry.shape().to_vec())
    }

    fn expect(&self, name: &str, shape: &[usize]) -> bool {
        let first = self.used.borrow_mut().insert(name.to_owned());
        let mut report = self.report.borrow_mut();
        match self.file.get(name) {
            Some(entry) if entry.shape() == shape && entry.dtype().is_float() => return true,
            // A name asked for twice is one problem.
            _ if !first => {}
            None => report.missing(name, shape),
            Some(entry) if entry.shape() != shape => report.shape(name, shape, entry.shape()),
            Some(entry) => report.dtype(name, "a float", entry.dtype()),
        }
        false
    }

    fn values(&self, name: &str, shape: &[usize]) -> Result<Cow<'_, [f32]>> {
        if let Some(values) = self.file.bytes_f32_le(name) {
            return Ok(Cow::Borrowed(values));
        }
        let mut values = vec![0.0; shape.iter().product()];
        self.file.read_f32(name, &mut values)?;
        Ok(Cow::Owned(values))
    }

    fn release(&self, name: &str) {
        self.file.release(name);
    }
}

/// Weights that are pure functions of their names; see [`synthetic`].
#[derive(Debug, Default)]
pub struct SyntheticSource;

impl Source for SyntheticSource {
    fn shape(&self, _name: &str) -> Option<Vec<usize>> {
        None
    }

    fn expect(&self, _name: &str, _shape: &[usize]) -> bool {
        true
    }

    fn values(&self, name: &str, shape: &[usize]) -> Result<Cow<'_, [f32]>> {
        let mut values = vec![0.0; shape.iter().product()];
        synthetic::fill(name, shape, &mut values);
        Ok(Cow::Owned(values))
    }
}

/// Writes down what networks expect: loaded from on the planning device, it lists their tensors.
#[derive(Debug, Default)]
pub struct Manifest {
    tensors: RefCell<Vec<(String, Vec<usize>)>>,
}

impl Manifest {
    /// Names and shapes in the order of loading.
    pub fn into_tensors(self) -> Vec<(String, Vec<usize>)> {
        self.tensors.into_inner()
    }
}

impl Source for Manifest {
    fn shape(&self, _name: &str) -> Option<Vec<usize>> {
        None
    }

    fn expect(&self, name: &str, shape: &[usize]) -> bool {
        self.tensors.borrow_mut().push((name.to_owned(), shape.to_vec()));
        true
    }

    fn values(&self, _name: &str, shape: &[usize]) -> Result<Cow<'_, [f32]>> {
        Ok(Cow::Owned(vec![0.0; shape.iter().product()]))
    }
}
