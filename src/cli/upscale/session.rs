//! Batches through the pipeline.

use super::args::Args;
use super::batch::{Finished, Item};
use super::memory::Planner;
use super::models::Models;
use super::parameters::Parameters;
use super::prompts::Prompts;
use super::words::Words;
use crate::error::{Error, Result};
use crate::image::{EncodeOptions, Picture, network_colour, recombine};
use crate::ops::Cx;
use crate::pipeline::progress::Progress;
use crate::pipeline::{Options, Pipeline, System, Trace, Weights};
use crate::sampler::NoiseSource;
use crate::tensor::Tensor;

/// What lives as long as the run.
pub struct Session<'a> {
    pub cx: &'a Cx,
    pub weights: &'a Weights,
    pub args: &'a Args,
    pub models: &'a Models,
    pub prompts: &'a Prompts,
    pub words: &'a Words,
    pub planner: Planner<'a>,
    pub noise: Box<dyn NoiseSource>,
    pub progress: &'a dyn Progress,
    /// loaded once it is known that the first picture fits
    pub system: Option<System>,
}

impl Session<'_> {
    /// Upscales pictures of one size, all of which were read.
    ///
    /// # Errors
    /// What the pipeline met.
    pub fn upscale(&mut self, batch: Vec<Item>, trace: &mut dyn Trace) -> Result<Vec<Finished>> {
        let pictures = batch.iter().map(|item| item.picture.as_ref().map_err(Error::clone));
        let pictures = pictures.collect::<Result<Vec<&Picture>>>()?;
        let first = pictures.first().ok_or_else(|| Error::internal("a batch of nothing"))?;
        let shape = [pictures.len(), first.height, first.width];
        let (options, needed) = self.planner.settle(shape, self.progress)?;
        if self.system.is_none() {
            self.progress.steps("loading weights", 1);
            self.system = Some(self.weights.load(self.cx)?);
            self.progress.step();
        }
        let system = self.system.as_ref().ok_or_else(|| Error::internal("no networks"))?;
        self.cx.device().reserve(needed.activations)?;

        let mut pixels = Vec::with_capacity(shape.iter().product::<usize>() * 3);
        pictures.iter().for_each(|picture| pixels.extend_from_slice(&network_colour(picture)));
        let low = Tensor::from_f32(self.cx.device(), &pixels, [shape[0], shape[1], shape[2], 3])?;
        drop(pixels);
        let prompts: Vec<&str> = batch.iter().map(|item| self.prompts.of(&item.job.input)).collect();
        let (positive, negative) = self.words.rows(self.cx, &prompts, trace)?;
        let hashes: Vec<u64> = batch.iter().map(|item| item.hash).collect();
        self.noise.select(batch[0].index, &hashes);
        let mut pipeline = Pipeline {
            cx: self.cx,
            system,
            options: &options,
            noise: self.noise.as_mut(),
            trace,
            progress: self.progress,
        };
        let guided = (options.cfg as f32 != 1.0).then_some(&negative);
        let image = pipeline.upscale(&low, &positive, guided)?.image;
        self.finish(batch, &options, &image)
    }

    /// Takes the batch apart into pictures to write.
    fn finish(&self, batch: Vec<Item>, options: &Options, image: &Tensor) -> Result<Vec<Finished>> {
        let [_, height, width, _] = image.nhwc()?;
        let parameters = Parameters::new(self.args, self.models, options);
        let values = image.to_f32()?;
        let rows = values.chunks_exact(height * width * 3);
        batch
            .into_iter()
            .zip(rows)
            .map(|(item, row)| {
                let prompt = self.prompts.of(&item.job.input);
                Ok(Finished {
                    picture: recombine(&item.picture?, row.to_vec(), width, height)?,
                    options: EncodeOptions {
                        format: Some(item.job.format),
                        jpeg_quality: self.args.jpeg_quality,
                        text: parameters.text(prompt),
                    },
                    report: parameters.with_prompt(prompt),
                    job: item.job,
                    started: item.started,
                })
            })
            .collect()
    }
}
