//! `tasr bench pipeline`: the networks of an upscale, one by one and together, on synthetic weights.

use std::time::Instant;

use serde::Serialize;

use super::machine;
use super::parts::{Part, Setup, Work};
use crate::cli::device::{self, DtypeChoice};
use crate::cli::interrupt::Interrupt;
use crate::cli::synth::Adapter;
use crate::error::{Error, Result};
use crate::models::config::SystemConfig;
use crate::ops::Cx;

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
    /// Timed runs of each part, of which the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    repeats: u16,
    /// Runs of each part before the timed ones
    #[arg(long, default_value_t = 1)]
    warmup: u16,
    /// Threads of the CPU [default: one for each core]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
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
    if let Some(threads) = args.threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(usize::from(threads))
            .build_global()
            .map_err(|e| Error::internal(format!("cannot start {threads} threads: {e}")).at("--threads"))?;
    }
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
    if !args.json {
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
            let ms = time(args, &interrupt, &cx, work)?;
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
                repeats: args.repeats,
                threads: rayon::current_num_threads(),
            },
        );
    }
    Ok(())
}

/// The median milliseconds of `work`, after the warm-up. On a GPU the first two runs of a step bring memory and record
/// it, so that these are never timed.
fn time(args: &Args, interrupt: &Interrupt, cx: &Cx, work: &mut Work) -> Result<f64> {
    let warmup = if cx.device().gpu().is_some() { args.warmup.max(2) } else { args.warmup };
    for _ in 0..warmup {
        interrupt.check()?;
        work()?;
    }
    let mut taken = Vec::with_capacity(usize::from(args.repeats));
    for _ in 0..args.repeats {
        interrupt.check()?;
        cx.device().synchronize()?;
        let start = Instant::now();
        work()?;
        cx.device().synchronize()?;
        taken.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(median(&mut taken))
}

/// The middle value, or the mean of the two in the middle.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    (values[low] + values[high]) / 2.0
}

fn rounded(value: f64, digits: i32) -> f64 {
    let unit = 10f64.powi(digits);
    (value * unit).round() / unit
}

fn print(args: &Args, row: &Row) {
    if args.json {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&mut [9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [9.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&mut [4.0]), 4.0);
    }
}
