//! Attention over separate and joint projections, causal and cross.

use tasr::error::Result;
use tasr::ops::Cx;
use tasr::ops::attention::{Heads, attention};
use tasr::tensor::Tensor;

use crate::support::oracle::attention as oracle;
use crate::support::{Array, Random, Trial, check_gradients, run};

/// Checks values, and where there are few scores, derivatives too.
fn check(
    trial: &Trial,
    scores: usize,
    op: impl Fn(&Cx, &[Tensor]) -> Result<Vec<Tensor>> + Sync,
    oracle: impl Fn(&[Array]) -> Vec<Array>,
) {
    run(trial, &op, &oracle);
    if scores <= 2000 {
        check_gradients(trial, op, oracle);
    }
}

/// Separate q [N, L, .], k and v [N, M, .].
fn cross(n: usize, l: usize, m: usize, heads: usize, width: usize, sharpness: f64) {
    let mut random = Random::new((l * 1000 + m) as u64);
    let all = heads * width;
    let inputs = vec![
        random.array(&[n, l, all]).map(|v| v * sharpness),
        random.array(&[n, m, all]),
        random.array(&[n, m, all]),
    ];
    let name = format!("attention n {n} l {l} m {m} heads {heads} x {width}, sharpness {sharpness}");
    // A score's rounding is absolute in the exponent: it grows with the scores.
    let trial = Trial::new(name, inputs, m).magnified(sharpness * (width as f64).sqrt());
    check(
        &trial,
        l * m,
        |cx, inputs| {
            let [q, k, v] = inputs else { unreachable!() };
            let operands = (Heads::new(q, 0), Heads::new(k, 0), Heads::new(v, 0));
            Ok(vec![attention(cx, operands, heads, width, false)?])
        },
        |inputs| {
            let [q, k, v] = inputs else { unreachable!() };
            vec![oracle::attention(((q, 0), (k, 0), (v, 0)), heads, width, false)]
        },
    );
}

/// A joint projection [q | k | v] of [N, L, 3 * heads * width].
fn joint(n: usize, l: usize, heads: usize, width: usize, causal: bool) {
    let mut random = Random::new((n * 100 + l) as u64);
    let all = heads * width;
    let name = format!("joint attention n {n} l {l} heads {heads} x {width}, causal {causal}");
    let trial = Trial::new(name, vec![random.array(&[n, l, 3 * all])], l).magnified((width as f64).sqrt());
    check(
        &trial,
        l * l,
        |cx, inputs| {
            let x = &inputs[0];
            let operands = (Heads::new(x, 0), Heads::new(x, all), Heads::new(x, 2 * all));
            Ok(vec![attention(cx, operands, heads, width, causal)?])
        },
        |inputs| {
            let x = &inputs[0];
            vec![oracle::attention(((x, 0), (x, all), (x, 2 * all)), heads, width, causal)]
        },
    );
}

#[test]
fn rectangles_of_every_awkward_length() {
    for (l, m) in [(1, 1), (1, 77), (3, 2), (127, 77), (128, 512), (129, 513), (5, 1025), (300, 511)] {
        cross(1 + l % 3, l, m, 2, 5, 1.0);
    }
    cross(2, 64, 77, 5, 64, 1.0);
    cross(1, 130, 600, 1, 512, 1.0);
    cross(3, 10, 11, 3, 1, 1.0);
}

#[test]
fn large_scores_do_not_overflow() {
    cross(1, 40, 700, 2, 16, 30.0);
    cross(1, 4, 77, 1, 8, 200.0);
}

#[test]
fn joint_projections_and_causal_masks() {
    for causal in [false, true] {
        for (n, l, heads, width) in
            [(1, 1, 1, 1), (2, 77, 4, 16), (1, 129, 2, 7), (3, 513, 1, 8), (1, 1100, 2, 3)]
        {
            joint(n, l, heads, width, causal);
        }
    }
}

#[test]
fn random_attentions() {
    let mut random = Random::new(5);
    for _ in 0..40 {
        let mut size = |most| random.within(1..=most);
        let (n, l, m, heads, width) = (size(3), size(150), size(600), size(3), size(20));
        if m % 2 == 0 {
            cross(n, l, m, heads, width, 1.0);
        } else {
            joint(n, l, heads, width, m % 3 == 0);
        }
    }
}

