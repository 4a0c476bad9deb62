//! `tasr upscale`: pictures through the whole system.

mod files;
mod flags;
mod memory;
mod metadata;
mod models;
mod noise;
mod prompts;
pub(super) mod report;
mod run;
mod text;
pub(super) mod values;

use flags::{Expert, Files, Machine, Messages, Sampling, Tiles, WeightFiles};
use memory::Planner;
use metadata::RunParameters;
use models::Models;
pub(super) use models::models_folder;
use report::{Counts, Report};
use run::Run;
use text::Prompts;
use values::TileChoice;

use super::device;
use super::interrupt::Interrupt;
use super::memory::Memory;
use super::progress::{Mode, Reporter};
use crate::error::{Error, Kind, Result};
use crate::image::{self, Job};
use crate::models::Variant;
use crate::pipeline::progress::Progress;
use crate::pipeline::{AdapterChoice, Options, Tile, TraceFile};
use crate::sampler::{Guidance, Sizes};
use crate::train::config::AdapterKind;

/// More threads than any machine has cores help nothing.
const MOST_THREADS: usize = 4096;

/// Upscale pictures
///
/// Each goes through the stage-1 network, the autoencoder, the guided sampler with ControlNet and adapters, the
/// autoencoder again and the colour fix. The same picture, seed and options give the same result, whatever the batch
/// and the number of threads.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    weights: WeightFiles,
    #[command(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    tiles: Tiles,
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
    messages: Messages,
    #[command(flatten)]
    expert: Expert,
}

const EXAMPLES: &str = "\
Examples:
  tasr upscale photo.jpg -o photo_x4.png --models models/ --prompt \"a red fox in snow\"
  tasr upscale photos/ -o upscaled/ --recursive --format png --scale 2
  tasr upscale a.png -o b.png --sd v2-1_512-ema-pruned.ckpt --tasr tasr_v1.pt --stage1 BSRNet.pth
  tasr upscale --prompts tags.json -o upscaled/ --steps 50 --cfg 4 --better-start

Without the published weights, make some to try the program with:
  tasr synth --preset tiny -o models

Flag names of the published program are accepted too: --input --upscale --pos_prompt --neg_prompt
--cfg_scale --tiled --tile_size --tile_stride --better_start --sd_v21 --control_adapter --bsrnet;
and --outscale of Real-ESRGAN.

Exit codes: 0 done, 2 wrong flag, 3 unusable input (of several: the others are done), 4 weights,
5 device, 6 memory, 7 file system, 130 stopped by Ctrl-C (run it again to go on).";

/// Runs the command.
///
/// # Errors
/// Whatever ends the run; a picture of several that fails does so at the end, when the others are done.
pub fn run(args: Args) -> Result<()> {
    let tile = tile_choice(&args.tiles)?;
    let options = options(&args);
    options.check()?;
    Guidance::new(options.cfg)?;
    set_threads(args.machine.threads)?;
    let progress =
        &Reporter::new(Mode::choose(args.messages.quiet, args.messages.json), Interrupt::install()?);

    let list = files::prompt_list(&args.files, &args.sampling)?;
    let jobs = files::jobs(&args.files, list.as_ref())?;
    let expert = &args.expert;
    if let Some(trace) = &expert.trace {
        files::check_trace(trace, &jobs)?;
    }
    let exact = expert.noise.is_some() || expert.trace.is_some();
    let seed = expert.noise.is_none().then_some(args.sampling.seed);
    let report = Report::new(progress, args.messages.json, exact || jobs.len() == 1, seed);
    progress.begin_run(jobs.len());
    jobs.iter().filter(|job| job.finished).for_each(|job| report.skipped(job));
    let needed: Vec<usize> = (0..jobs.len()).filter(|&index| !jobs[index].finished).collect();
    let outcome = match needed.is_empty() {
        true => Ok(()),
        false => {
            let prompts = Prompts::new(&args.sampling, list.as_ref(), &jobs, progress);
            upscale(&args, tile, options, &prompts, &jobs, &needed, &report)
        }
    };
    report.summary();
    outcome?;
    match report.counts() {
        Counts { failed: 0, .. } => Ok(()),
        Counts { failed, written, .. } => {
            Err(Error::input(format!("{failed} of {} pictures failed; {written} were written", jobs.len())))
        }
    }
}

