//! Host resize against PyTorch's rule written out plainly in `f64`.

use crate::make::Random;
use tasr::image::resize::bicubic;

/// `interpolate(mode="bicubic", antialias=True)` at one output pixel, by the definition, both axes at once.
fn oracle(pixels: &[f32], (w, h): (usize, usize), (ow, oh): (usize, usize), x: usize, y: usize) -> f64 {
    let keys = |t: f64| {
        let t = t.abs();
        match t {
            t if t < 1.0 => 1.5 * t.powi(3) - 2.5 * t.powi(2) + 1.0,
            t if t < 2.0 => -0.5 * t.powi(3) + 2.5 * t.powi(2) - 4.0 * t + 2.0,
            _ => 0.0,
        }
    };
    let axis = |n: usize, out: usize, i: usize| {
        let r = n as f64 / out as f64;
        let (stretch, centre) = (r.max(1.0), r * (i as f64 + 0.5));
        let from = ((centre - 2.0 * stretch + 0.5).trunc() as i64).max(0);
        let to = ((centre + 2.0 * stretch + 0.5).trunc() as i64).min(n as i64);
        let w: Vec<(usize, f64)> =
            (from..to).map(|j| (j as usize, keys((j as f64 - centre + 0.5) / stretch))).collect();
        let total: f64 = w.iter().map(|w| w.1).sum();
        w.into_iter().map(move |(j, v)| (j, v / total)).collect::<Vec<_>>()
    };
    let (columns, rows) = (axis(w, ow, x), axis(h, oh, y));
    let row = |j: usize| columns.iter().map(|&(i, c)| c * f64::from(pixels[j * w + i])).sum::<f64>();
    rows.iter().map(|&(j, r)| r * row(j)).sum()
}

#[test]
fn agrees_with_the_definition() {
    let mut random = Random(5);
    for (from, to) in
        [((7, 5), (28, 20)), ((28, 20), (7, 5)), ((13, 9), (30, 4)), ((1, 1), (5, 3)), ((6, 6), (1, 1))]
    {
        let pixels: Vec<f32> = (0..from.0 * from.1).map(|_| random.below(256) as f32 / 255.0).collect();
        let three: Vec<f32> = pixels.iter().flat_map(|&v| [v, 0.5 * v, 1.0 - v]).collect();
        let got = bicubic(&three, from, 3, to);
        assert_eq!(got.len(), to.0 * to.1 * 3);
        for y in 0..to.1 {
            for x in 0..to.0 {
                let want = oracle(&pixels, from, to, x, y);
                let at = 3 * (y * to.0 + x);
                for (c, want) in [want, 0.5 * want, 1.0 - want].into_iter().enumerate() {
                    let error = (f64::from(got[at + c]) - want).abs();
                    assert!(error <= 1e-6, "{from:?} -> {to:?} at {x},{y},{c}: off by {error:e}");
                }
            }
        }
    }
}

#[test]
fn identity_is_exact() {
    let pixels: Vec<f32> = (0..60).map(|i| i as f32 * 0.37).collect();
    assert_eq!(bicubic(&pixels, (5, 4), 3, (5, 4)), pixels);
}

#[test]
fn matches_values_of_pillow() {
    // Image.resize((n, 1), Image.BICUBIC) of Pillow 13.0 in its floating-point mode, the rule that PyTorch took over.
    let up = bicubic(&[0.0, 1.0, 2.0, 3.0], (4, 1), 1, (7, 1));
    let want_up = [-0.079_326_92, 0.263_872_4, 0.924_013_8, 1.5, 2.075_986_1, 2.736_127_6, 3.079_326_9f32];
    let down = bicubic(&[0.0, 1.0, 4.0, 9.0, 16.0, 25.0], (6, 1), 1, (4, 1));
    let want_down = [0.158_576_06, 2.977_029, 10.886_677, 22.278_316f32];
    assert_eq!((up.len(), down.len()), (7, 4));
    for (g, w) in up.iter().zip(want_up).chain(down.iter().zip(want_down)) {
        assert!((g - w).abs() <= 2e-6, "{g} for {w}");
    }
}
