//! `tasr degrade`: low-resolution pictures for training and evaluation, made from high-resolution ones.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::ValueEnum;
use rayon::prelude::*;

use super::interrupt::Interrupt;
use super::progress::{Mode, Reporter};
use super::upscale::report::{Counts, Report};
use super::upscale::{set_threads, values};
use crate::error::{Error, Kind, Result};
use crate::image::{
    EncodeOptions, Format, FormatChoice, Job, OutputRules, Picture, content_hash, decode, discover, encode,
    network_colour, plan,
};
use crate::pipeline::progress::Progress;
use crate::train::degrade::{Crop, Image, Pair, Random, RealEsrgan, Recipe};

const EXAMPLES: &str = "\
Examples:
  tasr degrade DIV2K_train_HR -o lr --recipe realesrgan --hr-out hr --size 512
  tasr degrade photo.png -o photo_lr.png --recipe codeformer --seed 7

The same seed and picture give the same bytes, whatever the other pictures and the number of threads.
The target of realesrgan is the sharpened picture: --hr-out writes it, --no-sharpen leaves the picture as it is.";

/// Make degraded pictures for training: the second-order pipeline of Real-ESRGAN, or that of the published configuration
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Pictures, or folders of them
    #[arg(required = true, value_name = "IN")]
    inputs: Vec<PathBuf>,
    /// Folder for the degraded pictures (PNG), or a file for a single one
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    /// Which pipeline
    #[arg(long)]
    recipe: Name,
    /// Seed of everything random
    #[arg(long, value_name = "N", default_value_t = 231)]
    seed: u64,
    /// How many times smaller the result is, realesrgan only [default: 4]
    #[arg(long, value_name = "N", value_parser = values::count)]
    scale: Option<usize>,
    /// Folder (or file) for what the results are to be restored to
    #[arg(long, value_name = "OUT")]
    hr_out: Option<PathBuf>,
    /// Degrade the picture as it is, where realesrgan sharpens it first
    #[arg(long)]
    no_sharpen: bool,
    /// Side of a square that is cut out [default: the whole picture]
    #[arg(long, value_name = "PIXELS", value_parser = values::count)]
    size: Option<usize>,
    /// Which square
    #[arg(long, default_value = "random")]
    crop: Where,
    /// Exchange left and right in half of the pictures
    #[arg(long)]
    flip: bool,
    /// Search folders within folders
    #[arg(short, long)]
    recursive: bool,
    /// Replace results that exist
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

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Name {
    /// Second order, official ranges
    Realesrgan,
    /// Second order, the milder ranges of StableSR and PASD
    RealesrganMild,
    /// One blur, downscale, noise and JPEG, back to full size
    Codeformer,
}

#[derive(Clone, Copy, ValueEnum)]
enum Where {
    Random,
    Centre,
    /// Resized to fit, then the middle
    Fit,
}

impl Args {
    fn recipe(&self) -> Result<Recipe> {
        let second_order = |recipe: RealEsrgan| {
            let scale = self.scale.unwrap_or(recipe.scale);
            let sharpen = recipe.sharpen && !self.no_sharpen;
            Recipe::RealEsrgan(Box::new(RealEsrgan { scale, sharpen, ..recipe }))
        };
        match (self.recipe, self.scale) {
            (Name::Realesrgan, _) => Ok(second_order(RealEsrgan::default())),
            (Name::RealesrganMild, _) => Ok(second_order(RealEsrgan::mild())),
            (Name::Codeformer, None | Some(1)) => Recipe::named("codeformer"),
            (Name::Codeformer, Some(_)) => {
                Err(Error::usage("codeformer gives pictures of full size").at("--scale").fix("leave it out"))
            }
        }
    }

    fn rules(&self, output: &Path) -> OutputRules {
        let format = match Format::from_path(output) {
            Some(_) => FormatChoice::Same,
            None => FormatChoice::Fixed(Format::Png),
        };
        OutputRules { output: output.to_owned(), format, suffix: String::new(), overwrite: self.overwrite }
    }
}

