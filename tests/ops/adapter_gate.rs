//! The adapter's map and its injection.

use tasr::ops::adapter_gate::{Gate, adapter_gate};
use tasr::ops::conv2d::{Conv2d, ConvWeight};
use tasr::ops::group_norm::Affine;
use tasr::ops::{Activation, Segments};

use crate::support::oracle::{conv, pointwise};
use crate::support::{Array, Random, Trial, check_gradients, run};
use tasr::autograd::Cx;
use tasr::error::Result;
use tasr::tensor::Tensor;

#[test]
fn map_and_injection_match_the_formula() {
    let mut random = Random::new(11);
    for ([n, h, w], c, d, gate, top) in [
        ([1, 1, 1], 17, 1, Gate::TwoSigmoid, 2.0),
        ([2, 3, 5], 40, 20, Gate::Sigmoid, 1.0),
        ([3, 17, 19], 20, 33, Gate::TwoSigmoid, 2.0),
        ([1, 70, 64], 5, 3, Gate::TwoSigmoid, 2.0),
    ] {
        let image = |c: usize| [n, h, w, c];
        let inputs = vec![
            random.array(&image(c)),
            random.array(&[1, c, 3, 3]).map(|v| 0.1 * v),
            random.array(&[1]).plain(),
            random.array(&[n, 2, c]).plain(),
            random.array(&image(d)),
            random.array(&image(d)),
        ];
        let trial = Trial::new(format!("adapter_gate {:?} {c} {d}", [n, h, w]), inputs, 9 * c);
        let op = |cx: &Cx, inputs: &[Tensor]| -> Result<Vec<Tensor>> {
            let [x, weight, bias, coefficients, base, residual] = inputs else { unreachable!() };
            let weight = ConvWeight::pack(cx, &weight.to_f32()?, [1, c, 3, 3])?.with_node(weight.node());
            let affine = Affine { coefficients: coefficients.clone(), activation: Activation::Silu };
            let conv = Conv2d::new(Segments::one(x)).prologue(&affine);
            let (result, map) = adapter_gate(cx, &conv, &weight, bias, gate, (base, residual))?;
            Ok(vec![result, map])
        };
        let oracle = |inputs: &[Array]| {
            let [x, weight, bias, coefficients, base, residual] = inputs else { unreachable!() };
            let x = conv::affine(x, coefficients, Activation::Silu);
            let epilogue = conv::Epilogue { bias: Some(bias), ..Default::default() };
            let logits = conv::conv2d(&x, weight, 1, (1, 1), &epilogue);
            let (result, map) = pointwise::inject(&logits, top, base, residual);
            vec![result, map]
        };
        run(&trial, op, oracle);
        if h * w < 400 {
            check_gradients(&trial, op, oracle);
        }
    }
}
