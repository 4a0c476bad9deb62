//! Gradients on the GPU against those of the CPU, which are held against differences of f64 oracles.

use crate::support::*;
use tasr::device::Purpose;
use tasr::ops::average_pool::average_pool;
use tasr::ops::diffusion::{divergence_gradient, posterior};
use tasr::ops::elementwise::{concat, pointwise};
use tasr::ops::group_norm::{GroupNorm, group_norm, normalise};
use tasr::ops::layer_norm::layer_norm;
use tasr::ops::linear::{LinearWeight, linear, linear_geglu};
use tasr::ops::resize::resize_bicubic;
use tasr::ops::tokens::{join_tokens, mean_token};
use tasr::ops::{Activation, Cx, Epilogue, Segment, Segments};
use tasr::tensor::{DType, Shape, Tensor};

/// An input: its shape, whether it is stored as networks store theirs, and whether its gradient is wanted.
#[derive(Clone)]
struct Input {
    shape: Shape,
    network: bool,
    wanted: bool,
}

fn network(shape: impl Into<Shape>) -> Input {
    Input { shape: shape.into(), network: true, wanted: true }
}

fn plain(shape: impl Into<Shape>) -> Input {
    Input { network: false, ..network(shape) }
}

fn constant(shape: impl Into<Shape>) -> Input {
    Input { wanted: false, ..network(shape) }
}

/// Gradients of a random weighted sum of the result in the wanted inputs. Values are exact in `stored`.
fn gradients(
    cx: &Cx,
    stored: DType,
    inputs: &[Input],
    op: &dyn Fn(&Cx, &[Tensor]) -> Tensor,
) -> Vec<Vec<f32>> {
    let cx = cx.with_tape();
    let tape = cx.tape().unwrap();
    let tensors: Vec<_> = inputs
        .iter()
        .zip(1..)
        .map(|(input, seed)| {
            let values = random(seed, input.shape.count());
            let (values, dtype) = match input.network {
                true => (rounded(&values, stored), cx.dtype()),
                false => (values, DType::F32),
            };
            let tensor = upload(cx.device(), &values, input.shape, dtype);
            if input.wanted { tape.variable(&tensor) } else { tensor }
        })
        .collect();
    let result = op(&cx, &tensors);
    let seed = rounded(&random(99, result.shape().count()), stored);
    let seed =
        Tensor::from_f32_as(cx.device(), &seed, result.shape(), result.dtype(), Purpose::Activation).unwrap();
    let found = tape.backward(&cx, vec![(&result, seed)]).unwrap();
    let wanted = tensors.iter().zip(inputs).filter(|(_, input)| input.wanted);
    wanted.map(|(tensor, _)| found.of(tensor).unwrap().to_f32().unwrap()).collect()
}

/// The gradients on every device, the same bits on all, against the CPU's. `scale` bounds the terms that a gradient
/// is the sum of, each of which may have been rounded once more on its way.
#[track_caller]
fn check(name: &str, inputs: &[Input], scale: f32, op: impl Fn(&Cx, &[Tensor]) -> Tensor) {
    for dtype in DTYPES {
        let wanted = gradients(&oracle(), dtype, inputs, &op);
        let mut first: Option<Vec<Vec<f32>>> = None;
        for device in devices() {
            let got = gradients(&Cx::new(device.clone(), dtype).unwrap(), dtype, inputs, &op);
            let bits = |all: &[Vec<f32>]| -> Vec<u32> { all.iter().flatten().map(|v| v.to_bits()).collect() };
            let before = first.get_or_insert_with(|| got.clone());
            assert!(bits(before) == bits(&got), "{name}: the gradient depends on the order of threads");
        }
        // Of f32 a few units, of halves one and a half for what is stored in between.
        let own = match dtype {
            DType::F32 => 16.0,
            DType::F16 => 1.5 * 2f32.powi(12),
            DType::BF16 => 1.5 * 2f32.powi(15),
        };
        let kinds = inputs.iter().filter(|input| input.wanted);
        for (i, ((got, wanted), kind)) in first.unwrap().iter().zip(&wanted).zip(kinds).enumerate() {
            let stored = if kind.network { dtype } else { DType::F32 };
            assert_close(&format!("{name}, input {i}"), got, wanted, stored, 0, own / 8.0 * scale);
        }
    }
}

#[test]
fn activations() {
    let all = [
        Activation::None,
        Activation::Silu,
        Activation::Relu,
        Activation::LeakyRelu(0.2),
        Activation::LeakyRelu(-1.0),
        Activation::Gelu,
    ];
    for (activation, count) in all.into_iter().zip([1, 7, 8, 257, 64, 5003]) {
        check(&format!("{activation:?}"), &[network([count])], 1.0, |cx, x| {
            pointwise(cx, &x[0], activation).unwrap()
        });
    }
}

