//! The loop over the pictures. Decoding of the next and encoding of the last go on in threads of their own while the
//! device works, each at most two pictures ahead or behind.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, ScopedJoinHandle};
use std::time::Instant;

use super::memory::{Plan, Planner};
use super::metadata::RunParameters;
use super::report::Report;
use super::text::{Prompt, Prompts};
use crate::error::{Error, Kind, Result};
use crate::image::{
    EncodeOptions, Job, Picture, check_size, content_hash, decode, encode, network_colour, recombine,
};
use crate::ops::Cx;
use crate::pipeline::progress::Progress;
use crate::pipeline::{NoTrace, Options, Pipeline, Rows, System, TextFeatures, Trace, TraceFile};
use crate::sampler::NoiseSource;
use crate::sampler::sizes::final_size;
use crate::tensor::Tensor;
use crate::weights::Dtype;

/// Everything that the pictures of a run share.
pub struct Run<'a> {
    pub cx: &'a Cx,
    pub system: &'a System<'a>,
    pub jobs: &'a [Job],
    pub prompts: &'a Prompts,
    pub features: &'a TextFeatures,
    /// the negative prompt takes part
    pub guided: bool,
    pub parameters: &'a RunParameters,
    pub jpeg_quality: u8,
    /// noise is replayed: a batch must be neighbours in the run
    pub exact: bool,
    pub planner: Planner<'a>,
    pub noise: &'a mut dyn NoiseSource,
    pub trace: Option<&'a mut TraceFile>,
    pub report: &'a Report<'a>,
    pub progress: &'a dyn Progress,
    /// bytes of activations that the device holds ready
    pub reserved: usize,
    /// the options of the traced pictures
    pub traced: Option<Options>,
}

/// A picture to compute.
struct Loaded {
    index: usize,
    picture: Picture,
    hash: u64,
}

/// A picture to write.
struct Finished {
    index: usize,
    source: Picture,
    colour: Vec<f32>,
    /// height, width
    size: [usize; 2],
    text: Vec<(String, String)>,
    seconds: f64,
}

type Decoded = (usize, Result<Loaded>);

