//! `tasr data synth`: made-up training pictures.

use std::path::PathBuf;
use std::time::Instant;

use clap::{Args as ClapArgs, Subcommand};
use rayon::prelude::*;

use super::interrupt::Interrupt;
use super::progress::{Mode, Reporter};
use super::upscale::report::{Counts, Report};
use super::upscale::{set_threads, values};
use crate::error::{Error, Result};
use crate::image::{EncodeOptions, Format, Job, Picture, encode};
use crate::pipeline::progress::Progress;
use crate::scenes::{self, Fonts};

/// Pictures to train on
#[derive(ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Synth(Synth),
}

const EXAMPLES: &str = "\
Examples:
  tasr data synth -o scenes --count 10000 --size 512
  tasr data synth -o scenes --count 200 --size 256 --seed 7 --fonts /usr/share/fonts

Then `tasr degrade scenes -o lr --recipe realesrgan --hr-out hr` makes pairs of them.
The same seed, size and fonts give the same bytes, whatever the number of threads. Pictures that are there are
skipped, so that a run that was stopped goes on, and a larger --count adds to a folder.";

/// Make up pictures: shapes over shapes, surfaces, hair, grass, text, drawings, solids and landscapes
///
/// They have the edges, textures, spectrum and colours of photos, and nobody's rights are on them.
#[derive(ClapArgs)]
#[command(after_help = EXAMPLES)]
struct Synth {
    /// Folder for the pictures, made if need be: 000000.png, 000001.png, ...
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// How many
    #[arg(long, value_name = "N", value_parser = values::count)]
    count: usize,
    /// Side of the square pictures in pixels, 16 to 4096
    #[arg(long, value_name = "PIXELS", default_value_t = 512,
        value_parser = clap::value_parser!(u16).range(scenes::SIDES[0] as i64..=scenes::SIDES[1] as i64))]
    size: u16,
    /// Seed of everything random
    #[arg(long, value_name = "N", default_value_t = 231)]
    seed: u64,
    /// Folder of .ttf and .otf fonts to set text in, beside the program's own alphabet
    #[arg(long, value_name = "DIR")]
    fonts: Option<PathBuf>,
    /// Replace pictures that exist
    #[arg(long)]
    overwrite: bool,
    /// Processor threads [default: one a core]
    #[arg(long, value_name = "N", value_parser = values::count)]
    threads: Option<usize>,
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
/// A folder that cannot be written or has no fonts, an interrupt.
pub fn run(args: Args) -> Result<()> {
    match args.what {
        What::Synth(args) => synth(&args),
    }
}

fn synth(args: &Synth) -> Result<()> {
    set_threads(args.threads)?;
    let progress = &Reporter::new(Mode::choose(args.quiet, args.json), Interrupt::install()?);
    let fonts = args.fonts.as_deref().map(Fonts::read).transpose()?.unwrap_or_default();
    std::fs::create_dir_all(&args.output).map_err(|e| Error::io("make the folder", &args.output, &e))?;
    // What cannot be written once can never be: the first failure ends the run.
    let report = Report::new(progress, args.json, true, Some(args.seed));
    progress.begin_run(args.count);
    let outcome = (0..args.count).into_par_iter().try_for_each(|index| {
        progress.check_interrupt()?;
        let output = args.output.join(format!("{index:06}.png"));
        let finished = !args.overwrite && output.exists();
        let job =
            Job { input: PathBuf::from(format!("scene {index}")), output, format: Format::Png, finished };
        if job.finished {
            report.skipped(&job);
            return Ok(());
        }
        progress.begin_file(&job.input.display().to_string());
        let start = Instant::now();
        let side = usize::from(args.size);
        let picture = Picture::of_colour(side, side, scenes::picture(args.seed, index as u64, side, &fonts));
        encode(&picture, &job.output, &EncodeOptions::default())?;
        report.written(&job, [side, side], start.elapsed().as_secs_f64());
        Ok(())
    });
    report.summary();
    let Counts { written, skipped, .. } = report.counts();
    if !args.json && outcome.is_ok() {
        progress.note(&format!("{written} pictures written, {skipped} were there"));
    }
    outcome
}
