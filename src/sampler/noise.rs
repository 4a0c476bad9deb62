//! Where the sampler's random numbers come from.
//!
//! A run draws by name: `start` (the noisiest latent), `step0`, `step1`, ... (fresh noise of each sampling step),
//! and for the better start `start_encode` (the encoder's sample), or `start_encode.Y.X` for the tile whose latent
//! corner is (Y, X).
//!
//! [`Seeded`] noise is a pure function of the seed, the image's content, the name and the element's place. Nothing
//! is drawn in sequence, so that a picture does not change with the batch it travels in, its position in a folder,
//! the tile size, the number of threads or the device (which is given the host's numbers).

use crate::error::{Error, Result};
use crate::sampler::philox::{normals, philox4x32};
use rayon::prelude::*;

/// A source of unit-normal noise for a run over many images.
pub trait NoiseSource: Send {
    /// Says which images the next draws are for: `first` counts the images of the run before them, `images` holds
    /// the content hash of each.
    fn select(&mut self, first: usize, images: &[u64]);

    /// The draw called `name` for the selected images, `[N, C, H, W]` with N the number of images selected.
    ///
    /// # Errors
    /// When the source cannot give that draw, or N is not the number of images selected.
    fn draw(&mut self, name: &str, shape: [usize; 4]) -> Result<Vec<f32>>;
}

/// Noise from a seed; see the module's description.
///
/// The counter-based generator is keyed in two steps. Philox under the seed turns (image, name) into 128 bits, a
/// bijection of the two hashes; the first 64 of those bits become the key of the draw and the next 32 one word of
/// the counter, whose other words are the place: column / 4, row, channel. The four normals of a block are the four
/// neighbouring columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeded {
    pub seed: u64,
    /// Content hashes of the images that draws are for.
    pub images: Vec<u64>,
}

impl Seeded {
    /// Noise for no image yet: call `select` before drawing.
    pub fn new(seed: u64) -> Seeded {
        Seeded { seed, images: Vec::new() }
    }
}

impl NoiseSource for Seeded {
    fn select(&mut self, _first: usize, images: &[u64]) {
        self.images = images.to_vec();
    }

    fn draw(&mut self, name: &str, [n, c, h, w]: [usize; 4]) -> Result<Vec<f32>> {
        if n != self.images.len() {
            let images = self.images.len();
            return Err(Error::internal(format!("noise {name} drawn for {n} images, {images} are selected")));
        }
        let (base, top, left) = split_corner(name);
        let streams: Vec<Stream> =
            self.images.iter().map(|&image| Stream::new(self.seed, image, base)).collect();
        let mut values = vec![0.0; n * c * h * w];
        if !values.is_empty() {
            values.par_chunks_exact_mut(w).with_min_len(64).enumerate().for_each(|(row, out)| {
                let (image, channel, y) = (row / (c * h), row / h % c, row % h);
                streams[image].row(channel, top + y, left, out);
            });
        }
        Ok(values)
    }
}

/// The part of a draw that all elements of one image share.
struct Stream {
    key: [u32; 2],
    tag: u32,
}

impl Stream {
    fn new(seed: u64, image: u64, name: &str) -> Stream {
        let [image_low, image_high] = halves(image);
        let [name_low, name_high] = halves(fnv1a(FNV_START, name.as_bytes()));
        let [a, b, tag, _] = philox4x32([image_low, image_high, name_low, name_high], halves(seed));
        Stream { key: [a, b], tag }
    }

    /// Elements (channel, y, x), (channel, y, x + 1), ... of the image's draw.
    fn row(&self, channel: usize, y: usize, x: usize, out: &mut [f32]) {
        let mut done = 0;
        while done < out.len() {
            let (block, lane) = ((x + done) / 4, (x + done) % 4);
            let four = normals(philox4x32([block as u32, y as u32, channel as u32, self.tag], self.key));
            let count = (4 - lane).min(out.len() - done);
            for (value, normal) in out[done..done + count].iter_mut().zip(&four[lane..]) {
                *value = *normal as f32;
            }
            done += count;
        }
    }
}

fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

/// `NAME.Y.X` is the window of NAME whose corner is (Y, X): overlapping tiles then agree where they overlap, and
/// their blend keeps the variance of one sample.
fn split_corner(name: &str) -> (&str, usize, usize) {
    fn number(text: &str) -> Option<usize> {
        // u32, because a place is one word of the counter; digits only, because `parse` would take a sign too.
        let value = if text.bytes().all(|b| b.is_ascii_digit()) { text.parse::<u32>().ok() } else { None };
        value.and_then(|value| usize::try_from(value).ok())
    }
    let mut parts = name.rsplitn(3, '.');
    if let (Some(x), Some(y), Some(base)) = (parts.next(), parts.next(), parts.next())
        && let (Some(x), Some(y)) = (number(x), number(y))
    {
        return (base, y, x);
    }
    (name, 0, 0)
}

/// Names an image by what it shows: FNV-1a, 64 bits, over its dimensions and then its decoded samples.
///
/// Both are taken as little-endian bytes, so that the hash, and with it the noise, is the same on every machine.
/// Two files with equal pixels share their noise whatever their name and format.
pub fn content_hash(dimensions: &[usize], samples: &[u8]) -> u64 {
    let start = dimensions.iter().fold(FNV_START, |hash, &d| fnv1a(hash, &(d as u64).to_le_bytes()));
    fnv1a(start, samples)
}

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

