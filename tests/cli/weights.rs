//! The tiny synthetic weights, made once by `tasr synth`.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::program::tasr_ok;

/// The folder that holds them, in the build's scratch space.
pub fn models() -> &'static str {
    static MODELS: OnceLock<String> = OnceLock::new();
    MODELS.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli_models");
        let folder = folder.to_str().expect("utf-8").to_owned();
        tasr_ok(&["synth", "--preset", "tiny", "-q", "--overwrite", "-o", &folder]);
        folder
    })
}

pub fn model(name: &str) -> PathBuf {
    Path::new(models()).join(name)
}

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}