/// Sizes of an attention whose gradients are wanted.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    n: usize,
    l: usize,
    m: usize,
    heads: usize,
    width: usize,
    causal: bool,
}

/// The gradients that reach `variables`, from `gradient` for the attention that `attend` computes of them.
fn differentiate(
    cx: &Cx,
    variables: &[Tensor],
    gradient: &Tensor,
    attend: impl Fn(&Cx, &[Tensor]) -> Result<Tensor>,
) -> Result<Vec<Tensor>> {
    let cx = cx.with_tape();
    let tape = cx.tape().expect("a tape");
    let variables: Vec<Tensor> = variables.iter().map(|tensor| tape.variable(tensor)).collect();
    let result = attend(&cx, &variables)?;
    let found = tape.backward(&cx, vec![(&result, gradient.clone())])?;
    Ok(variables.iter().map(|variable| found.of(variable).expect("a gradient").clone()).collect())
}

/// Separate q, k and v.
fn separate_gradients(sizes: Sizes) {
    let Sizes { n, l, m, heads, width, causal } = sizes;
    let (mut random, all) = (Random::new((l * 31 + m) as u64), heads * width);
    let inputs = [l, m, m, l].map(|rows| random.array(&[n, rows, all])).to_vec();
    let trial =
        Trial::new(format!("gradients, {sizes:?}"), inputs, l.max(m)).magnified((width as f64).sqrt());
    run(
        &trial,
        |cx, inputs| {
            differentiate(cx, &inputs[..3], &inputs[3], |cx, x| {
                let operands = (Heads::new(&x[0], 0), Heads::new(&x[1], 0), Heads::new(&x[2], 0));
                attention(cx, operands, heads, width, causal)
            })
        },
        |x| oracle::gradients(((&x[0], 0), (&x[1], 0), (&x[2], 0)), heads, width, causal, &x[3]).into(),
    );
}

/// One tensor [N, L, W] with the columns of q, k and v at `offsets`.
fn joint_gradients(sizes: Sizes, row: usize, offsets: [usize; 3]) {
    let Sizes { n, l, heads, width, causal, .. } = sizes;
    let (mut random, all) = (Random::new((l * 31 + row) as u64), heads * width);
    let inputs = vec![random.array(&[n, l, row]), random.array(&[n, l, all])];
    let name = format!("gradients in one of {row} columns, {sizes:?}");
    let trial = Trial::new(name, inputs, l).magnified((width as f64).sqrt());
    run(
        &trial,
        |cx, inputs| {
            differentiate(cx, &inputs[..1], &inputs[1], |cx, x| {
                attention(cx, offsets.map(|offset| Heads::new(&x[0], offset)).into(), heads, width, causal)
            })
        },
        |x| {
            let views = offsets.map(|offset| (&x[0], offset));
            let parts = oracle::gradients(views.into(), heads, width, causal, &x[1]);
            let mut whole = Array::build(&[n, l, row], |_| 0.0);
            for (part, offset) in parts.iter().zip(offsets) {
                for (i, value) in part.values.iter().enumerate() {
                    whole.values[i / all * row + offset + i % all] += value;
                }
            }
            vec![whole]
        },
    );
}

#[test]
fn the_oracles_gradients_are_those_of_finite_differences() {
    let (heads, width, mut random) = (2, 3, Random::new(3));
    for causal in [false, true] {
        let m = if causal { 4 } else { 5 };
        let inputs = [4, m, m].map(|rows| random.array(&[2, rows, heads * width]));
        let gradient = random.array(&[2, 4, heads * width]);
        let loss = |x: &[Array; 3]| {
            let result = oracle::attention(((&x[0], 0), (&x[1], 0), (&x[2], 0)), heads, width, causal);
            result.values.iter().zip(&gradient.values).map(|(a, b)| a * b).sum::<f64>()
        };
        let views = ((&inputs[0], 0), (&inputs[1], 0), (&inputs[2], 0));
        let made = oracle::gradients(views, heads, width, causal, &gradient);
        for operand in 0..3 {
            for i in 0..inputs[operand].values.len() {
                let at = |step: f64| {
                    let mut moved = inputs.clone();
                    moved[operand].values[i] += step;
                    loss(&moved)
                };
                let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
                let error = (slope - made[operand].values[i]).abs();
                assert!(error < 1e-8, "operand {operand}, element {i}: {slope}, {error:e} off");
            }
        }
    }
}

