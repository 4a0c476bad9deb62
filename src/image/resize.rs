//! Bicubic resize with antialiasing on the host.
//!
//! The rule is PyTorch's `interpolate(mode="bicubic", antialias=True, align_corners=False)`: with r = in / out,
//! support 2 max(r, 1) and centre r (i + 1/2), output i is the normalised sum over the taps j from
//! trunc(centre - support + 1/2) up to, not including, trunc(centre + support + 1/2), clipped to the picture, with
//! weights cubic((j - centre + 1/2) / max(r, 1)), a = -1/2. Overshoot is kept. A resize to the same size is a copy.

use rayon::prelude::*;

/// The taps of one output position: the first input index and the weights, which sum to 1.
struct Taps {
    first: usize,
    weights: Vec<f64>,
}

/// Keys' cubic kernel with a = -1/2 (R. Keys, 1981), zero outside (-2, 2).
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

fn taps(input: usize, output: usize) -> Vec<Taps> {
    let ratio = input as f64 / output as f64;
    let stretch = ratio.max(1.0);
    let support = 2.0 * stretch;
    let at = |i: usize| {
        let centre = ratio * (i as f64 + 0.5);
        // `as usize` truncates, and clips what is negative to 0.
        let first = (centre - support + 0.5) as usize;
        let end = ((centre + support + 0.5) as usize).min(input);
        let mut weights: Vec<f64> =
            (first..end).map(|j| cubic((j as f64 - centre + 0.5) / stretch)).collect();
        let total: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|w| *w /= total);
        Taps { first, weights }
    };
    (0..output).map(at).collect()
}

/// Resizes `[height, width, channels]` to `[out_height, out_width, channels]`. All sizes must be at least 1 and
/// `pixels` as long as its shape says.
pub fn bicubic(
    pixels: &[f32],
    (width, height): (usize, usize),
    channels: usize,
    (out_width, out_height): (usize, usize),
) -> Vec<f32> {
    assert_eq!(pixels.len(), width * height * channels, "pixels do not fill their shape");
    assert!(width * height * channels > 0 && out_width * out_height > 0, "a side is zero");
    if (width, height) == (out_width, out_height) {
        return pixels.to_vec();
    }
    let (columns, rows) = (taps(width, out_width), taps(height, out_height));
    let mut wide = vec![0f32; height * out_width * channels];
    wide.par_chunks_exact_mut(out_width * channels).zip(pixels.par_chunks_exact(width * channels)).for_each(
        |(out, row)| {
            for (taps, out) in columns.iter().zip(out.chunks_exact_mut(channels)) {
                for (c, out) in out.iter_mut().enumerate() {
                    let source = row[taps.first * channels + c..].iter().step_by(channels);
                    *out =
                        taps.weights.iter().zip(source).map(|(w, &v)| w * f64::from(v)).sum::<f64>() as f32;
                }
            }
        },
    );
    let stride = out_width * channels;
    let mut result = vec![0f32; out_height * stride];
    result.par_chunks_exact_mut(stride).zip(rows.par_iter()).for_each(|(out, taps)| {
        let mut sum = vec![0f64; stride];
        for (w, row) in taps.weights.iter().zip(wide[taps.first * stride..].chunks_exact(stride)) {
            sum.iter_mut().zip(row).for_each(|(s, &v)| *s += w * f64::from(v));
        }
        out.iter_mut().zip(sum).for_each(|(out, s)| *out = s as f32);
    });
    result
}
