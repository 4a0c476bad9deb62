//! Linear layers and the gated GELU.

use tasr::ops::linear::{LinearWeight, linear, linear_geglu};
use tasr::ops::{Activation, Epilogue};

use crate::support::oracle::{conv, linear as oracle};
use crate::support::{Array, Random, Trial, check_gradients, run};
use tasr::autograd::Cx;
use tasr::error::Result;
use tasr::tensor::Tensor;

/// Runs a trial, and its gradients where they are asked for.
fn check_both(
    trial: &Trial,
    gradients: bool,
    op: impl Fn(&Cx, &[Tensor]) -> Result<Vec<Tensor>> + Sync,
    oracle: impl Fn(&[Array]) -> Vec<Array>,
) {
    run(trial, &op, &oracle);
    if gradients {
        check_gradients(trial, &op, &oracle);
    }
}

/// x `rows` + [K] -> rows + [O], with every part of the epilogue if `full`.
fn check(random: &mut Random, rows: &[usize], k: usize, o: usize, activation: Activation, full: bool) {
    let sizes = |last: usize| [rows, &[last]].concat();
    let mut inputs = vec![random.array(&sizes(k)), random.array(&[o, k])];
    if full {
        inputs.extend([
            random.array(&[o]).plain(),
            random.array(&[if o.is_multiple_of(2) { 1 } else { rows[0] }, o]),
            random.array(&sizes(o)),
        ]);
    }
    let scale = if full { 0.7f32 } else { 1.0 };
    let trial = Trial::new(format!("linear {rows:?} {k} -> {o}, {activation:?}, full {full}"), inputs, k)
        .behind(activation);
    check_both(
        &trial,
        rows.iter().product::<usize>() * k * o < 20_000,
        |cx, inputs| {
            let weight = LinearWeight::pack(cx, &inputs[1].to_f32()?, [o, k])?.with_node(inputs[1].node());
            let epilogue = Epilogue {
                bias: inputs.get(2),
                per_image: inputs.get(3),
                activation,
                scale,
                residual: inputs.get(4),
            };
            Ok(vec![linear(cx, &inputs[0], &weight, &epilogue)?])
        },
        |inputs| {
            let epilogue = conv::Epilogue {
                bias: inputs.get(2),
                per_image: inputs.get(3),
                activation,
                scale: Some(f64::from(scale)),
                residual: inputs.get(4),
            };
            vec![oracle::linear(&inputs[0], &inputs[1], &epilogue)]
        },
    );
}

#[test]
fn matrices_of_every_rank_and_awkward_size() {
    let mut random = Random::new(3);
    for (rows, k, o) in [
        (&[1][..], 1, 1),
        (&[3], 5, 2),
        (&[2, 7], 3, 17),
        (&[1, 77], 33, 65),
        (&[3, 65], 100, 1),
        (&[2, 3, 5], 16, 16),
        (&[1, 1], 1280, 320),
        (&[2, 600], 20, 30),
    ] {
        check(&mut random, rows, k, o, Activation::None, false);
        check(&mut random, rows, k, o, Activation::Gelu, true);
    }
}

#[test]
fn random_linears() {
    let mut random = Random::new(4);
    for _ in 0..60 {
        let rows = [random.within(1..=3), random.within(1..=100)];
        let (k, o) = (random.within(1..=90), random.within(1..=90));
        let activation = random.pick(&[Activation::None, Activation::Silu, Activation::Relu]);
        let full = random.chance(2);
        check(&mut random, &rows, k, o, activation, full);
    }
}

#[test]
fn gated_gelu() {
    let mut random = Random::new(9);
    for (rows, k, half) in
        [([1, 1], 1, 1), ([2, 3], 7, 5), ([1, 77], 30, 33), ([2, 2100], 9, 11), ([1, 4096], 5, 3)]
    {
        let inputs = vec![
            random.array(&[rows[0], rows[1], k]),
            random.array(&[2 * half, k]),
            random.array(&[2 * half]).plain(),
        ];
        let trial = Trial::new(format!("linear_geglu {rows:?} {k} -> {half}"), inputs, k.max(rows[1]));
        check_both(
            &trial.magnified(2.0),
            rows[1] < 100,
            |cx, inputs| {
                let [x, weight, bias] = inputs else { unreachable!() };
                let weight =
                    LinearWeight::pack(cx, &weight.to_f32()?, [2 * half, k])?.with_node(weight.node());
                Ok(vec![linear_geglu(cx, x, &weight, bias)?])
            },
            |inputs| {
                let [x, weight, bias] = inputs else { unreachable!() };
                vec![oracle::linear_geglu(x, weight, bias)]
            },
        );
    }
}
