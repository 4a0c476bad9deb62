//! Finding the three checkpoints, and naming them in what is written.

use std::env;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::flags::{Sampling, WeightFiles};
use crate::error::{Error, Result};
use crate::image::hash::fnv1a_64;
use crate::pipeline::{AdapterChoice, FILE_NAMES, Options, Weights, find_in};
use crate::weights::mini;

/// What each checkpoint is called, its flag, and the published file: SD 2.1, TASR, stage 1.
const WANTED: [(&str, &str, &str); 3] = [
    ("Stable Diffusion 2.1-base", "--sd", "v2-1_512-ema-pruned.safetensors"),
    ("TASR", "--tasr", "tasr_v1.pt"),
    ("the stage-1 network", "--stage1", "BSRNet.pth"),
];

/// Names the folder of models.
const MODELS: &str = "TASR_MODELS";

/// Bytes of a file that its fingerprint covers: names, shapes and first values.
const HEAD: u64 = 1 << 16;

/// Where SD 2.1, TASR and stage 1 are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Models {
    Files([PathBuf; 3]),
    /// the small system that the program carries
    Carried([&'static [u8]; 3]),
}

/// What a run with the carried system is told.
pub const CARRIED: &str = "no weights are given: the small model that comes with the program upscales; `tasr pull` fetches the \
                           published ones";

/// Levels of the wavelet colour fix that suit the carried system: an autoencoder of its size makes fine detail, while
/// what is coarser is better where stage 1 left it.
const CARRIED_LEVELS: u32 = 2;

impl Models {
    /// The files that the flags name, or that lie in the models folder; or what the program carries, when nothing is
    /// named and the user's own folder has none of them.
    ///
    /// # Errors
    /// One that says all that is missing, where it was looked for and how to get it.
    pub fn find(files: &WeightFiles) -> Result<Models> {
        let named = [&files.sd, &files.tasr, &files.stage1];
        let folder = files.models.clone().or_else(|| env_path(MODELS));
        let asked = folder.is_some() || named.iter().any(|path| path.is_some());
        let folder = folder.or_else(user_folder);
        let holds = |folder: &Path| (0..3).any(|which| find_in(folder, which).is_some());
        match mini::files().filter(|_| !asked && !folder.as_deref().is_some_and(holds)) {
            Some(bytes) => Ok(Models::Carried(bytes)),
            None => Self::find_among(named, folder.as_deref()),
        }
    }

    /// Opens them.
    ///
    /// # Errors
    /// A file is missing or is no checkpoint.
    pub fn open(&self, adapter: AdapterChoice) -> Result<Weights> {
        match self {
            Models::Files([sd, tasr, stage1]) => Weights::open(sd, tasr, stage1, adapter),
            Models::Carried(bytes) => Ok(Weights::of(mini::open(*bytes)?, adapter)),
        }
    }

    /// `options` with what suits these weights where the user did not choose.
    pub fn suited(&self, options: Options, sampling: &Sampling) -> Options {
        match (self, sampling.color_levels) {
            (Models::Carried(_), None) => Options { color_levels: CARRIED_LEVELS, ..options },
            _ => options,
        }
    }

    fn find_among(named: [&Option<PathBuf>; 3], folder: Option<&Path>) -> Result<Models> {
        let look =
            |which: usize| named[which].clone().or_else(|| folder.and_then(|folder| find_in(folder, which)));
        match [look(0), look(1), look(2)] {
            [Some(sd), Some(tasr), Some(stage1)] => Ok(Models::Files([sd, tasr, stage1])),
            found => {
                let missing: Vec<usize> = (0..3).filter(|&which| found[which].is_none()).collect();
                Err(not_found(&missing, folder))
            }
        }
    }

    /// File names and what tells the files apart from others of their name.
    pub fn fingerprints(&self) -> [Fingerprint; 3] {
        match self {
            Models::Files(paths) => paths.each_ref().map(|path| Fingerprint::of(path)),
            Models::Carried(bytes) => [0, 1, 2].map(|i| Fingerprint::carried(mini::NAMES[i], bytes[i])),
        }
    }
}

fn not_found(missing: &[usize], folder: Option<&Path>) -> Error {
    let list =
        |of: &dyn Fn(usize) -> String| missing.iter().map(|&which| of(which)).collect::<Vec<_>>().join(", ");
    let what = list(&|which| format!("{} ({})", WANTED[which].0, WANTED[which].1));
    let looked = match folder {
        Some(folder) => {
            let names = list(&|which| FILE_NAMES[which].join(" or "));
            format!("{} has no {names}", folder.display())
        }
        None => "no models folder is known".to_owned(),
    };
    let published = list(&|which| WANTED[which].2.to_owned());
    let flags = list(&|which| WANTED[which].1.to_owned());
    Error::weights(format!("no weights for {what}: {looked}")).fix(format!(
        "run `tasr pull`, or get the published {published} and name them with {flags} or put them into one folder given by --models or \
         $TASR_MODELS; to try the program without them, run `tasr synth --preset tiny -o DIR` and give --models DIR"
    ))
}

fn env_path(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The folder for models, if the user names none: `$TASR_MODELS`, or the user's own.
pub fn models_folder() -> Option<PathBuf> {
    env_path(MODELS).or_else(user_folder)
}

/// `tasr/models` where this system keeps a user's data.
fn user_folder() -> Option<PathBuf> {
    let data = if cfg!(windows) {
        env_path("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        env_path("HOME").map(|home| home.join("Library/Application Support"))
    } else {
        env_path("XDG_DATA_HOME").or_else(|| env_path("HOME").map(|home| home.join(".local/share")))
    };
    data.map(|data| data.join("tasr/models"))
}

/// What a checkpoint is known by.
#[derive(Clone, Debug, Serialize)]
pub struct Fingerprint {
    pub file: String,
    /// of a file; a folder has none
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    /// FNV-1a of the first 64 KiB
    #[serde(skip_serializing_if = "Option::is_none")]
    head: Option<String>,
}

impl Fingerprint {
    fn carried(name: &str, bytes: &[u8]) -> Fingerprint {
        let head = bytes.iter().copied().take(HEAD as usize);
        Fingerprint {
            file: name.to_owned(),
            bytes: Some(bytes.len() as u64),
            head: Some(format!("{:016x}", fnv1a_64(head))),
        }
    }

    fn of(path: &Path) -> Fingerprint {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let read = || -> std::io::Result<(u64, String)> {
            let mut head = Vec::new();
            let file = File::open(path)?;
            let bytes = file.metadata()?.len();
            file.take(HEAD).read_to_end(&mut head)?;
            Ok((bytes, format!("{:016x}", fnv1a_64(head))))
        };
        // A folder cannot be read so; opening the weights says what is wrong with a file.
        let (bytes, head) = read().ok().unzip();
        Fingerprint { file: name, bytes, head }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_files_come_first_and_what_is_missing_is_listed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("sd.safetensors"), "").unwrap();
        std::fs::write(folder.path().join("BSRNet.pth"), "").unwrap();
        let (mine, none) = (Some(PathBuf::from("mine.pth")), None);
        let found = Models::find_among([&none, &mine, &none], Some(folder.path())).unwrap();
        let expected = ["sd.safetensors", "", "BSRNet.pth"].map(|name| folder.path().join(name));
        let wanted = [expected[0].clone(), PathBuf::from("mine.pth"), expected[2].clone()];
        assert_eq!(found, Models::Files(wanted));
        let error = Models::find_among([&none, &none, &none], Some(folder.path())).unwrap_err().to_string();
        assert!(error.starts_with("no weights for TASR (--tasr): "), "{error}");
        assert!(
            error.contains("has no tasr.safetensors or tasr_v1.pt") && error.contains("tasr synth"),
            "{error}"
        );
        let error = Models::find_among([&none, &mine, &none], None).unwrap_err().to_string();
        assert!(error.contains("(--sd), the stage-1 network (--stage1): no models folder"), "{error}");
    }
}
