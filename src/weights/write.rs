//! Writing safetensors files tensor by tensor, never the whole in memory.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use half::{bf16, f16};

use super::convert::Float;
use super::dtype::Dtype;
use super::entry::TensorEntry;
use super::space::require_space;
use crate::error::{Error, Result};

/// Values converted at a time.
const PIECE: usize = 1 << 20;
/// The longest header that readers of the format accept.
const MAX_HEADER: usize = 100_000_000;

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
}

impl TensorSpec {
    pub fn new(name: impl Into<String>, dtype: Dtype, shape: &[usize]) -> TensorSpec {
        TensorSpec { name: name.into(), dtype, shape: shape.to_vec() }
    }

    fn byte_len(&self) -> Option<u64> {
        self.shape.iter().try_fold(self.dtype.size() as u64, |n, d| n.checked_mul(u64::try_from(*d).ok()?))
    }
}

/// A safetensors file in the making, under a temporary name until [`Writer::finish`].
///
/// All tensors are announced first; then each is written once, in any order. Without `finish` nothing
/// remains.
pub struct Writer {
    file: File,
    target: PathBuf,
    temporary: Temporary,
    specs: Vec<TensorSpec>,
    /// By name: position among `specs` and in the file.
    places: HashMap<String, (usize, u64)>,
    written: HashSet<usize>,
    overflowed: Vec<String>,
}

