//! Checkpoints of a run: masters, moments, averages and the place in the run, in one safetensors file that is there
//! whole or not at all. Everything random is a pure function of the seed and the place, so the place is all the state
//! that random numbers and data have.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ema::Ema;
use super::optimizer::{Exported, Learning, State};
use crate::error::{Error, Result};
use crate::ops::Cx;
use crate::weights::write::{TensorSpec, Writer};
use crate::weights::{Checkpoint, Dtype};

/// The key of the place in a file's metadata.
const KEY: &str = "tasr.training";
const FIRST: &str = "first.";
const SECOND: &str = "second.";
const AVERAGE: &str = "ema.";

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// optimizer steps done
    pub step: u64,
    /// updates of each network that learns
    pub updates: Vec<u64>,
    pub seed: u64,
    /// seconds used of a limited time
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// of the settings that decide the numbers
    pub settings: String,
}

/// What a checkpoint holds besides the place: the networks that learn, and their averages where they are kept.
pub struct Contents<'a> {
    pub learners: Vec<&'a dyn Learning>,
    pub averages: &'a [Ema],
}

/// The file of `step` in `folder`.
pub fn path_of(folder: &Path, step: u64) -> PathBuf {
    folder.join(format!("step-{step:08}.safetensors"))
}

/// All checkpoints of `folder`, oldest first.
///
/// # Errors
/// The folder cannot be read.
pub fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e: std::io::Error| Error::io("list the checkpoints", folder, &e);
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let number = name.strip_prefix("step-").and_then(|rest| rest.strip_suffix(".safetensors"));
        if number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Removes what a run that was killed while writing left behind.
///
/// # Errors
/// The folder cannot be read.
pub fn sweep(folder: &Path) -> Result<()> {
    let failed = |e: std::io::Error| Error::io("list the checkpoints", folder, &e);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with(".step-") && name.ends_with(".part") {
            // Another process may have been faster.
            let _ = std::fs::remove_file(&path);
        }
    }
    Ok(())
}

/// Removes all but the newest `keep` checkpoints.
///
/// # Errors
/// A file cannot be removed.
pub fn prune(folder: &Path, keep: usize) -> Result<()> {
    let all = list(folder)?;
    for old in &all[..all.len().saturating_sub(keep)] {
        std::fs::remove_file(old).map_err(|e| Error::io("remove the old checkpoint", old, &e))?;
    }
    Ok(())
}

fn prefixed(prefix: &str, tensors: Vec<Exported>) -> impl Iterator<Item = Exported> {
    tensors.into_iter().map(move |tensor| Exported { name: format!("{prefix}{}", tensor.name), ..tensor })
}

/// Every tensor of a network's training.
fn tensors_of(learner: &dyn Learning, average: Option<&Ema>) -> Result<Vec<Exported>> {
    let mut all = learner.export(State::Master)?;
    all.extend(prefixed(FIRST, learner.export(State::First)?));
    all.extend(prefixed(SECOND, learner.export(State::Second)?));
    if let Some(average) = average {
        all.extend(prefixed(AVERAGE, average.export(learner.parameters())?));
    }
    Ok(all)
}

/// Writes everything to `path`, replacing what is there only when it is whole.
///
/// # Errors
/// The disk is full or the file cannot be written.
pub fn save(path: &Path, place: &Place, contents: &Contents) -> Result<()> {
    let mut tensors = Vec::new();
    for (i, learner) in contents.learners.iter().enumerate() {
        tensors.extend(tensors_of(*learner, contents.averages.get(i))?);
    }
    let place =
        serde_json::to_string(place).map_err(|e| Error::internal(format!("a place in a run: {e}")))?;
    write(path, &tensors, Dtype::F32, &BTreeMap::from([(KEY.to_owned(), place)]))
}

