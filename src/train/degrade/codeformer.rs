//! The degradation of the published configuration, which is CodeFormer's: one blur, one downscale, noise and a real
//! JPEG, and back to the size of the target.

use std::f64::consts::PI;

use super::Random;
use super::filter::filter;
use super::image::Image;
use super::kernels::{Kernel, Profile};
use super::resize::{Kind, resize};
use super::{Pair, jpeg, noise};
use crate::error::Result;

/// All constants; the default values are the published ones.
#[derive(Clone, Debug, PartialEq)]
pub struct CodeFormer {
    /// odd size of the blur kernel
    pub kernel: usize,
    /// probability of an isotropic kernel
    pub isotropic: f64,
    pub sigma: [f64; 2],
    /// how many times smaller the picture gets
    pub downscale: [f64; 2],
    /// of 255
    pub noise: [f64; 2],
    pub quality: [f64; 2],
}

impl Default for CodeFormer {
    fn default() -> Self {
        CodeFormer {
            kernel: 41,
            isotropic: 0.5,
            sigma: [0.1, 12.0],
            downscale: [1.0, 12.0],
            noise: [0.0, 15.0],
            quality: [30.0, 100.0],
        }
    }
}

/// What was drawn for one picture but the noise itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    pub sigma: [f64; 2],
    pub angle: f64,
    pub downscale: f64,
    pub noise: f64,
    pub quality: u8,
}

impl CodeFormer {
    /// Draws everything but the noise.
    pub fn plan(&self, random: &mut Random) -> Plan {
        let sx = random.between(self.sigma);
        let (sigma, angle) = match random.chance(self.isotropic) {
            true => ([sx, sx], 0.0),
            false => ([sx, random.between(self.sigma)], random.between([-PI, PI])),
        };
        Plan {
            sigma,
            angle,
            downscale: random.between(self.downscale),
            noise: random.between(self.noise),
            quality: random.between(self.quality) as u8,
        }
    }

    /// `high` and its degraded picture of the same size.
    ///
    /// # Errors
    /// A picture too large for JPEG.
    pub fn apply(&self, high: Image, random: &mut Random) -> Result<Pair> {
        let plan = self.plan(random);
        let blurred =
            filter(&high, &Kernel::bivariate(self.kernel, plan.sigma, plan.angle, Profile::Gaussian));
        let small = |side: usize| ((side as f64 / plan.downscale).floor() as usize).max(1);
        let mut low = resize(&blurred, (small(high.height), small(high.width)), Kind::Bilinear);
        noise::gaussian(&mut low, plan.noise, false, random);
        let low = jpeg::encoded(&low, plan.quality)?;
        let low = resize(&low, (high.height, high.width), Kind::Bilinear);
        Ok(Pair { high, low })
    }
}
