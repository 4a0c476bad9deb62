//! The noise of a run: from the seed, or replayed from a file.

use std::collections::HashMap;
use std::path::Path;

use crate::error::{Error, Result};
use crate::sampler::{NoiseSource, Replay, Seeded};
use crate::weights::Checkpoint;

/// Opens the source that the flags ask for.
///
/// # Errors
/// The noise file cannot be read or holds no usable noise.
pub fn source(seed: u64, file: Option<&Path>) -> Result<Box<dyn NoiseSource>> {
    match file {
        None => Ok(Box::new(Seeded::new(seed))),
        Some(path) => Ok(Box::new(replay(path).map_err(|error| error_about_flag(error, path))?)),
    }
}

fn replay(path: &Path) -> Result<Replay> {
    let file = Checkpoint::open(path)?;
    let mut tensors = HashMap::new();
    for (name, entry) in file.iter().filter(|(name, _)| name.starts_with("noise.")) {
        let mut values = vec![0.0; entry.count()];
        file.read_f32(name, &mut values)?;
        tensors.insert(name.to_owned(), (entry.shape().to_vec(), values));
    }
    Replay::new(&path.display().to_string(), tensors)
}

/// A noise file is read by what reads weights: the error must not speak of weights' exit code.
fn error_about_flag(error: Error, path: &Path) -> Error {
    let named = error.to_string();
    let place = if named.contains(&*path.to_string_lossy()) {
        "--noise".to_owned()
    } else {
        format!("--noise {}", path.display())
    };
    Error::input(named).at(place)
}
