//! What a run is asked to do.

use crate::error::{Error, Result};
use crate::ops::wavelet::LEVELS;

/// How the colours of the result are brought back to those of the clean image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ColorFix {
    /// Low frequencies of the clean image, detail of the result: the published way.
    #[default]
    Wavelet,
    /// Mean and deviation of the clean image, per channel.
    Adain,
    None,
}

/// Tiles of the diffusion model, in pixels of the working image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tile {
    /// The whole image at once.
    Off,
    /// Square tiles of this side.
    Pixels(usize),
}

/// Everything that shapes a result besides weights, prompts and noise.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    pub scale: f64,
    pub steps: usize,
    pub cfg: f64,
    /// factor on all 13 ControlNet residuals
    pub control_scale: f32,
    /// ControlNet and adapters run in the first so many steps only
    pub control_until: Option<usize>,
    pub better_start: bool,
    pub tile: Tile,
    /// distance between tiles in pixels; half a tile when absent
    pub tile_stride: Option<usize>,
    /// stage-1 tile in input pixels
    pub stage1_tile: Option<usize>,
    pub color_fix: ColorFix,
    /// blurs after which the wavelet fix takes what is left of the clean image
    pub color_levels: u32,
    /// the result is the clean image of stage 1
    pub stage1_only: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            scale: 4.0,
            steps: 20,
            cfg: 4.5,
            control_scale: 1.0,
            control_until: None,
            better_start: false,
            tile: Tile::Off,
            tile_stride: None,
            stage1_tile: None,
            color_fix: ColorFix::Wavelet,
            color_levels: LEVELS,
            stage1_only: false,
        }
    }
}

impl Options {
    /// # Errors
    /// A value that no run can use, named by its flag.
    pub fn check(&self) -> Result<()> {
        if !self.control_scale.is_finite() {
            return Err(Error::usage(format!("{} is not a number", self.control_scale))
                .at("--control-scale")
                .fix("1.0 is the published value"));
        }
        if let Some(0) = self.stage1_tile {
            return Err(Error::usage("a stage-1 tile of 0 pixels")
                .at("--stage1-tile")
                .fix("leave it out for no tiles"));
        }
        Ok(())
    }
}
