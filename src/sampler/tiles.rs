//! Tiles: overlapping windows blended by Gaussian weights for the diffusion model and the autoencoder, and padded
//! tiles for stage 1.

use crate::error::{Error, Result};
use crate::ops::tiles::Window;
use crate::sampler::sizes::{LATENT_CELL, PAD_MULTIPLE, Size};

/// Starts of the windows along an axis: 0, stride, 2 * stride, ... while a whole window fits, and one more flush with
/// the end if that leaves a rest. An axis shorter than the window has one window, at 0, that is as short as the axis.
///
/// # Errors
/// A usage error when `tile` or `stride` is 0, or `stride` exceeds `tile`, which would leave gaps.
pub fn origins(length: usize, tile: usize, stride: usize) -> Result<Vec<usize>> {
    check(tile, stride)?;
    let Some(rest) = length.checked_sub(tile) else { return Ok(vec![0]) };
    let mut origins: Vec<usize> = (0..=rest).step_by(stride).collect();
    if !rest.is_multiple_of(stride) {
        origins.push(rest);
    }
    Ok(origins)
}

fn check(tile: usize, stride: usize) -> Result<()> {
    if tile == 0 {
        return Err(Error::usage("a tile of 0 pixels covers nothing").at("--tile").fix("512 is a good size"));
    }
    if stride == 0 || stride > tile {
        let why = if stride == 0 { "would never move on" } else { "leaves gaps between tiles" };
        return Err(Error::usage(format!("a stride of {stride} with tiles of {tile} {why}"))
            .at("--tile-stride")
            .fix("half the tile is a good stride"));
    }
    Ok(())
}

/// Blending weights of a square tile, `[size, size]` row-major. See [`gaussian_window_of`].
pub fn gaussian_window(size: usize) -> Vec<f32> {
    gaussian_window_of([size, size])
}

/// Blending weights of a tile, `[height, width]` row-major: the product of two Gaussian profiles whose variance is
/// 0.01 of the squared side.
///
/// Columns are centred on `(width - 1) / 2` but rows on `height / 2`, half a pixel lower than the middle: an
/// asymmetry of the official program that its results depend on. The official window is square; here each axis takes
/// its own side, which for a square is the same.
pub fn gaussian_window_of([height, width]: Size) -> Vec<f32> {
    const VARIANCE: f64 = 0.01;
    let profile = |size: usize, centre: f64| -> Vec<f64> {
        let squared = size as f64 * size as f64;
        let scale = (2.0 * std::f64::consts::PI * VARIANCE).sqrt();
        (0..size)
            .map(|i| {
                let offset = i as f64 - centre;
                (-offset * offset / squared / (2.0 * VARIANCE)).exp() / scale
            })
            .collect()
    };
    let rows = profile(height, height as f64 / 2.0);
    let columns = profile(width, (width as f64 - 1.0) / 2.0);
    rows.iter().flat_map(|row| columns.iter().map(move |column| (row * column) as f32)).collect()
}

/// The overlapping tiles of a latent. All have one shape, so that they can share a batch.
///
/// A tile larger than the latent along an axis shrinks to the latent along that axis; the window is then not square.
/// (The official program reads outside the image there.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tiling {
    /// Height and width of each tile, in latent elements.
    pub tile: Size,
    /// Distance between neighbouring tiles, in latent elements; the last of an axis may come sooner.
    pub stride: usize,
    /// First latent row of each row of tiles.
    pub rows: Vec<usize>,
    /// First latent column of each column of tiles.
    pub cols: Vec<usize>,
}

impl Tiling {
    /// Tiles of `tile` by `tile` every `stride` over a latent of height and width `latent`, all in latent elements.
    ///
    /// # Errors
    /// A usage error when `tile` or `stride` is 0, or `stride` exceeds `tile`.
    pub fn new(latent: Size, tile: usize, stride: usize) -> Result<Tiling> {
        Ok(Tiling {
            tile: latent.map(|side| side.min(tile)),
            stride,
            rows: origins(latent[0], tile, stride)?,
            cols: origins(latent[1], tile, stride)?,
        })
    }

