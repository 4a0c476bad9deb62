//! The flags of `tasr upscale`. The official script's and Real-ESRGAN's names are aliases.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::error::{Error, Result};
use crate::image::{Format, FormatChoice};
use crate::models::Variant;
use crate::pipeline::{AdapterChoice, ColorFix, Options};
use crate::tensor::DType;

/// The official script's.
pub const NEGATIVE_PROMPT: &str = "low quality, blurry, low-resolution, noisy, unsharp, weird textures";

const EXAMPLES: &str = "\
Examples:
  tasr upscale photo.jpg -o photo_x4.png --models ~/models
  tasr upscale holiday/ -o upscaled/ --recursive -s 2 --prompt \"a beach, sharp focus\"
  tasr upscale photo.png -o out.png --sd v2-1_512-ema-pruned.ckpt --tasr tasr_v1.pt --stage1 BSRNet.pth";

/// Upscale pictures
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Pictures or folders of pictures (PNG, JPEG, WebP, TIFF, BMP)
    #[arg(value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,
    /// The same under the official script's name
    #[arg(short = 'i', long = "input", value_name = "INPUT", hide = true)]
    pub input: Vec<PathBuf>,

    /// Output file, or folder for many inputs
    #[arg(short, long, value_name = "FILE|DIR", help_heading = "Output")]
    pub output: PathBuf,
    /// Format of the outputs
    #[arg(long, value_enum, default_value = "same", help_heading = "Output")]
    pub format: OutputFormat,
    /// Text put between name and extension in folder outputs
    #[arg(long, default_value = "", help_heading = "Output")]
    pub suffix: String,
    /// Also search the subfolders of input folders
    #[arg(long, help_heading = "Output")]
    pub recursive: bool,
    /// Compute outputs anew that are already there (default: skip them)
    #[arg(long, help_heading = "Output")]
    pub overwrite: bool,
    /// Quality of JPEG outputs, 1 to 100
    #[arg(long, default_value_t = 95, value_parser = clap::value_parser!(u8).range(1..=100), help_heading = "Output")]
    pub jpeg_quality: u8,
    /// Say nothing but errors
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,
    /// One JSON line for each file on standard output, progress as JSON lines on standard error
    #[arg(long, help_heading = "Output")]
    pub json: bool,

    /// Folder that holds the weights (default: $TASR_MODELS, then the user data folder)
    #[arg(long, value_name = "DIR", help_heading = "Weights")]
    pub models: Option<PathBuf>,
    /// Stable Diffusion 2.1-base: a single file or a diffusers folder
    #[arg(long, alias = "sd_v21", value_name = "FILE|DIR", help_heading = "Weights")]
    pub sd: Option<PathBuf>,
    /// TASR's ControlNet and adapters
    #[arg(long, alias = "control_adapter", value_name = "FILE", help_heading = "Weights")]
    pub tasr: Option<PathBuf>,
    /// Stage 1: BSRNet, BSRGAN or RealESRGAN_x4plus
    #[arg(long, alias = "bsrnet", value_name = "FILE", help_heading = "Weights")]
    pub stage1: Option<PathBuf>,
    /// Adapters to use (default: those that the TASR file holds)
    #[arg(long, value_enum, help_heading = "Weights")]
    pub adapter: Option<Adapter>,

    /// How many times larger, any positive number
    #[arg(
        short,
        long,
        visible_alias = "upscale",
        alias = "outscale",
        default_value_t = 4.0,
        help_heading = "Sampling"
    )]
    pub scale: f64,
    /// Sampling steps, 1 to 1000
    #[arg(long, default_value_t = 20, help_heading = "Sampling")]
    pub steps: usize,
    /// Guidance: how far from the negative prompt; 1 turns it off and halves the work
    #[arg(
        long,
        visible_alias = "cfg_scale",
        default_value_t = 4.5,
        allow_negative_numbers = true,
        help_heading = "Sampling"
    )]
    pub cfg: f64,
    /// What the picture shows
    #[arg(long, visible_alias = "pos_prompt", default_value = "", help_heading = "Sampling")]
    pub prompt: String,
    /// What the picture should not look like
    #[arg(long, visible_alias = "neg_prompt", default_value = NEGATIVE_PROMPT, help_heading = "Sampling")]
    pub negative_prompt: String,
    /// A prompt for each picture: a JSON list of {"image": ..., "prompt": ...} (also lr_image, response)
    #[arg(long, value_name = "FILE", help_heading = "Sampling")]
    pub prompts: Option<PathBuf>,
    /// Seed of the noise
    #[arg(long, default_value_t = 231, help_heading = "Sampling")]
    pub seed: u64,
    /// Factor on the ControlNet's features
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true, help_heading = "Sampling")]
    pub control_scale: f32,
    /// Run ControlNet and adapters in the first K steps only
    #[arg(long, value_name = "K", help_heading = "Sampling")]
    pub control_until: Option<usize>,
    /// Start from the noised clean image instead of pure noise
    #[arg(long, alias = "better_start", help_heading = "Sampling")]
    pub better_start: bool,
    /// How colours are brought back to those of the input
    #[arg(long, value_enum, default_value = "wavelet", help_heading = "Sampling")]
    pub color_fix: ColorFixName,

    /// Side of the diffusion model's tiles in output pixels, 0 for the whole image; auto tiles when memory demands it
    #[arg(
        long,
        alias = "tile_size",
        default_value = "auto",
        value_name = "auto|0|PX",
        help_heading = "Tiles and memory"
    )]
    pub tile: AutoSize,
    /// Distance between tiles (default: half a tile)
    #[arg(long, alias = "tile_stride", value_name = "PX", help_heading = "Tiles and memory")]
    pub tile_stride: Option<usize>,
    /// The official script's switch: tiles of 512, or of --tile
    #[arg(long, hide = true)]
    pub tiled: bool,
    /// Side of stage 1's tiles in input pixels, 0 for the whole image; auto tiles when memory demands it
    #[arg(long, default_value = "auto", value_name = "auto|0|PX", help_heading = "Tiles and memory")]
    pub stage1_tile: AutoSize,
    /// Pictures of equal size computed together
    #[arg(long, default_value_t = 1, help_heading = "Tiles and memory")]
    pub batch: usize,

    /// auto, cpu, cuda, cuda:N or emulator
    #[arg(long, default_value = "auto", help_heading = "Device")]
    pub device: String,
    /// Element type of weights and activations
    #[arg(long, value_enum, default_value = "auto", help_heading = "Device")]
    pub dtype: DTypeName,
    /// CPU threads (default: all)
    #[arg(long, value_name = "N", help_heading = "Device")]
    pub threads: Option<usize>,

    /// Replay the noise tensors of a file: noise.start, noise.step0, ...
    #[arg(long, value_name = "FILE", help_heading = "Expert")]
    pub noise: Option<PathBuf>,
    /// Write intermediate tensors to a safetensors file
    #[arg(long, value_name = "FILE", help_heading = "Expert")]
    pub trace: Option<PathBuf>,
    /// Which tensors to write: names with * and ?, comma separated
    #[arg(long, value_name = "GLOB,...", value_delimiter = ',', requires = "trace", help_heading = "Expert")]
    pub trace_keep: Vec<String>,
}

