//! Attention within windows, against the whole score matrix of every window of a rolled image.

use tasr::ops::window_attention::{Windows, window_attention};

use crate::support::{Array, Random, Trial, run};

/// As the definition says: roll, cut, mask by slices, attend, put back.
fn oracle(qkv: &Array, bias: &Array, windows: Windows) -> Array {
    let Windows { side, shift, heads, width } = windows;
    let [n, h, w, _] = qkv.nhwc();
    let all = heads * width;
    let source = |y: usize, x: usize| ((y + shift) % h, (x + shift) % w);
    let label = |at: usize, size: usize| {
        if shift == 0 {
            0
        } else if (0..size - side).contains(&at) {
            1
        } else if (size - side..size - shift).contains(&at) {
            2
        } else {
            3
        }
    };
    let mut result = Array::build(&[n, h, w, all], |_| 0.0);
    for image in 0..n {
        for y in 0..h {
            for x in 0..w {
                let (top, left) = (y / side * side, x / side * side);
                let (sy, sx) = source(y, x);
                for head in 0..heads {
                    let at = |y: usize, x: usize, which: usize, d: usize| {
                        qkv.at(&[image, y, x, which * all + head * width + d])
                    };
                    let mut weights = Vec::new();
                    for key in 0..side * side {
                        let (ky, kx) = (top + key / side, left + key % side);
                        let (from_y, from_x) = source(ky, kx);
                        let dot: f64 = (0..width).map(|d| at(sy, sx, 0, d) * at(from_y, from_x, 1, d)).sum();
                        let row = (y + side - 1 - ky) * (2 * side - 1) + x + side - 1 - kx;
                        let apart = label(y, h) != label(ky, h) || label(x, w) != label(kx, w);
                        let mask = if apart { -100.0 } else { 0.0 };
                        let score = dot / (width as f64).sqrt() + bias.at(&[row, head]) + mask;
                        weights.push((score.exp(), from_y, from_x));
                    }
                    let total: f64 = weights.iter().map(|(weight, ..)| weight).sum();
                    for d in 0..width {
                        let sum: f64 = weights.iter().map(|&(weight, y, x)| weight * at(y, x, 2, d)).sum();
                        result.values[((image * h + sy) * w + sx) * all + head * width + d] = sum / total;
                    }
                }
            }
        }
    }
    result
}

fn check([n, h, w]: [usize; 3], windows: Windows) {
    let Windows { side, heads, width, .. } = windows;
    let mut random = Random::new((h * 100 + w + windows.shift) as u64);
    let inputs = vec![
        random.array(&[n, h, w, 3 * heads * width]),
        random.array(&[(2 * side - 1) * (2 * side - 1), heads]).plain(),
    ];
    let trial = Trial::new(format!("{windows:?} over [{n}, {h}, {w}]"), inputs, side * side);
    run(
        &trial.magnified(2.0 + (width as f64).sqrt()).emulated(),
        |cx, inputs| Ok(vec![window_attention(cx, &inputs[0], &inputs[1], windows)?]),
        |inputs| vec![oracle(&inputs[0], &inputs[1], windows)],
    );
}

#[test]
fn windows_whole_and_shifted() {
    for (size, side, shift, heads, width) in [
        ([1, 8, 8], 8, 0, 2, 5),
        ([1, 8, 8], 8, 4, 1, 3),
        ([2, 16, 24], 8, 4, 6, 5),
        ([1, 16, 8], 8, 0, 3, 30),
        ([1, 12, 8], 4, 2, 2, 7),
        ([1, 6, 9], 3, 1, 1, 1),
        ([3, 2, 3], 1, 0, 2, 4),
    ] {
        check(size, Windows { side, shift, heads, width });
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    use tasr::{autograd::Cx, device::Device, tensor::DType, tensor::Tensor};
    let cx = Cx::new(Device::cpu(), DType::F32).unwrap();
    let image = |h: usize, w: usize, c: usize| {
        Tensor::from_f32(cx.device(), &vec![0.0; h * w * c], [1, h, w, c]).unwrap()
    };
    let bias = Tensor::from_f32(cx.device(), &[0.0; 18], [9, 2]).unwrap();
    let windows = Windows { side: 2, shift: 0, heads: 2, width: 4 };
    let attend = |qkv: &Tensor, windows| window_attention(&cx, qkv, &bias, windows);
    assert!(attend(&image(4, 6, 24), windows).is_ok());
    assert!(attend(&image(4, 5, 24), windows).is_err());
    assert!(attend(&image(4, 6, 23), windows).is_err());
    assert!(attend(&image(4, 6, 24), Windows { shift: 2, ..windows }).is_err());
    assert!(attend(&image(6, 6, 24), Windows { side: 3, ..windows }).is_err());
}