/// Moments are f32 whatever the network is; beyond the clamp of the log variance nothing is learnt.
#[test]
fn posteriors() {
    for shape @ [n, h, w, both] in [[1, 1, 1, 2], [2, 5, 3, 16], [3, 8, 9, 8]] {
        let mut values = random(5, n * h * w * both);
        values.iter_mut().step_by(7).for_each(|v| *v *= 40.0);
        let noise = random(6, n * h * w * both / 2);
        let run = |cx: &Cx| {
            let cx = cx.with_tape();
            let tape = cx.tape().unwrap();
            let moments = tape.variable(&upload(cx.device(), &values, shape, DType::F32));
            let noise = upload(cx.device(), &noise, [n, h, w, both / 2], DType::F32);
            let latent = posterior(&cx, &moments, Some(&noise), 0.18215).unwrap();
            let mut found = tape.backward(&cx, vec![(&latent, noise)]).unwrap();
            let divergence = divergence_gradient(&cx.without_tape(), &moments.detached(), 1e-3).unwrap();
            let own = found.take_named(moments.node().unwrap()).unwrap();
            tasr::ops::sum(&cx.without_tape(), own, divergence).unwrap()
        };
        let (got, wanted) = (on_all(DType::F32, run), run(&oracle()).to_f32().unwrap());
        // e^20 is what the largest deviation squared may be.
        for (got, wanted) in got.iter().zip(&wanted) {
            assert!((got - wanted).abs() <= 1e-5 * (1.0 + wanted.abs()), "{shape:?}: {got} for {wanted}");
        }
    }
}

#[test]
fn concatenations() {
    for widths in [[8, 24, 16], [3, 8, 5], [64, 8, 8]] {
        let inputs = widths.map(|c| network([2, 3, 7, c]));
        check(&format!("concat {widths:?}"), &inputs, 2.0, |cx, x| {
            let part = |i: usize| Segment { tensor: &x[i], plus: None };
            concat(cx, &Segments::new(vec![part(0), part(1), part(2), part(0)])).unwrap()
        });
    }
    check("concat of sums", &[network([1, 3, 3, 8]), network([1, 3, 3, 8])], 3.0, |cx, x| {
        let parts = vec![Segment { tensor: &x[0], plus: Some(&x[1]) }, Segment { tensor: &x[1], plus: None }];
        concat(cx, &Segments::new(parts)).unwrap()
    });
}

#[test]
fn layer_norms() {
    for (rows, c) in [(1, 8), (70, 64), (200, 320), (9, 640), (5, 1280), (3, 37), (2, 1304), (131, 10)] {
        let inputs = [network([1, rows, c]), plain([c]), plain([c])];
        let scale = 8.0 + (rows as f32).sqrt();
        check(&format!("layer_norm {rows} x {c}"), &inputs, scale, |cx, x| {
            layer_norm(cx, &x[0], &x[1], &x[2], 1e-5).unwrap()
        });
        let frozen = [network([1, rows, c]), Input { wanted: false, ..plain([c]) }];
        check(&format!("layer_norm {rows} x {c} of constants"), &frozen, scale, |cx, x| {
            layer_norm(cx, &x[0], &x[1], &x[1], 1e-5).unwrap()
        });
    }
}

#[test]
fn group_norms_over_concatenations() {
    // Sizes, channels of h, s and r, groups, rows of AdaLN.
    for (index, (size, [h, s], groups, rows)) in [
        ([1, 2, 3], [16, 8], 8, 0),
        ([2, 9, 15], [16, 8], 4, 1),
        ([3, 8, 9], [6, 3], 3, 3),
        ([1, 16, 17], [72, 8], 2, 1),
    ]
    .into_iter()
    .enumerate()
    {
        let [n, y, x] = size;
        let c = 2 * h + 3 * s;
        let mut inputs =
            vec![plain([c]), plain([c]), network([n, y, x, h]), network([n, y, x, s]), network([n, y, x, s])];
        if rows > 0 {
            inputs.push(if index % 2 == 1 { network([rows, 2 * c]) } else { plain([rows, 2 * c]) });
        }
        let activation = [Activation::None, Activation::Silu, Activation::Relu, Activation::Gelu][index];
        let scale = 8.0 * ((n * y * x) as f32).sqrt();
        check(&format!("group_norm {size:?} of {h} and {s} / {groups}"), &inputs, scale, |cx, t| {
            let plain = |i: usize| Segment { tensor: &t[i], plus: None };
            let sum = Segment { tensor: &t[3], plus: Some(&t[4]) };
            let segments = Segments::new(vec![plain(2), sum, plain(2), plain(3), plain(4)]);
            let norm = GroupNorm { gamma: &t[0], beta: &t[1], groups, eps: 1e-5 };
            let affine = group_norm(cx, &segments, &norm, t.get(5), activation).unwrap();
            normalise(cx, &segments, &affine).unwrap()
        });
    }
}

