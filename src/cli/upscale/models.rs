//! Finding the weights: by flag, in `--models`, in `$TASR_MODELS`, in the user data folder.

use std::path::PathBuf;

use super::args::Args;
use crate::error::{Error, Result};
use crate::pipeline::{FILE_NAMES, Weights, find_in};

/// The files of a run.
#[derive(Clone, Debug)]
pub struct Models {
    pub sd: PathBuf,
    pub tasr: PathBuf,
    pub stage1: PathBuf,
}

/// `tasr/models` in the folder where this system keeps a user's data.
fn data_folder() -> Option<PathBuf> {
    let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = match () {
        () if cfg!(windows) => of("LOCALAPPDATA")?,
        () if cfg!(target_os = "macos") => of("HOME")?.join("Library/Application Support"),
        () => of("XDG_DATA_HOME").or_else(|| Some(of("HOME")?.join(".local/share")))?,
    };
    Some(base.join("tasr").join("models"))
}

impl Models {
    /// # Errors
    /// A file that is nowhere: says which, where it was looked for and what it is called.
    pub fn find(args: &Args) -> Result<Self> {
        let folders: Vec<PathBuf> = match &args.models {
            Some(folder) => vec![folder.clone()],
            None => {
                let own = std::env::var_os("TASR_MODELS").filter(|v| !v.is_empty()).map(PathBuf::from);
                own.into_iter().chain(data_folder()).collect()
            }
        };
        let find = |given: &Option<PathBuf>, which: usize, flag: &str, what: &str| match given {
            Some(path) => Ok(path.clone()),
            None => folders.iter().find_map(|folder| find_in(folder, which)).ok_or_else(|| {
                let places: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
                Error::weights(format!(
                    "the weights of {what} were not found: no {} in {}",
                    FILE_NAMES[which].join(", "),
                    if places.is_empty() { "any models folder".into() } else { places.join(" or ") }
                ))
                .at(flag)
                .fix(format!(
                    "name the file with {flag} or its folder with --models, or make try-out weights with \
                     `tasr synth --preset tiny -o DIR`"
                ))
            }),
        };
        Ok(Models {
            sd: find(&args.sd, 0, "--sd", "Stable Diffusion 2.1-base")?,
            tasr: find(&args.tasr, 1, "--tasr", "TASR")?,
            stage1: find(&args.stage1, 2, "--stage1", "stage 1")?,
        })
    }

    /// Opens the files.
    ///
    /// # Errors
    /// A file that is missing or no checkpoint.
    pub fn open(&self, args: &Args) -> Result<Weights> {
        Weights::open(&self.sd, &self.tasr, &self.stage1, args.adapter_choice())
    }
}
