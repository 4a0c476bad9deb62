//! An opened set of named tensors.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::convert::Float;
use super::detect::{self, Container};
use super::entry::TensorEntry;
use super::mapping::FileMap;
use super::{folder, safetensors_file, torch};
use crate::error::{Error, Result};

/// What a reader finds in one file, in its order.
#[derive(Default)]
pub(crate) struct Contents {
    pub tensors: Vec<(String, TensorEntry)>,
    pub skipped: Vec<Skipped>,
    pub metadata: BTreeMap<String, String>,
}

/// An entry of a file that is left aside, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    pub name: String,
    pub why: String,
}

/// Tensors by name, from one file or several, mapped and not yet converted.
///
/// Cheap to clone: the tensors are views of shared maps.
#[derive(Clone, Default)]
pub struct Checkpoint {
    label: String,
    tensors: Vec<(String, TensorEntry)>,
    index: HashMap<String, usize>,
    skipped: Vec<Skipped>,
    metadata: BTreeMap<String, String>,
    pub(super) extras: Vec<String>,
    pub(super) unknown: Vec<String>,
}

impl Checkpoint {
    /// Opens a safetensors file, a PyTorch zip checkpoint or the index of a sharded safetensors
    /// checkpoint. The content decides, not the extension.
    ///
    /// Wrappers are removed (`params_ema`, `params`, `state_dict`, `model`, `checkpoint`), as are leading
    /// `module.` and `_orig_mod.`; `checkpoint_controlnet` and `checkpoint_adapter` stay.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or is no checkpoint.
    pub fn open(path: &Path) -> Result<Checkpoint> {
        Self::read_map(&FileMap::open(path)?)
    }

