//! Writing intermediate tensors out, under the names that the goldens have.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::weights::Dtype;
use crate::weights::write::{TensorSpec, Writer};

/// What the rows of a traced tensor are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// One an image.
    Images,
    /// The positive prompt's rows of all images, then the negative's.
    Guided,
}

/// Receives intermediate values. The pipeline asks first, so that nothing is copied in vain.
pub trait Trace {
    /// Whether `name` is to be kept.
    fn wants(&self, name: &str) -> bool;

    /// Whether anything is to be kept.
    fn is_on(&self) -> bool;

    /// A tensor; images are [N, H, W, C].
    fn tensor(&mut self, name: &str, value: &Tensor, rows: Rows) -> Result<()>;

    /// Integers or bytes, which f32 holds exactly, as `dtype`.
    fn integers(&mut self, name: &str, shape: &[usize], values: &[f32], dtype: Dtype) -> Result<()>;
}

/// Keeps nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTrace;

impl Trace for NoTrace {
    fn wants(&self, _name: &str) -> bool {
        false
    }
    fn is_on(&self) -> bool {
        false
    }
    fn tensor(&mut self, _name: &str, _value: &Tensor, _rows: Rows) -> Result<()> {
        Ok(())
    }
    fn integers(&mut self, _name: &str, _shape: &[usize], _values: &[f32], _dtype: Dtype) -> Result<()> {
        Ok(())
    }
}

/// A kept tensor in the making: rows of the positive half, rows of the negative half.
#[derive(Debug)]
struct Kept {
    /// shape of one row, NCHW
    row: Vec<usize>,
    halves: [Vec<f32>; 2],
    dtype: Dtype,
}

/// Collects tensors, NCHW, the batches of a run one after the other, and writes them to one file.
#[derive(Debug, Default)]
pub struct TraceFile {
    patterns: Vec<String>,
    kept: BTreeMap<String, Kept>,
}

impl TraceFile {
    /// Keeps the names that match one of `patterns`, in which `*` stands for any text and `?` for one
    /// character; everything when there are none.
    pub fn new(patterns: Vec<String>) -> Self {
        TraceFile { patterns, kept: BTreeMap::new() }
    }

    /// Shape and values of everything kept, by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, Vec<usize>, Vec<f32>)> {
        self.kept.iter().map(|(name, kept)| (name.as_str(), kept.shape(), kept.halves.concat()))
    }

    /// Writes a safetensors file, with `metadata` in its header.
    ///
    /// # Errors
    /// The file cannot be written; the old one is then left alone.
    pub fn write(&self, path: &Path, metadata: &BTreeMap<String, String>) -> Result<()> {
        let specs: Vec<TensorSpec> =
            self.kept.iter().map(|(name, kept)| TensorSpec::new(name, kept.dtype, &kept.shape())).collect();
        let mut writer = Writer::create(path, specs, metadata)?;
        for (name, kept) in &self.kept {
            let values = kept.halves.concat();
            match kept.dtype {
                Dtype::I32 => {
                    let bytes: Vec<u8> = values.iter().flat_map(|&v| (v as i32).to_le_bytes()).collect();
                    writer.write_bytes(name, &bytes)?;
                }
                Dtype::U8 => {
                    let bytes: Vec<u8> = values.iter().map(|&v| v as u8).collect();
                    writer.write_bytes(name, &bytes)?;
                }
                _ => writer.write_f32(name, &values)?,
            }
        }
        writer.finish().map(|_| ())
    }

    fn add(&mut self, name: &str, row: Vec<usize>, halves: [&[f32]; 2], dtype: Dtype) -> Result<()> {
        let kept = self.kept.entry(name.to_owned()).or_insert_with(|| Kept {
            row: row.clone(),
            halves: [Vec::new(), Vec::new()],
            dtype,
        });
        if kept.row != row {
            return Err(Error::usage(format!(
                "{name} is {:?} for one image and {row:?} for another",
                kept.row
            ))
            .at("--trace")
            .fix("trace images of one size"));
        }
        kept.halves.iter_mut().zip(halves).for_each(|(all, new)| all.extend_from_slice(new));
        Ok(())
    }
}

impl Kept {
    fn shape(&self) -> Vec<usize> {
        let rows = (self.halves[0].len() + self.halves[1].len()) / self.row.iter().product::<usize>().max(1);
        [&[rows], &self.row[..]].concat()
    }
}