    /// The same from sizes in pixels: `padded` is the padded working image's.
    ///
    /// # Errors
    /// A usage error when the tile is not a positive multiple of 64, which the network's halvings need, or the stride
    /// not a positive multiple of 8, or greater than the tile.
    pub fn from_pixels(padded: Size, tile: usize, stride: usize) -> Result<Tiling> {
        check(tile, stride)?;
        if !tile.is_multiple_of(PAD_MULTIPLE) {
            return Err(Error::usage(format!("a tile of {tile} pixels is not a multiple of {PAD_MULTIPLE}"))
                .at("--tile")
                .fix(format!(
                    "{} is the next one",
                    tile.div_ceil(PAD_MULTIPLE).saturating_mul(PAD_MULTIPLE)
                )));
        }
        if !stride.is_multiple_of(LATENT_CELL) {
            return Err(Error::usage(format!(
                "a stride of {stride} pixels is not a multiple of {LATENT_CELL}"
            ))
            .at("--tile-stride")
            .fix("half the tile is a good stride"));
        }
        Tiling::new(padded.map(|side| side / LATENT_CELL), tile / LATENT_CELL, stride / LATENT_CELL)
    }

    /// Number of tiles.
    pub fn count(&self) -> usize {
        self.rows.len() * self.cols.len()
    }

    /// Top row and left column of each tile, in latent elements, row by row.
    pub fn corners(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.rows.iter().flat_map(|&y| self.cols.iter().map(move |&x| (y, x)))
    }

    /// Blending weights of one tile whose output has `zoom` elements along each latent element: 1 for noise and
    /// latents, 8 for pixels. `[tile[0] * zoom, tile[1] * zoom]` row-major.
    pub fn window(&self, zoom: usize) -> Vec<f32> {
        gaussian_window_of(self.tile.map(|side| side * zoom))
    }
}

/// One padded tile: run the network on `input`, keep what belongs to `valid`. Both in input pixels of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaddedTile {
    /// The tile and its padding, clipped to the image.
    pub input: Window,
    /// The tile without padding; the tiles' valid parts cover the image, each pixel once.
    pub valid: Window,
}

impl PaddedTile {
    /// Where the kept part lies in the tile's own output, which is `scale` times its input.
    pub fn crop(&self, scale: usize) -> Window {
        Window { y: self.valid.y - self.input.y, x: self.valid.x - self.input.x, ..self.valid }.scaled(scale)
    }

    /// Where the kept part goes in the image's output.
    pub fn place(&self, scale: usize) -> Window {
        self.valid.scaled(scale)
    }
}

/// Tiles for a convolutional network without blending: each is computed with `pad` more pixels on every side that has
/// them, which are then cut off, so that borders see their real neighbours and seams vanish as `pad` approaches the
/// network's reach.
///
/// Sides are divided evenly: 130 pixels by tiles of 128 become 65 + 65, which needs less memory than 128 + 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaddedTiles {
    size: Size,
    pad: usize,
    counts: Size,
}

impl PaddedTiles {
    /// Cuts an image of `height` by `width` pixels into parts of at most `tile` by `tile`, all counted in input pixels
    /// and without the padding.
    ///
    /// # Errors
    /// A usage error when `tile` is 0, an input error when the image is empty.
    pub fn new(height: usize, width: usize, tile: usize, pad: usize) -> Result<PaddedTiles> {
        check(tile, tile)?;
        if height == 0 || width == 0 {
            return Err(Error::input(format!("the image is empty: {width} x {height} pixels")));
        }
        let size = [height, width];
        Ok(PaddedTiles { size, pad, counts: size.map(|side| side.div_ceil(tile)) })
    }

    /// Number of tiles.
    pub fn count(&self) -> usize {
        self.counts[0] * self.counts[1]
    }

    /// The largest input of any tile, padding included: what memory has to be planned for.
    pub fn largest(&self) -> Size {
        [0, 1].map(|axis| (0..self.counts[axis]).map(|i| self.span(axis, i).1).max().unwrap_or(0))
    }

