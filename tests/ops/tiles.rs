//! Windows cut out, padded, and blended back.

use tasr::ops::tiles::{Blend, Window, crop, pad};

use crate::support::oracle::image as oracle;
use crate::support::{Random, Trial, run};

#[test]
fn crops_and_pads() {
    let mut random = Random::new(71);
    for (shape @ [_, h, w, _], (y, x, height, width)) in [
        ([1, 1, 1, 1], (0, 0, 1, 1)),
        ([2, 5, 7, 3], (1, 2, 3, 4)),
        ([3, 9, 4, 4], (8, 0, 1, 4)),
        ([2, 6, 6, 2], (0, 5, 6, 1)),
        ([1, 4, 4, 5], (2, 2, 0, 2)),
    ] {
        let image = random.array(&shape).plain();
        let window = Window { y, x, h: height, w: width };
        run(
            &Trial::new(format!("crop {shape:?} to {window:?}"), vec![image.clone()], 1),
            |cx, inputs| Ok(vec![crop(cx, &inputs[0], window)?]),
            |inputs| vec![oracle::crop(&inputs[0], (y, x, height, width))],
        );
        for (h, w) in [(h, w), (h + 1, w), (h, w + 3), (h + 5, w + 2)] {
            run(
                &Trial::new(format!("pad {shape:?} to {h} x {w}"), vec![image.clone()], 1),
                |cx, inputs| Ok(vec![pad(cx, &inputs[0], h, w)?]),
                |inputs| vec![oracle::pad(&inputs[0], h, w)],
            );
        }
    }
}

#[test]
fn overlapping_windows_blend_to_their_weighted_mean() {
    let mut random = Random::new(72);
    for (n, c) in [(1, 1), (2, 4), (3, 3)] {
        let shape = [n, 9, 11, c];
        let windows = [(0, 0, 9, 6), (0, 4, 5, 7), (3, 5, 6, 6), (2, 2, 1, 1)];
        let mut inputs = Vec::new();
        for (_, _, h, w) in windows {
            inputs.push(random.array(&[n, h, w, c]).plain());
            inputs.push(random.array(&[h, w]).map(|v| 0.05 + v.abs()).plain());
        }
        run(
            &Trial::new(format!("blend {shape:?}"), inputs, 4),
            |cx, inputs| {
                let mut blend = Blend::new(cx, shape)?;
                for (pair, (y, x, h, w)) in inputs.chunks(2).zip(windows) {
                    blend.add(cx, &pair[0], Window { y, x, h, w }, &pair[1])?;
                }
                Ok(vec![blend.finish(cx)?])
            },
            |inputs| {
                let tiles: Vec<_> = inputs
                    .chunks(2)
                    .zip(windows)
                    .map(|(pair, (y, x, _, _))| (&pair[0], (y, x), &pair[1]))
                    .collect();
                vec![oracle::blend(shape, &tiles)]
            },
        );
    }
}

#[test]
fn windows_that_leave_the_image_and_gaps_are_refused() {
    use tasr::{autograd::Cx, device::Device, tensor::DType, tensor::Tensor};
    let cx = Cx::new(Device::cpu(), DType::F32).unwrap();
    let image = Tensor::from_f32(cx.device(), &[1.0; 12], [1, 3, 4, 1]).unwrap();
    let profile = Tensor::from_f32(cx.device(), &[1.0; 12], [3, 4]).unwrap();
    assert!(crop(&cx, &image, Window { y: 1, x: 0, h: 3, w: 4 }).is_err());
    assert!(crop(&cx, &image, Window { y: usize::MAX, x: 0, h: 1, w: 4 }).is_err());
    assert!(pad(&cx, &image, 2, 4).is_err());
    let mut blend = Blend::new(&cx, [1, 3, 5, 1]).unwrap();
    assert!(blend.add(&cx, &image, Window { y: 0, x: 2, h: 3, w: 4 }, &profile).is_err());
    blend.add(&cx, &image, Window { y: 0, x: 0, h: 3, w: 4 }, &profile).unwrap();
    assert!(blend.finish(&cx).is_err());
}
