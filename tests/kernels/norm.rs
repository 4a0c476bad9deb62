//! kernels/norm.

use crate::support::*;
use tasr::ops::group_norm::{GroupNorm, group_norm, normalise};
use tasr::ops::layer_norm::layer_norm;
use tasr::ops::{Activation, Cx, Segment, Segments};
use tasr::tensor::{DType, Tensor};

/// A concatenation: which tensor, and which is added to it.
struct Concatenation {
    /// channels of each tensor
    tensors: &'static [usize],
    parts: &'static [(usize, Option<usize>)],
    groups: usize,
}

/// One tensor; odd channels; an adapter's input, aligned and not; the middle adapter's; a group over several
/// parts and a part of several groups; more tiles than one.
const CONCATENATIONS: [Concatenation; 8] = [
    Concatenation { tensors: &[16], parts: &[(0, None)], groups: 4 },
    Concatenation { tensors: &[7], parts: &[(0, None)], groups: 7 },
    Concatenation {
        tensors: &[16, 8, 8],
        parts: &[(0, None), (1, Some(2)), (0, None), (1, None), (2, None)],
        groups: 8,
    },
    Concatenation {
        tensors: &[5, 3, 3],
        parts: &[(0, None), (1, Some(2)), (0, None), (1, None), (2, None)],
        groups: 1,
    },
    Concatenation { tensors: &[8, 8], parts: &[(0, Some(1)), (0, None), (1, None)], groups: 3 },
    Concatenation { tensors: &[24, 8], parts: &[(0, None), (1, None)], groups: 2 },
    Concatenation { tensors: &[8, 8], parts: &[(1, Some(0))], groups: 2 },
    Concatenation { tensors: &[136, 72], parts: &[(0, None), (1, None)], groups: 52 },
];

impl Concatenation {
    fn channels(&self) -> usize {
        self.parts.iter().map(|part| self.tensors[part.0]).sum()
    }

    fn segments<'a>(&self, tensors: &'a [Tensor]) -> Segments<'a> {
        let part = |&(i, plus): &(usize, Option<usize>)| Segment {
            tensor: &tensors[i],
            plus: plus.map(|plus| &tensors[plus]),
        };
        Segments::new(self.parts.iter().map(part).collect())
    }
}

/// Pixels that need one slice, and several of which the last is short.
const SIZES: [[usize; 3]; 5] = [[1, 1, 1], [2, 3, 5], [1, 9, 29], [3, 8, 8], [1, 21, 33]];

#[test]
fn group_norm_matches_the_cpu_over_every_concatenation() {
    for dtype in DTYPES {
        for (index, cat) in CONCATENATIONS.iter().enumerate() {
            let c = cat.channels();
            for (turn, [n, h, w]) in SIZES.into_iter().enumerate() {
                // One pixel has no variance within a channel, and one of a narrow group next to none.
                if h * w == 1 && c / cat.groups < 8 {
                    continue;
                }
                let values: Vec<_> = cat
                    .tensors
                    .iter()
                    .zip(1..)
                    .map(|(c, seed)| rounded(&random(seed, n * h * w * c), dtype))
                    .collect();
                let (gamma, beta) = (random(11, c), random(12, c));
                // Rows of f32 or of the network's type, for each image, for all, or none.
                let rows = [0, 1, n][(index + turn) % 3];
                let adaln = rounded(&random(13, rows * 2 * c), dtype);
                let activation = [Activation::None, Activation::Silu, Activation::Relu][(index + turn) % 3];
                let run = |cx: &Cx, dtype: DType, write_out: bool| {
                    let tensors: Vec<_> = (0..values.len())
                        .map(|i| upload(cx.device(), &values[i], [n, h, w, cat.tensors[i]], dtype))
                        .collect();
                    let segments = cat.segments(&tensors);
                    let weight = |values: &[f32]| upload(cx.device(), values, [c], DType::F32);
                    let (gamma, beta) = (weight(&gamma), weight(&beta));
                    let norm = GroupNorm { gamma: &gamma, beta: &beta, groups: cat.groups, eps: 1e-5 };
                    let kind = if turn % 2 == 0 { dtype } else { DType::F32 };
                    let adaln = upload(cx.device(), &adaln, [rows, 2 * c], kind);
                    let adaln = (rows > 0).then_some(&adaln);
                    let affine = group_norm(cx, &segments, &norm, adaln, activation).unwrap();
                    if write_out { normalise(cx, &segments, &affine).unwrap() } else { affine.coefficients }
                };
                let name = format!("{:?} {:?} / {}, {n} x {h} x {w}", cat.tensors, cat.parts, cat.groups);
                let wanted = run(&oracle(), DType::F32, false).to_f32().unwrap();
                let got = on_all(dtype, |cx| run(cx, dtype, false));
                // 1 / deviation is at most 4 for these values.
                assert_close(&format!("group_norm {name}"), &got, &wanted, DType::F32, 16, 8.0);
                let wanted = run(&oracle(), DType::F32, true).to_f32().unwrap();
                let got = on_all(dtype, |cx| run(cx, dtype, true));
                assert_close(&format!("normalise {name}"), &got, &wanted, dtype, 16, 16.0);
            }
        }
    }
}

