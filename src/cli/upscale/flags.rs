//! The flags of `tasr upscale`, in the groups in which its help shows them.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::values::{self, TileChoice};
use crate::cli::device::DtypeChoice;
use crate::image::{Format, FormatChoice};
use crate::pipeline::ColorFix;
use crate::train::config::AdapterKind;

/// What the published program uses.
pub const NEGATIVE_PROMPT: &str = "low quality, blurry, low-resolution, noisy, unsharp, weird textures";

/// Which pictures, and where they go.
#[derive(Args)]
#[command(next_help_heading = "Input and output")]
pub struct Files {
    /// Pictures or folders: PNG, JPEG, WebP, TIFF, BMP
    #[arg(value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,
    /// The same, as the published program names it; a .json file is taken as --prompts
    #[arg(short, long = "input", value_name = "INPUT", num_args = 1.., hide = true)]
    pub more_inputs: Vec<PathBuf>,
    /// File to write for one picture, else a folder
    #[arg(short, long, value_name = "FILE|DIR")]
    pub output: PathBuf,
    /// Factor to enlarge by
    #[arg(short, long, value_name = "X", default_value = "4", allow_negative_numbers = true,
        value_parser = values::positive, aliases = ["upscale", "outscale"])]
    pub scale: f64,
    /// Format of the outputs; same: that of the output's name, else of the input
    #[arg(long, value_name = "FORMAT", default_value = "same")]
    pub format: OutputFormat,
    /// Put between name and extension of outputs in a folder
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub suffix: String,
    /// Quality of JPEG outputs, 1 to 100
    #[arg(long, value_name = "Q", default_value_t = 95, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub jpeg_quality: u8,
    /// Search folders with all their subfolders
    #[arg(long)]
    pub recursive: bool,
    /// Make outputs anew that are there; else they are skipped
    #[arg(long)]
    pub overwrite: bool,
}

/// Where the weights are.
#[derive(Args)]
#[command(next_help_heading = "Weights")]
pub struct WeightFiles {
    /// Stable Diffusion 2.1-base: .safetensors, .ckpt or a diffusers folder
    #[arg(long, value_name = "FILE|DIR", aliases = ["sd_v21", "sd-v21"])]
    pub sd: Option<PathBuf>,
    /// TASR: ControlNet and adapters
    #[arg(long, value_name = "FILE", aliases = ["control_adapter", "control-adapter"])]
    pub tasr: Option<PathBuf>,
    /// Stage 1: BSRNet, BSRGAN or RealESRGAN_x4plus
    #[arg(long, value_name = "FILE", alias = "bsrnet")]
    pub stage1: Option<PathBuf>,
    /// Folder that has what the three above do not name [default: $TASR_MODELS, else the user data folder; without any of
    /// them, the small model that the program may carry]
    #[arg(long, value_name = "DIR")]
    pub models: Option<PathBuf>,
    /// Adapters [default: what the TASR file holds]; none: a plain ControlNet
    #[arg(long, value_name = "KIND")]
    pub adapter: Option<AdapterKind>,
}

/// What shapes the result.
#[derive(Args)]
#[command(next_help_heading = "Sampling")]
pub struct Sampling {
    /// What the pictures show
    #[arg(long, value_name = "TEXT", default_value = "", aliases = ["pos_prompt", "pos-prompt"])]
    pub prompt: String,
    /// What the results should not be
    #[arg(long, value_name = "TEXT", default_value = NEGATIVE_PROMPT, aliases = ["neg_prompt", "neg-prompt"])]
    pub negative_prompt: String,
    /// A prompt for each picture: [{"image": PATH, "prompt": TEXT}, ...]; without INPUT its images are the inputs
    #[arg(long, value_name = "FILE.json")]
    pub prompts: Option<PathBuf>,
    /// Denoising steps, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub steps: u16,
    /// Guidance scale: how strongly to follow the prompts; 1 leaves the negative prompt out
    #[arg(long, value_name = "X", default_value = "4.5", allow_negative_numbers = true,
        value_parser = values::finite, aliases = ["cfg_scale", "cfg-scale"])]
    pub cfg: f64,
    /// Seed of the noise
    #[arg(long, value_name = "N", default_value_t = 231)]
    pub seed: u64,
    /// Factor on what the ControlNet adds
    #[arg(long, value_name = "X", default_value = "1.0", allow_negative_numbers = true, value_parser = values::finite)]
    pub control_scale: f64,
    /// Run ControlNet and adapters in the first K steps only [default: in all]
    #[arg(long, value_name = "K")]
    pub control_until: Option<usize>,
    /// Start from the low frequencies of the picture instead of noise alone
    #[arg(long, alias = "better_start")]
    pub better_start: bool,
    /// Bring the colours back to those of the input
    #[arg(long, value_name = "KIND", default_value = "wavelet")]
    pub color_fix: ColorChoice,
    /// Halvings after which the wavelet fix takes what is left of the input, 1 to 8: the fewer, the more of the detail is
    /// that of stage 1 [default: 5, as published; 2 with the small model of the program]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=8))]
    pub color_levels: Option<u8>,
    /// Stop after stage 1: the cleaned and enlarged picture, without the diffusion model
    #[arg(long)]
    pub stage1_only: bool,
}