#[test]
fn gradients_of_every_awkward_length() {
    let sizes = Sizes { n: 1, l: 1, m: 1, heads: 1, width: 5, causal: false };
    for (l, m) in [(1, 2), (1, 77), (77, 2), (129, 77), (70, 513), (600, 130)] {
        separate_gradients(Sizes { n: 1 + l % 2, l, m, heads: 1 + m % 2, ..sizes });
    }
    separate_gradients(Sizes { l: 65, m: 130, heads: 2, width: 64, ..sizes });
    separate_gradients(Sizes { l: 40, m: 70, width: 130, ..sizes });
    for l in [2, 77, 129, 530] {
        separate_gradients(Sizes { l, m: l, heads: 2, width: 8, causal: true, ..sizes });
    }
}

#[test]
fn gradients_of_joint_and_overlapping_projections() {
    let sizes = Sizes { n: 2, l: 70, m: 70, heads: 2, width: 8, causal: false };
    joint_gradients(sizes, 48, [0, 16, 32]);
    // One key: the gradients of q and k are zero, to the rounding of what cancels.
    joint_gradients(Sizes { l: 1, m: 1, ..sizes }, 48, [0, 16, 32]);
    joint_gradients(Sizes { causal: true, ..sizes }, 48, [32, 0, 16]);
    // More columns than the heads have, columns of two operands, odd places.
    joint_gradients(sizes, 60, [0, 16, 40]);
    joint_gradients(sizes, 16, [0, 0, 0]);
    joint_gradients(sizes, 41, [0, 20, 25]);
}

#[test]
fn gradients_are_made_of_what_is_differentiated_only() {
    use tasr::{device::Device, tensor::DType};
    let cx = Cx::new(Device::cpu(), DType::F32).unwrap().with_tape();
    let tape = cx.tape().unwrap();
    let mut random = Random::new(9);
    let mut tensor = |rows: usize, columns: usize| {
        Tensor::from_f32(cx.device(), &random.array(&[1, rows, columns]).to_f32(), [1, rows, columns])
            .unwrap()
    };
    let (q, kv, gradient) = (tensor(6, 8), tensor(7, 16), tensor(6, 8));
    let run = |q: &Tensor, kv: &Tensor| {
        attention(&cx, (Heads::new(q, 0), Heads::new(kv, 0), Heads::new(kv, 8)), 2, 4, false).unwrap()
    };
    assert!(run(&q, &kv).node().is_none());
    let both = (tape.variable(&q), tape.variable(&kv));
    let all = tape.backward(&cx, vec![(&run(&both.0, &both.1), gradient.clone())]).unwrap();
    let own = tape.variable(&q);
    let found = tape.backward(&cx, vec![(&run(&own, &kv), gradient.clone())]).unwrap();
    assert_eq!(found.of(&own).unwrap().to_f32().unwrap(), all.of(&both.0).unwrap().to_f32().unwrap());
    let own = tape.variable(&kv);
    let found = tape.backward(&cx, vec![(&run(&q, &own), gradient)]).unwrap();
    assert_eq!(found.of(&own).unwrap().to_f32().unwrap(), all.of(&both.1).unwrap().to_f32().unwrap());
}

#[test]
fn what_does_not_fit_is_refused() {
    use tasr::{autograd::Cx, device::Device, tensor::DType, tensor::Tensor};
    let cx = Cx::new(Device::cpu(), DType::F32).unwrap();
    let tensor =
        |sizes: [usize; 3]| Tensor::from_f32(cx.device(), &vec![0.0; sizes.iter().product()], sizes).unwrap();
    let (q, k, v) = (tensor([1, 4, 8]), tensor([1, 6, 8]), tensor([1, 5, 8]));
    let heads = |tensor| Heads::new(tensor, 0);
    assert!(attention(&cx, (heads(&q), heads(&k), heads(&k)), 2, 4, false).is_ok());
    assert!(attention(&cx, (heads(&q), heads(&k), heads(&v)), 2, 4, false).is_err());
    assert!(attention(&cx, (heads(&q), heads(&k), heads(&k)), 2, 4, true).is_err());
    assert!(attention(&cx, (Heads::new(&q, 1), heads(&k), heads(&k)), 2, 4, false).is_err());
    assert!(attention(&cx, (heads(&q), heads(&k), heads(&k)), 2, 5, false).is_err());
}