/// The trained weights, averaged where averages are kept.
///
/// # Errors
/// The device fails.
pub fn learnt(contents: &Contents) -> Result<Vec<Exported>> {
    let mut tensors = Vec::new();
    for (i, learner) in contents.learners.iter().enumerate() {
        tensors.extend(match contents.averages.get(i) {
            Some(average) => average.export(learner.parameters())?,
            None => learner.export(State::Master)?,
        });
    }
    Ok(tensors)
}

/// Writes weights for `tasr upscale`.
///
/// # Errors
/// As [`save`]; a value that `dtype` cannot hold.
pub fn export(path: &Path, tensors: &[Exported], dtype: Dtype) -> Result<()> {
    write(path, tensors, dtype, &BTreeMap::from([("format".to_owned(), "pt".to_owned())]))
}

fn write(path: &Path, tensors: &[Exported], dtype: Dtype, metadata: &BTreeMap<String, String>) -> Result<()> {
    let specs = tensors.iter().map(|tensor| TensorSpec::new(&tensor.name, dtype, &tensor.shape)).collect();
    let mut writer = Writer::create(path, specs, metadata)?;
    for tensor in tensors {
        writer.write_f32(&tensor.name, &tensor.values)?;
    }
    if let Some(name) = writer.overflowed().first() {
        return Err(Error::weights(format!("a value of {name} is beyond the largest that {dtype} holds"))
            .at(path.display().to_string())
            .fix("use --export-dtype bf16 or f32"));
    }
    writer.finish().map(|_| ())
}

/// The place that `path` was saved at.
///
/// # Errors
/// It is no checkpoint of a run.
pub fn place(path: &Path) -> Result<Place> {
    let file = Checkpoint::open(path)?;
    let text = file.metadata().get(KEY).ok_or_else(|| {
        Error::weights("this is no checkpoint of a training")
            .at(path.display().to_string())
            .fix("to start from weights, set model.start")
    })?;
    serde_json::from_str(text).map_err(|e| {
        Error::weights(format!("its place in the run cannot be read: {e}")).at(path.display().to_string())
    })
}

/// Takes everything from `path`, which was saved at `place`.
///
/// # Errors
/// The file holds other networks.
pub fn restore(
    cx: &Cx,
    path: &Path,
    place: &Place,
    learners: Vec<&mut dyn Learning>,
    averages: &mut [Ema],
) -> Result<()> {
    let file = Checkpoint::open(path)?;
    let mut averages = averages.iter_mut();
    for (i, learner) in learners.into_iter().enumerate() {
        let updates = place.updates.get(i).copied().unwrap_or_default();
        restore_one(cx, &file, learner, averages.next(), updates)?;
    }
    Ok(())
}

fn restore_one(
    cx: &Cx,
    file: &Checkpoint,
    learner: &mut dyn Learning,
    average: Option<&mut Ema>,
    updates: u64,
) -> Result<()> {
    let read = |prefix: &str, name: &str, shape: &[usize]| -> Result<Vec<f32>> {
        let name = format!("{prefix}{name}");
        let entry = file.require(&name)?;
        if entry.shape() != shape {
            return Err(Error::weights(format!("is {:?}, expected {shape:?}", entry.shape()))
                .at(format!("{}: {name}", file.label()))
                .fix("go on with the configuration that the run was started with"));
        }
        let mut values = vec![0.0; shape.iter().product()];
        file.read_f32(&name, &mut values)?;
        Ok(values)
    };
    let prefix = |state: State| match state {
        State::Master => "",
        State::First => FIRST,
        State::Second => SECOND,
    };
    learner.restore(cx, updates, &mut |state, name, shape| read(prefix(state), name, shape))?;
    match average {
        // Averages that the run has only now been asked for start from the masters.
        Some(average) if !file.has_prefix(AVERAGE) => {
            *average = Ema::new(cx, learner.parameters(), average.decay())?;
            Ok(())
        }
        Some(average) => average.restore(cx, learner.parameters(), |name, shape| read(AVERAGE, name, shape)),
        None => Ok(()),
    }
}