/// `auto`, or a number of pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoSize {
    Auto,
    Pixels(usize),
}

impl std::str::FromStr for AutoSize {
    type Err = String;
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "auto" => Ok(AutoSize::Auto),
            _ => text.parse().map(AutoSize::Pixels).map_err(|_| "give auto, 0 or a number of pixels".into()),
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum OutputFormat {
    /// As the output's name says, else as the input
    Same,
    Png,
    Jpg,
    Webp,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Adapter {
    /// As in the published code
    Official,
    /// As the article describes them
    Paper,
    /// A plain ControlNet
    None,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ColorFixName {
    /// Low frequencies of the clean image, as published
    Wavelet,
    /// Mean and deviation of the clean image
    Adain,
    None,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum DTypeName {
    Auto,
    F32,
    F16,
    Bf16,
}

impl Args {
    /// All inputs, whichever way they were given.
    pub fn all_inputs(&self) -> Vec<PathBuf> {
        self.inputs.iter().chain(&self.input).cloned().collect()
    }

    pub fn format_choice(&self) -> FormatChoice {
        match self.format {
            OutputFormat::Same => FormatChoice::Same,
            OutputFormat::Png => FormatChoice::Fixed(Format::Png),
            OutputFormat::Jpg => FormatChoice::Fixed(Format::Jpeg),
            OutputFormat::Webp => FormatChoice::Fixed(Format::WebP),
        }
    }

    pub fn adapter_choice(&self) -> AdapterChoice {
        match self.adapter {
            None => AdapterChoice::Held,
            Some(Adapter::Official) => AdapterChoice::Only(Variant::Official),
            Some(Adapter::Paper) => AdapterChoice::Only(Variant::Paper),
            Some(Adapter::None) => AdapterChoice::None,
        }
    }

    /// The element type; `auto` is what every device computes in.
    pub fn element_type(&self) -> DType {
        match self.dtype {
            DTypeName::Auto | DTypeName::F32 => DType::F32,
            DTypeName::F16 => DType::F16,
            DTypeName::Bf16 => DType::BF16,
        }
    }

    /// The side of tiles asked for: `None` leaves it to memory.
    pub fn tile_wanted(&self) -> Option<usize> {
        match (self.tile, self.tiled) {
            (AutoSize::Auto, true) => Some(512),
            (AutoSize::Auto, false) => None,
            (AutoSize::Pixels(pixels), _) => Some(pixels),
        }
    }

    /// The options of the run, tiles aside.
    ///
    /// # Errors
    /// A value that no run can use.
    pub fn options(&self) -> Result<Options> {
        let refuse = |what: String, flag: &str, fix: &str| Err(Error::usage(what).at(flag).fix(fix));
        if !(1..=1000).contains(&self.steps) {
            return refuse(format!("{} steps are not possible", self.steps), "--steps", "give 1 to 1000");
        }
        if self.batch == 0 {
            return refuse("a batch of 0 pictures".into(), "--batch", "give 1 or more");
        }
        if self.threads == Some(0) {
            return refuse("0 threads cannot work".into(), "--threads", "leave it out to use all");
        }
        if !(self.scale.is_finite() && self.scale > 0.0) {
            return refuse(format!("{} is not a positive number", self.scale), "--scale", "4 is usual");
        }
        let options = Options {
            scale: self.scale,
            steps: self.steps,
            cfg: self.cfg,
            control_scale: self.control_scale,
            control_until: self.control_until,
            better_start: self.better_start,
            tile_stride: self.tile_stride,
            color_fix: match self.color_fix {
                ColorFixName::Wavelet => ColorFix::Wavelet,
                ColorFixName::Adain => ColorFix::Adain,
                ColorFixName::None => ColorFix::None,
            },
            ..Options::default()
        };
        options.check()?;
        Ok(options)
    }
}
