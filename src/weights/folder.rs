//! Checkpoints of several files: sharded safetensors and diffusers folders.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::checkpoint::Checkpoint;
use super::mapping::FileMap;
use crate::error::{Error, Result};

/// The parts of a Stable Diffusion folder in the layout of diffusers.
pub(super) const PARTS: [&str; 3] = ["unet", "vae", "text_encoder"];

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: std::collections::BTreeMap<String, String>,
}

/// Opens all shards that a `*.safetensors.index.json` lists.
///
/// # Errors
/// The index is damaged, names a file outside its folder, or a shard lacks a listed tensor.
pub(super) fn open_index(index: &FileMap) -> Result<Checkpoint> {
    let path = index.path();
    let wrong = |what: String| Error::weights(what).at(path.display().to_string());
    let parsed: ShardIndex = serde_json::from_slice(index.bytes())
        .map_err(|e| wrong(format!("the shard index is damaged: {e}")).fix("get the file again"))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut shards = Vec::new();
    for shard in parsed.weight_map.values().collect::<BTreeSet<_>>() {
        let plain = Path::new(shard).file_name().is_some_and(|name| name == shard.as_str());
        if !plain || shard.ends_with(".index.json") {
            return Err(wrong(format!("the shard index names `{shard}`, which is no file of its folder")));
        }
        let file = folder.join(shard);
        if !file.is_file() {
            return Err(wrong(format!("the shard {shard} is missing")).fix("get all files of the folder"));
        }
        shards.push(Checkpoint::open(&file)?);
    }
    let whole = Checkpoint::merge(shards)?;
    if let Some(name) = parsed.weight_map.keys().find(|name| !whole.contains(name)) {
        return Err(wrong(format!("no shard holds the tensor {name}, which the index lists"))
            .fix("get all files of the folder again"));
    }
    Ok(whole)
}

/// Whether `folder` looks like a diffusers model: at least the UNet's folder is there.
pub(super) fn is_diffusers(folder: &Path) -> bool {
    folder.join("unet").is_dir()
}

/// The weights of one part of a diffusers folder.
///
/// The full-precision safetensors file is preferred, then other variants (fp16), then `.bin`.
///
/// # Errors
/// The part's folder or its weights are missing.
pub(super) fn open_part(folder: &Path, part: &str) -> Result<Checkpoint> {
    let place = folder.join(part);
    let listing = std::fs::read_dir(&place).map_err(|e| {
        Error::weights(format!("cannot list this part of the diffusers folder: {e}"))
            .at(place.display().to_string())
            .fix("the folder needs unet/, vae/ and text_encoder/, each with its weights")
    })?;
    let mut files: Vec<PathBuf> = listing.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    let best = files.into_iter().filter_map(|path| Some((rank(path.file_name()?.to_str()?)?, path))).min();
    match best {
        Some((_, path)) => Checkpoint::open(&path),
        None => Err(Error::weights("no weights (*.safetensors or *.bin) lie in this folder")
            .at(place.display().to_string())
            .fix("get the weights of this part, too")),
    }
}

/// How much a file is wanted, the smallest first; `None` for what holds no weights.
fn rank(name: &str) -> Option<u32> {
    let (stem, container) = if let Some(stem) = name.strip_suffix(".safetensors") {
        (stem, 0)
    } else if let Some(stem) = name.strip_suffix(".safetensors.index.json") {
        (stem, 0)
    } else {
        (name.strip_suffix(".bin")?, 10)
    };
    if stem.contains("-of-") {
        // A shard: its index leads to it.
        return None;
    }
    let variant = match stem {
        "diffusion_pytorch_model" | "model" | "pytorch_model" => 0,
        _ if stem.contains("non_ema") => 2,
        _ => 1,
    };
    Some(container + variant)
}
