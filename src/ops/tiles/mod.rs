//! Cutting windows out of images and blending overlapping windows back.

mod cuda;

use rayon::prelude::*;

use super::Cx;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor, TensorMut};

/// A rectangle of pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub y: usize,
    pub x: usize,
    pub h: usize,
    pub w: usize,
}

impl Window {
    /// The same rectangle in an image `factor` times as large.
    pub fn scaled(self, factor: usize) -> Self {
        Window { y: self.y * factor, x: self.x * factor, h: self.h * factor, w: self.w * factor }
    }

    fn check(&self, [_, h, w, _]: [usize; 4]) -> Result<()> {
        let inside =
            |first: usize, size: usize, whole| first.checked_add(size).is_some_and(|end| end <= whole);
        if inside(self.y, self.h, h) && inside(self.x, self.w, w) {
            return Ok(());
        }
        Err(Error::internal(format!("{self:?} leaves an image of {h} x {w}")))
    }
}

/// The pixels of `window`: [N, H, W, C] -> [N, window.h, window.w, C].
pub fn crop(cx: &Cx, image: &Tensor, window: Window) -> Result<Tensor> {
    let shape @ [n, h, w, c] = image.nhwc()?;
    window.check(shape)?;
    if (window.h, window.w) == (h, w) {
        return Ok(image.clone());
    }
    let mut result = cx.allocate([n, window.h, window.w, c], DType::F32)?;
    match cx.device() {
        Device::Cpu(_) => {
            let source = image.host::<f32>()?;
            result.host_mut::<f32>()?.par_chunks_mut((window.w * c).max(1)).enumerate().for_each(
                |(row, line)| {
                    let (image, y) = (row / window.h, window.y + row % window.h);
                    line.copy_from_slice(&source[((image * h + y) * w + window.x) * c..][..line.len()]);
                },
            );
        }
        Device::Gpu(gpu) => cuda::window(gpu, image, [window.y, window.x], &mut result)?,
        Device::Plan(_) => {}
    }
    cx.constant("crop", &[image], result.freeze())
}

/// Zeros right and below up to `h` x `w`.
pub fn pad(cx: &Cx, image: &Tensor, h: usize, w: usize) -> Result<Tensor> {
    let [n, own_h, own_w, c] = image.nhwc()?;
    if (own_h, own_w) == (h, w) {
        return Ok(image.clone());
    }
    if own_h > h || own_w > w {
        return Err(Error::internal(format!("{} is padded to {h} x {w}", image.shape())));
    }
    let mut result = cx.allocate([n, h, w, c], DType::F32)?;
    match cx.device() {
        Device::Cpu(_) => {
            let source = image.host::<f32>()?;
            result.host_mut::<f32>()?.par_chunks_mut((w * c).max(1)).enumerate().for_each(|(row, line)| {
                line.fill(0.0);
                let (image, y) = (row / h, row % h);
                if y < own_h {
                    line[..own_w * c]
                        .copy_from_slice(&source[(image * own_h + y) * own_w * c..][..own_w * c]);
                }
            });
        }
        Device::Gpu(gpu) => cuda::window(gpu, image, [0, 0], &mut result)?,
        Device::Plan(_) => {}
    }
    cx.constant("pad", &[image], result.freeze())
}

/// A weighted mean of overlapping windows in the making.
#[derive(Debug)]
pub struct Blend {
    sums: TensorMut,
    weights: TensorMut,
    shape: [usize; 4],
    windows: Vec<Window>,
}

/// True when every pixel of `h` x `w` lies in a window.
fn cover(windows: &[Window], h: usize, w: usize) -> bool {
    // Between two neighbouring edges, coverage does not change.
    let edges = |of: fn(&Window) -> [usize; 2], end: usize| {
        let mut edges: Vec<usize> = windows.iter().flat_map(of).filter(|&edge| edge < end).collect();
        edges.push(0);
        edges.sort_unstable();
        edges.dedup();
        edges
    };
    let columns = edges(|window| [window.x, window.x + window.w], w);
    edges(|window| [window.y, window.y + window.h], h).iter().all(|y| {
        columns.iter().all(|x| {
            windows.iter().any(|own| (own.y..own.y + own.h).contains(y) && (own.x..own.x + own.w).contains(x))
        })
    })
}

