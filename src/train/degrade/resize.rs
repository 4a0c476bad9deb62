//! Resizing as the degradations do it: PyTorch's `interpolate` without antialias, and Pillow's 8-bit filters.

use super::Random;
use super::image::Image;
use crate::ops::host::math::vectorised;
use crate::ops::resize::bicubic_taps;

/// An interpolation without antialias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Adaptive average pooling: output i averages the inputs floor(i in / out) .. ceil((i + 1) in / out).
    Area,
    /// Half-pixel centres, clamped borders.
    Bilinear,
    /// Keys' kernel with a = -0.75, half-pixel centres, clamped borders.
    Bicubic,
}

impl Kind {
    /// Each as likely.
    pub fn draw(random: &mut Random) -> Kind {
        [Kind::Area, Kind::Bilinear, Kind::Bicubic][random.index(3)]
    }
}

/// The inputs of one output position and their weights.
type Taps = Vec<(usize, f32)>;

/// `step` is the distance of neighbouring output positions in input pixels.
fn taps(kind: Kind, from: usize, to: usize, step: f64) -> Vec<Taps> {
    let last = from as isize - 1;
    (0..to)
        .map(|i| {
            let centre = (i as f64 + 0.5) * step - 0.5;
            match kind {
                Kind::Area => {
                    let (first, end) = (i * from / to, ((i + 1) * from).div_ceil(to));
                    (first..end).map(|j| (j, 1.0 / (end - first) as f32)).collect()
                }
                Kind::Bilinear => {
                    let centre = centre.max(0.0);
                    let first = (centre.floor() as usize).min(from - 1);
                    let t = (centre - first as f64) as f32;
                    vec![(first, 1.0 - t), ((first + 1).min(from - 1), t)]
                }
                Kind::Bicubic => {
                    let first = centre.floor();
                    let t = centre - first;
                    (-1..3)
                        .map(|k| {
                            let place = (first as isize + k).clamp(0, last) as usize;
                            (place, cubic(t - k as f64) as f32)
                        })
                        .collect()
                }
            }
        })
        .collect()
}

/// Keys' kernel with a = -0.75.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.75;
    let x = x.abs();
    match x {
        0.0..1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        1.0..2.0 => ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A,
        _ => 0.0,
    }
}

/// To (height, width), sampled at the ratio of the sizes.
pub fn resize(image: &Image, size: (usize, usize), kind: Kind) -> Image {
    let steps = (image.height as f64 / size.0 as f64, image.width as f64 / size.1 as f64);
    along_both(image, size, kind, steps)
}

/// By the factor `scale`: to floor(size * scale), at least 1, sampled at the factor itself.
pub fn scale(image: &Image, scale: f64, kind: Kind) -> Image {
    let sized = |side: usize| ((side as f64 * scale).floor() as usize).max(1);
    along_both(image, (sized(image.height), sized(image.width)), kind, (1.0 / scale, 1.0 / scale))
}

fn along_both(image: &Image, (height, width): (usize, usize), kind: Kind, steps: (f64, f64)) -> Image {
    let (rows, columns) =
        (taps(kind, image.height, height, steps.0), taps(kind, image.width, width, steps.1));
    apply(image, &rows, &columns)
}

fn apply(image: &Image, rows: &[Taps], columns: &[Taps]) -> Image {
    let across = across(image, columns);
    down(&across, rows)
}

fn across(image: &Image, columns: &[Taps]) -> Image {
    let mut values = vec![0.0; image.height * columns.len() * 3];
    let lines = values.chunks_exact_mut(columns.len() * 3).zip(image.values.chunks_exact(image.width * 3));
    for (line, source) in lines {
        for (pixel, taps) in line.chunks_exact_mut(3).zip(columns) {
            for &(tap, weight) in taps {
                pixel.iter_mut().zip(&source[3 * tap..]).for_each(|(v, s)| *v += weight * s);
            }
        }
    }
    Image { height: image.height, width: columns.len(), values }
}

fn down(image: &Image, rows: &[Taps]) -> Image {
    let line = image.width * 3;
    let mut values = vec![0.0; rows.len() * line];
    for (out, taps) in values.chunks_exact_mut(line).zip(rows) {
        vectorised!({
            for &(tap, weight) in taps {
                out.iter_mut().zip(&image.values[tap * line..]).for_each(|(v, s)| *v += weight * s);
            }
        });
    }
    Image { height: rows.len(), width: image.width, values }
}

/// A filter of Pillow's `resize`, with antialias; each of its two passes rounds to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Antialiased {
    Box,
    /// a = -0.5
    Bicubic,
}

/// To (height, width) as Pillow resizes a picture of bytes: columns first, then rows, each rounded to n/255.
pub fn resize_bytes(image: &Image, (height, width): (usize, usize), filter: Antialiased) -> Image {
    let taps = |from: usize, to: usize| -> Vec<Taps> {
        match filter {
            Antialiased::Box => box_taps(from, to),
            Antialiased::Bicubic => bicubic_taps(from, to)
                .into_iter()
                .map(|taps| taps.weights.iter().enumerate().map(|(k, &w)| (taps.first + k, w)).collect())
                .collect(),
        }
    };
    let mut result = image.clone();
    if width != image.width {
        result = across(&result, &taps(image.width, width));
        round_half_up(&mut result);
    }
    if height != image.height {
        result = down(&result, &taps(image.height, height));
        round_half_up(&mut result);
    }
    result
}

/// Means over the inputs whose centres are within half an output pixel of the output's centre.
fn box_taps(from: usize, to: usize) -> Vec<Taps> {
    let ratio = from as f64 / to as f64;
    let widen = ratio.max(1.0);
    (0..to)
        .map(|i| {
            let centre = ratio * (i as f64 + 0.5);
            let first = ((centre - 0.5 * widen + 0.5) as usize).min(from - 1);
            let end = ((centre + 0.5 * widen + 0.5) as usize).min(from);
            let inside = |j: &usize| {
                let x = (*j as f64 - centre + 0.5) / widen;
                x > -0.5 && x <= 0.5
            };
            let kept: Vec<usize> = (first..end).filter(inside).collect();
            kept.iter().map(|&j| (j, 1.0 / kept.len() as f32)).collect()
        })
        .collect()
}

/// Clamps and rounds to n/255, half upwards as Pillow's fixed-point sums do.
fn round_half_up(image: &mut Image) {
    image.values.iter_mut().for_each(|v| *v = (*v * 255.0 + 0.5).floor().clamp(0.0, 255.0) / 255.0);
}
