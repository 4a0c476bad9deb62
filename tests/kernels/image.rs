//! kernels/image and the embeddings.

use crate::support::*;
use tasr::ops::Cx;
use tasr::ops::average_pool::average_pool;
use tasr::ops::embedding::embed_tokens;
use tasr::ops::pixel_unshuffle::pixel_unshuffle;
use tasr::ops::resize::resize_bicubic;
use tasr::ops::tiles::{Blend, Window, crop, pad};
use tasr::ops::wavelet::{LEVELS, adain_fix, low_frequencies, wavelet_fix};
use tasr::tensor::{DType, Tensor};

/// `case` on images of f32 in both devices; the element type of the context does not matter to it.
#[track_caller]
fn check(
    name: &str,
    shapes: &[[usize; 4]],
    length: usize,
    scale: f32,
    case: impl Fn(&Cx, &[Tensor]) -> Tensor,
) {
    let run = |cx: &Cx| {
        let image = |(shape, seed): (&[usize; 4], u64)| {
            upload(cx.device(), &random(seed, shape.iter().product()), *shape, DType::F32)
        };
        case(cx, &shapes.iter().zip(1..).map(image).collect::<Vec<_>>())
    };
    let wanted = run(&oracle()).to_f32().unwrap();
    let got = on_all(DType::F16, run);
    assert_close(&format!("{name} {shapes:?}"), &got, &wanted, DType::F32, length, scale);
}

const SHAPES: [[usize; 4]; 5] = [[1, 1, 1, 1], [1, 1, 5, 3], [2, 7, 1, 3], [2, 6, 9, 4], [1, 40, 37, 3]];

#[test]
fn bicubic_resizing_matches_the_cpu() {
    for shape in SHAPES {
        for (h, w) in [(1, 1), (4, 7), (20, 3), (51, 60), (9, 9)] {
            check("resize", &[shape], 16, 1.0, |cx, x| resize_bicubic(cx, &x[0], h, w).unwrap());
        }
    }
}

#[test]
fn blurs_and_colour_fixes_match_the_cpu() {
    for shape in SHAPES {
        for levels in [1, 3, 5] {
            check("blur", &[shape], 9, 1.0, |cx, x| low_frequencies(cx, &x[0], levels).unwrap());
        }
        check("wavelet", &[shape; 2], 16, 2.0, |cx, x| wavelet_fix(cx, &x[0], &x[1], LEVELS).unwrap());
        check("adain", &[shape; 2], 16, 8.0, |cx, x| adain_fix(cx, &x[0], &x[1]).unwrap());
    }
}

#[test]
fn windows_are_cut_out_padded_and_blended() {
    for shape @ [_, h, w, _] in SHAPES {
        let window = Window { y: h / 3, x: w / 2, h: h - h / 3, w: (w - w / 2).min(3) };
        check("crop", &[shape], 0, 1e-6, |cx, x| crop(cx, &x[0], window).unwrap());
        for (h, w) in [(h + 1, w), (h, w + 5), (h + 3, w + 2)] {
            check("pad", &[shape], 0, 1e-6, |cx, x| pad(cx, &x[0], h, w).unwrap());
        }
    }
    for (n, c) in [(1, 1), (3, 4)] {
        let windows = [(0, 0, 9, 6), (0, 4, 5, 7), (3, 5, 6, 6), (2, 2, 1, 1)];
        let shapes = windows.map(|(_, _, h, w)| [n, h, w, c]);
        check("blend", &shapes, 4, 4.0, |cx, tiles| {
            let mut blend = Blend::new(cx, [n, 9, 11, c]).unwrap();
            for (tile, (y, x, h, w)) in tiles.iter().zip(windows) {
                let profile: Vec<_> = random(9, h * w).iter().map(|v| 0.05 + v.abs()).collect();
                let profile = upload(cx.device(), &profile, [h, w], DType::F32);
                blend.add(cx, tile, Window { y, x, h, w }, &profile).unwrap();
            }
            blend.finish(cx).unwrap()
        });
    }
}

#[test]
fn a_gap_between_tiles_is_an_error() {
    let cx = Cx::new(devices()[0].clone(), DType::F32).unwrap();
    let mut blend = Blend::new(&cx, [1, 3, 5, 1]).unwrap();
    let tile = upload(cx.device(), &[1.0; 12], [1, 3, 4, 1], DType::F32);
    let profile = upload(cx.device(), &[1.0; 12], [3, 4], DType::F32);
    blend.add(&cx, &tile, Window { y: 0, x: 0, h: 3, w: 4 }, &profile).unwrap();
    assert!(blend.finish(&cx).unwrap_err().to_string().contains("gap"));
}

/// Blocks that fill the image and blocks that leave rows and columns over; more elements than a block has threads.
const BLOCKS: [([usize; 4], usize); 6] = [
    ([1, 1, 1, 1], 1),
    ([2, 4, 6, 5], 2),
    ([1, 8, 16, 3], 8),
    ([3, 9, 6, 2], 3),
    ([1, 5, 7, 64], 2),
    ([2, 11, 4, 1], 4),
];

#[test]
fn blocks_are_averaged_as_on_the_cpu() {
    for dtype in DTYPES {
        for (shape, factor) in BLOCKS {
            let values = rounded(&random(1, shape.iter().product()), dtype);
            let run = |cx: &Cx, dtype| {
                average_pool(cx, &upload(cx.device(), &values, shape, dtype), factor).unwrap()
            };
            let wanted = run(&oracle(), DType::F32).to_f32().unwrap();
            let got = on_all(dtype, |cx| run(cx, dtype));
            assert_close(&format!("{shape:?} by {factor}"), &got, &wanted, dtype, factor * factor, 1.0);
        }
    }
}

#[test]
fn blocks_become_channels_bit_for_bit() {
    for dtype in DTYPES {
        for (shape, factor) in BLOCKS.into_iter().filter(|([_, h, w, _], f)| h % f == 0 && w % f == 0) {
            let values = rounded(&random(1, shape.iter().product()), dtype);
            let run = |cx: &Cx, dtype| {
                pixel_unshuffle(cx, &upload(cx.device(), &values, shape, dtype), factor).unwrap()
            };
            let wanted = run(&oracle(), DType::F32).to_f32().unwrap();
            assert!(on_all(dtype, |cx| run(cx, dtype)) == wanted, "{shape:?} by {factor}");
        }
    }
}

#[test]
fn tokens_are_looked_up_in_f32_and_stored_in_the_networks_type() {
    for dtype in DTYPES {
        for (vocabulary, length, width) in [(1, 1, 1), (100, 77, 33), (5, 3, 64)] {
            let tokens: Vec<Vec<u32>> = (0..2)
                .map(|n| (0..length).map(|i| ((i * 7 + n * 3) % vocabulary) as u32).collect())
                .collect();
            let rows: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
            let (table, positions) = (random(1, vocabulary * width), random(2, length * width));
            let run = |cx: &Cx| {
                let table = upload(cx.device(), &table, [vocabulary, width], DType::F32);
                let positions = upload(cx.device(), &positions, [length, width], DType::F32);
                embed_tokens(cx, &rows, &table, &positions).unwrap()
            };
            let wanted = run(&oracle()).to_f32().unwrap();
            assert_close("embed_tokens", &on_all(dtype, run), &wanted, dtype, 1, 1.0);
        }
    }
}
