//! `tasr bench kernels`: every op that an upscale, or a network of the training, calls, in every shape that it calls it
//! with, checked and timed.

mod collect;
mod measure;
mod plot;
mod subject;

use std::path::PathBuf;

use serde::Serialize;

use super::parts::Setup;
use crate::cli::device::{self, DtypeChoice};
use crate::cli::interrupt::Interrupt;
use crate::device::{Device, Target};
use crate::error::{Error, Result};
use crate::models::config::SystemConfig;
use crate::ops::Cx;
use crate::tensor::DType;
use crate::train::config::AdapterKind;
use collect::Whose;
use measure::{Roof, check, time, time_library};

/// Time every kernel in the shapes that an upscale really has
///
/// The shapes come from a planning run of the whole system, or of what --of names. Each call is checked against the CPU before it is timed;
/// its inputs are rotated, so that caches are cold. The roofline is measured in the same run: a large matrix product
/// and a large copy.
#[derive(clap::Args)]
pub struct Args {
    /// Whose calls
    #[arg(long, default_value = "upscale")]
    of: Whose,
    /// Sizes of the networks of an upscale; the others have one size
    #[arg(long, default_value = "sd21", value_parser = ["tiny", "mini", "sd21"])]
    preset: String,
    #[arg(long, default_value = "official")]
    adapter: AdapterKind,
    /// Device: auto, cpu, cuda, cuda:N, emulator
    #[arg(long, default_value = "auto")]
    device: String,
    /// Element type of weights and activations
    #[arg(long, default_value = "auto")]
    dtype: DtypeChoice,
    /// Only ops or kernels whose description contains this, for instance conv2d or 64x64x320
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Side of the output image in pixels, a multiple of 64
    #[arg(long, default_value_t = 512)]
    size: usize,
    /// Images at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    batch: u16,
    /// Steps of the upscale that calls are counted in
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    steps: u16,
    /// Timed batches of each call, of which the fastest counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    repeats: u16,
    /// Milliseconds that a batch should take
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..))]
    batch_ms: u16,
    /// Leave out calls with more arithmetic than this, in GFLOP: for slow devices
    #[arg(long, value_name = "GFLOP")]
    at_most: Option<f64>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    /// Also draw the calls under the roofline
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

/// The measurement of one call.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub op: &'static str,
    /// the sizes, short
    pub shape: String,
    pub kernels: Vec<&'static str>,
    /// calls of one run
    pub count: usize,
    pub us: f64,
    pub tflops: f64,
    pub gbs: f64,
    /// the least time that the roofline allows, as a share of the time
    pub percent_of_roof: f64,
    /// what the roofline is there: compute or memory
    pub bound: &'static str,
    /// largest error as a share of the largest value
    pub error: f64,
    /// of the product alone by cuBLASLt, where the op is one and the library is there
    pub library_us: Option<f64>,
    /// that time divided by ours: above 1 ours is faster, with all that is fused to it
    pub ratio_to_library: Option<f64>,
    /// of one run, all its calls together
    pub total_ms: f64,
    pub flops: f64,
    pub bytes: f64,
    pub dtype: &'static str,
    pub device: String,
    /// whose clock and speed the figures are: a GPU's, or the host's, which says nothing of a GPU
    pub clock: &'static str,
    pub peak_tflops: f64,
    pub peak_gbs: f64,
    /// sizes by name, for benches of other programs
    pub call: serde_json::Value,
}

