//! Reading PyTorch checkpoints (`.ckpt`, `.pth`, `.pt`) without Python and without running anything.
//!
//! A checkpoint is a zip archive: `NAME/data.pkl` is a pickle that describes nested dictionaries, and
//! `NAME/data/K` are the storages that its tensors view.

mod flatten;
mod pickle;
mod rebuild;
mod zip;

use std::sync::Arc;

use super::checkpoint::Contents;
use super::mapping::FileMap;
use crate::error::{Error, Result};

/// All tensors of a mapped PyTorch zip checkpoint.
///
/// # Errors
/// The archive or its pickle is damaged, compressed, of the other byte order, or holds no tensor.
pub(crate) fn read(file: &Arc<FileMap>) -> Result<Contents> {
    contents(file).map_err(|e| e.at(file.path().display().to_string()))
}

fn contents(file: &Arc<FileMap>) -> Result<Contents> {
    let archive = zip::Archive::open(file.bytes())?;
    let root = archive.root().ok_or_else(|| {
        Error::weights("this zip archive holds no data.pkl, so it is not a PyTorch checkpoint")
            .fix("unpack it if it contains checkpoints")
    })?;
    archive.check_stored(root)?;
    if let Some(order) = archive.find(&format!("{root}byteorder")) {
        let order = archive.stored(order)?;
        if file.bytes()[order].trim_ascii() == b"big" {
            return Err(Error::weights("the checkpoint was saved with big-endian values")
                .fix("load and save it once with PyTorch on an x86-64 or Arm machine"));
        }
    }
    let Some(entry) = archive.find(&format!("{root}data.pkl")) else {
        return Err(Error::weights("data.pkl vanished from the archive"));
    };
    let pickle = &file.bytes()[archive.stored(entry)?];
    let mut builder = rebuild::Builder::new(file, &archive, root);
    let values = pickle::load(pickle, &mut builder).map_err(|e| {
        Error::weights(format!("data.pkl: {e}")).fix("the file is damaged or no checkpoint: get it again")
    })?;
    let mut found = flatten::flatten(&values)?;
    if found.tensors.is_empty() && found.skipped.is_empty() {
        let objects = values.objects();
        return Err(if objects.is_empty() {
            Error::weights("the checkpoint holds no tensors")
        } else {
            Error::weights(format!(
                "the checkpoint holds pickled Python objects ({}) instead of a dictionary of tensors",
                objects.join(", ")
            ))
            .fix("save the module's state_dict() with torch.save")
        });
    }
    found.tensors.shrink_to_fit();
    Ok(found)
}