impl Writer {
    /// Starts `path`. Tensors lie in the order of `specs`, wider element types first so that all are
    /// aligned.
    ///
    /// # Errors
    /// A name occurs twice, a shape overflows, the disk has not enough room, or the file cannot be made.
    pub fn create(
        path: &Path,
        specs: Vec<TensorSpec>,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Writer> {
        let place = || path.display().to_string();
        let mut order: Vec<usize> = (0..specs.len()).collect();
        order.sort_by_key(|i| std::cmp::Reverse(specs[*i].dtype.size()));
        let mut places = HashMap::new();
        let mut at = 0u64;
        let mut header = String::from("{");
        if !metadata.is_empty() {
            push_entry(&mut header, "__metadata__", &serde_json::json!(metadata));
        }
        for i in order {
            let spec = &specs[i];
            let end = spec.byte_len().and_then(|n| at.checked_add(n)).ok_or_else(|| {
                Error::internal(format!("shape {:?} is too large", spec.shape)).at(spec.name.clone())
            })?;
            if spec.name == "__metadata__" || places.insert(spec.name.clone(), (i, at)).is_some() {
                return Err(Error::weights("two tensors of this name cannot be written").at(format!(
                    "{}: {}",
                    place(),
                    spec.name
                )));
            }
            let info = serde_json::json!({
                "dtype": spec.dtype.safetensors_name(), "shape": spec.shape, "data_offsets": [at, end],
            });
            push_entry(&mut header, &spec.name, &info);
            at = end;
        }
        header.push('}');
        while !header.len().is_multiple_of(8) {
            header.push(' ');
        }
        if header.len() > MAX_HEADER {
            return Err(Error::weights(format!(
                "the header would need {} bytes, the format allows {MAX_HEADER}",
                header.len()
            ))
            .at(place()));
        }
        let start = 8 + header.len() as u64;
        places.values_mut().for_each(|(_, at)| *at += start);
        require_space(path, start + at)?;
        let temporary = Temporary::beside(path)?;
        let mut file = File::create(&temporary.0).map_err(|e| Error::io("create", &temporary.0, &e))?;
        let begun = file
            .write_all(&(header.len() as u64).to_le_bytes())
            .and_then(|()| file.write_all(header.as_bytes()))
            .and_then(|()| file.set_len(start + at));
        begun.map_err(|e| Error::io("write", path, &e))?;
        Ok(Writer {
            file,
            target: path.to_owned(),
            temporary,
            specs,
            places,
            written: HashSet::new(),
            overflowed: Vec::new(),
        })
    }

    /// Writes a tensor from float32 values in row-major order, rounded to its dtype.
    ///
    /// # Errors
    /// The tensor was not announced, was written before, is not floating point or has another number
    /// of values; or the disk is full.
    pub fn write_f32(&mut self, name: &str, values: &[f32]) -> Result<()> {
        let dtype = self.begin(name, values.len())?;
        values.chunks(PIECE).try_for_each(|piece| self.put_f32(name, dtype, piece))
    }

    /// Writes a tensor of the values that `make(first, out)` gives, from row-major position `first` on. A piece is
    /// made while the one before it is written, so two pieces are in memory whatever the size of the tensor.
    ///
    /// # Errors
    /// As [`Writer::write_f32`], and those of `make`.
    pub fn write_made(
        &mut self,
        name: &str,
        make: impl Fn(usize, &mut [f32]) -> Result<()> + Sync,
    ) -> Result<()> {
        let count = self.places.get(name).map_or(0, |(i, _)| self.specs[*i].shape.iter().product());
        let dtype = self.begin(name, count)?;
        let len = |first: usize| PIECE.min(count.saturating_sub(first));
        let (mut ready, mut next) = (vec![0.0; len(0)], vec![0.0; len(PIECE)]);
        make(0, &mut ready)?;
        for first in (0..count).step_by(PIECE) {
            let after = first + PIECE;
            next.truncate(len(after));
            let made = || if after < count { make(after, &mut next) } else { Ok(()) };
            let (written, made) = rayon::join(|| self.put_f32(name, dtype, &ready), made);
            written?;
            made?;
            std::mem::swap(&mut ready, &mut next);
        }
        Ok(())
    }

    /// Copies a stored tensor piece by piece, converting floating-point values to the announced dtype,
    /// and gives its pages back.
    ///
    /// # Errors
    /// As [`Writer::write_f32`]; integers must keep their type.
    pub fn write_entry(&mut self, name: &str, entry: &TensorEntry) -> Result<()> {
        let count = entry.count();
        let dtype = self.begin(name, count)?;
        if dtype != entry.dtype() && !(dtype.is_float() && entry.dtype().is_float()) {
            return Err(self.misuse(name, format!("{} cannot be written as {dtype}", entry.dtype())));
        }
        for first in (0..count).step_by(PIECE) {
            let len = PIECE.min(count - first);
            match dtype {
                _ if dtype == entry.dtype() => {
                    let mut bytes = vec![0; len * dtype.size()];
                    entry.copy_at(first, &mut bytes)?;
                    self.put(&bytes)?;
                }
                Dtype::F32 => self.put_read::<f32>(name, entry, first, len)?,
                Dtype::F16 => self.put_read::<f16>(name, entry, first, len)?,
                Dtype::BF16 => self.put_read::<bf16>(name, entry, first, len)?,
                _ => self.put_read::<f64>(name, entry, first, len)?,
            }
        }
        entry.release();
        Ok(())
    }

    /// Writes a tensor from its bytes: row-major, little-endian, of the announced dtype.
    ///
    /// # Errors
    /// As [`Writer::write_f32`].
    pub fn write_bytes(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let size = self.places.get(name).map_or(1, |(i, _)| self.specs[*i].dtype.size());
        if !bytes.len().is_multiple_of(size) {
            return Err(self.misuse(name, format!("{} bytes are no whole number of elements", bytes.len())));
        }
        self.begin(name, bytes.len() / size)?;
        self.put(bytes)
    }

    /// Tensors of which finite values became infinite, being out of the range of their dtype.
    pub fn overflowed(&self) -> &[String] {
        &self.overflowed
    }

    /// Completes the file and gives it its name. Returns the names of [`Writer::overflowed`].
    ///
    /// # Errors
    /// A tensor is still unwritten, or the file cannot be completed.
    pub fn finish(mut self) -> Result<Vec<String>> {
        if let Some(missing) = (0..self.specs.len()).find(|i| !self.written.contains(i)) {
            let name = self.specs[missing].name.clone();
            return Err(self.misuse(&name, "the tensor was announced but not written".into()));
        }
        let done = self.file.flush().and_then(|()| self.file.sync_all());
        done.map_err(|e| Error::io("write", &self.target, &e))?;
        self.temporary.rename(&self.target)?;
        Ok(std::mem::take(&mut self.overflowed))
    }

    /// Goes to the tensor's place; its dtype.
    fn begin(&mut self, name: &str, count: usize) -> Result<Dtype> {
        let Some((i, at)) = self.places.get(name).copied() else {
            return Err(self.misuse(name, "the tensor was not announced".into()));
        };
        let spec = &self.specs[i];
        let (dtype, expected) = (spec.dtype, spec.shape.iter().product::<usize>());
        if count != expected {
            return Err(self.misuse(name, format!("{count} values for a shape of {expected}")));
        }
        if !self.written.insert(i) {
            return Err(self.misuse(name, "the tensor was written before".into()));
        }
        self.file.seek(SeekFrom::Start(at)).map_err(|e| Error::io("write", &self.target, &e))?;
        Ok(dtype)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all(bytes)
            .map_err(|e| Error::io("write", &self.target, &e).fix("check that the disk has room"))
    }

    fn put_f32(&mut self, name: &str, dtype: Dtype, piece: &[f32]) -> Result<()> {
        match dtype {
            Dtype::F32 => self.put(&le_bytes(piece)),
            Dtype::F16 => self.put_rounded::<f16>(name, piece),
            Dtype::BF16 => self.put_rounded::<bf16>(name, piece),
            Dtype::F64 => self.put_rounded::<f64>(name, piece),
            _ => Err(self.misuse(name, format!("float values cannot be written as {dtype}"))),
        }
    }

    fn put_rounded<T: Float>(&mut self, name: &str, values: &[f32]) -> Result<()> {
        let mut out = vec![T::zeroed(); values.len()];
        T::from_f32s(values, &mut out);
        if out.iter().zip(values).any(|(o, v)| o.is_infinite() && v.is_finite()) {
            self.note_overflow(name);
        }
        self.put(&le_bytes(&out))
    }

    fn put_read<T: Float>(
        &mut self,
        name: &str,
        entry: &TensorEntry,
        first: usize,
        len: usize,
    ) -> Result<()> {
        let mut out = vec![T::zeroed(); len];
        entry.read_at(first, &mut out)?;
        if out.iter().any(|v| v.is_infinite()) {
            let mut exact = vec![0f64; len];
            entry.read_at(first, &mut exact)?;
            if out.iter().zip(&exact).any(|(o, v)| o.is_infinite() && v.is_finite()) {
                self.note_overflow(name);
            }
        }
        self.put(&le_bytes(&out))
    }

    fn note_overflow(&mut self, name: &str) {
        if self.overflowed.last().is_none_or(|last| last != name) {
            self.overflowed.push(name.to_owned());
        }
    }

    fn misuse(&self, name: &str, what: String) -> Error {
        Error::internal(what).at(format!("{}: {name}", self.target.display()))
    }
}

/// The little-endian bytes of `values`; no copy on machines of that order.
fn le_bytes<T: Float>(values: &[T]) -> Cow<'_, [u8]> {
    let bytes = bytemuck::cast_slice(values);
    if cfg!(target_endian = "little") {
        return Cow::Borrowed(bytes);
    }
    let mut swapped = bytes.to_vec();
    swapped.chunks_exact_mut(size_of::<T>()).for_each(<[u8]>::reverse);
    Cow::Owned(swapped)
}

/// Appends `"key":value` to an open JSON object.
fn push_entry(header: &mut String, key: &str, value: &serde_json::Value) {
    if header.len() > 1 {
        header.push(',');
    }
    header.push_str(&serde_json::Value::from(key).to_string());
    header.push(':');
    header.push_str(&value.to_string());
}

/// A file that is removed unless it got its final name.
struct Temporary(PathBuf);

impl Temporary {
    /// A name in the folder of `path`, so that renaming stays within one file system.
    fn beside(path: &Path) -> Result<Temporary> {
        let name = path.file_name().ok_or_else(|| {
            Error::usage("the output has no file name").at(path.display().to_string()).fix("give a file")
        })?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}.part", std::process::id()));
        Ok(Temporary(path.with_file_name(hidden)))
    }

    fn rename(&mut self, target: &Path) -> Result<()> {
        std::fs::rename(&self.0, target).map_err(|e| Error::io("write", target, &e))?;
        self.0 = PathBuf::new();
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            // The first error is already on its way to the user; a leftover is all that can remain.
            let _ = std::fs::remove_file(&self.0);
        }
    }
}