/// Runs the command.
///
/// # Errors
/// Flags that contradict each other, no pictures, outputs that collide; a picture of several that fails is told, and
/// the run fails at its end.
pub fn run(args: Args) -> Result<()> {
    let recipe = args.recipe()?;
    if let Some(size) = args.size.filter(|size| !size.is_multiple_of(recipe.scale())) {
        return Err(Error::usage(format!("{size} is no multiple of the scale, {}", recipe.scale()))
            .at("--size")
            .fix("give one"));
    }
    set_threads(args.threads)?;
    let progress = &Reporter::new(Mode::choose(args.quiet, args.json), Interrupt::install()?);
    let sources = discover(&args.inputs, args.recursive, Some(&args.output))?;
    let mut lows = plan(&sources, &args.rules(&args.output))?;
    let highs = args.hr_out.as_ref().map(|out| plan(&sources, &args.rules(out))).transpose()?;
    if let Some(highs) = &highs {
        if let Some((low, _)) = lows.iter().zip(highs).find(|(low, high)| low.output == high.output) {
            return Err(Error::usage("the degraded picture and its target would both be written here")
                .at(low.output.display().to_string())
                .fix("give --hr-out another folder"));
        }
        lows.iter_mut().zip(highs).for_each(|(low, high)| low.finished &= high.finished);
    }
    let report = Report::new(progress, args.json, lows.len() == 1, Some(args.seed));
    progress.begin_run(lows.len());
    let outcome = (0..lows.len()).into_par_iter().try_for_each(|index| {
        progress.check_interrupt()?;
        let job = &lows[index];
        if job.finished {
            report.skipped(job);
            return Ok(());
        }
        progress.begin_file(&job.input.display().to_string());
        let start = Instant::now();
        match degrade(&args, &recipe, job, highs.as_ref().map(|highs| &highs[index])) {
            Ok(size) => report.written(job, size, start.elapsed().as_secs_f64()),
            Err(error) => {
                let ends = matches!(error.kind(), Kind::Io | Kind::Memory) && job.input.exists();
                report.failed(job, error, ends)?;
            }
        }
        Ok(())
    });
    report.summary();
    outcome?;
    match report.counts() {
        Counts { failed: 0, .. } => Ok(()),
        Counts { failed, written, .. } => {
            Err(Error::input(format!("{failed} of {} pictures failed; {written} were written", lows.len())))
        }
    }
}

/// Reads, degrades and writes one picture; the width and height of the result.
fn degrade(args: &Args, recipe: &Recipe, job: &Job, high_job: Option<&Job>) -> Result<[usize; 2]> {
    let picture = decode(&job.input)?;
    let random = &mut Random::new(args.seed, 0, content_hash(&picture));
    let mut image = Image::new(picture.height, picture.width, network_colour(&picture).into_owned())?;
    if args.flip && random.chance(0.5) {
        image = image.flipped();
    }
    let scale = recipe.scale();
    let image = match (args.size, args.crop) {
        (Some(size), Where::Random) => Crop::Random.apply(&image, size, random),
        (Some(size), Where::Centre) => Crop::Centre.apply(&image, size, random),
        (Some(size), Where::Fit) => Crop::Fit.apply(&image, size, random),
        (None, _) if image.height.min(image.width) < scale => {
            return Err(Error::input(format!(
                "{} x {} pixels cannot become {scale} times smaller",
                image.width, image.height
            )));
        }
        (None, _) => image.window((0, 0), (image.height / scale * scale, image.width / scale * scale)),
    };
    let Pair { high, low } = recipe.apply(image, random)?;
    // The target first: a pair counts as finished by both, and a run that is cut off makes it anew.
    for (job, image) in high_job.map(|job| (job, &high)).into_iter().chain([(job, &low)]) {
        job.create_folder()?;
        encode(
            &pictured(image),
            &job.output,
            &EncodeOptions { format: Some(job.format), ..Default::default() },
        )?;
    }
    Ok([low.width, low.height])
}

/// `image` rounded to bytes, as a picture.
fn pictured(image: &Image) -> Picture {
    let mut image = image.clone();
    image.round_to_bytes();
    Picture::of_colour(image.width, image.height, image.values)
}
