//! Golden cases: options in JSON, tensors in safetensors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tasr::error::{Error, Result};
use tasr::ops::Cx;
use tasr::tensor::Tensor;
use tasr::weights::{Checkpoint, Dtype};

/// Shape and values.
pub type Values = (Vec<usize>, Vec<f32>);

/// One case.
pub struct Case {
    name: String,
    folder: PathBuf,
    options: Value,
    tensors: Checkpoint,
}

/// All cases whose name contains one of `filters` (all without filters), sorted by folder and name.
pub fn find(filters: &[String]) -> Result<Vec<Case>> {
    // A test that was built elsewhere is told where the project lies.
    let root = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let mut folders = vec![Path::new(&root).join("tests/fixtures/golden")];
    folders.extend(std::env::var_os("TASR_GOLDEN_DIR").map(PathBuf::from));
    let mut cases = Vec::new();
    for folder in folders {
        let entries = std::fs::read_dir(&folder).map_err(|error| Error::io("list", &folder, &error))?;
        let mut files: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|e| e == "json"))
            .filter(|path| path.with_extension("safetensors").exists())
            .collect();
        files.sort();
        for path in files {
            let case = Case::open(&path)?;
            if filters.is_empty() || filters.iter().any(|filter| case.name.contains(filter.as_str())) {
                cases.push(case);
            }
        }
    }
    Ok(cases)
}

impl Case {
    fn open(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| Error::io("read", path, &error))?;
        let options = serde_json::from_str(&text)
            .map_err(|error| Error::input(format!("not JSON: {error}")).at(path.display().to_string()))?;
        let name = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        let tensors = Checkpoint::open(&path.with_extension("safetensors"))?;
        Ok(Case { name, folder: path.parent().unwrap_or(Path::new(".")).to_path_buf(), options, tensors })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn kind(&self) -> &str {
        self.text("kind", "")
    }

    /// The folder that paths in the case are relative to.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn option(&self, key: &str) -> Option<&Value> {
        self.options.get(key).filter(|value| !value.is_null())
    }

    pub fn text<'a>(&'a self, key: &str, default: &'a str) -> &'a str {
        self.option(key).and_then(Value::as_str).unwrap_or(default)
    }

    pub fn number(&self, key: &str, default: f64) -> f64 {
        self.option(key).and_then(Value::as_f64).unwrap_or(default)
    }

    pub fn flag(&self, key: &str) -> bool {
        self.option(key).and_then(Value::as_bool).unwrap_or(false)
    }

    pub fn list<'a>(&'a self, key: &str) -> Option<Vec<&'a str>> {
        Some(self.option(key)?.as_array()?.iter().filter_map(Value::as_str).collect())
    }

    /// Names of the stored tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.names()
    }

    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains(name)
    }

    /// Shape and values of a tensor, any type as f32 (integers up to 2^24 are exact).
    pub fn values(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        let entry = self.tensors.require(name)?;
        let mut values = vec![0.0; entry.count()];
        let bytes = || entry.bytes().ok_or_else(|| Error::internal("golden tensors are contiguous").at(name));
        match entry.dtype() {
            Dtype::I32 => {
                for (value, raw) in values.iter_mut().zip(bytes()?.as_chunks::<4>().0) {
                    *value = i32::from_le_bytes(*raw) as f32;
                }
            }
            Dtype::U8 => values.iter_mut().zip(bytes()?).for_each(|(value, &raw)| *value = f32::from(raw)),
            _ => self.tensors.read_f32(name, &mut values)?,
        }
        Ok((entry.shape().to_vec(), values))
    }

    /// An entry of the file's metadata.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.tensors.metadata().get(key).map(String::as_str)
    }

    /// True for tensors stored in half precision.
    pub fn is_half(&self, name: &str) -> bool {
        self.tensors.get(name).is_some_and(|entry| matches!(entry.dtype(), Dtype::F16 | Dtype::BF16))
    }

    /// All tensors whose name starts with `prefix`.
    pub fn under(&self, prefix: &str) -> Result<BTreeMap<String, Values>> {
        let names = self.names().filter(|name| name.starts_with(prefix));
        names.map(|name| Ok((name.to_owned(), self.values(name)?))).collect()
    }

    /// An [N, C, H, W] tensor on the device as [N, H, W, C].
    pub fn image(&self, cx: &Cx, name: &str) -> Result<Tensor> {
        let (shape, values) = self.values(name)?;
        let &[n, c, h, w] = &shape[..] else {
            return Err(Error::internal(format!("{shape:?} is not an image")).at(name));
        };
        Tensor::from_f32(cx.device(), &to_nhwc(&values, [n, c, h, w]), [n, h, w, c])
    }

    /// Rows of token ids.
    pub fn tokens(&self, name: &str) -> Result<Vec<Vec<u32>>> {
        let (shape, values) = self.values(name)?;
        let length = shape.last().copied().unwrap_or(1);
        Ok(values.chunks(length).map(|row| row.iter().map(|&id| id as u32).collect()).collect())
    }
}

/// NCHW -> NHWC
pub fn to_nhwc(values: &[f32], [n, c, h, w]: [usize; 4]) -> Vec<f32> {
    let mut result = vec![0.0; n * c * h * w];
    for (index, value) in result.iter_mut().enumerate() {
        let (channel, pixel) = (index % c, index / c);
        let (image, place) = (pixel / (h * w), pixel % (h * w));
        *value = values[(image * c + channel) * h * w + place];
    }
    result
}

/// An [N, H, W, C] tensor as NCHW values with their shape; others as they are.
pub fn to_nchw(tensor: &Tensor) -> Result<(Vec<usize>, Vec<f32>)> {
    let values = tensor.to_f32()?;
    let &[n, h, w, c] = &*tensor.shape() else {
        return Ok((tensor.shape().to_vec(), values));
    };
    let mut result = vec![0.0; values.len()];
    for (index, value) in result.iter_mut().enumerate() {
        let (plane, place) = (index / (h * w), index % (h * w));
        let (image, channel) = (plane / c, plane % c);
        *value = values[(image * h * w + place) * c + channel];
    }
    Ok((vec![n, c, h, w], result))
}