    /// Opens a checkpoint that the program carries; messages call it `name`.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn carried(name: &str, bytes: &'static [u8]) -> Result<Checkpoint> {
        Self::read_map(&FileMap::carried(name, bytes))
    }

    fn read_map(file: &Arc<FileMap>) -> Result<Checkpoint> {
        let place = file.path().display().to_string();
        let container = detect::container(file.bytes()).map_err(|e| e.at(place.clone()))?;
        let contents = match container {
            Container::Safetensors => safetensors_file::read(file)?,
            Container::Zip => torch::read(file)?,
            Container::ShardIndex => return folder::open_index(file),
        };
        Self::from_contents(place, contents)
    }

    /// Opens several files as one set.
    ///
    /// # Errors
    /// As [`Checkpoint::open`]; or two files hold a tensor of the same name.
    pub fn open_all(paths: &[PathBuf]) -> Result<Checkpoint> {
        let parts = paths.iter().map(|path| Checkpoint::open(path)).collect::<Result<Vec<_>>>()?;
        Self::merge(parts)
    }

    /// One set of the tensors of all parts, in their order.
    ///
    /// # Errors
    /// Two parts hold a tensor of the same name.
    pub fn merge(parts: Vec<Checkpoint>) -> Result<Checkpoint> {
        let mut whole = Checkpoint::default();
        for part in parts {
            if whole.label.is_empty() {
                whole.label = part.label;
            } else if !part.label.is_empty() {
                whole.label = format!("{} + {}", whole.label, part.label);
            }
            for (name, entry) in part.tensors {
                whole.insert(name, entry)?;
            }
            whole.skipped.extend(part.skipped);
            whole.metadata.extend(part.metadata);
            whole.extras.extend(part.extras);
            whole.unknown.extend(part.unknown);
        }
        Ok(whole)
    }

    fn from_contents(label: String, contents: Contents) -> Result<Checkpoint> {
        let mut made = Checkpoint { label, metadata: contents.metadata, ..Checkpoint::default() };
        let wrapper = flat_wrapper(&contents.tensors);
        for (name, entry) in contents.tensors {
            match wrapper {
                None => made.insert(bare(&name).to_owned(), entry)?,
                Some(prefix) => match name.strip_prefix(prefix) {
                    Some(rest) => made.insert(bare(rest).to_owned(), entry)?,
                    None => made.skip(name, format!("it lies beside `{prefix}*`, which was taken")),
                },
            }
        }
        made.skipped.extend(contents.skipped);
        Ok(made)
    }

    /// An empty set; `label` stands for its file in messages.
    pub(super) fn empty(label: String) -> Checkpoint {
        Checkpoint { label, ..Checkpoint::default() }
    }

    /// The same file with other tensors: keeps the label, metadata and what was skipped.
    pub(super) fn emptied(&self) -> Checkpoint {
        Checkpoint {
            label: self.label.clone(),
            skipped: self.skipped.clone(),
            metadata: self.metadata.clone(),
            extras: self.extras.clone(),
            unknown: self.unknown.clone(),
            ..Checkpoint::default()
        }
    }

    pub(super) fn relabelled(mut self, label: String) -> Checkpoint {
        self.label = label;
        self
    }

    /// Adds a tensor; two of one name are an error.
    pub(super) fn insert(&mut self, name: String, entry: TensorEntry) -> Result<()> {
        if let Some(at) = self.index.get(&name) {
            let other = self.tensors[*at].1.source().display().to_string();
            let what = if other == entry.source().display().to_string() {
                format!("two tensors are called {name}")
            } else {
                format!("the tensor {name} is also in {other}")
            };
            return Err(Error::weights(what)
                .at(entry.source().display().to_string())
                .fix("give each network once"));
        }
        self.index.insert(name.clone(), self.tensors.len());
        self.tensors.push((name, entry));
        Ok(())
    }

    fn skip(&mut self, name: String, why: String) {
        self.skipped.push(Skipped { name, why });
    }

    /// The file, or files, as the user knows them.
    pub fn label(&self) -> &str {
        &self.label
    }

    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Tensor names in the order of the file, which for checkpoints of PyTorch is the order of modules.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.iter().map(|(name, _)| name.as_str())
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &TensorEntry)> {
        self.tensors.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    pub fn contains(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    pub fn get(&self, name: &str) -> Option<&TensorEntry> {
        self.index.get(name).and_then(|i| self.tensors.get(*i)).map(|(_, entry)| entry)
    }

    /// As [`Checkpoint::get`], with an error that names file and tensor.
    pub fn require(&self, name: &str) -> Result<&TensorEntry> {
        self.get(name).ok_or_else(|| {
            Error::weights("the tensor is missing")
                .at(format!("{}: {name}", self.label))
                .fix("check that this is the right file")
        })
    }

    /// Converts tensor `name` to contiguous row-major `T` in `out`.
    ///
    /// # Errors
    /// The tensor is missing or not floating point, or `out` has another length.
    pub fn read<T: Float>(&self, name: &str, out: &mut [T]) -> Result<()> {
        self.require(name)?.read(out).map_err(|e| e.at(name.to_owned()))
    }

    /// As [`Checkpoint::read`] into float32.
    pub fn read_f32(&self, name: &str, out: &mut [f32]) -> Result<()> {
        self.read(name, out)
    }

    /// Zero-copy view of tensor `name` if it is contiguous, aligned float32.
    pub fn bytes_f32_le(&self, name: &str) -> Option<&[f32]> {
        self.get(name)?.f32s()
    }

    /// Gives the pages of a converted tensor back to the system.
    pub fn release(&self, name: &str) {
        if let Some(entry) = self.get(name) {
            entry.release();
        }
    }

    /// The tensors whose names start with `prefix`, without it.
    pub fn under(&self, prefix: &str) -> Checkpoint {
        let mut part = Checkpoint::empty(self.label.clone());
        for (name, entry) in &self.tensors {
            if let Some(rest) = name.strip_prefix(prefix) {
                part.index.insert(rest.to_owned(), part.tensors.len());
                part.tensors.push((rest.to_owned(), entry.clone()));
            }
        }
        part
    }

    /// Whether any name starts with `prefix`.
    pub fn has_prefix(&self, prefix: &str) -> bool {
        self.names().any(|name| name.starts_with(prefix))
    }

    /// Entries of the file that are no usable tensors: optimizer states, foreign element types.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// Text entries of the file: safetensors metadata, or epoch and step of a training checkpoint.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Names that belong to the family of the file but to no network here (EMA copies, schedules).
    pub fn extras(&self) -> &[String] {
        &self.extras
    }

    /// Names that the naming of the file does not know, kept for the report.
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }
}

/// The wrapper that a file of flat names carries in its names, the preferred first.
fn flat_wrapper(tensors: &[(String, TensorEntry)]) -> Option<&'static str> {
    ["params_ema.", "params.", "state_dict."]
        .into_iter()
        .find(|prefix| tensors.iter().any(|(name, _)| name.starts_with(prefix)))
}

/// `name` without what PyTorch's parallel and compile wrappers put before it.
fn bare(name: &str) -> &str {
    let mut name = name;
    while let Some(rest) = name.strip_prefix("module.").or_else(|| name.strip_prefix("_orig_mod.")) {
        name = rest;
    }
    name
}