    /// The tiles, row by row.
    pub fn iter(&self) -> impl Iterator<Item = PaddedTile> + '_ {
        (0..self.count()).map(|i| {
            let (row, col) = (i / self.counts[1], i % self.counts[1]);
            let ((y, h, valid_y, valid_h), (x, w, valid_x, valid_w)) = (self.span(0, row), self.span(1, col));
            PaddedTile {
                input: Window { y, x, h, w },
                valid: Window { y: valid_y, x: valid_x, h: valid_h, w: valid_w },
            }
        })
    }

    /// Start and length along an axis of the i-th input, then of its valid part.
    fn span(&self, axis: usize, i: usize) -> (usize, usize, usize, usize) {
        let (length, count) = (self.size[axis], self.counts[axis]);
        // The first `longer` parts have one pixel more.
        let (short, longer) = (length / count, length % count);
        let start = i * short + i.min(longer);
        let valid = short + usize::from(i < longer);
        let from = start.saturating_sub(self.pad);
        let to = (start + valid).saturating_add(self.pad).min(length);
        (from, to - from, start, valid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn origins_as_published() {
        assert_eq!(origins(64, 64, 32).unwrap(), [0]);
        assert_eq!(origins(80, 64, 32).unwrap(), [0, 16]);
        assert_eq!(origins(96, 64, 32).unwrap(), [0, 32]);
        assert_eq!(origins(130, 64, 32).unwrap(), [0, 32, 64, 66]);
        assert_eq!(origins(100, 64, 48).unwrap(), [0, 36]);
        assert_eq!(origins(10, 64, 32).unwrap(), [0]);
    }

    #[test]
    fn every_element_is_covered_whatever_the_sizes() {
        for length in 1..70 {
            for tile in 1..20 {
                for stride in 1..=tile {
                    let tiling = Tiling::new([length, 3], tile, stride).unwrap();
                    let mut seen = vec![false; length];
                    for (y, x) in tiling.corners() {
                        assert!(x + tiling.tile[1] <= 3);
                        seen[y..y + tiling.tile[0]].fill(true);
                    }
                    assert!(seen.iter().all(|s| *s), "length {length}, tile {tile}, stride {stride}");
                    assert!(tiling.rows.windows(2).all(|pair| pair[0] < pair[1]));
                    assert_eq!(tiling.count(), tiling.corners().count());
                }
            }
        }
    }

    #[test]
    fn window_has_the_published_values_and_asymmetry() {
        let window = gaussian_window(64);
        let at = |y: usize, x: usize| window[y * 64 + x] as f64;
        for ((y, x), expected) in [
            ((32, 31), 15.866998),
            ((32, 32), 15.866998),
            ((31, 31), 15.674487),
            ((0, 0), 3.2567e-10),
            ((63, 63), 7.0270e-10),
        ] {
            assert!((at(y, x) / expected - 1.0).abs() < 2e-5, "({y}, {x}): {}", at(y, x));
        }
        assert_eq!(window.iter().cloned().fold(0.0, f32::max), window[32 * 64 + 31]);
        assert!((0..64).all(|x| at(5, x) == at(5, 63 - x)), "columns are symmetric");
        assert!((1..64).all(|y| at(y, 5) == at(64 - y, 5)), "rows are symmetric about row 32");
    }

    #[test]
    fn a_small_image_shrinks_the_tile_along_that_axis_only() {
        let tiling = Tiling::from_pixels([64, 768], 512, 256).unwrap();
        assert_eq!(tiling.tile, [8, 64]);
        assert_eq!((&tiling.rows[..], &tiling.cols[..]), (&[0][..], &[0, 32][..]));
        let window = tiling.window(1);
        assert_eq!(window.len(), 8 * 64);
        let (square, wide) = (gaussian_window(8), gaussian_window(64));
        for (i, weight) in window.iter().enumerate() {
            // Each axis has the profile of its own side; every square window holds the product of two.
            let (y, x) = (i / 64, i % 64);
            let expected = square[y * 8 + 3] as f64 * wide[32 * 64 + x] as f64
                / (square[4 * 8 + 3] as f64 * wide[32 * 64 + 31] as f64)
                * gaussian_window_of([8, 64])[4 * 64 + 31] as f64;
            assert!((*weight as f64 / expected - 1.0).abs() < 1e-6, "({y}, {x})");
            assert!(*weight > 0.0);
        }
        assert_eq!(tiling.window(8).len(), 64 * 512);
    }

    #[test]
    fn weights_never_vanish_in_a_sum() {
        for size in [1, 2, 3, 8, 33, 64, 512, 2048] {
            assert!(gaussian_window(size).iter().all(|w| *w > 1e-12 && *w < 16.0), "size {size}");
        }
    }

    #[test]
    fn impossible_tiles_are_usage_errors() {
        for (tile, stride, flag) in [
            (0, 8, "--tile: "),
            (64, 0, "--tile-stride: "),
            (64, 72, "--tile-stride: "),
            (100, 64, "--tile: "),
            (128, 100, "--tile-stride: "),
        ] {
            let error = Tiling::from_pixels([512, 512], tile, stride).unwrap_err();
            assert_eq!(error.kind(), Kind::Usage);
            assert!(error.to_string().starts_with(flag), "{error}");
        }
        assert!(origins(10, 4, 5).is_err());
        assert!(PaddedTiles::new(8, 8, 0, 4).is_err());
        assert!(PaddedTiles::new(8, 0, 8, 4).is_err());
    }

    #[test]
    fn padded_tiles_cover_the_image_once_and_stay_inside() {
        for (h, w, tile, pad) in
            [(1, 1, 8, 4), (37, 53, 16, 5), (130, 64, 128, 10), (40, 40, 1, 0), (30, 50, 7, 1000)]
        {
            let tiles = PaddedTiles::new(h, w, tile, pad).unwrap();
            let mut seen = vec![0; h * w];
            for t in tiles.iter() {
                assert!(t.valid.h <= tile && t.valid.w <= tile && t.valid.h > 0 && t.valid.w > 0);
                assert!(t.input.y + t.input.h <= h && t.input.x + t.input.w <= w);
                assert!(t.input.h <= tiles.largest()[0] && t.input.w <= tiles.largest()[1]);
                assert_eq!(t.valid.y - t.input.y, pad.min(t.valid.y), "full padding above, or all there is");
                let below = t.input.y + t.input.h - t.valid.y - t.valid.h;
                assert_eq!(below, pad.min(h - t.valid.y - t.valid.h), "full padding below, or all there is");
                for y in t.valid.y..t.valid.y + t.valid.h {
                    for x in t.valid.x..t.valid.x + t.valid.w {
                        seen[y * w + x] += 1;
                    }
                }
            }
            assert!(seen.iter().all(|s| *s == 1), "{h}x{w} by {tile}");
            assert_eq!(tiles.iter().count(), tiles.count());
        }
        let parts: Vec<usize> =
            PaddedTiles::new(130, 8, 128, 10).unwrap().iter().map(|t| t.valid.h).collect();
        assert_eq!(parts, [65, 65]);
    }

    /// A 5x5 box filter tiled with its reach as padding equals the filter over the whole image: no seam.
    #[test]
    fn padding_of_the_filters_reach_leaves_no_seam() {
        let (h, w, reach, scale) = (23, 31, 2usize, 2);
        let image: Vec<f64> = (0..h * w).map(|i| ((i * 7919) % 101) as f64).collect();
        // A filter with zeros outside, its output enlarged by repeating.
        let filter = |region: Window| -> Vec<f64> {
            let sum = |y: usize, x: usize| {
                let mut sum = 0.0;
                for v in y.saturating_sub(reach)..(y + reach + 1).min(region.h) {
                    for u in x.saturating_sub(reach)..(x + reach + 1).min(region.w) {
                        sum += image[(region.y + v) * w + region.x + u];
                    }
                }
                sum
            };
            let width = region.w * scale;
            (0..region.h * scale * width).map(|i| sum(i / width / scale, i % width / scale)).collect()
        };
        let whole = filter(Window { y: 0, x: 0, h, w });
        for (pad, seamless) in [(reach, true), (reach - 1, false)] {
            let mut joined = vec![0.0; whole.len()];
            for tile in PaddedTiles::new(h, w, 8, pad).unwrap().iter() {
                let (part, crop, place) = (filter(tile.input), tile.crop(scale), tile.place(scale));
                for y in 0..place.h {
                    for x in 0..place.w {
                        joined[(place.y + y) * w * scale + place.x + x] =
                            part[(crop.y + y) * tile.input.w * scale + crop.x + x];
                    }
                }
            }
            assert_eq!(joined == whole, seamless, "padding {pad}");
        }
    }
}
