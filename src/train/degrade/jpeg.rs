//! JPEG losses: the simulated codec of the second-order pipeline, and a real encoder.

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use super::image::Image;
use crate::error::{Error, Result};
use crate::image::{DecodeLimits, decode_bytes};

/// Annex K, table K.1, rows of horizontal frequency: the pipeline transposes it.
const LUMINANCE: [[f32; 8]; 8] = [
    [16.0, 11.0, 10.0, 16.0, 24.0, 40.0, 51.0, 61.0],
    [12.0, 12.0, 14.0, 19.0, 26.0, 58.0, 60.0, 55.0],
    [14.0, 13.0, 16.0, 24.0, 40.0, 57.0, 69.0, 56.0],
    [14.0, 17.0, 22.0, 29.0, 51.0, 87.0, 80.0, 62.0],
    [18.0, 22.0, 37.0, 56.0, 68.0, 109.0, 103.0, 77.0],
    [24.0, 35.0, 55.0, 64.0, 81.0, 104.0, 113.0, 92.0],
    [49.0, 64.0, 78.0, 87.0, 103.0, 121.0, 120.0, 101.0],
    [72.0, 92.0, 95.0, 98.0, 112.0, 100.0, 103.0, 99.0],
];

/// Annex K, table K.2, its upper left corner; the rest is 99.
const CHROMINANCE: [[f32; 4]; 4] =
    [[17.0, 18.0, 24.0, 47.0], [18.0, 21.0, 26.0, 66.0], [24.0, 26.0, 56.0, 99.0], [47.0, 66.0, 99.0, 99.0]];

/// One channel, rows of `width`.
struct Plane {
    width: usize,
    values: Vec<f32>,
}

/// The simulated codec at `quality`, a real number: BT.601 full range, chroma averaged 2x2, 8x8 DCT of zero-padded
/// blocks, division by the table times 50/q or 2 - q/50 and rounding half to even, and back. The table is neither
/// rounded nor clamped, and the luminance table is transposed: the coefficient of vertical frequency u and
/// horizontal frequency v is divided by K[v][u].
pub fn simulated(image: &Image, quality: f64) -> Image {
    let factor = (if quality < 50.0 { 50.0 / quality } else { 2.0 - quality / 50.0 }) as f32;
    let (rows, width) = (image.height.next_multiple_of(16), image.width.next_multiple_of(16));
    let [mut luma, blue, red] = planes(image, rows, width);
    let (mut blue, mut red) = (halved(&blue), halved(&red));
    let basis = basis();
    quantise(&mut luma, &basis, |u, v| LUMINANCE[v][u] * factor);
    for plane in [&mut blue, &mut red] {
        quantise(plane, &basis, |u, v| if u < 4 && v < 4 { CHROMINANCE[u][v] } else { 99.0 } * factor);
    }
    let mut values = Vec::with_capacity(image.values.len());
    for y in 0..image.height {
        for x in 0..image.width {
            let (half, whole) = (y / 2 * blue.width + x / 2, y * width + x);
            let (l, b, r) = (luma.values[whole] + 128.0, blue.values[half], red.values[half]);
            let rgb = [l + 1.402 * r, l - 0.344136 * b - 0.714136 * r, l + 1.772 * b];
            values.extend(rgb.map(|v| v.clamp(0.0, 255.0) / 255.0));
        }
    }
    Image { values, ..*image }
}

/// Luma - 128 and the two chroma differences, zero-padded (black: luma -128) to `rows` x `width`.
fn planes(image: &Image, rows: usize, width: usize) -> [Plane; 3] {
    let plane = |fill: f32| Plane { width, values: vec![fill; rows * width] };
    let mut planes = [plane(-128.0), plane(0.0), plane(0.0)];
    for (y, row) in image.values.chunks_exact(image.width * 3).enumerate() {
        for (x, pixel) in row.chunks_exact(3).enumerate() {
            let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(|v| v.clamp(0.0, 1.0) * 255.0);
            let at = y * width + x;
            planes[0].values[at] = 0.299 * r + 0.587 * g + 0.114 * b - 128.0;
            planes[1].values[at] = -0.168736 * r - 0.331264 * g + 0.5 * b;
            planes[2].values[at] = 0.5 * r - 0.418688 * g - 0.081312 * b;
        }
    }
    planes
}