impl Trace for TraceFile {
    fn is_on(&self) -> bool {
        true
    }

    fn wants(&self, name: &str) -> bool {
        self.patterns.is_empty()
            || self.patterns.iter().any(|pattern| matches(pattern.as_bytes(), name.as_bytes()))
    }

    fn tensor(&mut self, name: &str, value: &Tensor, rows: Rows) -> Result<()> {
        let values = value.to_f32()?;
        let shape = value.shape();
        let (row, values) = match *shape {
            [n, h, w, c] => (vec![c, h, w], to_nchw(&values, [n, h, w, c])),
            _ => (shape[1..].to_vec(), values),
        };
        let half = match rows {
            Rows::Images => values.len(),
            Rows::Guided => values.len() / 2,
        };
        let (positive, negative) = values.split_at(half);
        self.add(name, row, [positive, negative], Dtype::F32)
    }

    fn integers(&mut self, name: &str, shape: &[usize], values: &[f32], dtype: Dtype) -> Result<()> {
        self.add(name, shape[1..].to_vec(), [values, &[]], dtype)
    }
}

/// [N, H, W, C] -> [N, C, H, W]
pub(super) fn to_nchw(values: &[f32], [n, h, w, c]: [usize; 4]) -> Vec<f32> {
    let mut planes = vec![0.0; n * h * w * c];
    for (image, pixels) in values.chunks_exact((h * w * c).max(1)).enumerate() {
        for (place, pixel) in pixels.chunks_exact(c).enumerate() {
            for (channel, &value) in pixel.iter().enumerate() {
                planes[(image * c + channel) * h * w + place] = value;
            }
        }
    }
    planes
}

/// [N, C, H, W] -> [N, H, W, C]
pub(super) fn to_nhwc(values: &[f32], [n, c, h, w]: [usize; 4]) -> Vec<f32> {
    let mut pixels = vec![0.0; n * c * h * w];
    for (index, plane) in values.chunks_exact((h * w).max(1)).enumerate() {
        let (image, channel) = (index / c, index % c);
        for (place, &value) in plane.iter().enumerate() {
            pixels[(image * h * w + place) * c + channel] = value;
        }
    }
    pixels
}

/// Shell-like match with `*` and `?`.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.first(), text.first()) {
        (None, None) => true,
        (Some(b'*'), _) => {
            matches(&pattern[1..], text) || text.split_first().is_some_and(|(_, rest)| matches(pattern, rest))
        }
        (Some(b'?'), Some(_)) => matches(&pattern[1..], &text[1..]),
        (Some(a), Some(b)) if a == b => matches(&pattern[1..], &text[1..]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_like_a_shell() {
        let file = TraceFile::new(vec!["step*.map.?".into(), "final".into()]);
        assert!(file.wants("step12.map.3") && file.wants("final"));
        assert!(!file.wants("step1.map.12") && !file.wants("finals") && !file.wants("step1.eps"));
        assert!(TraceFile::default().wants("anything"));
    }

    #[test]
    fn guided_rows_of_two_batches_keep_the_halves_apart() {
        let device = crate::device::Device::cpu();
        let mut file = TraceFile::default();
        for (positive, negative) in [(1.0, -1.0), (2.0, -2.0)] {
            let both = Tensor::from_f32(&device, &[positive, negative], [2, 1, 1, 1]).unwrap();
            file.tensor("map", &both, Rows::Guided).unwrap();
        }
        let (_, shape, values) = file.tensors().next().unwrap();
        assert_eq!((shape, values), (vec![4, 1, 1, 1], vec![1.0, 2.0, -1.0, -2.0]));
        let other = Tensor::from_f32(&device, &[0.0; 4], [1, 2, 2, 1]).unwrap();
        assert!(file.tensor("map", &other, Rows::Images).is_err());
    }

    #[test]
    fn layouts_are_inverse() {
        let values: Vec<f32> = (0..2 * 3 * 4 * 5).map(|v| v as f32).collect();
        let planes = to_nchw(&values, [2, 3, 4, 5]);
        assert_eq!(planes[1], 5.0);
        assert_eq!(to_nhwc(&planes, [2, 5, 3, 4]), values);
    }
}
