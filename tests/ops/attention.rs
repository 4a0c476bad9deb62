//! Attention over separate and joint projections, causal and cross.

use tasr::ops::attention::{Heads, attention};

use crate::support::oracle::attention as oracle;
use crate::support::{Random, Trial, run};

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
    run(
        &trial,
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
    run(
        &trial,
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
