//! What a training step minimises: the published loop's rules, the article's, and everything between.
//!
//! | | published code | article (Eq. 1-6) |
//! |---|---|---|
//! | clean latent | sqrt(a) x - sqrt(1 - a) eps | (x - sqrt(1 - a) eps) / sqrt(a) |
//! | L1 on pixels, weight 0.1 / 0.01 | 0 < t < 800 | 0 <= t <= 800 |
//! | reward, weight 0.1 / 0.01 | relu(1 - mean), whatever t is | mean of 1 - reward over 0 <= t <= 200 |
//!
//! with a the cumulative alpha of t. The noise loss, a mean squared error, is always there. The L1 drives the
//! ControlNet, the reward the adapters.

use std::ops::RangeInclusive;

/// The part of the system that a step trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    ControlNet,
    Adapters,
}

/// How the clean latent follows from the predicted noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CleanLatent {
    /// As published; not the inverse of adding noise.
    Published,
    /// Eq. 4: the inverse.
    Inverse,
}

/// Mean absolute error of the decoded image.
#[derive(Clone, Debug, PartialEq)]
pub struct PixelTerm {
    pub weight: f32,
    /// timesteps of the images that count
    pub range: RangeInclusive<usize>,
}

/// How scores become a loss.
#[derive(Clone, Debug, PartialEq)]
pub enum RewardForm {
    /// `relu(1 - mean of all scores)`
    Hinge,
    /// the mean of `1 - score` over the images whose timestep is in range
    Ranged(RangeInclusive<usize>),
}

/// A reward of the decoded image.
#[derive(Clone, Debug, PartialEq)]
pub struct RewardTerm {
    pub weight: f32,
    pub form: RewardForm,
}

/// The loss of one step; terms that are absent cost nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    pub clean: CleanLatent,
    pub pixel: Option<PixelTerm>,
    pub reward: Option<RewardTerm>,
}

/// A rule set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipe {
    /// The published code.
    Official,
    /// The article.
    Paper,
}

impl Recipe {
    /// Both terms of the rule set, whichever part they are meant for.
    pub fn both(self) -> Objective {
        match self {
            Recipe::Official => Objective {
                clean: CleanLatent::Published,
                pixel: Some(PixelTerm { weight: 0.1, range: 1..=799 }),
                reward: Some(RewardTerm { weight: 0.1, form: RewardForm::Hinge }),
            },
            Recipe::Paper => Objective {
                clean: CleanLatent::Inverse,
                pixel: Some(PixelTerm { weight: 0.01, range: 0..=800 }),
                reward: Some(RewardTerm { weight: 0.01, form: RewardForm::Ranged(0..=200) }),
            },
        }
    }

    /// What a step of `part` minimises.
    pub fn objective(self, part: Part) -> Objective {
        match part {
            Part::ControlNet => Objective { reward: None, ..self.both() },
            Part::Adapters => Objective { pixel: None, ..self.both() },
        }
    }
}

impl Objective {
    /// The noise loss alone: stage I.
    pub fn noise_only() -> Self {
        Objective { clean: CleanLatent::Inverse, pixel: None, reward: None }
    }

    /// True when the decoded image of any of these timesteps counts.
    pub fn needs_image(&self, timesteps: &[usize]) -> bool {
        let any = |range: &RangeInclusive<usize>| timesteps.iter().any(|t| range.contains(t));
        self.pixel.as_ref().is_some_and(|term| any(&term.range))
            || self.reward.as_ref().is_some_and(|term| match &term.form {
                RewardForm::Hinge => true,
                RewardForm::Ranged(range) => any(range),
            })
    }
}
