//! The autoencoder at both ends, whole or in blended tiles.

use super::run::Pipeline;
use crate::error::Result;
use crate::models::Vae;
use crate::ops::Cx;
use crate::ops::tiles::{Blend, Window, crop};
use crate::sampler::tiles::Tiling;
use crate::tensor::Tensor;

impl Pipeline<'_> {
    /// image [N, H, W, 3] -> scaled latent [N, H/8, W/8, 4]: the mode, or a sample with the draw `noise`
    /// (`noise.Y.X` for the tile at latent (Y, X)).
    pub(super) fn encode(&mut self, image: &Tensor, noise: Option<&str>) -> Result<Tensor> {
        let system = self.system;
        self.in_stage(&system.vae, |run, cx, vae| run.encode_with(cx, vae, image, noise))
    }

    fn encode_with(&mut self, cx: &Cx, vae: &Vae, image: &Tensor, noise: Option<&str>) -> Result<Tensor> {
        let [n, h, w, _] = image.nhwc()?;
        let (factor, latent) = (vae.factor(), vae.latent());
        let Some(tiling) = self.tiling([h, w])? else {
            let drawn = noise.map(|name| self.draw(name, [n, latent, h / factor, w / factor])).transpose()?;
            return vae.encode(cx, image, drawn.as_ref());
        };
        self.progress.steps("encoding", tiling.count());
        let profile = self.profile(&tiling, 1)?;
        let mut blend = Blend::new(cx, [n, h / factor, w / factor, latent])?;
        for (y, x) in tiling.corners() {
            self.progress.check_interrupt()?;
            let [tile_h, tile_w] = tiling.tile;
            let window = Window { y, x, h: tile_h, w: tile_w };
            let part = crop(cx, image, window.scaled(factor))?;
            let name = noise.map(|name| format!("{name}.{y}.{x}"));
            let drawn = name.map(|name| self.draw(&name, [n, latent, tile_h, tile_w])).transpose()?;
            let z = vae.encode(cx, &part, drawn.as_ref())?;
            blend.add(cx, &z, window, &profile)?;
            self.progress.step();
        }
        blend.finish(cx)
    }

    /// scaled latent [N, h, w, 4] -> image [N, 8h, 8w, 3], about [-1, 1]
    pub(super) fn decode(&mut self, z: &Tensor) -> Result<Tensor> {
        let system = self.system;
        self.in_stage(&system.vae, |run, cx, vae| run.decode_with(cx, vae, z))
    }

    fn decode_with(&mut self, cx: &Cx, vae: &Vae, z: &Tensor) -> Result<Tensor> {
        let [n, h, w, _] = z.nhwc()?;
        let factor = vae.factor();
        let Some(tiling) = self.tiling([h * factor, w * factor])? else {
            return vae.decode(cx, z);
        };
        self.progress.steps("decoding", tiling.count());
        let profile = self.profile(&tiling, factor)?;
        let mut blend = Blend::new(cx, [n, h * factor, w * factor, 3])?;
        for (y, x) in tiling.corners() {
            self.progress.check_interrupt()?;
            let [tile_h, tile_w] = tiling.tile;
            let window = Window { y, x, h: tile_h, w: tile_w };
            let image = vae.decode(cx, &crop(cx, z, window)?)?;
            blend.add(cx, &image, window.scaled(factor), &profile)?;
            self.progress.step();
        }
        blend.finish(cx)
    }

    /// Blending weights of one tile, `zoom` elements to each latent element.
    pub(super) fn profile(&self, tiling: &Tiling, zoom: usize) -> Result<Tensor> {
        let [h, w] = tiling.tile.map(|side| side * zoom);
        Tensor::from_f32(self.cx.device(), &tiling.window(zoom), [h, w])
    }
}
