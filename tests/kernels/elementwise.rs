//! kernels/elementwise.

use crate::support::*;
use tasr::ops::diffusion::{StepCoefficients, ddpm_step, guide, posterior};
use tasr::ops::elementwise::{cast, combine, concat, pointwise, stack};
use tasr::ops::{Activation, Cx, Segment, Segments};
use tasr::tensor::{DType, Tensor};

const COUNTS: [usize; 6] = [1, 7, 8, 257, 2048, 5003];

#[test]
fn combine_sums_up_to_many_terms() {
    for dtype in DTYPES {
        for (count, terms) in COUNTS.into_iter().zip([1, 2, 3, 7, 8, 16]) {
            let inputs: Vec<_> = (0..terms).map(|t| rounded(&random(t as u64 + 1, count), dtype)).collect();
            let factor = |t: usize| 0.5 - t as f32 * 0.25;
            let run = |cx: &Cx, dtype| {
                let tensors: Vec<_> = inputs.iter().map(|v| upload(cx.device(), v, [count], dtype)).collect();
                let terms: Vec<_> = tensors.iter().enumerate().map(|(t, x)| (factor(t), x)).collect();
                combine(cx, &terms, 0.125).unwrap()
            };
            let wanted = run(&oracle(), DType::F32).to_f32().unwrap();
            let got = on_all(dtype, |cx| run(cx, dtype));
            // Partial sums of more terms than a launch takes are rounded once more each.
            let scale =
                if terms > 7 { 20.0 * 2f32.powi(if dtype == DType::F32 { 0 } else { 12 }) } else { 2.0 };
            assert_close("combine", &got, &wanted, dtype, terms, scale);
        }
    }
}

#[test]
fn pointwise_applies_every_activation() {
    let all =
        [Activation::None, Activation::Silu, Activation::Relu, Activation::LeakyRelu(0.2), Activation::Gelu];
    for dtype in DTYPES {
        for (activation, count) in all.into_iter().zip(COUNTS) {
            let values: Vec<_> = random(9, count).iter().map(|v| v * 6.0).collect();
            let values = rounded(&values, dtype);
            let run = |cx: &Cx, dtype| {
                pointwise(cx, &upload(cx.device(), &values, [count], dtype), activation).unwrap()
            };
            let wanted = run(&oracle(), DType::F32).to_f32().unwrap();
            assert_close("pointwise", &on_all(dtype, |cx| run(cx, dtype)), &wanted, dtype, 8, 1.0);
        }
    }
}

#[test]
fn cast_rounds_to_nearest_even_in_every_direction() {
    let mut values = random(3, 4001);
    let special =
        [0.0, -0.0, 65504.0, 65519.9, 65520.0, 1e-7, -3e-8, 6e-5, 1e30, 1.000_488_3, 1.001_464_8, -1e-45];
    values.extend(special.iter().chain(&[f32::INFINITY, f32::NEG_INFINITY]));
    for from in DTYPES {
        let values = rounded(&values, from);
        for to in DTYPES {
            let got =
                on_all(from, |cx| cast(cx, &upload(cx.device(), &values, [values.len()], from), to).unwrap());
            let wanted = rounded(&values, to);
            let wrong = got.iter().zip(&wanted).position(|(a, b)| a.to_bits() != b.to_bits());
            assert_eq!(
                wrong,
                None,
                "{from:?} to {to:?}: {:?}",
                wrong.map(|i| (values[i], got[i], wanted[i]))
            );
        }
    }
}

#[test]
fn unaligned_rows_are_read_element_by_element() {
    let values = rounded(&random(5, 3 * 37), DType::F16);
    let got = on_all(DType::F16, |cx| {
        let x = upload(cx.device(), &values, [3, 37], DType::F16);
        combine(cx, &[(2.0, &x.narrow(1, 1).unwrap()), (1.0, &x.narrow(2, 1).unwrap())], 0.0).unwrap()
    });
    let wanted: Vec<_> = (0..37).map(|i| 2.0 * values[37 + i] + values[74 + i]).collect();
    assert_close("combine of rows", &got, &wanted, DType::F16, 2, 3.0);
}

