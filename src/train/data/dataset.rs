//! From a place in the run to a sample: which picture, which part of it, degraded how, with which prompt. Everything is
//! a pure function of the seed and the place, so that a run can go on from any step.

use super::list::{Entry, PromptSource};
use crate::error::{Error, Result};
use crate::image::{content_hash, decode, network_colour};
use crate::train::degrade::{Crop, Image, Pair, Random, Recipe};

/// The stream that orders the pictures of an epoch; content hashes name the others.
const ORDER: u64 = u64::from_le_bytes(*b"epoch or");

/// How samples are made.
#[derive(Clone, Debug)]
pub struct DataOptions {
    pub seed: u64,
    /// side of the target
    pub size: usize,
    pub crop: Crop,
    /// exchange left and right in half of the samples
    pub flip: bool,
    pub recipe: Recipe,
    /// whether samples have a degraded picture
    pub degrade: bool,
    /// degrade a picture the same way in every epoch
    pub fixed: bool,
    pub prompts: PromptSource,
    /// probability of an empty prompt
    pub dropout: f64,
}

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// the target, size x size, in [0, 1]
    pub high: Image,
    /// as the recipe leaves it; empty where nothing is degraded
    pub low: Image,
    pub prompt: String,
}

/// The pictures of a run.
pub struct Dataset {
    entries: Vec<Entry>,
    options: DataOptions,
}

impl Dataset {
    /// # Errors
    /// There are no pictures, or the size does not go with the recipe.
    pub fn new(entries: Vec<Entry>, options: DataOptions) -> Result<Self> {
        if entries.is_empty() {
            return Err(Error::input("there are no pictures to train on").at("data.pictures"));
        }
        let scale = options.recipe.scale();
        if options.size == 0 || !options.size.is_multiple_of(scale) {
            return Err(Error::usage(format!(
                "{} is no multiple of the degradation's scale, {scale}",
                options.size
            ))
            .at("data.size"));
        }
        Ok(Dataset { entries, options })
    }

    /// Pictures in an epoch.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The order of the pictures in `epoch`: a shuffle by Fisher and Yates.
    pub fn order(&self, epoch: u64) -> Vec<usize> {
        let random = &mut Random::new(self.options.seed, epoch, ORDER);
        let mut order: Vec<usize> = (0..self.entries.len()).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, random.index(i + 1));
        }
        order
    }

    /// Sample of picture `index` in `epoch`.
    ///
    /// # Errors
    /// The picture or its prompt cannot be read.
    pub fn sample(&self, epoch: u64, index: usize) -> Result<Sample> {
        let DataOptions { seed, size, crop, flip, ref recipe, degrade, fixed, prompts, dropout } =
            self.options;
        let entry = &self.entries[index];
        let picture = decode(&entry.path)?;
        let hash = content_hash(&picture);
        let random = &mut Random::new(seed, if fixed { 0 } else { epoch }, hash);
        let image = Image::new(picture.height, picture.width, network_colour(&picture).into_owned())?;
        let image = if flip && random.chance(0.5) { image.flipped() } else { image };
        let square = crop.apply(&image, size, random);
        let Pair { high, low } = match degrade {
            true => recipe.apply(square, random).map_err(|e| e.at(entry.path.display().to_string()))?,
            false => Pair { high: square, low: Image { height: 0, width: 0, values: Vec::new() } },
        };
        // Prompts drop anew in every epoch, also where the pictures are fixed.
        let dropped = Random::new(seed, epoch, hash ^ ORDER).chance(dropout);
        let prompt = if dropped { String::new() } else { entry.prompt(prompts)? };
        Ok(Sample { high, low, prompt })
    }
}