/// The run over the jobs `needed`, of which there is at least one.
fn upscale(
    args: &Args,
    tile: TileChoice,
    options: Options,
    prompts: &Prompts,
    jobs: &[Job],
    needed: &[usize],
    report: &Report,
) -> Result<()> {
    let progress = report.progress();
    let expert = &args.expert;
    let mut noise = noise::source(args.sampling.seed, expert.noise.as_deref())?;
    let mut taken = Vec::new();
    let cx = device::open(&args.machine.device, args.machine.dtype, &mut |text| taken.push(text.to_owned()))?;
    let models = Models::find(&args.weights)?;
    let weights = models.open(adapter_choice(args.weights.adapter))?;
    let options = models.suited(options, &args.sampling);
    // Without a text tower both prompts have the same features, and guidance would be work for nothing.
    let options = if weights.reads_prompts() { options } else { Options { cfg: 1.0, ..options } };

    // A twentieth is left to everything else on the machine.
    let memory = cx.device().available().map(|bytes| bytes as u64).or_else(|| Memory::find().available);
    let available = memory.map(|bytes| bytes - bytes / 20);
    let guided = Guidance::new(options.cfg)?.is_on();
    let tiles = [tile, args.tiles.stage1_tile];
    let mut planner = Planner::new(&cx, &weights, options, tiles, args.tiles.batch, available)?;
    announce(&mut planner, jobs, needed, report)?;
    // Not before: what is wrong with the command is told in one line.
    taken.iter().for_each(|text| progress.note(text));
    if matches!(models, Models::Carried(_)) {
        progress.note(models::CARRIED);
    }
    if !weights.reads_prompts() && prompts.are_given() {
        progress.note("these weights were trained without text: prompts are ignored");
    }

    let mut trace = expert.trace.as_ref().map(|_| TraceFile::new(expert.trace_keep.clone()));
    let negative = guided || trace.is_some();
    progress.steps("encoding the prompts", 1);
    let features = prompts.encode(&cx, &weights, needed, negative, progress)?;
    progress.step();
    progress.check_interrupt()?;
    cx.device().trim();
    progress.steps("loading the networks", 1);
    let system = weights.load(&cx)?;
    progress.step();
    progress.check_interrupt()?;

    let parameters = RunParameters {
        seed: args.sampling.seed,
        noise: expert.noise.as_ref().map(|path| files::file_name(path)),
        adapter: system.variant()?.map_or("none", Variant::name),
        device: cx.device().name(),
        dtype: cx.dtype().name(),
        models: models.fingerprints(),
        negative: prompts.negative.clone(),
    };
    let mut run = Run {
        cx: &cx,
        system: &system,
        jobs,
        prompts,
        features: &features,
        guided,
        parameters: &parameters,
        jpeg_quality: args.files.jpeg_quality,
        exact: expert.noise.is_some(),
        planner,
        noise: noise.as_mut(),
        trace: trace.as_mut(),
        report,
        progress,
        reserved: 0,
        traced: None,
    };
    run.all(needed)?;
    let traced = run.traced.take();
    match (&expert.trace, trace, traced) {
        (Some(path), Some(trace), Some(options)) => {
            trace.write(path, &run::trace_metadata(&parameters, &options, jobs, prompts, needed))
        }
        _ => Ok(()),
    }
}

/// Says what the largest picture needs, before anything is loaded. A picture that cannot be done ends the run if it
/// is the only one.
fn announce(planner: &mut Planner, jobs: &[Job], needed: &[usize], report: &Report) -> Result<()> {
    let stated = needed.iter().filter_map(|&index| image::stated_size(&jobs[index].input));
    let work = |&(width, height): &(usize, usize)| {
        let sizes = Sizes::new([height, width], planner.scale());
        sizes.map_or(0, |sizes| sizes.padded[0] * sizes.padded[1] + width * height)
    };
    let Some((width, height)) = stated.max_by_key(work) else { return Ok(()) };
    match planner.plan([height, width]) {
        Ok(plan) => report.progress().note(&planner.describe([height, width], &plan)),
        Err(error) if report.is_strict() || error.kind() == Kind::Weights => return Err(error),
        // It is told when its turn comes.
        Err(_) => {}
    }
    Ok(())
}

fn options(args: &Args) -> Options {
    let (sampling, tiles) = (&args.sampling, &args.tiles);
    Options {
        scale: args.files.scale,
        steps: sampling.steps.into(),
        cfg: sampling.cfg,
        control_scale: sampling.control_scale as f32,
        control_until: sampling.control_until,
        better_start: sampling.better_start,
        tile: Tile::Off,
        tile_stride: tiles.tile_stride,
        stage1_tile: None,
        color_fix: sampling.color_fix.fix(),
        color_levels: sampling.color_levels.map_or(Options::default().color_levels, u32::from),
        stage1_only: sampling.stage1_only,
    }
}

/// What `--tile`, `--tile-stride` and `--tiled` say together.
fn tile_choice(tiles: &Tiles) -> Result<TileChoice> {
    let choice = match (tiles.tiled, tiles.tile) {
        (true, TileChoice::Off) => {
            return Err(
                Error::usage("--tiled and --tile 0 contradict each other").fix("leave one of them out")
            );
        }
        (true, TileChoice::Auto) => TileChoice::Pixels(memory::TILE),
        (_, choice) => choice,
    };
    let side = match choice {
        TileChoice::Off => return Ok(choice),
        TileChoice::Auto => memory::TILE,
        TileChoice::Pixels(side) => side,
    };
    match tiles.tile_stride {
        Some(stride) if stride > side => {
            Err(Error::usage(format!("a stride of {stride} leaves gaps between tiles of {side}"))
                .at("--tile-stride")
                .fix("half the tile is a good stride"))
        }
        _ => Ok(choice),
    }
}

fn adapter_choice(adapter: Option<AdapterKind>) -> AdapterChoice {
    match adapter {
        None => AdapterChoice::Held,
        Some(adapter) => adapter.variant().map_or(AdapterChoice::None, AdapterChoice::Only),
    }
}

/// The processor's thread pool, which must stand before any device.
pub(super) fn set_threads(threads: Option<usize>) -> Result<()> {
    let Some(threads) = threads else { return Ok(()) };
    let refuse = |what: String| Error::usage(what).at("--threads").fix("give at most the number of cores");
    if threads > MOST_THREADS {
        return Err(refuse(format!("{threads} threads are more than any processor has")));
    }
    let built = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    built.map_err(|error| refuse(format!("cannot start {threads} threads: {error}")))
}