fn fnv1a(start: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(start, |hash, &byte| (hash ^ byte as u64).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(seed: u64, images: &[u64], name: &str, shape: [usize; 4]) -> Vec<f32> {
        Seeded { seed, images: images.to_vec() }.draw(name, shape).unwrap()
    }

    #[test]
    fn hash_known_answers() {
        assert_eq!(fnv1a(FNV_START, b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(FNV_START, b"foobar"), 0x8594_4171_f739_67e8);
        assert_ne!(content_hash(&[2, 3], &[7; 18]), content_hash(&[3, 2], &[7; 18]));
    }

    /// A seed is a promise to the user: these values, computed apart from this code, must never change.
    #[test]
    fn values_are_fixed_for_ever() {
        let expected: [f32; 6] =
            [1.707_879_3, 1.129_352_6, 0.897_382_7, -0.258_712_53, 0.360_947_34, 0.099_258_68];
        let values = draw(231, &[0x0123_4567_89ab_cdef], "step7", [1, 2, 3, 6]);
        let row = &values[(3 + 2) * 6..];
        for (found, expected) in row.iter().zip(expected) {
            assert!((found - expected).abs() <= 2e-7, "{row:?}");
        }
    }

    #[test]
    fn moments_and_tails_are_those_of_a_unit_normal() {
        let values = draw(7, &[1, 2], "start", [2, 4, 256, 512]);
        let n = values.len() as f64;
        let moment = |k: i32| values.iter().map(|&v| (v as f64).powi(k)).sum::<f64>() / n;
        // Five standard errors of each moment: sqrt(E[z^2k] - E[z^k]^2) / sqrt(n).
        for (k, expected, spread) in [(1, 0.0, 1.0), (2, 1.0, 2f64), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
            let (found, tolerance) = (moment(k), 5.0 * spread.sqrt() / n.sqrt());
            assert!(
                (found - expected).abs() <= tolerance,
                "moment {k}: {found}, not {expected} +- {tolerance}"
            );
        }
        for (limit, inside) in [(0.5, 0.382_925), (1.0, 0.682_689), (2.0, 0.954_500), (3.0, 0.997_300)] {
            let found = values.iter().filter(|v| (v.abs() as f64) < limit).count() as f64 / n;
            let tolerance = 5.0 * (inside * (1.0 - inside) / n).sqrt() + 1e-6;
            assert!(
                (found - inside).abs() <= tolerance,
                "within {limit}: {found}, not {inside} +- {tolerance}"
            );
        }
    }

    #[test]
    fn neighbours_draws_images_and_seeds_are_independent() {
        let shape = [1, 4, 64, 64];
        let base = draw(231, &[5], "step1", shape);
        let correlation = |a: &[f32], b: &[f32]| {
            a.iter().zip(b).map(|(a, b)| (a * b) as f64).sum::<f64>() / (a.len().min(b.len()) as f64).sqrt()
        };
        for (what, other) in [
            ("seed", draw(232, &[5], "step1", shape)),
            ("high half of the seed", draw(231 + (1 << 32), &[5], "step1", shape)),
            ("image", draw(231, &[6], "step1", shape)),
            ("high half of the image", draw(231, &[5 + (1 << 32)], "step1", shape)),
            ("name", draw(231, &[5], "step11", shape)),
            ("start", draw(231, &[5], "start", shape)),
            ("next column", base[1..].to_vec()),
            ("next row", base[64..].to_vec()),
            ("next channel", base[64 * 64..].to_vec()),
        ] {
            // In units of one standard error.
            let found = correlation(&base, &other);
            assert!(found.abs() < 5.0, "{what}: {found}");
            assert!(base.iter().zip(&other).filter(|(a, b)| a == b).count() < 8, "{what} repeats values");
        }
    }

    #[test]
    fn the_batch_does_not_matter() {
        let both = draw(1, &[10, 20], "step3", [2, 4, 5, 7]);
        assert_eq!(both[..140], draw(1, &[10], "step3", [1, 4, 5, 7]));
        assert_eq!(both[140..], draw(1, &[20], "step3", [1, 4, 5, 7]));
    }

    #[test]
    fn a_tile_is_a_window_of_the_whole() {
        let (c, h, w) = (4, 19, 23);
        let whole = draw(1, &[10], "start_encode", [1, c, h, w]);
        for (y0, x0, th, tw) in [(0, 0, 8, 8), (5, 6, 8, 8), (11, 15, 8, 8), (3, 1, 1, 3)] {
            let tile = draw(1, &[10], &format!("start_encode.{y0}.{x0}"), [1, c, th, tw]);
            for (i, value) in tile.iter().enumerate() {
                let (channel, y, x) = (i / (th * tw), i / tw % th, i % tw);
                assert_eq!(*value, whole[(channel * h + y0 + y) * w + x0 + x], "tile {y0}.{x0}, element {i}");
            }
        }
    }

    #[test]
    fn names_split_only_at_a_corner() {
        assert_eq!(split_corner("start_encode.32.8"), ("start_encode", 32, 8));
        for name in ["start", "step7", "a.1", "a.+1.2", "a.1.", "a..2", "a.1.99999999999999999999"] {
            assert_eq!(split_corner(name), (name, 0, 0));
        }
    }

    #[test]
    fn wrong_batches_are_refused_and_empty_shapes_are_empty() {
        let mut noise = Seeded::new(3);
        assert!(noise.draw("start", [1, 4, 8, 8]).unwrap_err().to_string().contains("0 are selected"));
        noise.select(0, &[1]);
        assert!(noise.draw("start", [2, 4, 8, 8]).is_err());
        assert!(noise.draw("start", [1, 4, 8, 0]).unwrap().is_empty());
    }
}
