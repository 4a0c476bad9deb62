//! `tasr train`: training, from a configuration file.

use std::path::PathBuf;

use super::interrupt::Interrupt;
use super::memory::Memory;
use super::progress::{Mode, Reporter};
use super::synth::FloatType;
use super::upscale::{set_threads, values};
use crate::device::{Device, Target};
use crate::error::{Error, Result};
use crate::ops::Cx;
use crate::pipeline::progress::Progress;
use crate::tensor::DType;
use crate::train::config::{self, Recipe, Stage};
use crate::train::estimate;
use crate::train::run::{Export, Resume, train};
use crate::weights::space::in_units;

const KEYS: &str = "\
The configuration is a TOML file; what it does not set has the recipe's value. The published YAML is read, too.

  [model]        sd, start (ControlNet and adapters to begin with), swinir, stage1, clip, or models (a folder);
                 adapter = \"official\" | \"paper\" | \"no-timestep\" | \"transformer\" | \"none\"; preset = \"tiny\" for
                 synthetic weights
  [train]        stage = \"stage1\" | \"vae\" | \"unet\" | 1 | 2, recipe = \"paper\" | \"official\", output, seed, steps, minutes,
                 batch, accumulate, learning-rate, weight-decay, betas, epsilon, warmup,
                 schedule = \"constant\" | \"cosine\", clip-norm, ema, checkpointing
  [objective]    target = \"both\" | \"controlnet\" | \"adapters\", adapter-every, controlnet-steps, adapter-steps,
                 pixel-weight, pixel-steps, reward-weight, reward-steps, reward, published-x0;
                 of stages stage1 and vae: l1-weight, l2-weight, log-weight; of vae: gradient-weight,
                 kl-weight
  [data]         pictures (folders, pictures, lists), prompts = \"none\" | \"beside\" | \"tags\", prompt-dropout, size,
                 crop = \"random\" | \"centre\" | \"fit\", flip, cleaner = \"none\" | \"swinir\" | \"stage1\", workers,
                 latent-cache
  [degradation]  recipe = \"realesrgan\" | \"realesrgan-mild\" | \"codeformer\", fixed, and its ranges
  [validation]   pictures, every, steps
  [log]          every, checkpoint-every, keep

Stages 1 (the ControlNet) and 2 (ControlNet and adapters) fine-tune what stands on a frozen system. The others train
that system from nothing, in the size of model.preset: stage1 the RRDBNet, vae the autoencoder, unet the denoiser on
latents of the autoencoder in model.sd.

The article's ablations are settings: what learns (objective.target; what is trained alone gets every loss, as the
ControlNet with model.adapter none does), what the adapters are (model.adapter no-timestep, transformer), which losses
work (objective.pixel-weight or reward-weight 0) and on which timesteps (pixel-steps and reward-steps [0, 999]:
everywhere; [0, 200] and [0, 800]: inverse).

Examples:
  tasr train --config train.toml --stage 1
  tasr train --config vae.toml --stage vae --set train.minutes=3 --export vae.safetensors --export-dtype f16
  tasr train --config train.toml --resume auto --export tasr.safetensors
  tasr upscale photo.png -o out.png --tasr tasr.safetensors --models models

A run that was stopped or killed goes on with --resume auto, to the same bits.";

/// Train ControlNet and adapters, or a whole system from nothing
#[derive(clap::Args)]
#[command(after_help = KEYS)]
pub struct Args {
    /// Configuration, .toml or the published .yaml
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Change a setting of the file
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// What is trained: stage1, vae, unet, 1 or 2
    #[arg(long, value_name = "STAGE")]
    stage: Option<Stage>,
    /// Constants of the article or of the published code
    #[arg(long)]
    recipe: Option<Recipe>,
    /// Folder for checkpoints and logs
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Go on from a checkpoint: auto takes the newest of the output folder
    #[arg(long, value_name = "auto|FILE")]
    resume: Option<PathBuf>,
    /// Write the trained weights for `tasr upscale` at the end: the file of --tasr, of --stage1 for stage stage1, of --sd
    /// for stage unet (stage vae writes the part of it that stage unet starts from)
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    /// Element type of the exported weights
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    export_dtype: FloatType,
    /// Say how much memory the training needs, and stop
    #[arg(long)]
    dry_run: bool,
    /// cpu, cuda, cuda:N, or emulator
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Element type of weights and activations [default: bf16 on a GPU, f32 on the processor]
    #[arg(long)]
    dtype: Option<FloatType>,
    /// Processor threads [default: one a core]
    #[arg(long, value_name = "N", value_parser = values::count)]
    threads: Option<usize>,
    /// Train although less memory seems free than is needed
    #[arg(long)]
    ignore_memory: bool,
    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
    /// Report as JSON lines
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// Settings that cannot be, weights or pictures that are missing, not enough memory, a training that fails, an
/// interrupt.
pub fn run(args: Args) -> Result<()> {
    let (mut settings, resumes) = config::read(&args.config, &args.set)?;
    settings.train.recipe = args.recipe.or(settings.train.recipe);
    settings.train.stage = args.stage.or(settings.train.stage);
    settings.train.output = args.output.or(settings.train.output);
    let config = settings.resolve()?;
    if let Some(export) = &args.export {
        check_export(export)?;
    }
    let resume = match args.resume {
        Some(path) if path.as_os_str() == "auto" => Resume::Auto,
        Some(path) => Resume::From(path),
        None if resumes => Resume::Auto,
        None => Resume::Never,
    };
    set_threads(args.threads)?;
    let progress = Reporter::new(Mode::choose(args.quiet, args.json), Interrupt::install()?);
    let device = Device::open(&args.device).map_err(|e| e.at("--device"))?;
    let dtype = args.dtype.map_or(
        match device.target() {
            Target::Cpu => DType::F32,
            Target::Gpu => DType::BF16,
        },
        storage,
    );
    let cx = Cx::new(device, dtype)?;
    let available = match cx.device().target() {
        Target::Cpu if !args.ignore_memory => Memory::find().available,
        _ => None,
    };
    let needed = estimate::check(cx.device().target(), dtype, &config, available)?;
    progress.note(&format!(
        "the training needs {}: {} for weights and optimizer, {} for a step",
        in_units(needed.total() as u64),
        in_units(needed.weights as u64),
        in_units(needed.activations as u64)
    ));
    if args.dry_run {
        return Ok(());
    }
    let export = args.export.map(|path| Export { path, dtype: args.export_dtype.dtype() });
    train(&cx, &config, &resume, export.as_ref(), &progress)
}

/// For weights and activations in memory.
fn storage(dtype: FloatType) -> DType {
    match dtype {
        FloatType::F32 => DType::F32,
        FloatType::F16 => DType::F16,
        FloatType::Bf16 => DType::BF16,
    }
}

/// Refuses an export that could not be written in the end.
fn check_export(path: &std::path::Path) -> Result<()> {
    let wrong =
        |what: &str, fix: &str| Err(Error::usage(what).at(format!("--export {}", path.display())).fix(fix));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if path.is_dir() {
        return wrong("this is a folder", "give the file to write");
    }
    if path.extension().is_none_or(|extension| !extension.eq_ignore_ascii_case("safetensors")) {
        return wrong("the file will be safetensors", "end its name in .safetensors");
    }
    if folder.is_some_and(|folder| !folder.is_dir()) {
        return wrong("its folder does not exist", "create it first");
    }
    Ok(())
}
