//! The second-order degradation of Real-ESRGAN: blur, resize, noise and JPEG twice, with sinc filters.

use super::Random;
use super::filter::filter;
use super::image::Image;
use super::kernels::{Draw, KernelRule};
use super::resize::{Kind, resize, scale};
use super::usm::sharpened;
use super::{Pair, jpeg, noise};

/// One of the two passes.
#[derive(Clone, Debug, PartialEq)]
pub struct Pass {
    /// probability of the blur
    pub blur: f64,
    pub kernel: KernelRule,
    /// weights of enlarging, shrinking, keeping the size
    pub resize: [f64; 3],
    /// smallest and largest factor
    pub scale: [f64; 2],
    /// probability of Gaussian noise; else it is Poisson's
    pub gaussian: f64,
    /// of 255
    pub sigma: [f64; 2],
    pub poisson: [f64; 2],
    /// probability that all channels share the noise
    pub grey: f64,
    pub quality: [f64; 2],
}

/// All constants; the default values are the official ones.
#[derive(Clone, Debug, PartialEq)]
pub struct RealEsrgan {
    pub first: Pass,
    pub second: Pass,
    /// probability of the last sinc filter
    pub final_sinc: f64,
    /// how much smaller the result is
    pub scale: usize,
    /// sharpen the target, which is also what is degraded
    pub sharpen: bool,
}

/// What one pass drew; for tests of the distributions and for logs.
#[derive(Clone, Debug, PartialEq)]
pub struct PassDraw {
    pub kernel: Option<Draw>,
    pub scale: f64,
    pub kind: Kind,
    pub noise: NoiseDraw,
    pub grey: bool,
    pub quality: f64,
}

/// The noise of a pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NoiseDraw {
    Gaussian(f64),
    Poisson(f64),
}

/// Everything drawn for one picture but the noise itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub first: PassDraw,
    pub second: PassDraw,
    pub last_kind: Kind,
    pub final_sinc: Option<Draw>,
    /// the last resize and filter come before the second JPEG
    pub resize_first: bool,
}

impl Default for RealEsrgan {
    fn default() -> Self {
        let kernel = |sigma| KernelRule {
            sizes: (7..=21).step_by(2).collect(),
            sinc: 0.1,
            kinds: [0.45, 0.25, 0.12, 0.03, 0.12, 0.03],
            sigma,
            generalized: [0.5, 4.0],
            plateau: [1.0, 2.0],
        };
        let first = Pass {
            blur: 1.0,
            kernel: kernel([0.2, 3.0]),
            resize: [0.2, 0.7, 0.1],
            scale: [0.15, 1.5],
            gaussian: 0.5,
            sigma: [1.0, 30.0],
            poisson: [0.05, 3.0],
            grey: 0.4,
            quality: [30.0, 95.0],
        };
        let second = Pass {
            blur: 0.8,
            kernel: kernel([0.2, 1.5]),
            resize: [0.3, 0.4, 0.3],
            scale: [0.3, 1.2],
            sigma: [1.0, 25.0],
            poisson: [0.05, 2.5],
            ..first.clone()
        };
        RealEsrgan { first, second, final_sinc: 0.8, scale: 4, sharpen: true }
    }
}

impl RealEsrgan {
    /// The milder ranges with which StableSR, PASD and SeeSR (online) train.
    pub fn mild() -> Self {
        let official = RealEsrgan::default();
        RealEsrgan {
            first: Pass {
                scale: [0.3, 1.5],
                sigma: [1.0, 15.0],
                poisson: [0.05, 2.0],
                quality: [60.0, 95.0],
                ..official.first
            },
            second: Pass {
                blur: 0.5,
                scale: [0.6, 1.2],
                sigma: [1.0, 12.0],
                poisson: [0.05, 1.0],
                quality: [60.0, 100.0],
                ..official.second
            },
            ..official
        }
    }

    /// Draws everything but the noise.
    pub fn plan(&self, random: &mut Random) -> Plan {
        let first = self.first.draw(random);
        let second = self.second.draw(random);
        let last_kind = Kind::draw(random);
        let sizes = &self.second.kernel.sizes;
        let final_sinc = random.chance(self.final_sinc).then(|| KernelRule::draw_final_sinc(sizes, random));
        Plan { first, second, last_kind, final_sinc, resize_first: random.chance(0.5) }
    }

    /// `high`, sharpened if so wished, and its degraded picture of size (H / scale, W / scale), rounded to bytes.
    pub fn apply(&self, high: Image, random: &mut Random) -> Pair {
        let plan = self.plan(random);
        let high = if self.sharpen { sharpened(&high) } else { high };
        let small = |side: usize| (side / self.scale).max(1);
        let end = (small(high.height), small(high.width));

        let mut low = plan.first.blurred(&high);
        low = scale(&low, plan.first.scale, plan.first.kind);
        plan.first.add_noise(&mut low, random);
        low = jpeg::simulated(&low, plan.first.quality);

        low = plan.second.blurred(&low);
        let factor = plan.second.scale / self.scale as f64;
        let sized = |side: usize| ((side as f64 * factor) as usize).max(1);
        low = resize(&low, (sized(high.height), sized(high.width)), plan.second.kind);
        plan.second.add_noise(&mut low, random);

        let finish = |low: &Image| {
            let low = resize(low, end, plan.last_kind);
            plan.final_sinc.map_or_else(|| low.clone(), |draw| filter(&low, &draw.kernel()))
        };
        low = match plan.resize_first {
            true => jpeg::simulated(&finish(&low), plan.second.quality),
            false => finish(&jpeg::simulated(&low, plan.second.quality)),
        };
        low.round_to_bytes();
        Pair { high, low }
    }
}

impl Pass {
    fn draw(&self, random: &mut Random) -> PassDraw {
        let kernel = random.chance(self.blur).then(|| self.kernel.draw(random));
        let [low, high] = self.scale;
        let scale = match random.choose(&self.resize) {
            0 => random.between([1.0, high]),
            1 => random.between([low, 1.0]),
            _ => 1.0,
        };
        let kind = Kind::draw(random);
        let noise = match random.chance(self.gaussian) {
            true => NoiseDraw::Gaussian(random.between(self.sigma)),
            false => NoiseDraw::Poisson(random.between(self.poisson)),
        };
        let grey = random.chance(self.grey);
        PassDraw { kernel, scale, kind, noise, grey, quality: random.between(self.quality) }
    }
}

impl PassDraw {
    fn blurred(&self, image: &Image) -> Image {
        self.kernel.map_or_else(|| image.clone(), |draw| filter(image, &draw.kernel()))
    }

    fn add_noise(&self, image: &mut Image, random: &mut Random) {
        match self.noise {
            NoiseDraw::Gaussian(sigma) => noise::gaussian(image, sigma, self.grey, random),
            NoiseDraw::Poisson(scale) => noise::poisson(image, scale, self.grey, random),
        }
    }
}
