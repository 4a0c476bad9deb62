//! The loop: samples, steps, updates, logs, checkpoints. A run is a pure function of its configuration and weights, so
//! one that was killed goes on from its last checkpoint to the same bits.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use super::batch::Batches;
use super::cache::LatentCache;
use super::checkpoint::{self, Averages, Contents, Place};
use super::config::{Config, Stage};
use super::data::{Dataset, Loader, entries};
use super::ema::Ema;
use super::log::{EventFile, LineFile};
use super::step::{Losses, step};
use super::system::Trainee;
use super::validate::Validator;
use crate::error::{Error, Result};
use crate::image::hash::fnv1a_64;
use crate::models::text::Tokenizer;
use crate::ops::Cx;
use crate::ops::adamw::AdamW;
use crate::pipeline::progress::{FileEnd, Progress};

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

/// AdamW at optimizer step `index` (from 0), the rate rising over the first steps.
pub fn optimizer(config: &Config, index: u64) -> AdamW {
    let rise = ((index + 1) as f64 / config.warmup.max(1) as f64).min(1.0);
    AdamW {
        rate: (config.learning_rate * rise) as f32,
        beta1: config.betas[0] as f32,
        beta2: config.betas[1] as f32,
        eps: config.epsilon as f32,
        decay: config.weight_decay as f32,
    }
}