#[test]
fn a_large_mean_does_not_drown_the_deviation_of_a_group() {
    for (offset, dtype) in [(10.0, DType::F16), (1000.0, DType::F32)] {
        let (n, h, w, c) = (2, 31, 33, 24);
        let values: Vec<_> = random(1, n * h * w * c).iter().map(|v| v + offset).collect();
        let values = rounded(&values, dtype);
        let (gamma, beta) = (vec![1.0; c], vec![0.0; c]);
        let run = |cx: &Cx, dtype| {
            let x = upload(cx.device(), &values, [n, h, w, c], dtype);
            let weight = |values: &[f32]| upload(cx.device(), values, [c], DType::F32);
            let (gamma, beta) = (weight(&gamma), weight(&beta));
            let norm = GroupNorm { gamma: &gamma, beta: &beta, groups: 3, eps: 1e-5 };
            group_norm(cx, &Segments::one(&x), &norm, None, Activation::None).unwrap().coefficients
        };
        let wanted = run(&oracle(), DType::F32).to_f32().unwrap();
        let got = on_all(dtype, |cx| run(cx, dtype));
        for (rows_got, rows_wanted) in got.chunks(2 * c).zip(wanted.chunks(2 * c)) {
            assert_close("scale", &rows_got[..c], &rows_wanted[..c], DType::F32, 8, 2.0);
            // The shift is the mean times the scale.
            assert_close("shift", &rows_got[c..], &rows_wanted[c..], DType::F32, 8, 2.0 * offset);
        }
    }
}

#[test]
fn layer_norm_matches_the_cpu_for_every_width() {
    for dtype in DTYPES {
        // 8, 16 and 32 lanes a row, full and not; a block a row: odd, wide; one and two channels.
        for (rows, c) in
            [(1, 8), (70, 64), (33, 320), (9, 640), (17, 1024), (9, 1280), (3, 37), (2, 1304), (5, 2)]
        {
            let offset = if c == 1024 { 20.0 } else { 0.0 };
            let values: Vec<_> = random(c as u64, rows * c).iter().map(|v| v + offset).collect();
            let values = rounded(&values, dtype);
            let (gamma, beta) = (random(2, c), random(3, c));
            let run = |cx: &Cx, dtype| {
                let weight = |values: &[f32]| upload(cx.device(), values, [c], DType::F32);
                let x = upload(cx.device(), &values, [1, rows, c], dtype);
                layer_norm(cx, &x, &weight(&gamma), &weight(&beta), 1e-5).unwrap()
            };
            let wanted = run(&oracle(), DType::F32).to_f32().unwrap();
            let got = on_all(dtype, |cx| run(cx, dtype));
            // Two close values differ by little, and a large mean is subtracted: their rounding is magnified.
            let scale = if c == 2 { 300.0 } else { 4.0 + 2.0 * offset };
            assert_close(&format!("layer_norm {rows} x {c}"), &got, &wanted, dtype, 16, scale);
        }
    }
}

#[test]
fn unaligned_rows_are_normalised_element_by_element() {
    let (rows, c) = (3, 40);
    let values = rounded(&random(1, (rows + 1) * c + 4), DType::F16);
    let got = on_all(DType::F16, |cx| {
        let all = upload(cx.device(), &values, [values.len() / 4, 4], DType::F16);
        // The first row starts eight bytes behind a multiple of sixteen.
        let x = all.narrow(1, rows * c / 4).unwrap().reshape([1, rows, c]).unwrap();
        let ones = upload(cx.device(), &[1.0; 40], [c], DType::F32);
        layer_norm(cx, &x, &ones, &ones, 1e-5).unwrap()
    });
    let cx = oracle();
    let x = upload(cx.device(), &values[4..4 + rows * c], [1, rows, c], DType::F32);
    let ones = upload(cx.device(), &[1.0; 40], [c], DType::F32);
    let wanted = layer_norm(&cx, &x, &ones, &ones, 1e-5).unwrap().to_f32().unwrap();
    assert_close("layer_norm", &got, &wanted, DType::F16, 16, 4.0);
}
