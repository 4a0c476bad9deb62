//! The loop: samples, steps, updates, logs, checkpoints. A run is a pure function of its configuration and weights, so
//! one that was killed goes on from its last checkpoint to the same bits.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use super::checkpoint::{self, Contents, Place};
use super::config::{Config, Schedule, Stage};
use super::data::{Dataset, Loader, Sample, entries};
use super::ema::Ema;
use super::lesson::{self, Lesson, Told};
use super::log::{EventFile, LineFile};
use super::validate::Validator;
use crate::error::{Error, Result};
use crate::image::hash::fnv1a_64;
use crate::image::write_whole;
use crate::ops::Cx;
use crate::ops::adamw::AdamW;
use crate::pipeline::progress::{FileEnd, Progress};
use crate::weights::Dtype;

/// A loss above this, and this many times its running mean, has diverged.
const DIVERGED: (f64, f64) = (10.0, 20.0);
/// Batches that the workers keep ready.
const AHEAD: usize = 2;

/// Where a run starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// At its beginning; an error when the folder holds checkpoints.
    Never,
    /// From the newest checkpoint of the output folder, if there is one.
    Auto,
    From(PathBuf),
}

/// The trained weights, for `tasr upscale`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    pub path: PathBuf,
    pub dtype: Dtype,
}

/// AdamW at optimizer step `index` (from 0) when `spent` of the time of the run, 0 to 1, is over: the rate rises over
/// the first steps, and follows the schedule from there on. A run that is limited in time is as far as its steps or its
/// time are, whichever is further.
pub fn optimizer(config: &Config, index: u64, spent: f64) -> AdamW {
    let rise = ((index + 1) as f64 / config.warmup.max(1) as f64).min(1.0);
    let fall = match config.schedule {
        Schedule::Constant => 1.0,
        Schedule::Cosine => {
            let way = (index as f64 / config.steps as f64).max(spent).min(1.0);
            0.5 * (1.0 + (std::f64::consts::PI * way).cos())
        }
    };
    AdamW {
        rate: (config.learning_rate * rise * fall) as f32,
        beta1: config.betas[0] as f32,
        beta2: config.betas[1] as f32,
        eps: config.epsilon as f32,
        decay: config.weight_decay as f32,
    }
}

/// What decides the numbers of a run, as text; a resumed run should have the same.
fn settings(config: &Config) -> String {
    let text = format!(
        "{:?}{:?}{:?}{:?}{:?}{:?}{:?}{:?}{:?}{:?}{:?}{:?}{:?}{:?}{:?}{:?}{:?}",
        config.stage,
        config.adapter,
        config.batch,
        config.accumulate,
        config.learning_rate,
        config.weight_decay,
        config.betas,
        config.epsilon,
        config.warmup,
        config.schedule,
        // The end of a schedule is a part of it.
        (config.schedule == Schedule::Cosine).then_some((config.steps, config.minutes)),
        config.clip_norm,
        config.ema,
        config.losses,
        config.reconstruction,
        config.data,
        config.cleaner,
    );
    format!("{:016x}", fnv1a_64(text.bytes()))
}

/// Trains from where `resume` says to the last step, and writes `export` if asked for.
///
/// # Errors
/// Whatever stops a run: pictures that cannot be read, a loss that is no number, a full disk, an interrupt (after a
/// checkpoint). Earlier checkpoints stay.
pub fn train(
    cx: &Cx,
    config: &Config,
    resume: &Resume,
    export: Option<&Export>,
    progress: &dyn Progress,
) -> Result<()> {
    let folder = &config.output;
    std::fs::create_dir_all(folder).map_err(|e| Error::io("create the folder", folder, &e))?;
    checkpoint::sweep(folder)?;
    let from = starting_point(folder, resume)?;
    progress.note("loading the networks");
    let mut run = Run::open(cx, config, progress)?;
    if config.stage == Stage::TimestepAware && config.model.start.is_none() && from.is_none() {
        progress.note("stage 2 starts from an untrained ControlNet: adapters learn once it adds something; set model.start");
    }
    if let Some(path) = &from {
        run.resume(path)?;
    }
    run.all()?;
    if let Some(Export { path, dtype }) = export {
        let learnt = checkpoint::learnt(&run.contents())?;
        checkpoint::export(path, &run.lesson.export(cx, learnt)?, *dtype)?;
        let path = path.display().to_string();
        progress.end_file(&folder.display().to_string(), FileEnd::Written { output: &path });
    }
    Ok(())
}

