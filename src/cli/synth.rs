//! `tasr synth`: synthetic weights in files.

use std::path::PathBuf;

use clap::ValueEnum;

use super::interrupt::Interrupt;
use super::progress::{Mode, Reporter};
use crate::error::Result;
use crate::models::Variant;
use crate::pipeline::synthetic_files::SyntheticFiles;
use crate::weights::Dtype;

/// Write synthetic weights: sd.safetensors, tasr.safetensors and stage1.safetensors
///
/// Every value is a function of its tensor's name, the same bit for bit on every machine. The networks run at their
/// real size and speed; the pictures mean nothing.
#[derive(clap::Args)]
pub struct Args {
    /// Sizes of the networks: sd21, the published ones (5 GB as f16, 10 GB as f32); mini, without text (19 MB as f16);
    /// or tiny, for tests
    #[arg(long, default_value = "sd21", value_parser = ["tiny", "mini", "sd21"])]
    preset: String,
    /// Folder to write into, made if need be
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Element type of the values
    #[arg(long, default_value = "f32")]
    dtype: FloatType,
    /// Adapters of tasr.safetensors; none writes a plain ControlNet
    #[arg(long, default_value = "official")]
    adapter: Adapter,
    /// Replace files that exist
    #[arg(long)]
    overwrite: bool,
    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

/// A floating-point element type of a file.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum FloatType {
    F32,
    F16,
    Bf16,
}

impl FloatType {
    pub(super) fn dtype(self) -> Dtype {
        match self {
            FloatType::F32 => Dtype::F32,
            FloatType::F16 => Dtype::F16,
            FloatType::Bf16 => Dtype::BF16,
        }
    }
}

/// The adapters of a system.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Adapter {
    /// As in the published code
    Official,
    /// As the article describes them
    Paper,
    None,
}

impl Adapter {
    pub(super) fn variant(self) -> Option<Variant> {
        match self {
            Adapter::Official => Some(Variant::Official),
            Adapter::Paper => Some(Variant::Paper),
            Adapter::None => None,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// Files that exist, no room, an interrupt.
pub fn run(args: Args) -> Result<()> {
    let progress = Reporter::new(Mode::choose(args.quiet, false), Interrupt::install()?);
    let files = SyntheticFiles::new(&args.preset, args.adapter.variant())?;
    files.write(&args.output, args.dtype.dtype(), args.overwrite, &progress)?;
    Ok(())
}
