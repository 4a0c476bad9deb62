//! Image quality metrics, as pyiqa defines them: with a reference (PSNR, SSIM) and without one (CLIP-IQA, which is also
//! a training reward); and how much detail there is.

pub mod clipiqa;
mod gradient;
mod luma;
mod psnr;
mod ssim;

pub use clipiqa::ClipIqa;
pub use gradient::gradient_energy;
pub use luma::Channels;
pub use psnr::psnr;
pub use ssim::ssim;

use crate::error::Result;
use crate::ops::Cx;
use crate::tensor::Tensor;

/// A quality without reference that can be differentiated in the image, larger where the image is better.
pub trait NoReference {
    /// What messages and logs call it.
    fn name(&self) -> &'static str;

    /// image f32 [N, H, W, 3] in [0, 1] -> scores f32 [N], near [0, 1], on the tape of `cx`.
    ///
    /// # Errors
    /// Images that are too small, or not enough memory.
    fn score(&self, cx: &Cx, image: &Tensor) -> Result<Tensor>;
}
