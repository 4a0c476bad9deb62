//! Stage 1: the RRDBNet over the low-resolution image, whole or in padded tiles, then the resize rule.

use super::run::Pipeline;
use crate::error::Result;
use crate::models::RrdbNet;
use crate::ops::Cx;
use crate::ops::resize::resize_bicubic;
use crate::ops::tiles::{Blend, crop};
use crate::sampler::sizes::Size;
use crate::sampler::tiles::PaddedTiles;
use crate::tensor::Tensor;

/// Input pixels around a tile that the network sees and whose output is dropped. The receptive field of 23
/// blocks is wider, but what lies this far changes a pixel by less than a byte.
const PADDING: usize = 16;

impl Pipeline<'_> {
    /// low [N, h, w, 3] in [0, 1] -> the clean image of this size, not clamped
    pub(super) fn clean(&mut self, low: &Tensor, [height, width]: Size) -> Result<Tensor> {
        let system = self.system;
        let image = self.in_stage(&system.stage1, |run, cx, network| match run.options.stage1_tile {
            Some(tile) => run.stage1_tiles(cx, network, low, tile),
            None => network.forward(cx, low),
        })?;
        self.keep("stage1", &image)?;
        resize_bicubic(self.cx, &image, height, width)
    }

    fn stage1_tiles(&mut self, cx: &Cx, network: &RrdbNet, low: &Tensor, tile: usize) -> Result<Tensor> {
        let [n, h, w, c] = low.nhwc()?;
        let tiles = PaddedTiles::new(h, w, tile, PADDING)?;
        if tiles.count() == 1 {
            return network.forward(cx, low);
        }
        let zoom = RrdbNet::SCALE;
        self.progress.steps("stage 1", tiles.count());
        // Every pixel belongs to exactly one tile: blending with weight one is placing.
        let mut canvas = Blend::new(cx, [n, h * zoom, w * zoom, c])?;
        for tile in tiles.iter() {
            self.progress.check_interrupt()?;
            let part = network.forward(cx, &crop(cx, low, tile.input)?)?;
            let valid = crop(cx, &part, tile.crop(zoom))?;
            let place = tile.place(zoom);
            canvas.add(cx, &valid, place, &ones(cx, place.h, place.w)?)?;
            self.progress.step();
        }
        canvas.finish(cx)
    }
}

fn ones(cx: &Cx, h: usize, w: usize) -> Result<Tensor> {
    Tensor::from_f32(cx.device(), &vec![1.0; h * w], [h, w])
}
