//! The recipes by name.

use super::Random;
use super::image::Image;
use super::{CodeFormer, Pair, RealEsrgan};
use crate::error::{Error, Result};

/// One of the pipelines, with its constants.
#[derive(Clone, Debug, PartialEq)]
pub enum Recipe {
    RealEsrgan(Box<RealEsrgan>),
    CodeFormer(CodeFormer),
}

/// The names that [`Recipe::named`] knows.
pub const NAMES: [&str; 3] = ["realesrgan", "realesrgan-mild", "codeformer"];

impl Recipe {
    /// # Errors
    /// A name that is not one of [`NAMES`].
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "realesrgan" => Ok(Recipe::RealEsrgan(Box::default())),
            "realesrgan-mild" => Ok(Recipe::RealEsrgan(Box::new(RealEsrgan::mild()))),
            "codeformer" => Ok(Recipe::CodeFormer(CodeFormer::default())),
            _ => Err(Error::usage(format!("unknown recipe '{name}'"))
                .fix(format!("give one of {}", NAMES.join(", ")))),
        }
    }

    /// How many times smaller the degraded picture is.
    pub fn scale(&self) -> usize {
        match self {
            Recipe::RealEsrgan(recipe) => recipe.scale,
            Recipe::CodeFormer(_) => 1,
        }
    }

    /// Degrades `high`: a pure function of the picture and the stream.
    ///
    /// # Errors
    /// A picture that a stage cannot hold.
    pub fn apply(&self, high: Image, random: &mut Random) -> Result<Pair> {
        match self {
            Recipe::RealEsrgan(recipe) => Ok(recipe.apply(high, random)),
            Recipe::CodeFormer(recipe) => recipe.apply(high, random),
        }
    }
}
