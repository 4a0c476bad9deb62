//! Guidance, the DDPM step, the posterior.

use tasr::ops::diffusion::{
    StepCoefficients, combine_images, ddpm_step, divergence_gradient, guide, posterior, to_unit,
};

use crate::support::oracle::pointwise as oracle;
use crate::support::{Array, Random, Trial, check_gradients, run};
use tasr::autograd::Cx;
use tasr::tensor::Tensor;

#[test]
fn guidance_of_pairs() {
    let mut random = Random::new(61);
    for (shape, cfg) in
        [([2, 1, 1, 1], 4.5f32), ([6, 9, 7, 4], 4.5), ([2, 8, 8, 4], 1.0), ([4, 3, 5, 4], 0.0)]
    {
        let trial = Trial::new(format!("guide {shape:?} by {cfg}"), vec![random.array(&shape)], 2);
        run(
            &trial.magnified(f64::from(cfg)),
            |cx, inputs| Ok(vec![guide(cx, &inputs[0], cfg)?]),
            |inputs| vec![oracle::guide(&inputs[0], f64::from(cfg))],
        );
    }
}

#[test]
fn steps_follow_the_chain() {
    let mut random = Random::new(62);
    let steps = [
        // early: x0 is far from x, its parts nearly cancel
        StepCoefficients {
            x0_from_x: 14.6,
            x0_from_noise: 14.56,
            mean_from_x0: 0.04,
            mean_from_x: 0.75,
            deviation: 0.65,
        },
        StepCoefficients {
            x0_from_x: 1.0004,
            x0_from_noise: 0.0292,
            mean_from_x0: 1.0,
            mean_from_x: 0.0,
            deviation: 0.0,
        },
    ];
    for step in steps {
        for shape in [[1, 1, 1, 4], [3, 7, 9, 4], [2, 64, 64, 4]] {
            let inputs = (0..3).map(|_| random.array(&shape).plain()).collect();
            run(
                &Trial::new(format!("ddpm_step {shape:?} {step:?}"), inputs, 4),
                |cx, inputs| Ok(vec![ddpm_step(cx, &inputs[0], &inputs[1], &inputs[2], &step)?]),
                |inputs| {
                    let c = |v: f32| f64::from(v);
                    let [x, eps, noise] = inputs else { unreachable!() };
                    let x0 = oracle::combine(&[(c(step.x0_from_x), x), (-c(step.x0_from_noise), eps)], 0.0);
                    let terms =
                        [(c(step.mean_from_x0), &x0), (c(step.mean_from_x), x), (c(step.deviation), noise)];
                    vec![oracle::combine(&terms, 0.0)]
                },
            );
        }
    }
}

#[test]
fn posterior_is_the_mode_or_a_sample() {
    let mut random = Random::new(63);
    for shape @ [n, h, w, both] in [[1, 1, 1, 2], [2, 5, 3, 8], [1, 33, 40, 8]] {
        // Log variances beyond the clamp on both sides.
        let moments = random.array(&shape);
        let moments = Array::build(&shape, |p| moments.at(p) * if p[3] < both / 2 { 1.0 } else { 15.0 });
        let noise = random.array(&[n, h, w, both / 2]);
        for sampled in [false, true] {
            let inputs = if sampled { vec![moments.clone(), noise.clone()] } else { vec![moments.clone()] };
            let inputs = inputs.into_iter().map(Array::plain).collect();
            run(
                &Trial::new(format!("posterior {shape:?}, sampled {sampled}"), inputs, 2),
                |cx, inputs| Ok(vec![posterior(cx, &inputs[0], inputs.get(1), 0.18215)?]),
                |inputs| vec![oracle::posterior(&inputs[0], inputs.get(1), f64::from(0.18215f32))],
            );
        }
    }
}

#[test]
fn moments_learn_from_samples_and_from_their_divergence() {
    let mut random = Random::new(64);
    for shape @ [n, h, w, both] in [[1, 1, 1, 2], [2, 5, 3, 16]] {
        let moments = random.array(&shape).plain();
        let noise = random.array(&[n, h, w, both / 2]).plain();
        // The noise is drawn: no gradient of it is wanted.
        let trial = Trial::new(format!("posterior {shape:?}"), vec![moments.clone()], 4);
        let values: Vec<f32> = noise.values.iter().map(|&v| v as f32).collect();
        let drawn = Array { values: values.iter().map(|&v| f64::from(v)).collect(), ..noise };
        let op = |cx: &Cx, inputs: &[Tensor]| {
            let noise = Tensor::from_f32(cx.device(), &values, [n, h, w, both / 2])?;
            Ok(vec![posterior(cx, &inputs[0], Some(&noise), 0.5)?])
        };
        check_gradients(&trial, op, |inputs| vec![oracle::posterior(&inputs[0], Some(&drawn), 0.5)]);

        let (factor, half) = (0.3f32, both / 2);
        run(
            &Trial::new(format!("divergence of {shape:?}"), vec![moments], 4),
            |cx, inputs| Ok(vec![divergence_gradient(cx, &inputs[0], factor)?]),
            |inputs| {
                // d/dm (m^2 + e^l - 1 - l) / 2 = m, d/dl = (e^l - 1) / 2
                let slope = |channel: usize, v: f64| if channel < half { v } else { 0.5 * (v.exp() - 1.0) };
                vec![Array::build(&shape, |p| f64::from(factor) * slope(p[3], inputs[0].at(p)))]
            },
        );
    }
}

#[test]
fn images_with_factors_of_their_own() {
    let mut random = Random::new(67);
    let (first, second) = ([0.5f32, -3.0, 1.0], [0.25f32, 0.0, -1.0]);
    for shape in [[3, 1, 1, 1], [3, 5, 2, 4]] {
        let inputs = vec![random.array(&shape).plain(), random.array(&shape).plain()];
        let trial = Trial::new(format!("combine_images {shape:?}"), inputs, 2);
        let op = |cx: &Cx, inputs: &[Tensor]| {
            Ok(vec![combine_images(cx, &[(&first, &inputs[0]), (&second, &inputs[1])])?])
        };
        let oracle = |inputs: &[Array]| {
            let factor = |list: &[f32], n: usize| f64::from(list[n]);
            vec![Array::build(&shape, |p| {
                factor(&first, p[0]) * inputs[0].at(p) + factor(&second, p[0]) * inputs[1].at(p)
            })]
        };
        run(&trial, op, oracle);
        check_gradients(&trial, op, oracle);
    }
}

#[test]
fn what_is_decoded_becomes_an_image() {
    let input = Random::new(68).array(&[2, 7, 5, 3]).map(|v| 1.5 * v).plain();
    let trial = Trial::new("to_unit", vec![input], 4);
    let op = |cx: &Cx, inputs: &[Tensor]| Ok(vec![to_unit(cx, &inputs[0])?]);
    let oracle = |inputs: &[Array]| vec![inputs[0].map(|v| (0.5 * v + 0.5).clamp(0.0, 1.0))];
    run(&trial, op, oracle);
    check_gradients(&trial, op, oracle);
}
