//! `tasr bench pipeline`: the networks of an upscale, one by one and together, on synthetic weights.

use std::time::Instant;

use serde::Serialize;

use super::machine;
use super::parts::{Part, Setup};
use super::timing::{Timing, rounded};
use crate::cli::device::{self, DtypeChoice};
use crate::cli::interrupt::Interrupt;
use crate::cli::synth::Adapter;
use crate::error::Result;
use crate::models::config::SystemConfig;

/// Time the parts of an upscale on synthetic weights
///
/// A step is what a run repeats: projections of the timestep and keys and values of the prompts are computed once a
/// run and are not part of it.
#[derive(clap::Args)]
pub struct Args {
    /// Sizes of the networks
    #[arg(long, default_value = "sd21", value_parser = ["tiny", "mini", "sd21"])]
    preset: String,
    #[arg(long, default_value = "official")]
    adapter: Adapter,
    /// Device: auto, cpu, cuda, cuda:N, emulator
    #[arg(long, default_value = "auto")]
    device: String,
    /// Element type of weights and activations
    #[arg(long, default_value = "auto")]
    dtype: DtypeChoice,
    /// Parts to time, comma separated
    #[arg(long, value_delimiter = ',', default_value = "step,stage1,vae_encode,vae_decode,text,pipeline")]
    parts: Vec<Part>,
    /// Side of the output image in pixels, a multiple of 64
    #[arg(long, default_value_t = 512)]
    size: usize,
    /// Images at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    batch: u16,
    /// Steps of the pipeline
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    steps: u16,
    #[command(flatten)]
    timing: Timing,
}

/// The measurement of one part.
#[derive(Serialize)]
struct Row<'a> {
    part: &'a str,
    /// median
    ms: f64,
    tflop: f64,
    tflops: f64,
    /// of the rate of a large matrix product, measured in the same run
    share_of_matmul: f64,
    matmul_tflops: f64,
    /// images a second, of the whole pipeline
    images_per_s: Option<f64>,
    /// from loading the part to its first run
    load_ms: f64,
    /// from the start of the program to an opened device, its kernels loaded
    start_ms: f64,
    /// of the process, while the part was loaded and run
    peak_mb: Option<u64>,
    /// of a GPU's own memory: weights, and activations at their peak
    device_peak_mb: Option<u64>,
    preset: &'a str,
    device: &'a str,
    dtype: &'a str,
    size: usize,
    batch: usize,
    steps: Option<usize>,
    repeats: u16,
    threads: usize,
}

/// Runs the command.
///
/// # Errors
/// A device or sizes that cannot be, memory that runs out, an interrupt.
pub fn run(args: &Args) -> Result<()> {
    let begin = Instant::now();
    let interrupt = Interrupt::install()?;
    args.timing.start_threads()?;
    let setup = Setup {
        config: SystemConfig::preset(&args.preset)?,
        variant: args.adapter.variant(),
        size: args.size,
        batch: usize::from(args.batch),
        steps: usize::from(args.steps),
    };
    setup.check(&args.parts)?;
    let cx = device::open(&args.device, args.dtype, &mut |text| eprintln!("{text}"))?;
    let device = cx.device().name();
    let start_ms = begin.elapsed().as_secs_f64() * 1e3;
    let rate = machine::matmul_rate(&cx)?;
    if !args.timing.json {
        println!(
            "a {:.3} TFLOP/s matrix product at best, {} threads",
            rate / 1e12,
            rayon::current_num_threads()
        );
        println!(
            "{:<11} {:>11} {:>8} {:>8} {:>7} {:>9}",
            "part", "ms", "TFLOP", "TFLOP/s", "share", "peak MB"
        );
    }
    for &part in &args.parts {
        cx.device().trim();
        machine::forget_peak();
        let (loading, mut load_ms, mut device_peak) = (Instant::now(), 0.0, None);
        let ms = setup.run(&cx, part, &mut |work| {
            load_ms = loading.elapsed().as_secs_f64() * 1e3;
            let ms = args.timing.median(&interrupt, &cx, work)?;
            device_peak = cx.device().gpu().map(|gpu| (gpu.weight_bytes() + gpu.peak()) as u64);
            Ok(ms)
        })?;
        let flops = setup.flops(part);
        print(
            args,
            &Row {
                part: part.name(),
                ms: rounded(ms, 3),
                tflop: rounded(flops / 1e12, 9),
                tflops: rounded(flops / ms / 1e9, 6),
                share_of_matmul: rounded(flops / (ms / 1e3) / rate, 4),
                matmul_tflops: rounded(rate / 1e12, 6),
                images_per_s: (part == Part::Pipeline).then(|| rounded(setup.batch as f64 / ms * 1e3, 4)),
                load_ms: rounded(load_ms, 1),
                start_ms: rounded(start_ms, 1),
                device_peak_mb: device_peak.map(|bytes| bytes / 1_000_000),
                peak_mb: machine::peak_bytes().map(|bytes| bytes / 1_000_000),
                preset: &args.preset,
                device: &device,
                dtype: cx.dtype().name(),
                size: args.size,
                batch: setup.batch,
                steps: (part == Part::Pipeline).then_some(setup.steps),
                repeats: args.timing.repeats,
                threads: rayon::current_num_threads(),
            },
        );
    }
    Ok(())
}

fn print(args: &Args, row: &Row) {
    if args.timing.json {
        println!("{}", serde_json::json!(row));
        return;
    }
    let peak = row.device_peak_mb.or(row.peak_mb).map_or_else(|| "unknown".to_owned(), |mb| mb.to_string());
    let images = row.images_per_s.map_or(String::new(), |rate| format!("  {rate} images/s"));
    println!(
        "{:<11} {:>11.1} {:>8.3} {:>8.3} {:>5.0} % {:>9}{images}",
        row.part,
        row.ms,
        row.tflop,
        row.tflops,
        100.0 * row.share_of_matmul,
        peak
    );
}
