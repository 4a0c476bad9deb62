//! `tasr bench train`: a training step of each kind on synthetic weights.

use serde::Serialize;

use super::machine;
use super::timing::{Timing, rounded};
use crate::cli::device::{self, DtypeChoice};
use crate::cli::interrupt::Interrupt;
use crate::error::{Error, Result};
use crate::ops::Cx;
use crate::train::config::Target;
use crate::train::probe::{self, Probe};

/// Time training steps on synthetic weights
///
/// A step encodes its pictures and prompts, runs forward and backward under the noise and the pixel loss, and updates
/// the ControlNet or the adapters.
#[derive(clap::Args)]
pub struct Args {
    /// Sizes of the networks
    #[arg(long, default_value = "sd21", value_parser = ["tiny", "sd21"])]
    preset: String,
    /// Device: auto, cpu, cuda, cuda:N, emulator
    #[arg(long, default_value = "auto")]
    device: String,
    /// Element type of weights and activations; masters are f32
    #[arg(long, default_value = "bf16")]
    dtype: DtypeChoice,
    /// What is trained, comma separated
    #[arg(long, value_delimiter = ',', default_value = "controlnet,adapters")]
    targets: Vec<Trained>,
    /// Side of the pictures in pixels, a multiple of 64
    #[arg(long, default_value_t = 512)]
    size: usize,
    /// Pictures a step
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    batch: u16,
    /// Keep all activations instead of computing blocks again in the backward pass
    #[arg(long)]
    no_checkpointing: bool,
    #[command(flatten)]
    timing: Timing,
}

/// The network that a step updates.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Trained {
    Controlnet,
    Adapters,
}

/// The measurement of one kind of step.
#[derive(Serialize)]
struct Row<'a> {
    part: &'a str,
    /// median
    ms: f64,
    images_per_s: f64,
    /// of the last step, to see that it is a number
    loss: f64,
    /// of the process, while the networks were loaded and trained
    peak_mb: Option<u64>,
    /// of a GPU's own memory: weights, masters, moments, and activations at their peak
    device_peak_mb: Option<u64>,
    preset: &'a str,
    device: &'a str,
    dtype: &'a str,
    size: usize,
    batch: usize,
    checkpointing: bool,
    repeats: u16,
    threads: usize,
}

/// Runs the command.
///
/// # Errors
/// A device or sizes that cannot be, memory that runs out, a loss that is no number, an interrupt.
pub fn run(args: &Args) -> Result<()> {
    let interrupt = Interrupt::install()?;
    args.timing.start_threads()?;
    let cx = device::open(&args.device, args.dtype, &mut |text| eprintln!("{text}"))?;
    if !args.timing.json {
        println!("{:<17} {:>11} {:>9} {:>9} {:>12}", "step of", "ms", "images/s", "peak MB", "loss");
    }
    for &target in &args.targets {
        cx.device().trim();
        machine::forget_peak();
        measure(args, &cx, &interrupt, target)?;
    }
    Ok(())
}

fn measure(args: &Args, cx: &Cx, interrupt: &Interrupt, target: Trained) -> Result<()> {
    let (part, target) = match target {
        Trained::Controlnet => ("train_controlnet", Target::Controlnet),
        Trained::Adapters => ("train_adapters", Target::Adapters),
    };
    let batch = usize::from(args.batch);
    let config = probe::config(&args.preset, target, (batch, args.size), !args.no_checkpointing)?;
    let mut probe = Probe::load(cx, &config)?;
    let mut loss = f64::NAN;
    let ms = args.timing.median(interrupt, cx, &mut || {
        loss = probe.step(cx)?;
        Ok(())
    })?;
    if !loss.is_finite() {
        return Err(Error::internal(format!("the loss of {part} is {loss}")));
    }
    let row = Row {
        part,
        ms: rounded(ms, 3),
        images_per_s: rounded(batch as f64 / ms * 1e3, 4),
        loss: rounded(loss, 6),
        peak_mb: machine::peak_bytes().map(|bytes| bytes / 1_000_000),
        device_peak_mb: cx.device().gpu().map(|gpu| (gpu.weight_bytes() + gpu.peak()) as u64 / 1_000_000),
        preset: &args.preset,
        device: &cx.device().name(),
        dtype: cx.dtype().name(),
        size: args.size,
        batch,
        checkpointing: !args.no_checkpointing,
        repeats: args.timing.repeats,
        threads: rayon::current_num_threads(),
    };
    if args.timing.json {
        println!("{}", serde_json::json!(row));
        return Ok(());
    }
    let peak = row.device_peak_mb.or(row.peak_mb).map_or_else(|| "unknown".to_owned(), |mb| mb.to_string());
    println!("{:<17} {:>11.1} {:>9.3} {peak:>9} {:>12.6}", row.part, row.ms, row.images_per_s, row.loss);
    Ok(())
}
