//! Everything that is wrong with a checkpoint, in one error.

use std::fmt::Write;

use super::dtype::Dtype;
use crate::error::{Error, Result};

/// Entries of each kind that are written out; the rest is counted.
const SHOWN: usize = 8;

/// Gathers missing, unexpected and mis-shaped tensors while a network loads.
///
/// ```
/// use tasr::weights::Report;
/// let mut report = Report::new("sd.safetensors");
/// report.missing("out.2.weight", &[4, 320, 3, 3]);
/// report.shape("out.0.bias", &[320], &[640]);
/// let error = report.into_result().unwrap_err().to_string();
/// assert!(error.contains("out.2.weight [4, 320, 3, 3]") && error.contains("[320], found [640]"));
/// ```
#[derive(Clone, Debug)]
pub struct Report {
    label: String,
    missing: Vec<String>,
    shapes: Vec<String>,
    dtypes: Vec<String>,
    unexpected: Vec<String>,
    remedy: Option<String>,
}

impl Report {
    /// `label`: the file, as the user knows it.
    pub fn new(label: impl Into<String>) -> Report {
        Report {
            label: label.into(),
            missing: Vec::new(),
            shapes: Vec::new(),
            dtypes: Vec::new(),
            unexpected: Vec::new(),
            remedy: None,
        }
    }

    /// The file has no tensor `name`, which should have shape `expected`.
    pub fn missing(&mut self, name: &str, expected: &[usize]) {
        self.missing.push(format!("{name} {expected:?}"));
    }

    /// Tensor `name` has another shape.
    pub fn shape(&mut self, name: &str, expected: &[usize], found: &[usize]) {
        self.shapes.push(format!("{name}: expected {expected:?}, found {found:?}"));
    }

    /// Tensor `name` has an element type that cannot serve.
    pub fn dtype(&mut self, name: &str, expected: &str, found: Dtype) {
        self.dtypes.push(format!("{name}: expected {expected}, found {found}"));
    }

    /// The network has no use for tensor `name`.
    pub fn unexpected(&mut self, name: &str) {
        self.unexpected.push(name.to_owned());
    }

    /// What the user should do; by default derived from what was found.
    pub fn remedy(&mut self, remedy: impl Into<String>) {
        self.remedy = Some(remedy.into());
    }

    /// True if nothing was found wrong.
    pub fn is_clean(&self) -> bool {
        self.missing.is_empty()
            && self.shapes.is_empty()
            && self.dtypes.is_empty()
            && self.unexpected.is_empty()
    }

    /// Adds what another part of the same file found.
    pub fn absorb(&mut self, other: Report) {
        self.missing.extend(other.missing);
        self.shapes.extend(other.shapes);
        self.dtypes.extend(other.dtypes);
        self.unexpected.extend(other.unexpected);
        self.remedy = self.remedy.take().or(other.remedy);
    }

    /// # Errors
    /// One error of kind weights that lists all findings, or `Ok` if there are none.
    pub fn into_result(self) -> Result<()> {
        if self.is_clean() {
            return Ok(());
        }
        let kinds = [
            ("missing", &self.missing),
            ("of another shape", &self.shapes),
            ("of another type", &self.dtypes),
            ("unexpected", &self.unexpected),
        ];
        let counts: Vec<_> = kinds
            .iter()
            .filter(|(_, list)| !list.is_empty())
            .map(|(k, l)| format!("{} {k}", l.len()))
            .collect();
        let mut what = format!("the tensors do not fit the network ({})", counts.join(", "));
        for (kind, list) in kinds {
            for entry in list.iter().take(SHOWN) {
                // Writing to a String cannot fail.
                let _ = write!(what, "\n  {kind}: {entry}");
            }
            if list.len() > SHOWN {
                let _ = write!(what, "\n  {kind}: and {} more", list.len() - SHOWN);
            }
        }
        let derived = if self.missing.is_empty() && self.shapes.is_empty() && self.dtypes.is_empty() {
            "the file is of another family or variant: check that it is the right one"
        } else if self.shapes.len() > self.missing.len() {
            "the file is of another size or version of the network: check that it is the right one"
        } else {
            "the file is incomplete or of another network: check that it is the right one"
        };
        let remedy = self.remedy.unwrap_or_else(|| derived.to_owned());
        Err(Error::weights(what + "\n ").at(self.label).fix(remedy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_all_kinds_and_counts_the_rest() {
        let mut report = Report::new("file.ckpt");
        for i in 0..20 {
            report.missing(&format!("a.{i}"), &[i, 2]);
        }
        report.shape("b", &[4, 4], &[4, 8]);
        report.dtype("c", "floating point", Dtype::I64);
        report.unexpected("d");
        let error = report.into_result().expect_err("findings");
        assert_eq!(error.kind(), crate::error::Kind::Weights);
        let text = error.to_string();
        assert!(
            text.starts_with("file.ckpt: the tensors do not fit the network (20 missing, 1 of another shape")
        );
        assert!(text.contains("missing: a.7 [7, 2]") && !text.contains("a.8 "));
        assert!(text.contains("missing: and 12 more"));
        assert!(text.contains("b: expected [4, 4], found [4, 8]"));
        assert!(text.contains("c: expected floating point, found int64"));
        assert!(text.contains("unexpected: d"));
        assert!(text.contains("check that it is the right one"));
    }

    #[test]
    fn nothing_found_is_no_error() {
        assert_eq!(Report::new("x").into_result(), Ok(()));
    }
}
