//! One tensor of a checkpoint: where its bytes lie and how to read them.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use half::{bf16, f16};
use rayon::prelude::*;

use super::convert::{self, Float};
use super::dtype::Dtype;
use super::mapping::FileMap;
use crate::error::{Error, Result};

/// Values read by one thread at a time.
const PARALLEL_PIECE: usize = 1 << 19;
/// Dimensions a stored tensor may have; networks of this family use at most four.
const MAX_RANK: usize = 16;
/// A view that repeats its storage (an expanded tensor) may have this many elements at most, so that
/// a file of a few bytes cannot demand terabytes.
const MAX_REPEATED: usize = 1 << 20;

/// A strided view into a mapped file.
#[derive(Clone)]
struct Part {
    file: Arc<FileMap>,
    /// Byte offset of element [0, 0, ...] in the file.
    start: usize,
    shape: Vec<usize>,
    /// In elements.
    strides: Vec<usize>,
}

/// A stored tensor: dtype, shape, and one or several mapped views joined along the first axis.
///
/// Several parts arise where one naming splits what another joins (query, key and value matrices).
#[derive(Clone)]
pub struct TensorEntry {
    dtype: Dtype,
    shape: Vec<usize>,
    parts: Vec<Part>,
}

impl TensorEntry {
    /// A view of `shape` and `strides` (elements), first element at byte `offset` of the region
    /// `region` of `file`. The sentence of the error says what is out of bounds.
    pub(crate) fn view(
        file: &Arc<FileMap>,
        region: Range<usize>,
        dtype: Dtype,
        offset: usize,
        shape: Vec<usize>,
        strides: Vec<usize>,
    ) -> std::result::Result<TensorEntry, String> {
        if shape.len() > MAX_RANK {
            return Err(format!("has {} dimensions, at most {MAX_RANK} are possible", shape.len()));
        }
        if shape.len() != strides.len() {
            return Err(format!("has {} sizes but {} strides", shape.len(), strides.len()));
        }
        if region.start > region.end || region.end > file.bytes().len() {
            return Err("lies outside its file".into());
        }
        let space = region.end - region.start;
        let too_large = || format!("of shape {shape:?} is larger than its storage of {space} bytes");
        let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).ok_or_else(too_large)?;
        if count > 0 {
            let last = shape
                .iter()
                .zip(&strides)
                .try_fold(0usize, |at, (d, s)| (d - 1).checked_mul(*s).and_then(|step| at.checked_add(step)));
            let end = last
                .and_then(|last| last.checked_add(1)?.checked_mul(dtype.size())?.checked_add(offset))
                .ok_or_else(too_large)?;
            if end > space || count > (space / dtype.size()).max(MAX_REPEATED) {
                return Err(too_large());
            }
        } else if offset > space {
            return Err(too_large());
        }
        let part =
            Part { file: Arc::clone(file), start: region.start + offset, shape: shape.clone(), strides };
        Ok(TensorEntry { dtype, shape, parts: vec![part] })
    }

    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Sizes, outermost first; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Elements to step per axis; `None` for a tensor that is joined from several parts.
    pub fn strides(&self) -> Option<&[usize]> {
        match self.parts.as_slice() {
            [part] => Some(&part.strides),
            _ => None,
        }
    }

    /// Number of elements.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes of the tensor when stored contiguously in its dtype.
    pub fn byte_len(&self) -> usize {
        self.count() * self.dtype.size()
    }

    /// The file that holds the (first part of the) tensor.
    pub fn source(&self) -> &Path {
        self.parts.first().map_or(Path::new(""), |part| part.file.path())
    }

    /// The mapped bytes, row-major, little-endian, without a copy; `None` if the tensor is strided or
    /// joined from several parts (use [`TensorEntry::read`] then).
    pub fn bytes(&self) -> Option<&[u8]> {
        match self.parts.as_slice() {
            [part] if part.is_contiguous() => part.slice(0, self.byte_len()),
            _ => None,
        }
    }

    /// The values in place, if the tensor is contiguous, of dtype `T` and aligned.
    fn typed<T: Float>(&self) -> Option<&[T]> {
        if self.dtype != T::DTYPE || cfg!(target_endian = "big") {
            return None;
        }
        bytemuck::try_cast_slice(self.bytes()?).ok()
    }

    /// Zero-copy view of a contiguous, aligned float32 tensor.
    pub fn f32s(&self) -> Option<&[f32]> {
        self.typed()
    }

    /// Zero-copy view of a contiguous, aligned float16 tensor.
    pub fn f16s(&self) -> Option<&[f16]> {
        self.typed()
    }

    /// Zero-copy view of a contiguous, aligned bfloat16 tensor.
    pub fn bf16s(&self) -> Option<&[bf16]> {
        self.typed()
    }

    /// Converts the whole tensor to contiguous row-major `T`, in parallel.
    ///
    /// # Errors
    /// The tensor is not floating point, or `out` has another length than [`TensorEntry::count`].
    pub fn read<T: Float>(&self, out: &mut [T]) -> Result<()> {
        if out.len() != self.count() {
            return Err(Error::internal(format!(
                "{} values cannot be read into a buffer of {}",
                self.count(),
                out.len()
            )));
        }
        if out.len() <= PARALLEL_PIECE {
            return self.read_at(0, out);
        }
        out.par_chunks_mut(PARALLEL_PIECE)
            .enumerate()
            .try_for_each(|(i, piece)| self.read_at(i * PARALLEL_PIECE, piece))
    }

    /// Converts `out.len()` values from row-major position `first` on.
    ///
    /// # Errors
    /// The tensor is not floating point, or the range goes past its end.
    pub fn read_at<T: Float>(&self, first: usize, out: &mut [T]) -> Result<()> {
        if !self.dtype.is_float() {
            return Err(Error::weights(format!("the tensor holds {}, not floating point", self.dtype))
                .at(self.source().display().to_string()));
        }
        let dtype = self.dtype;
        self.walk(first, out.len(), |bytes, at, count| {
            convert::floats(dtype, bytes, &mut out[at..at + count]);
        })
    }

    /// Copies the stored values, unconverted but contiguous row-major, from position `first` on.
    ///
    /// # Errors
    /// `out` is no whole number of elements, or the range goes past the end.
    pub fn copy_at(&self, first: usize, out: &mut [u8]) -> Result<()> {
        let size = self.dtype.size();
        if !out.len().is_multiple_of(size) {
            return Err(Error::internal(format!(
                "{} bytes are no whole number of {}",
                out.len(),
                self.dtype
            )));
        }
        self.walk(first, out.len() / size, |bytes, at, count| {
            out[at * size..(at + count) * size].copy_from_slice(bytes);
        })
    }

    /// Calls `run(bytes, at, count)` for every run of adjacent elements of `first..first + count`,
    /// where `at` is the run's position relative to `first`.
    fn walk(&self, first: usize, count: usize, mut run: impl FnMut(&[u8], usize, usize)) -> Result<()> {
        let past_end = || Error::internal(format!("values {first}..{first}+{count} are outside the tensor"));
        if first.checked_add(count).is_none_or(|end| end > self.count()) {
            return Err(past_end());
        }
        let (mut skip, mut done) = (first, 0);
        for part in &self.parts {
            let size = part.count();
            if skip >= size {
                skip -= size;
                continue;
            }
            let here = (size - skip).min(count - done);
            part.walk(self.dtype.size(), skip, here, |bytes, at, n| run(bytes, done + at, n))
                .ok_or_else(past_end)?;
            done += here;
            skip = 0;
            if done == count {
                break;
            }
        }
        Ok(())
    }

    /// Gives the tensor's pages back to the system, after its values were converted: loading then
    /// never holds both copies. Slices stay valid; reading again loads the pages again.
    pub fn release(&self) {
        for part in &self.parts {
            part.file.release(part.start, part.span() * self.dtype.size());
        }
    }

    /// The same values with axes of size 1 added or removed at the end, so that the tensor has `rank`
    /// axes; `None` if a removed axis is not 1.
    pub(crate) fn with_rank(&self, rank: usize) -> Option<TensorEntry> {
        let mut entry = self.clone();
        let fit = |shape: &mut Vec<usize>| {
            let ones = shape.iter().skip(rank).all(|d| *d == 1);
            shape.resize(rank, 1);
            ones
        };
        if !fit(&mut entry.shape) {
            return None;
        }
        for part in &mut entry.parts {
            fit(&mut part.shape);
            part.strides.resize(rank, 1);
        }
        Some(entry)
    }

    /// Rows `range` of the first axis.
    pub(crate) fn rows(&self, range: Range<usize>) -> Option<TensorEntry> {
        if range.start > range.end || range.end > *self.shape.first()? {
            return None;
        }
        let mut shape = self.shape.clone();
        shape[0] = range.end - range.start;
        let mut parts = Vec::new();
        let mut row = 0;
        for part in &self.parts {
            let (from, to) = (range.start.max(row), range.end.min(row + part.shape[0]));
            if from < to {
                let mut cut = part.clone();
                cut.start += (from - row) * part.strides[0] * self.dtype.size();
                cut.shape[0] = to - from;
                parts.push(cut);
            }
            row += part.shape[0];
        }
        if parts.is_empty() {
            let mut empty = self.parts.first()?.clone();
            empty.shape[0] = 0;
            parts.push(empty);
        }
        Some(TensorEntry { dtype: self.dtype, shape, parts })
    }

    /// The tensors stacked along the first axis; the sentence of the error says what differs.
    pub(crate) fn joined(entries: &[&TensorEntry]) -> std::result::Result<TensorEntry, String> {
        let [first, rest @ ..] = entries else { return Err("nothing to join".into()) };
        let mut whole = (*first).clone();
        for next in rest {
            if next.dtype != whole.dtype {
                return Err(format!("one is {}, another {}", whole.dtype, next.dtype));
            }
            if whole.shape.is_empty() || next.shape.get(1..) != whole.shape.get(1..) {
                return Err(format!("one has shape {:?}, another {:?}", first.shape, next.shape));
            }
            whole.shape[0] = whole.shape[0].checked_add(next.shape[0]).ok_or("too many rows")?;
            whole.parts.extend(next.parts.iter().cloned());
        }
        Ok(whole)
    }
}