/// How large pictures fit.
#[derive(Args)]
#[command(next_help_heading = "Tiles and memory")]
pub struct Tiles {
    /// Side of the tiles in pixels of the result, a multiple of 64; 0: none; auto: 512 if memory demands tiles
    #[arg(long, value_name = "auto|0|PX", default_value = "auto", value_parser = values::tile,
        aliases = ["tile_size", "tile-size"])]
    pub tile: TileChoice,
    /// Distance between tiles, a multiple of 8 [default: half a tile]
    #[arg(long, value_name = "PX", value_parser = values::stride, alias = "tile_stride")]
    pub tile_stride: Option<usize>,
    /// The published program's switch: tiles of 512 every 256, unless --tile and --tile-stride say else
    #[arg(long, hide = true)]
    pub tiled: bool,
    /// Side of the tiles of stage 1 in pixels of the input; 0: none; auto: 256 if memory demands tiles
    #[arg(long, value_name = "auto|0|PX", default_value = "auto", value_parser = values::stage1_tile)]
    pub stage1_tile: TileChoice,
    /// Pictures of equal size to compute together, fewer if memory demands it
    #[arg(long, value_name = "N", default_value = "1", value_parser = values::count)]
    pub batch: usize,
}

/// What computes.
#[derive(Args)]
#[command(next_help_heading = "Device")]
pub struct Machine {
    /// auto (a GPU where there is one), cpu, cuda, cuda:N or emulator
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: String,
    /// Element type that the networks compute in
    #[arg(long, value_name = "TYPE", default_value = "auto")]
    pub(in crate::cli) dtype: DtypeChoice,
    /// Processor threads [default: one a core]
    #[arg(long, value_name = "N", value_parser = values::count)]
    pub threads: Option<usize>,
}

/// What is told.
#[derive(Args)]
#[command(next_help_heading = "Output")]
pub struct Messages {
    /// Say nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
    /// Print a JSON line for each picture and one for the run; progress too is JSON, on standard error
    #[arg(long)]
    pub json: bool,
}

/// For comparisons with other programs.
#[derive(Args)]
#[command(next_help_heading = "Expert")]
pub struct Expert {
    /// Take the noise from this file (noise.start, noise.step0, ...): rows are the run's pictures in order
    #[arg(long, value_name = "FILE.safetensors")]
    pub noise: Option<PathBuf>,
    /// Write intermediate tensors to this file, NCHW
    #[arg(long, value_name = "FILE.safetensors")]
    pub trace: Option<PathBuf>,
    /// Names to trace, `*` for any text: step*.eps,final [default: all]
    #[arg(long, value_name = "GLOB,...", value_delimiter = ',', requires = "trace")]
    pub trace_keep: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum OutputFormat {
    Same,
    Png,
    #[value(alias = "jpeg")]
    Jpg,
    Webp,
}

impl OutputFormat {
    pub fn choice(self) -> FormatChoice {
        match self {
            OutputFormat::Same => FormatChoice::Same,
            OutputFormat::Png => FormatChoice::Fixed(Format::Png),
            OutputFormat::Jpg => FormatChoice::Fixed(Format::Jpeg),
            OutputFormat::Webp => FormatChoice::Fixed(Format::WebP),
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub enum ColorChoice {
    /// Low frequencies of the input, as published
    Wavelet,
    /// Mean and deviation of the input
    Adain,
    None,
}

impl ColorChoice {
    pub fn fix(self) -> ColorFix {
        match self {
            ColorChoice::Wavelet => ColorFix::Wavelet,
            ColorChoice::Adain => ColorFix::Adain,
            ColorChoice::None => ColorFix::None,
        }
    }
}