/// The checkpoint to go on from.
fn starting_point(folder: &Path, resume: &Resume) -> Result<Option<PathBuf>> {
    let newest = checkpoint::list(folder)?.pop();
    match (resume, newest) {
        (Resume::From(path), _) => Ok(Some(path.clone())),
        (Resume::Auto, newest) => Ok(newest),
        (Resume::Never, None) => Ok(None),
        (Resume::Never, Some(there)) => Err(Error::usage("a run has left checkpoints here")
            .at(there.display().to_string())
            .fix("give --resume auto to go on with it, or another --output")),
    }
}

/// A run in progress.
struct Run<'a> {
    cx: &'a Cx,
    config: &'a Config,
    progress: &'a dyn Progress,
    lesson: Box<dyn Lesson + 'a>,
    /// of each network that learns, where averages are kept
    averages: Vec<Ema>,
    validator: Option<Validator>,
    /// optimizer steps done
    done: u64,
    /// of the total loss, for telling divergence
    running: f64,
    /// the learning rate of the last step
    rate: f32,
    /// step of the newest checkpoint written or read
    saved: Option<u64>,
    /// when the loop began, and the seconds that earlier runs took
    started: Instant,
    before: f64,
}

/// What happened since the last line of the log.
struct Window {
    start: Instant,
    steps: usize,
    images: usize,
    /// name, sum, steps that had it
    sums: Vec<(&'static str, f64, usize)>,
    norm: f64,
}

impl Window {
    fn new() -> Self {
        Window { start: Instant::now(), steps: 0, images: 0, sums: Vec::new(), norm: 0.0 }
    }

    fn add(&mut self, losses: &Told, images: usize, norm: f64) {
        self.steps += 1;
        self.images += images;
        self.norm = norm;
        for &(name, value) in [("total", losses.total)].iter().chain(&losses.parts) {
            match self.sums.iter_mut().find(|(own, ..)| *own == name) {
                Some((_, sum, count)) => (*sum, *count) = (*sum + value, *count + 1),
                None => self.sums.push((name, value, 1)),
            }
        }
    }

    /// Names and means of the losses there were.
    fn means(&self) -> Vec<(&'static str, f64)> {
        self.sums.iter().map(|&(name, sum, count)| (name, sum / count as f64)).collect()
    }

    fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64().max(1e-9)
    }
}

impl<'a> Run<'a> {
    fn open(cx: &'a Cx, config: &'a Config, progress: &'a dyn Progress) -> Result<Self> {
        let lesson = lesson::open(cx, config)?;
        let averages = match config.ema {
            None => Vec::new(),
            Some(decay) => {
                let learners = lesson.learners().into_iter();
                learners.map(|learner| Ema::new(cx, learner.parameters(), decay)).collect::<Result<_>>()?
            }
        };
        let validator =
            config.validation.as_ref().map(|validation| Validator::new(config, validation)).transpose()?;
        Ok(Run {
            cx,
            config,
            progress,
            lesson,
            averages,
            validator,
            done: 0,
            running: 0.0,
            rate: 0.0,
            saved: None,
            started: Instant::now(),
            before: 0.0,
        })
    }

