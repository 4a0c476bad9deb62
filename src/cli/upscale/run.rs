//! The run: settle everything that can be wrong first, encode the text, then picture after picture.

use std::collections::HashMap;

use super::args::Args;
use super::batch::{Batches, check_parent, read_ahead, write_behind};
use super::memory::Planner;
use super::models::Models;
use super::parameters::Parameters;
use super::prompts::Prompts;
use super::report::Tally;
use super::session::Session;
use super::words::Words;
use crate::cli::interrupt::Interrupt;
use crate::cli::progress::{Mode, Reporter};
use crate::device::Device;
use crate::error::{Error, Kind, Result};
use crate::image::{Job, OutputRules, discover, plan};
use crate::ops::Cx;
use crate::pipeline::progress::Progress;
use crate::pipeline::{NoTrace, Trace, TraceFile};
use crate::sampler::{NoiseSource, Replay, Seeded};
use crate::weights::Checkpoint;

/// Runs the command.
///
/// # Errors
/// What stops the run, or, after all files were tried, that some of them failed.
pub fn run(args: Args) -> Result<()> {
    let options = args.options()?;
    if let Some(threads) = args.threads {
        let built = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
        built.map_err(|error| Error::internal(format!("cannot start {threads} threads: {error}")))?;
    }
    let progress = Reporter::new(Mode::choose(args.quiet, args.json), Interrupt::install()?);
    let prompts = Prompts::read(&args.prompt, args.prompts.as_deref())?;
    let jobs = find_jobs(&args, &prompts)?;
    if let Some(trace) = &args.trace {
        check_parent(trace, "--trace")?;
    }
    let noise = noise_source(&args)?;
    let cx = &Cx::new(Device::open(&args.device)?, args.element_type())?;
    let models = Models::find(&args)?;

    progress.begin_run(jobs.len());
    let tally = Tally::new(&progress, args.json);
    let (done, todo): (Vec<_>, Vec<_>) = jobs.into_iter().enumerate().partition(|(_, job)| job.finished);
    done.iter().for_each(|(_, job)| tally.skipped(job));
    if todo.is_empty() {
        return tally.finish(Ok(()));
    }

    let weights = models.open(&args)?;
    let words = Words::new(
        cx,
        &weights,
        &prompts,
        &args.negative_prompt,
        todo.iter().map(|(_, job)| job),
        &progress,
    )?;
    let mut session = Session {
        cx,
        weights: &weights,
        args: &args,
        models: &models,
        prompts: &prompts,
        words: &words,
        planner: Planner::new(&weights, &args, &options, words.width()),
        noise,
        progress: &progress,
        system: None,
    };
    let mut file = args.trace.as_ref().map(|_| TraceFile::new(args.trace_keep.clone()));
    let mut nothing = NoTrace;
    let trace: &mut dyn Trace = match &mut file {
        Some(file) => file,
        None => &mut nothing,
    };
    let ended = upscale_all(&mut session, todo, trace, &tally);
    let traced = match (&args.trace, file) {
        (Some(path), Some(file)) if ended.is_ok() => {
            file.write(path, &Parameters::new(&args, &models, &options).metadata(&args.prompt))
        }
        _ => Ok(()),
    };
    tally.finish(ended.and(traced))
}

/// Every picture in order. A failure of one is counted; what ends the run is returned, after the pictures that
/// were made before it are written.
fn upscale_all(
    session: &mut Session,
    todo: Vec<(usize, Job)>,
    trace: &mut dyn Trace,
    tally: &Tally,
) -> Result<()> {
    let progress = session.progress;
    std::thread::scope(|scope| {
        let writer =
            write_behind(scope, |job, written, report, seconds| tally.written(job, written, report, seconds));
        for batch in Batches::new(read_ahead(scope, todo), session.args.batch) {
            progress.check_interrupt()?;
            batch.iter().for_each(|item| progress.begin_file(&item.job.input.display().to_string()));
            let jobs: Vec<Job> = batch.iter().map(|item| item.job.clone()).collect();
            match session.upscale(batch, trace) {
                Ok(finished) => {
                    for picture in finished {
                        writer.send(picture).map_err(|_| Error::internal("the writing thread has ended"))?;
                    }
                }
                // What is wrong with one picture does not end the run.
                Err(error) if matches!(error.kind(), Kind::Input | Kind::Memory | Kind::Io) => {
                    jobs.iter().for_each(|job| tally.failed(job, &error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    })
}

fn find_jobs(args: &Args, prompts: &Prompts) -> Result<Vec<Job>> {
    let mut inputs = args.all_inputs();
    if inputs.is_empty() {
        inputs = prompts.images().to_vec();
    }
    if inputs.is_empty() {
        return Err(Error::usage("no picture was given").at("INPUT").fix("name files or folders to upscale"));
    }
    let sources = discover(&inputs, args.recursive, Some(&args.output))?;
    plan(
        &sources,
        &OutputRules {
            output: args.output.clone(),
            format: args.format_choice(),
            suffix: args.suffix.clone(),
            overwrite: args.overwrite,
        },
    )
}

fn noise_source(args: &Args) -> Result<Box<dyn NoiseSource>> {
    let Some(path) = &args.noise else {
        return Ok(Box::new(Seeded::new(args.seed)));
    };
    let file = Checkpoint::open(path).map_err(|error| error.at("--noise"))?;
    let mut tensors = HashMap::new();
    for (name, entry) in
        file.iter().filter(|(name, entry)| name.starts_with("noise.") && entry.dtype().is_float())
    {
        let mut values = vec![0.0; entry.count()];
        file.read_f32(name, &mut values)?;
        tensors.insert(name.to_owned(), (entry.shape().to_vec(), values));
    }
    Ok(Box::new(Replay::new(&path.display().to_string(), tensors)?))
}