/// Runs the command.
///
/// # Errors
/// A device or sizes that cannot be; a call whose result is wrong; memory that runs out, an interrupt.
pub fn run(args: &Args) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let setup = Setup {
        config: SystemConfig::preset(&args.preset)?,
        variant: args.adapter.variant(),
        size: args.size,
        batch: usize::from(args.batch),
        steps: usize::from(args.steps),
    };
    setup.check(&[super::parts::Part::Pipeline])?;
    let cx = device::open(&args.device, args.dtype, &mut |text| eprintln!("{text}"))?;
    let reference = Cx::new(Device::cpu(), DType::F32)?;
    let clock = clock(&cx);
    let roof = Roof::measure(&cx)?;
    if !args.json {
        println!("{clock}; roofline: {:.2} TFLOP/s, {:.0} GB/s", roof.flops / 1e12, roof.bytes / 1e9);
        println!(
            "{:<13} {:<44} {:>5} {:>10} {:>8} {:>8} {:>6} {:>8} {:>8}",
            "op", "shape", "calls", "us", "TFLOP/s", "GB/s", "roof", "ms/image", "cuBLASLt"
        );
    }
    let (mut rows, mut wrong): (Vec<Row>, Option<Error>) = (Vec::new(), None);
    for counted in collect::calls(args.of, &setup, cx.dtype())? {
        interrupt.check()?;
        let noted = &counted.noted;
        let (flops, bytes) = (noted.call.flops(), noted.call.bytes(noted.dtype));
        let (op, shape) = (noted.call.op(), measure::shape(&noted.call));
        if args.at_most.is_some_and(|most| flops > most * 1e9)
            || !format!("{op} {shape} {}", noted.dtype.name()).contains(&args.filter)
        {
            continue;
        }
        let checked = match check(&cx, &reference, noted) {
            Ok(checked) => checked,
            // One wrong kernel does not hide what the others do.
            Err(error) => {
                let error = error.at(format!("{op} {shape} {}", noted.dtype.name()));
                eprintln!("{error}");
                wrong.get_or_insert(error);
                continue;
            }
        };
        let (repeats, batch) = (args.repeats.into(), f64::from(args.batch_ms) / 1e3);
        let seconds = time(&cx, noted, repeats, batch)?;
        let library = time_library(&cx, noted, repeats, batch)?;
        let least = (flops / roof.flops).max(bytes / roof.bytes);
        let row = Row {
            op,
            shape,
            kernels: checked.kernels,
            count: counted.count,
            us: seconds * 1e6,
            tflops: flops / seconds / 1e12,
            gbs: bytes / seconds / 1e9,
            percent_of_roof: 100.0 * least / seconds,
            bound: if flops / roof.flops > bytes / roof.bytes { "compute" } else { "memory" },
            error: checked.error,
            library_us: library.map(|library| library * 1e6),
            ratio_to_library: library.map(|library| library / seconds),
            total_ms: seconds * 1e3 * counted.count as f64,
            flops,
            bytes,
            dtype: noted.dtype.name(),
            device: cx.device().describe(),
            clock,
            peak_tflops: roof.flops / 1e12,
            peak_gbs: roof.bytes / 1e9,
            call: measure::sizes(&noted.call),
        };
        print(args, &row);
        rows.push(row);
    }
    if let Some(wrong) = wrong {
        return Err(wrong);
    }
    if rows.is_empty() {
        return Err(Error::usage(format!("no call matches '{}'", args.filter)).at("--filter"));
    }
    if !args.json {
        let total: f64 = rows.iter().map(|row| row.total_ms).sum();
        println!(
            "{} calls of {} shapes: {total:.1} ms an image",
            rows.iter().map(|r| r.count).sum::<usize>(),
            rows.len()
        );
    }
    match &args.plot {
        Some(path) => plot::write(path, &rows, &roof),
        None => Ok(()),
    }
}

fn clock(cx: &Cx) -> &'static str {
    match (cx.device().target(), cx.device().name().as_str()) {
        (Target::Cpu, _) => "times of the CPU",
        (Target::Gpu, "emulator") => "times of the emulator on the CPU, which say nothing of a GPU",
        (Target::Gpu, _) => "times of the GPU's clock",
    }
}

fn print(args: &Args, row: &Row) {
    if args.json {
        println!("{}", serde_json::json!(row));
        return;
    }
    let library = row.ratio_to_library.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
    println!(
        "{:<13} {:<44} {:>5} {:>10.2} {:>8.3} {:>8.1} {:>4.0} % {:>8.3} {library:>8}",
        row.op, row.shape, row.count, row.us, row.tflops, row.gbs, row.percent_of_roof, row.total_ms
    );
}
