//! Synthetic weights, made once for all tests.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tasr::models::config::{RrdbConfig, SystemConfig};
use tasr::models::{DenoiserConfig, VaeConfig, Variant};
use tasr::pipeline::progress::Silent;
use tasr::pipeline::synthetic_files::SyntheticFiles;
use tasr::weights::Dtype;

use crate::program::tasr_ok;

/// A folder in the build's scratch space.
fn scratch(name: &str) -> String {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name).to_str().expect("utf-8").to_owned()
}

/// Writes a system for runs, which take 512 x 512 pixels at the least: all parts of `tiny`, with the narrowest networks
/// that their norms and heads allow, and `blocks` on each level of the UNet.
pub fn write_narrow(blocks: usize, folder: &Path) {
    let tiny = SystemConfig::preset("tiny").expect("preset");
    let narrow = SystemConfig {
        denoiser: DenoiserConfig { widths: vec![64; 4], blocks, ..tiny.denoiser },
        vae: VaeConfig { widths: vec![32; 4], blocks: 1, ..tiny.vae },
        rrdb: RrdbConfig { blocks: 1, ..tiny.rrdb },
        ..tiny
    };
    let files = SyntheticFiles::of("narrow", narrow, Some(Variant::Official));
    files.write(folder, Dtype::F32, true, &Silent).expect("weights");
}

/// The folder of a narrow system whose ControlNet has the published 13 features.
pub fn models() -> &'static str {
    static MODELS: OnceLock<String> = OnceLock::new();
    MODELS.get_or_init(|| {
        let folder = scratch("cli_narrow");
        write_narrow(2, Path::new(&folder));
        folder
    })
}

/// The folder of the preset `tiny`, of which runs are recorded.
pub fn tiny() -> &'static str {
    static TINY: OnceLock<String> = OnceLock::new();
    TINY.get_or_init(|| {
        let folder = scratch("cli_tiny");
        tasr_ok(&["synth", "--preset", "tiny", "-q", "--overwrite", "-o", &folder]);
        folder
    })
}

/// A file of `tiny`.
pub fn model(name: &str) -> PathBuf {
    Path::new(tiny()).join(name)
}

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}
