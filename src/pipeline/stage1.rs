//! Stage 1: the RRDBNet over the low-resolution image, whole or in padded tiles, then the resize rule.

use super::run::Pipeline;
use crate::error::Result;
use crate::models::RrdbNet;
use crate::ops::resize::resize_bicubic;
use crate::ops::tiles::{Blend, crop};
use crate::sampler::sizes::Sizes;
use crate::sampler::tiles::PaddedTiles;
use crate::tensor::{DType, Tensor, TensorMut};

/// Input pixels around a tile that the network sees and whose output is dropped. The receptive field of 23
/// blocks is wider, but what lies this far changes a pixel by less than a byte.
const PADDING: usize = 16;

impl Pipeline<'_> {
    /// low [N, h, w, 3] in [0, 1] -> the clean image at the working size, not clamped
    pub(super) fn clean(&mut self, low: &Tensor, sizes: &Sizes) -> Result<Tensor> {
        let image = match self.options.stage1_tile {
            Some(tile) => self.stage1_tiles(low, tile)?,
            None => self.system.stage1.forward(self.cx, low)?,
        };
        self.keep("stage1", &image)?;
        resize_bicubic(self.cx, &image, sizes.working[0], sizes.working[1])
    }

    fn stage1_tiles(&mut self, low: &Tensor, tile: usize) -> Result<Tensor> {
        let [n, h, w, c] = low.nhwc()?;
        let tiles = PaddedTiles::new(h, w, tile, PADDING)?;
        if tiles.count() == 1 {
            return self.system.stage1.forward(self.cx, low);
        }
        let zoom = RrdbNet::SCALE;
        self.progress.steps("stage 1", tiles.count());
        // Every pixel belongs to exactly one tile: blending with weight one is placing.
        let mut canvas = Blend::new(self.cx, [n, h * zoom, w * zoom, c])?;
        for tile in tiles.iter() {
            self.progress.check_interrupt()?;
            let part = self.system.stage1.forward(self.cx, &crop(self.cx, low, tile.input)?)?;
            let valid = crop(self.cx, &part, tile.crop(zoom))?;
            let place = tile.place(zoom);
            canvas.add(self.cx, &valid, place, &ones(self, place.h, place.w)?)?;
            self.progress.step();
        }
        canvas.finish(self.cx)
    }
}

fn ones(pipeline: &Pipeline, h: usize, w: usize) -> Result<Tensor> {
    let mut weights: TensorMut = pipeline.cx.allocate([h, w], DType::F32)?;
    if !pipeline.cx.device().is_plan() {
        weights.host_mut::<f32>()?.fill(1.0);
    }
    Ok(weights.freeze())
}