#[test]
fn biases_and_rows_for_each_image() {
    for (n, rows, k, o) in [(1, 1, 8, 8), (3, 77, 8, 24), (2, 200, 5, 37), (1, 300, 8, 136)] {
        let inputs = [constant([n, rows, k]), plain([o]), network([n, o]), network([n, rows, o])];
        let scale = 2.0 * ((n * rows) as f32).sqrt();
        check(&format!("epilogue {n} x {rows} x {o}"), &inputs, scale, |cx, x| {
            let weight = LinearWeight::pack(cx, &rounded(&random(8, o * k), DType::BF16), [o, k]).unwrap();
            let epilogue = Epilogue::bias(Some(&x[1])).per_image(&x[2]).residual(&x[3]).scale(0.5);
            linear(cx, &x[0], &weight, &epilogue).unwrap()
        });
    }
}

#[test]
fn gated_gelus() {
    for (rows, k, h) in [(1, 8, 8), (77, 16, 40), (130, 5, 13)] {
        let inputs = [constant([1, rows, k]), plain([2 * h])];
        // Value and gate are computed again and stored.
        let scale = 16.0 * (rows as f32).sqrt();
        check(&format!("geglu {rows} x {h}"), &inputs, scale, |cx, x| {
            let values = rounded(&random(8, 2 * h * k), DType::BF16);
            let weight = LinearWeight::pack(cx, &values, [2 * h, k]).unwrap();
            linear_geglu(cx, &x[0], &weight, &x[1]).unwrap()
        });
    }
}

#[test]
fn resizing() {
    for (shape, h, w) in [([1, 5, 6, 3], 20, 3), ([2, 17, 13, 4], 5, 40), ([1, 1, 1, 1], 4, 7)] {
        check(&format!("resize {shape:?}"), &[plain(shape)], 8.0, |cx, x| {
            resize_bicubic(cx, &x[0], h, w).unwrap()
        });
    }
}

#[test]
fn average_pools() {
    for (shape, factor) in [([1, 1, 1, 1], 1), ([2, 5, 7, 5], 2), ([1, 9, 6, 33], 3), ([3, 2, 9, 4], 2)] {
        check(&format!("{shape:?} pooled by {factor}"), &[network(shape)], 1.0, |cx, x| {
            average_pool(cx, &x[0], factor).unwrap()
        });
    }
}

/// As in CLIP's attention pool: all tokens reach the mean too.
#[test]
fn means_before_tokens() {
    for [n, l, c] in [[1, 1, 1], [2, 56, 7], [3, 5, 64], [1, 257, 20]] {
        let name = format!("mean before [{n}, {l}, {c}]");
        check(&name, &[network([n, l, c]), network([n, 2, c])], 4.0, |cx, x| {
            let mean = mean_token(cx, &x[0]).unwrap();
            join_tokens(cx, &join_tokens(cx, &mean, &x[0]).unwrap(), &x[1]).unwrap()
        });
    }
}

/// Gradients of a linear layer in its input and its weights.
fn linear_gradients(cx: &Cx, stored: DType, [rows, k, o]: [usize; 3]) -> [Vec<f32>; 2] {
    let cx = cx.with_tape();
    let tape = cx.tape().unwrap();
    let values = |seed, count| rounded(&random(seed, count), stored);
    let x = tape.variable(&upload(cx.device(), &values(1, rows * k), [1, rows, k], cx.dtype()));
    let node = tasr::autograd::variable();
    tape.watch(node);
    let weight = LinearWeight::pack(&cx, &values(2, o * k), [o, k]).unwrap().with_node(Some(node));
    let result = linear(&cx, &x, &weight, &Epilogue::default().scale(0.5)).unwrap();
    let seed = upload(cx.device(), &values(3, rows * o), [1, rows, o], cx.dtype());
    let found = tape.backward(&cx, vec![(&result, seed)]).unwrap();
    [&x, weight.packed()].map(|tensor| found.of(tensor).unwrap().to_f32().unwrap())
}

#[test]
fn linear_layers() {
    // One tile, odd sizes, several large tiles, k in several parts of which the last is short.
    for size @ [rows, k, o] in
        [[1, 8, 8], [70, 64, 72], [77, 40, 65], [33, 7, 130], [300, 136, 200], [1100, 24, 40], [40, 16, 530]]
    {
        for dtype in DTYPES {
            let wanted = linear_gradients(&oracle(), dtype, size);
            let got = on_all(dtype, |cx| {
                let both = linear_gradients(cx, dtype, size).concat();
                upload(cx.device(), &both, [both.len()], DType::F32)
            });
            let (input, weights) = got.split_at(rows * k);
            assert_close(&format!("dgrad {size:?}"), input, &wanted[0], dtype, o, 1.5);
            assert_close(&format!("wgrad {size:?}"), weights, &wanted[1], DType::F32, rows, 1.5);
        }
    }
}