impl Part {
    fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Elements from the first to the last one, both included.
    fn span(&self) -> usize {
        if self.count() == 0 {
            return 0;
        }
        1 + self.shape.iter().zip(&self.strides).map(|(d, s)| (d - 1) * s).sum::<usize>()
    }

    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        for (d, s) in self.shape.iter().zip(&self.strides).rev() {
            if *d != 1 && *s != expected {
                return self.count() == 0;
            }
            expected *= d;
        }
        true
    }

    fn slice(&self, offset: usize, len: usize) -> Option<&[u8]> {
        let start = self.start.checked_add(offset)?;
        self.file.bytes().get(start..start.checked_add(len)?)
    }

    /// Runs of adjacent elements of `first..first + count`, see [`TensorEntry::walk`].
    fn walk(
        &self,
        size: usize,
        first: usize,
        count: usize,
        mut run: impl FnMut(&[u8], usize, usize),
    ) -> Option<()> {
        if count == 0 {
            return Some(());
        }
        if self.is_contiguous() {
            run(self.slice(first * size, count * size)?, 0, count);
            return Some(());
        }
        let (width, step) = (*self.shape.last()?, *self.strides.last()?);
        let outer = self.shape.len() - 1;
        let mut done = 0;
        while done < count {
            let (mut row, column) = ((first + done) / width, (first + done) % width);
            let mut at = column * step;
            for axis in (0..outer).rev() {
                at += (row % self.shape[axis]) * self.strides[axis];
                row /= self.shape[axis];
            }
            let n = (width - column).min(count - done);
            if step == 1 {
                run(self.slice(at * size, n * size)?, done, n);
            } else {
                for i in 0..n {
                    run(self.slice((at + i * step) * size, size)?, done + i, 1);
                }
            }
            done += n;
        }
        Some(())
    }
}