impl Run<'_> {
    /// Computes and writes the jobs `needed`.
    ///
    /// # Errors
    /// What ends the run: an interrupt, a device that fails, an output that cannot be written. Finished pictures
    /// are written also then.
    pub fn all(&mut self, needed: &[usize]) -> Result<()> {
        let (jobs, report, progress, quality) = (self.jobs, self.report, self.progress, self.jpeg_quality);
        thread::scope(|scope| {
            let (to_device, decoded) = sync_channel::<Decoded>(1);
            let (to_disk, finished) = sync_channel::<Finished>(1);
            let decoder = scope.spawn(move || decode_all(jobs, needed, &to_device, progress));
            let encoder = scope.spawn(move || encode_all(jobs, finished, quality, report, progress));
            let computed = self.compute_all(decoded, to_disk);
            joined(decoder)?;
            // Writing may have ended the computing, never the other way round.
            joined(encoder)?.and(computed)
        })
    }

    /// Takes both ends of its channels, so that the threads end when it does.
    fn compute_all(&mut self, decoded: Receiver<Decoded>, to_disk: SyncSender<Finished>) -> Result<()> {
        let mut waiting: Option<Loaded> = None;
        loop {
            let first = match waiting.take() {
                Some(loaded) => loaded,
                None => match self.next(&decoded)? {
                    Some(loaded) => loaded,
                    None => return Ok(()),
                },
            };
            self.progress.check_interrupt()?;
            let job = &self.jobs[first.index];
            let plan = match self.prepare(&first) {
                Ok(plan) => plan,
                Err(error) => {
                    self.fail(job, error)?;
                    continue;
                }
            };
            let mut batch = vec![first];
            while batch.len() < plan.batch {
                match self.next(&decoded)? {
                    Some(loaded) if self.goes_with(&batch, &loaded) => batch.push(loaded),
                    other => {
                        waiting = other;
                        break;
                    }
                }
            }
            for finished in self.compute(batch, &plan)? {
                if to_disk.send(finished).is_err() {
                    return Ok(());
                }
            }
        }
    }

    /// The next picture that could be read.
    fn next(&self, decoded: &Receiver<Decoded>) -> Result<Option<Loaded>> {
        while let Ok((index, result)) = decoded.recv() {
            match result {
                Ok(loaded) => return Ok(Some(loaded)),
                Err(error) => self.fail(&self.jobs[index], error)?,
            }
        }
        // The decoder stops early when it is interrupted.
        self.progress.check_interrupt().map(|()| None)
    }

    /// Reports a picture that failed, or ends the run.
    fn fail(&self, job: &Job, error: Error) -> Result<()> {
        match error.kind() {
            Kind::Interrupted => Err(error),
            Kind::Internal | Kind::Device | Kind::Weights => self.report.failed(job, error, true),
            Kind::Usage | Kind::Input | Kind::Memory | Kind::Io => self.report.failed(job, error, false),
        }
    }

    /// Finds out, before computing, whether the result can be computed and written.
    fn prepare(&mut self, loaded: &Loaded) -> Result<Plan> {
        let size = [loaded.picture.height, loaded.picture.width];
        let job = &self.jobs[loaded.index];
        let [height, width] = final_size(size, self.planner.scale())?;
        check_size(job.format, width, height)?;
        job.create_folder()?;
        self.planner.plan(size)
    }

    fn goes_with(&self, batch: &[Loaded], next: &Loaded) -> bool {
        batch.last().is_some_and(|last| {
            let same = (last.picture.width, last.picture.height) == (next.picture.width, next.picture.height);
            same && (!self.exact || next.index == last.index + 1)
        })
    }

    /// Upscales a batch; if that fails for several at once, each on its own.
    fn compute(&mut self, batch: Vec<Loaded>, plan: &Plan) -> Result<Vec<Finished>> {
        let jobs = self.jobs;
        let names = batch.iter().map(|loaded| jobs[loaded.index].input.display().to_string());
        names.for_each(|name| self.progress.begin_file(&name));
        for loaded in &batch {
            let name = jobs[loaded.index].input.display();
            loaded.picture.notes.iter().for_each(|note| self.progress.note(&format!("{name}: {note}")));
        }
        match self.upscale(&batch, plan) {
            Ok((pixels, size, seconds)) => Ok(self.split(batch, plan, &pixels, size, seconds)),
            Err(error) => match batch.as_slice() {
                [one] => self.fail(&jobs[one.index], error).map(|()| Vec::new()),
                _ if matches!(error.kind(), Kind::Input | Kind::Memory) && self.trace.is_none() => {
                    let mut all = Vec::new();
                    for loaded in batch {
                        all.extend(self.compute(vec![loaded], plan)?);
                    }
                    Ok(all)
                }
                _ => Err(error),
            },
        }
    }

    /// Pixels of the results, their height and width, and the seconds for one.
    fn upscale(&mut self, batch: &[Loaded], plan: &Plan) -> Result<(Vec<f32>, [usize; 2], f64)> {
        let start = Instant::now();
        let first = &batch[0];
        let (cx, count) = (self.cx, batch.len());
        if plan.estimate.activations > self.reserved {
            cx.device().trim();
            cx.device().reserve(plan.estimate.activations)?;
            self.reserved = plan.estimate.activations;
        }
        let mut pixels = Vec::with_capacity(count * first.picture.colour.len());
        batch.iter().for_each(|loaded| pixels.extend_from_slice(&network_colour(&loaded.picture)));
        let low =
            Tensor::from_f32(cx.device(), &pixels, [count, first.picture.height, first.picture.width, 3])?;
        drop(pixels);

        let prompts: Vec<&Prompt> = batch.iter().map(|loaded| self.prompts.of(loaded.index)).collect();
        let rows: Vec<&[u32]> = prompts.iter().map(|prompt| prompt.tokens.ids.as_slice()).collect();
        let negative_rows = vec![self.prompts.negative.tokens.ids.as_slice(); count];
        let positive = self.features.rows(cx, &rows)?;
        // Guidance between equal features does nothing; a trace shows both of its calls all the same.
        let differ = rows.iter().zip(&negative_rows).any(|(a, b)| !self.features.are_equal(a, b));
        let guided = self.guided && (differ || self.trace.is_some());
        let negative = guided.then(|| self.features.rows(cx, &negative_rows)).transpose()?;
        let cfg = if guided { plan.options.cfg } else { 1.0 };
        if let Some(trace) = &mut self.trace {
            keep_tokens(*trace, "tokens.cond", &rows)?;
            keep_tokens(*trace, "tokens.uncond", &negative_rows)?;
            if !self.guided && trace.wants("text.uncond") {
                trace.tensor("text.uncond", &self.features.rows(cx, &negative_rows)?, Rows::Images)?;
            }
            self.traced = Some(plan.options.clone());
        }

        let hashes: Vec<u64> = batch.iter().map(|loaded| loaded.hash).collect();
        self.noise.select(first.index, &hashes);
        let mut no_trace = NoTrace;
        let upscaled = Pipeline {
            cx,
            system: self.system,
            options: &Options { cfg, ..plan.options.clone() },
            noise: &mut *self.noise,
            trace: match &mut self.trace {
                Some(trace) => *trace,
                None => &mut no_trace,
            },
            progress: self.progress,
        }
        .upscale(&low, &positive, negative.as_ref())?;
        let [_, height, width, _] = upscaled.image.nhwc()?;
        let pixels = upscaled.image.to_f32()?;
        Ok((pixels, [height, width], start.elapsed().as_secs_f64() / count as f64))
    }

    fn split(
        &self,
        batch: Vec<Loaded>,
        plan: &Plan,
        pixels: &[f32],
        size: [usize; 2],
        seconds: f64,
    ) -> Vec<Finished> {
        let parts = pixels.chunks_exact(size[0] * size[1] * 3);
        let finished = |(loaded, colour): (Loaded, &[f32])| {
            let prompt = self.prompts.of(loaded.index);
            let line = self.parameters.to_line(&plan.options, prompt);
            let json = self.parameters.to_json(&plan.options, Some(prompt));
            Finished {
                index: loaded.index,
                source: loaded.picture,
                colour: colour.to_vec(),
                size,
                text: vec![("parameters".into(), line), ("tasr".into(), json.to_string())],
                seconds,
            }
        };
        batch.into_iter().zip(parts).map(finished).collect()
    }
}