#[test]
fn stack_joins_rows() {
    for dtype in DTYPES {
        let (a, b) = (rounded(&random(1, 2 * 15), dtype), rounded(&random(2, 15), dtype));
        let got = on_all(dtype, |cx| {
            let (a, b) =
                (upload(cx.device(), &a, [2, 3, 5], dtype), upload(cx.device(), &b, [1, 3, 5], dtype));
            let stacked = stack(cx, &[&a, &b.narrow(0, 1).unwrap()]).unwrap();
            assert_eq!(*stacked.shape(), [3, 3, 5]);
            stacked
        });
        assert_eq!(got, [a, b].concat());
    }
}

#[test]
fn sampler_steps_match_the_cpu() {
    let step = StepCoefficients {
        x0_from_x: 1.7,
        x0_from_noise: 1.3,
        mean_from_x0: 0.4,
        mean_from_x: 0.6,
        deviation: 0.3,
    };
    let shape = [2, 5, 7, 4];
    let count = 280;
    for dtype in DTYPES {
        let eps = rounded(&random(2, count), dtype);
        let run = |cx: &Cx, dtype| {
            let f32s = |seed| upload(cx.device(), &random(seed, count), shape, DType::F32);
            ddpm_step(cx, &f32s(1), &upload(cx.device(), &eps, shape, dtype), &f32s(3), &step).unwrap()
        };
        let wanted = run(&oracle(), DType::F32).to_f32().unwrap();
        assert_close("ddpm_step", &on_all(dtype, |cx| run(cx, dtype)), &wanted, DType::F32, 4, 2.0);

        let moments: Vec<_> = random(4, 2 * count).iter().map(|v| v * 4.0).collect();
        let moments = rounded(&moments, dtype);
        for noisy in [false, true] {
            let run = |cx: &Cx, dtype| {
                let noise: Option<Tensor> =
                    noisy.then(|| upload(cx.device(), &random(5, count), shape, DType::F32));
                let moments = upload(cx.device(), &moments, [2, 5, 7, 8], dtype);
                posterior(cx, &moments, noise.as_ref(), 0.18215).unwrap()
            };
            let wanted = run(&oracle(), DType::F32).to_f32().unwrap();
            assert_close("posterior", &on_all(dtype, |cx| run(cx, dtype)), &wanted, DType::F32, 4, 4.0);
        }
        let run = |cx: &Cx, dtype| guide(cx, &upload(cx.device(), &eps, shape, dtype), 4.5).unwrap();
        let wanted = run(&oracle(), DType::F32).to_f32().unwrap();
        assert_close("guide", &on_all(dtype, |cx| run(cx, dtype)), &wanted, dtype, 2, 8.0);
    }
}

#[test]
fn concat_writes_parts_and_sums_of_parts() {
    for dtype in DTYPES {
        for widths in [&[8, 24, 16][..], &[3, 8, 5, 1, 7], &[64], &[1; 8]] {
            let parts: Vec<_> = widths
                .iter()
                .zip(1..)
                .map(|(c, seed)| rounded(&random(seed, 2 * 3 * 7 * c), dtype))
                .collect();
            let run = |cx: &Cx, dtype| {
                let on = |i: usize| upload(cx.device(), &parts[i], [2, 3, 7, widths[i]], dtype);
                let tensors: Vec<_> = (0..widths.len()).map(on).collect();
                let part =
                    |i: usize| Segment { tensor: &tensors[i], plus: (i % 2 == 1).then(|| &tensors[i]) };
                concat(cx, &Segments::new((0..widths.len()).map(part).collect())).unwrap()
            };
            let wanted = run(&oracle(), DType::F32).to_f32().unwrap();
            assert_close("concat", &on_all(dtype, |cx| run(cx, dtype)), &wanted, dtype, 2, 2.0);
        }
    }
}