impl Blend {
    /// An empty canvas [N, H, W, C].
    pub fn new(cx: &Cx, shape: [usize; 4]) -> Result<Self> {
        let [_, h, w, _] = shape;
        let (sums, weights) = (cx.allocate(shape, DType::F32)?, cx.allocate([h, w], DType::F32)?);
        let mut blend = Blend { sums, weights, shape, windows: Vec::new() };
        match cx.device() {
            Device::Cpu(_) => {
                blend.sums.host_mut::<f32>()?.fill(0.0);
                blend.weights.host_mut::<f32>()?.fill(0.0);
            }
            Device::Gpu(_) => {
                blend.sums.clear()?;
                blend.weights.clear()?;
            }
            Device::Plan(_) => {}
        }
        Ok(blend)
    }

    /// Adds `tile` [N, h, w, C] at `window`, each pixel with its weight from `profile` [h, w].
    pub fn add(&mut self, cx: &Cx, tile: &Tensor, window: Window, profile: &Tensor) -> Result<()> {
        let [n, _, w, c] = self.shape;
        window.check(self.shape)?;
        if *tile.shape() != [n, window.h, window.w, c] || *profile.shape() != [window.h, window.w] {
            return Err(Error::internal(format!("{} does not fill {window:?}", tile.shape())));
        }
        match cx.device() {
            Device::Cpu(_) => {
                let (tile, profile) = (tile.host::<f32>()?, profile.host::<f32>()?);
                let rows = self.shape[1];
                self.sums.host_mut::<f32>()?.par_chunks_mut(w * c).enumerate().for_each(|(row, line)| {
                    let (image, y) = (row / rows, row % rows);
                    if !(window.y..window.y + window.h).contains(&y) {
                        return;
                    }
                    let source = (image * window.h + y - window.y) * window.w;
                    for i in 0..window.w {
                        let weight = profile[(y - window.y) * window.w + i];
                        let pixel = &tile[(source + i) * c..][..c];
                        let place = &mut line[(window.x + i) * c..][..c];
                        place.iter_mut().zip(pixel).for_each(|(v, p)| *v += weight * p);
                    }
                });
                let weights = self.weights.host_mut::<f32>()?;
                for (y, line) in profile.chunks_exact(window.w).enumerate() {
                    let place = &mut weights[(window.y + y) * w + window.x..][..window.w];
                    place.iter_mut().zip(line).for_each(|(v, p)| *v += p);
                }
            }
            Device::Gpu(gpu) => {
                cuda::add(gpu, tile, profile, window, &mut self.sums, &mut self.weights)?;
            }
            Device::Plan(_) => {}
        }
        self.windows.push(window);
        Ok(())
    }

    /// The weighted mean. Every pixel must have been covered.
    pub fn finish(mut self, cx: &Cx) -> Result<Tensor> {
        let [_, h, w, c] = self.shape;
        match cx.device() {
            Device::Cpu(_) => {
                let weights = self.weights.host_mut::<f32>()?;
                if !weights.iter().all(|weight| *weight > 0.0) {
                    return Err(Error::internal("the tiles leave a gap"));
                }
                let pixels = self.sums.host_mut::<f32>()?.chunks_exact_mut(c);
                for (index, pixel) in pixels.enumerate() {
                    let weight = weights[index % (h * w)];
                    pixel.iter_mut().for_each(|v| *v /= weight);
                }
            }
            Device::Gpu(gpu) => {
                // The weights are on the device: what can be told here is whether windows lie everywhere.
                if !cover(&self.windows, h, w) {
                    return Err(Error::internal("the tiles leave a gap"));
                }
                cuda::finish(gpu, &mut self.sums, &mut self.weights)?;
            }
            Device::Plan(_) => {}
        }
        Ok(self.sums.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_between_windows_are_seen() {
        let at = |y, x, h, w| Window { y, x, h, w };
        let whole = [at(0, 0, 9, 6), at(0, 4, 5, 7), at(3, 5, 6, 6)];
        assert!(cover(&whole, 9, 11) && cover(&[at(0, 0, 1, 1)], 1, 1));
        for missing in 0..3 {
            let some: Vec<_> = (0..3).filter(|i| *i != missing).map(|i| whole[i]).collect();
            assert!(!cover(&some, 9, 11));
        }
        assert!(!cover(&whole, 10, 11) && !cover(&whole, 9, 12) && !cover(&[], 1, 1));
        assert!(!cover(&[at(0, 0, 2, 5), at(3, 0, 2, 5)], 5, 5));
    }
}