fn keep_tokens(trace: &mut dyn Trace, name: &str, rows: &[&[u32]]) -> Result<()> {
    if !trace.wants(name) {
        return Ok(());
    }
    // Ids are below 2^24, which f32 holds exactly.
    let values: Vec<f32> = rows.iter().flat_map(|row| row.iter().map(|&id| id as f32)).collect();
    trace.integers(name, &[rows.len(), values.len() / rows.len().max(1)], &values, Dtype::I32)
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> Result<T> {
    thread.join().map_err(|_| Error::internal("a thread that reads or writes pictures has died"))
}

/// Reads the jobs `needed` in their order until nobody wants more.
fn decode_all(jobs: &[Job], needed: &[usize], to_device: &SyncSender<Decoded>, progress: &dyn Progress) {
    for &index in needed {
        let loaded = decode(&jobs[index].input).map(|picture| {
            let hash = content_hash(&picture);
            Loaded { index, picture, hash }
        });
        if progress.check_interrupt().is_err() || to_device.send((index, loaded)).is_err() {
            return;
        }
    }
}

/// Writes what comes until no more does.
fn encode_all(
    jobs: &[Job],
    finished: Receiver<Finished>,
    jpeg_quality: u8,
    report: &Report,
    progress: &dyn Progress,
) -> Result<()> {
    for done in finished {
        let job = &jobs[done.index];
        let options = EncodeOptions { format: Some(job.format), jpeg_quality, text: done.text };
        let [height, width] = done.size;
        let start = Instant::now();
        let written = recombine(&done.source, done.colour, width, height)
            .and_then(|picture| encode(&picture, &job.output, &options));
        match written {
            Ok(notes) => {
                let name = job.output.display();
                notes.iter().for_each(|note| progress.note(&format!("{name}: {note}")));
                report.written(job, [width, height], done.seconds + start.elapsed().as_secs_f64());
            }
            // Computing on for a disk that takes nothing would be in vain.
            Err(error) => report.failed(job, error, true)?,
        }
    }
    Ok(())
}

/// The header of a trace: parameters and pictures of the run.
pub fn trace_metadata(
    parameters: &RunParameters,
    options: &Options,
    jobs: &[Job],
    prompts: &Prompts,
    needed: &[usize],
) -> BTreeMap<String, String> {
    let images: Vec<String> = needed.iter().map(|&index| jobs[index].input.display().to_string()).collect();
    let texts: Vec<&str> = needed.iter().map(|&index| prompts.of(index).text.as_str()).collect();
    BTreeMap::from([
        ("tasr".to_owned(), parameters.to_json(options, None).to_string()),
        ("images".to_owned(), serde_json::json!(images).to_string()),
        ("prompts".to_owned(), serde_json::json!(texts).to_string()),
    ])
}