/// What decides the numbers of a run, as text; a resumed run should have the same.
fn settings(config: &Config) -> String {
    let text = format!(
        "{:?}{:?}{:?}{:?}{:?}{:?}{:?}{:?}{:?}{:?}{:?}{:?}{:?}{:?}",
        config.stage,
        config.adapter,
        config.batch,
        config.accumulate,
        config.learning_rate,
        config.weight_decay,
        config.betas,
        config.epsilon,
        config.warmup,
        config.clip_norm,
        config.ema,
        config.losses,
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
    export: Option<&Path>,
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
    if let Some(path) = export {
        checkpoint::export(path, &run.trainee, &run.averages)?;
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
    trainee: Trainee,
    averages: Averages,
    batches: Batches<'a>,
    validator: Option<Validator>,
    /// optimizer steps done
    done: u64,
    /// of the total loss, for telling divergence
    running: f64,
    /// step of the newest checkpoint written or read
    saved: Option<u64>,
}

/// What happened since the last line of the log.
struct Window {
    start: Instant,
    images: usize,
    sums: [f64; 4],
    /// steps that had each loss
    counts: [usize; 4],
    norm: f64,
}

impl Window {
    fn new() -> Self {
        Window { start: Instant::now(), images: 0, sums: [0.0; 4], counts: [0; 4], norm: 0.0 }
    }

    fn add(&mut self, losses: &Losses, images: usize, norm: f64) {
        self.images += images;
        self.norm = norm;
        let parts = [Some(losses.total), Some(losses.denoise), losses.pixel, losses.reward];
        for ((sum, count), part) in self.sums.iter_mut().zip(&mut self.counts).zip(parts) {
            if let Some(part) = part {
                *sum += part;
                *count += 1;
            }
        }
    }

    /// Names and means of the losses there were.
    fn means(&self) -> Vec<(&'static str, f64)> {
        let names = ["total", "denoise", "pixel", "reward"];
        let parts = names.into_iter().zip(self.sums.iter().zip(self.counts));
        parts
            .filter(|(_, (_, count))| *count > 0)
            .map(|(name, (sum, count))| (name, sum / count as f64))
            .collect()
    }

    fn rate(&self) -> f64 {
        self.images as f64 / self.start.elapsed().as_secs_f64().max(1e-9)
    }
}

impl<'a> Run<'a> {
    fn open(cx: &'a Cx, config: &'a Config, progress: &'a dyn Progress) -> Result<Self> {
        let trainee = Trainee::load(cx, config)?;
        let weights = fnv1a_64(format!("{:?}{:?}", config.model.sd, config.model.preset).bytes());
        let cache =
            config.latent_cache.as_deref().map(|folder| LatentCache::open(folder, weights)).transpose()?;
        let mut averages = Averages::default();
        if let Some(decay) = config.ema {
            averages.controlnet = Some(Ema::new(cx, &trainee.controlnet.trained, decay)?);
            if let Some(adapters) = &trainee.adapters {
                averages.adapters = Some(Ema::new(cx, &adapters.trained, decay)?);
            }
        }
        let validator =
            config.validation.as_ref().map(|validation| Validator::new(config, validation)).transpose()?;
        let batches = Batches { config, tokenizer: Tokenizer::new(), cache };
        Ok(Run {
            cx,
            config,
            progress,
            trainee,
            averages,
            batches,
            validator,
            done: 0,
            running: 0.0,
            saved: None,
        })
    }

    fn resume(&mut self, path: &Path) -> Result<()> {
        let place = checkpoint::place(path)?;
        if place.seed != self.config.seed || place.settings != settings(self.config) {
            self.progress.note(&format!(
                "{} was written under other settings: the run goes on, but not as it would have",
                path.display()
            ));
        }
        let mut contents = Contents { trainee: &mut self.trainee, averages: &mut self.averages };
        checkpoint::restore(self.cx, path, &place, &mut contents)?;
        (self.done, self.saved) = (place.step, Some(place.step));
        self.progress.note(&format!("going on at step {} from {}", place.step, path.display()));
        Ok(())
    }

    fn all(&mut self) -> Result<()> {
        let (config, folder) = (self.config, &self.config.output);
        if self.done >= config.steps {
            self.progress.note(&format!("all {} steps are done", config.steps));
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
        let mut window = Window::new();
        while self.done < config.steps {
            if let Err(stop) = self.progress.check_interrupt() {
                self.save()?;
                return Err(stop);
            }
            let (losses, norm) = self.step(&mut loader)?;
            self.done += 1;
            window.add(&losses, config.batch, norm);
            self.progress.step();
            if self.done.is_multiple_of(config.log_every) || self.done == config.steps {
                self.tell(&window, &mut lines, &mut events)?;
                window = Window::new();
            }
            if let Some(validation) = &config.validation
                && (self.done.is_multiple_of(validation.every) || self.done == config.steps)
            {
                self.validate(&mut lines, &mut events)?;
            }
            if self.done.is_multiple_of(config.checkpoint_every) || self.done == config.steps {
                self.save()?;
            }
        }
        Ok(())
    }

    /// One optimizer step: the mean losses of its parts, and the norm of the gradient.
    fn step(&mut self, loader: &mut Loader) -> Result<(Losses, f64)> {
        let (cx, config) = (self.cx, self.config);
        let adapters = config.losses.is_adapter_step(self.done);
        let plan = self.batches.plan(adapters);
        let mut mean = Losses::default();
        let share = 1.0 / config.accumulate as f64;
        for part in 0..config.accumulate {
            let samples: Vec<_> =
                (0..config.batch / config.accumulate).map(|_| loader.next_sample()).collect::<Result<_>>()?;
            let batch = self.batches.make(cx, &self.trainee, &samples, self.done, part as u64)?;
            let reward = self.trainee.reward.as_deref();
            let mut found = step(cx, &self.trainee.frozen, &self.trainee.learners(), &batch, &plan, reward)?;
            self.judge(&found.losses)?;
            let add = |sum: &mut f64, value: f64| *sum += share * value;
            add(&mut mean.total, found.losses.total);
            add(&mut mean.denoise, found.losses.denoise);
            for (sum, value) in
                [(&mut mean.pixel, found.losses.pixel), (&mut mean.reward, found.losses.reward)]
            {
                if let Some(value) = value {
                    add(sum.get_or_insert(0.0), value);
                }
            }
            match &mut self.trainee.adapters {
                Some(learner) if adapters => learner.accumulate(cx, &mut found.gradients)?,
                _ => self.trainee.controlnet.accumulate(cx, &mut found.gradients)?,
            }
        }
        let settings = optimizer(config, self.done);
        let limit = config.clip_norm.map(|norm| norm as f32);
        let norm = match &mut self.trainee.adapters {
            Some(learner) if adapters => {
                let norm = learner.update(cx, &settings, limit)?;
                if let Some(average) = &mut self.averages.adapters {
                    average.follow(cx, &learner.trained)?;
                }
                norm
            }
            _ => {
                let learner = &mut self.trainee.controlnet;
                let norm = learner.update(cx, &settings, limit)?;
                if let Some(average) = &mut self.averages.controlnet {
                    average.follow(cx, &learner.trained)?;
                }
                norm
            }
        };
        if !norm.is_finite() {
            return Err(self.lost("the gradient is not finite"));
        }
        self.running = if self.running == 0.0 { mean.total } else { 0.98 * self.running + 0.02 * mean.total };
        Ok((mean, f64::from(norm)))
    }

    /// Stops a run that is no longer one.
    fn judge(&self, losses: &Losses) -> Result<()> {
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
        let (means, rate) = (window.means(), window.rate());
        let learning_rate = f64::from(optimizer(self.config, self.done - 1).rate);
        let mut line = json!({"step": self.done, "norm": window.norm, "learning_rate": learning_rate,
            "images_per_second": (rate * 1000.0).round() / 1000.0});
        let mut scalars: Vec<(String, f64)> = Vec::new();
        for (name, mean) in &means {
            line[*name] = Value::from(*mean);
            scalars.push((format!("loss/{name}"), *mean));
        }
        scalars.extend([
            ("gradient/norm".into(), window.norm),
            ("learning_rate".into(), learning_rate),
            ("images_per_second".into(), rate),
        ]);
        lines.write(&line)?;
        let scalars: Vec<(&str, f64)> = scalars.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        events.scalars(self.done, &scalars)?;
        let parts: Vec<String> = means.iter().map(|(name, mean)| format!("{name} {mean:.4}")).collect();
        self.progress.note(&format!("step {}: {}, {rate:.2} images/s", self.done, parts.join(", ")));
        Ok(())
    }

    fn validate(&self, lines: &mut LineFile, events: &mut EventFile) -> Result<()> {
        let Some(validator) = &self.validator else { return Ok(()) };
        let folder = self.config.output.join("samples").join(format!("step-{:08}", self.done));
        std::fs::create_dir_all(&folder).map_err(|e| Error::io("create the folder", &folder, &e))?;
        let sampled = validator.run(self.cx, &self.trainee)?;
        for (i, one) in sampled.iter().enumerate() {
            let path = folder.join(format!("{i:03}.png"));
            std::fs::write(&path, &one.png).map_err(|e| Error::io("write the picture", &path, &e))?;
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
            updates: [
                self.trainee.controlnet.steps(),
                self.trainee.adapters.as_ref().map_or(0, |learner| learner.steps()),
            ],
            seed: self.config.seed,
            settings: settings(self.config),
        };
        let folder = &self.config.output;
        let contents = Contents { trainee: &mut self.trainee, averages: &mut self.averages };
        checkpoint::save(&checkpoint::path_of(folder, self.done), &place, &contents)?;
        self.saved = Some(self.done);
        checkpoint::prune(folder, self.config.keep)
    }
}