    fn contents(&self) -> Contents<'_> {
        Contents { learners: self.lesson.learners(), averages: &self.averages }
    }

    fn resume(&mut self, path: &Path) -> Result<()> {
        let place = checkpoint::place(path)?;
        if place.seed != self.config.seed || place.settings != settings(self.config) {
            self.progress.note(&format!(
                "{} was written under other settings: the run goes on, but not as it would have",
                path.display()
            ));
        }
        checkpoint::restore(self.cx, path, &place, self.lesson.learners_mut(), &mut self.averages)?;
        (self.done, self.saved) = (place.step, Some(place.step));
        self.before = place.seconds.unwrap_or_default();
        self.progress.note(&format!("going on at step {} from {}", place.step, path.display()));
        Ok(())
    }

    /// The part of a limited time that is over.
    fn spent(&self) -> f64 {
        let seconds = self.before + self.started.elapsed().as_secs_f64();
        self.config.minutes.map_or(0.0, |minutes| seconds / (60.0 * minutes))
    }

    fn all(&mut self) -> Result<()> {
        let (config, folder) = (self.config, &self.config.output);
        if self.done >= config.steps {
            self.progress.note(&format!("all {} steps are done", config.steps));
            return Ok(());
        }
        self.started = Instant::now();
        if self.spent() >= 1.0 {
            self.progress.note("the time of train.minutes is over");
            return Ok(());
        }
        let dataset = Dataset::new(entries(&config.pictures)?, config.data.clone())?;
        let first = self.done * config.batch as u64;
        let mut loader = Loader::start(dataset, first, config.workers, AHEAD * config.batch)?;
        let mut lines = LineFile::resume(&folder.join("log.jsonl"), self.done)?;
        let mut events = EventFile::create(folder)?;
        self.progress.begin_run(1);
        self.progress.begin_file(&folder.display().to_string());
        self.progress.steps("training", (config.steps - self.done) as usize);
        self.started = Instant::now();
        let mut window = Window::new();
        let mut ended = false;
        while !ended {
            if let Err(stop) = self.progress.check_interrupt() {
                self.save()?;
                return Err(stop);
            }
            let (losses, norm) = self.step(&mut loader)?;
            self.done += 1;
            window.add(&losses, config.batch, norm);
            self.progress.step();
            ended = self.done == config.steps || self.spent() >= 1.0;
            if self.done.is_multiple_of(config.log_every) || ended {
                self.tell(&window, &mut lines, &mut events)?;
                window = Window::new();
            }
            if let Some(validation) = &config.validation
                && (self.done.is_multiple_of(validation.every) || ended)
            {
                self.validate(&mut lines, &mut events)?;
            }
            if self.done.is_multiple_of(config.checkpoint_every) || ended {
                self.save()?;
            }
        }
        if self.done < config.steps {
            self.progress.note(&format!("the time of train.minutes is over after {} steps", self.done));
        }
        Ok(())
    }

    /// One optimizer step: the mean losses of its parts, and the norm of the gradient.
    fn step(&mut self, loader: &mut Loader) -> Result<(Told, f64)> {
        let (cx, config) = (self.cx, self.config);
        let turn = self.lesson.turn(self.done);
        let silent = || Error::internal("a step of a network that does not learn");
        let mut mean = Told::default();
        for part in 0..config.accumulate {
            let samples: Vec<Sample> =
                (0..config.batch / config.accumulate).map(|_| loader.next_sample()).collect::<Result<_>>()?;
            let (losses, mut gradients) = self.lesson.step(cx, &samples, self.done, part as u64)?;
            self.judge(&losses)?;
            mean.add(&losses, 1.0 / config.accumulate as f64);
            let learner = self.lesson.learners_mut().into_iter().nth(turn).ok_or_else(silent)?;
            learner.accumulate(cx, &mut gradients)?;
        }
        let settings = optimizer(config, self.done, self.spent());
        self.rate = settings.rate;
        let limit = config.clip_norm.map(|norm| norm as f32);
        let learner = self.lesson.learners_mut().into_iter().nth(turn).ok_or_else(silent)?;
        let norm = learner.update(cx, &settings, limit)?;
        if let Some(average) = self.averages.get_mut(turn) {
            average.follow(cx, learner.parameters())?;
        }
        if !norm.is_finite() {
            return Err(self.lost("the gradient is not finite"));
        }
        self.running = if self.running == 0.0 { mean.total } else { 0.98 * self.running + 0.02 * mean.total };
        Ok((mean, f64::from(norm)))
    }

    /// Stops a run that is no longer one.
    fn judge(&self, losses: &Told) -> Result<()> {
        if !losses.total.is_finite() {
            return Err(self.lost("the loss is not finite"));
        }
        let (least, times) = DIVERGED;
        if self.running > 0.0 && losses.total > least && losses.total > times * self.running {
            return Err(self.lost(&format!("the loss rose from {:.3} to {:.3}", self.running, losses.total)));
        }
        Ok(())
    }

    fn lost(&self, what: &str) -> Error {
        let kept = match self.saved {
            Some(step) => format!(
                "the checkpoint of step {step} is kept; go on from it with a lower train.learning-rate"
            ),
            None => "no checkpoint was written yet; start again with a lower train.learning-rate".to_owned(),
        };
        Error::input(format!("{what}: the training has failed"))
            .at(format!("step {}", self.done + 1))
            .fix(kept)
    }

    fn tell(&self, window: &Window, lines: &mut LineFile, events: &mut EventFile) -> Result<()> {
        let (means, seconds) = (window.means(), window.seconds());
        let (rate, each) = (window.images as f64 / seconds, seconds / window.steps.max(1) as f64);
        let learning_rate = f64::from(self.rate);
        let mut line = json!({"step": self.done, "norm": window.norm, "learning_rate": learning_rate,
            "images_per_second": (rate * 1000.0).round() / 1000.0,
            "seconds_per_step": (each * 1e5).round() / 1e5});
        let mut scalars: Vec<(String, f64)> = Vec::new();
        for (name, mean) in &means {
            line[*name] = Value::from(*mean);
            scalars.push((format!("loss/{name}"), *mean));
        }
        scalars.extend([
            ("gradient/norm".into(), window.norm),
            ("learning_rate".into(), learning_rate),
            ("images_per_second".into(), rate),
            ("seconds_per_step".into(), each),
        ]);
        lines.write(&line)?;
        let scalars: Vec<(&str, f64)> = scalars.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        events.scalars(self.done, &scalars)?;
        let parts: Vec<String> = means.iter().map(|(name, mean)| format!("{name} {mean:.4}")).collect();
        self.progress.note(&format!(
            "step {}: {}, {each:.3} s a step, {rate:.2} images/s",
            self.done,
            parts.join(", ")
        ));
        Ok(())
    }

    fn validate(&self, lines: &mut LineFile, events: &mut EventFile) -> Result<()> {
        let Some(validator) = &self.validator else { return Ok(()) };
        let folder = self.config.output.join("samples").join(format!("step-{:08}", self.done));
        std::fs::create_dir_all(&folder).map_err(|e| Error::io("create the folder", &folder, &e))?;
        let sampled = validator.run(self.cx, &*self.lesson)?;
        for (i, one) in sampled.iter().enumerate() {
            let path = folder.join(format!("{i:03}.png"));
            write_whole(&path, &one.png)?;
            events.image(self.done, &format!("validation/{i}"), one.size, &one.png)?;
        }
        let mean = sampled.iter().map(|one| one.psnr).sum::<f64>() / sampled.len().max(1) as f64;
        lines.write(&json!({"step": self.done, "validation_psnr": mean}))?;
        events.scalars(self.done, &[("validation/psnr", mean)])?;
        self.progress.note(&format!("step {}: validation PSNR {mean:.2} dB", self.done));
        Ok(())
    }

    fn save(&mut self) -> Result<()> {
        if self.saved == Some(self.done) {
            return Ok(());
        }
        let place = Place {
            step: self.done,
            updates: self.lesson.learners().iter().map(|learner| learner.steps()).collect(),
            seed: self.config.seed,
            seconds: self.config.minutes.map(|_| self.before + self.started.elapsed().as_secs_f64()),
            settings: settings(self.config),
        };
        let folder = &self.config.output;
        checkpoint::save(&checkpoint::path_of(folder, self.done), &place, &self.contents())?;
        self.saved = Some(self.done);
        checkpoint::prune(folder, self.config.keep)
    }
}