/// Means of 2x2 pixels.
fn halved(plane: &Plane) -> Plane {
    let width = plane.width / 2;
    let mut values = Vec::with_capacity(plane.values.len() / 4);
    for pair in plane.values.chunks_exact(2 * plane.width) {
        let (above, below) = pair.split_at(plane.width);
        let both = above.chunks_exact(2).zip(below.chunks_exact(2));
        values.extend(both.map(|(a, b)| (a[0] + a[1] + b[0] + b[1]) * 0.25));
    }
    Plane { width, values }
}

/// Row u of the orthonormal DCT-II of 8 points.
fn basis() -> [[f32; 8]; 8] {
    std::array::from_fn(|u| {
        let scale = if u == 0 { (1.0f64 / 8.0).sqrt() } else { 0.5 };
        std::array::from_fn(|x| {
            let angle = (2 * x + 1) as f64 * u as f64 * std::f64::consts::PI / 16.0;
            (scale * angle.cos()) as f32
        })
    })
}

/// Every 8x8 block to multiples of `divisor(u, v)` in the frequency domain, and back.
fn quantise(plane: &mut Plane, basis: &[[f32; 8]; 8], divisor: impl Fn(usize, usize) -> f32) {
    let table: [[f32; 8]; 8] = std::array::from_fn(|u| std::array::from_fn(|v| divisor(u, v)));
    let width = plane.width;
    for rows in plane.values.chunks_exact_mut(8 * width) {
        for left in (0..width).step_by(8) {
            let block = std::array::from_fn(|y| std::array::from_fn(|x| rows[y * width + left + x]));
            let mut frequencies = sandwich(&block, |u, y| basis[u][y]);
            for (line, divisors) in frequencies.iter_mut().zip(&table) {
                line.iter_mut().zip(divisors).for_each(|(f, d)| *f = (*f / d).round_ties_even() * d);
            }
            let block = sandwich(&frequencies, |y, u| basis[u][y]);
            for (y, line) in block.iter().enumerate() {
                rows[y * width + left..][..8].copy_from_slice(line);
            }
        }
    }
}

/// M block M^T
fn sandwich(block: &[[f32; 8]; 8], m: impl Fn(usize, usize) -> f32) -> [[f32; 8]; 8] {
    let left: [[f32; 8]; 8] =
        std::array::from_fn(|i| std::array::from_fn(|k| (0..8).map(|j| m(i, j) * block[j][k]).sum()));
    std::array::from_fn(|i| std::array::from_fn(|j| (0..8).map(|k| left[i][k] * m(j, k)).sum()))
}

/// Through a real baseline encoder at `quality` (1..=100) with chroma halved in both directions, as OpenCV writes
/// JPEG: 8 bits in, 8 bits out.
///
/// # Errors
/// A side longer than JPEG allows.
pub fn encoded(image: &Image, quality: u8) -> Result<Image> {
    let failed =
        |error: jpeg_encoder::EncodingError| Error::internal(format!("JPEG cannot be written: {error}"));
    let side = |size: usize| {
        u16::try_from(size)
            .map_err(|_| Error::input(format!("JPEG holds no {size} pixels a side")).fix("crop it"))
    };
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, quality.clamp(1, 100));
    encoder.set_sampling_factor(SamplingFactor::R_4_2_0);
    encoder
        .encode(&image.to_bytes(), side(image.width)?, side(image.height)?, ColorType::Rgb)
        .map_err(failed)?;
    let picture = decode_bytes(&bytes, &DecodeLimits::default())?;
    Image::new(picture.height, picture.width, picture.colour)
}
