//! kernels/adapter.

use crate::support::*;
use tasr::autograd::Gradients;
use tasr::ops::adapter_gate::{Gate, adapter_gate};
use tasr::ops::conv2d::{Conv2d, ConvWeight};
use tasr::ops::group_norm::Affine;
use tasr::ops::{Activation, Cx, Segment, Segments};
use tasr::tensor::{DType, Tensor};

/// [images, height, width], channels of the parts and whether they are sums, channels of the result.
type Case = ([usize; 3], &'static [(usize, bool)], usize);

const CASES: [Case; 5] = [
    ([1, 1, 1], &[(8, false)], 1),
    ([2, 3, 9], &[(40, false)], 24),
    ([3, 8, 8], &[(72, false), (24, true)], 20),
    ([1, 17, 10], &[(5, true), (30, false)], 33),
    ([1, 2, 12], &[(96, false)], 520),
];

struct Inputs {
    features: Vec<(Tensor, Option<Tensor>)>,
    weight: ConvWeight,
    affine: Option<Affine>,
    bias: Tensor,
    base: Tensor,
    residual: Tensor,
}

/// Inputs as `dtype` keeps them, on `cx` in `computed`.
fn inputs(cx: &Cx, (size, parts, d): Case, normed: bool, dtype: DType, computed: DType) -> Inputs {
    let [n, h, w] = size;
    let on = |seed, c: usize| {
        let values = rounded(&random(seed, n * h * w * c), dtype);
        upload(cx.device(), &values, [n, h, w, c], computed)
    };
    let c = parts.iter().map(|part| part.0).sum();
    let values: Vec<_> = random(1, 9 * c).iter().map(|v| v * 0.3).collect();
    Inputs {
        features: parts
            .iter()
            .zip(10..)
            .map(|(&(c, sum), seed)| (on(seed, c), sum.then(|| on(seed + 50, c))))
            .collect(),
        weight: ConvWeight::pack(cx, &rounded(&values, dtype), [1, c, 3, 3]).unwrap(),
        affine: normed.then(|| Affine {
            coefficients: upload(cx.device(), &random(2, n * 2 * c), [n, 2, c], DType::F32),
            activation: Activation::Silu,
        }),
        bias: upload(cx.device(), &[0.25], [1], DType::F32),
        base: on(3, d),
        residual: on(4, d),
    }
}

impl Inputs {
    fn run(&self, cx: &Cx, gate: Gate) -> (Tensor, Tensor) {
        let parts = self.features.iter().map(|(tensor, plus)| Segment { tensor, plus: plus.as_ref() });
        let conv = Conv2d { prologue: self.affine.as_ref(), ..Conv2d::new(Segments::new(parts.collect())) };
        adapter_gate(cx, &conv, &self.weight, &self.bias, gate, (&self.base, &self.residual)).unwrap()
    }
}

/// Beside f32 sums: what is summed or normed is rounded once more in halves, and an error of the logit is one of
/// the map's, at most half as large times the top.
fn scale(terms: usize, fused: bool, dtype: DType) -> f32 {
    let unit = match dtype {
        _ if !fused => 0.0,
        DType::F32 => 0.0,
        DType::F16 => 2f32.powi(-11),
        DType::BF16 => 2f32.powi(-8),
    };
    3.0 + 0.3 * unit * (terms as f32).sqrt() / (2f32.powi(-23) * (terms + 8) as f32)
}

#[test]
fn the_whole_gate_matches_the_cpu() {
    for dtype in DTYPES {
        for case @ (size, parts, _) in CASES {
            for (normed, gate) in [(false, Gate::TwoSigmoid), (true, Gate::Sigmoid)] {
                let terms = 9 * parts.iter().map(|part| part.0).sum::<usize>();
                let fused = normed || parts.iter().any(|part| part.1);
                let scale = scale(terms, fused, dtype);
                let cpu = oracle();
                let (result, map) = inputs(&cpu, case, normed, dtype, DType::F32).run(&cpu, gate);
                let name = format!("adapter_gate {size:?} {parts:?} normed {normed}");
                let got = on_all(dtype, |cx| inputs(cx, case, normed, dtype, dtype).run(cx, gate).0);
                assert_close(&name, &got, &result.to_f32().unwrap(), dtype, terms, scale);
                let got = on_all(dtype, |cx| inputs(cx, case, normed, dtype, dtype).run(cx, gate).1);
                assert_close(&name, &got, &map.to_f32().unwrap(), DType::F32, terms, scale);
            }
        }
    }
}

#[test]
fn a_differentiated_gate_injects_and_its_gradients_match_the_cpu() {
    for dtype in DTYPES {
        for case @ ([n, h, w], parts, d) in CASES {
            let terms = 9 * parts.iter().map(|part| part.0).sum::<usize>();
            // The result, then the gradients of base and residual.
            let run = |cx: &Cx, computed: DType| -> [Tensor; 3] {
                let cx = &cx.with_tape();
                let tape = cx.tape().unwrap();
                let mut inputs = inputs(cx, case, false, dtype, computed);
                for tensor in [&mut inputs.base, &mut inputs.residual] {
                    *tensor = tape.variable(tensor);
                }
                let (result, _) = inputs.run(cx, Gate::TwoSigmoid);
                let seed = rounded(&random(9, n * h * w * d), dtype);
                let seed = upload(cx.device(), &seed, [n, h, w, d], computed);
                let gradients: Gradients = tape.backward(cx, vec![(&result, seed)]).unwrap();
                let of = |tensor: &Tensor| gradients.of(tensor).unwrap().clone();
                [result.clone(), of(&inputs.base), of(&inputs.residual)]
            };
            let wanted = run(&oracle(), DType::F32);
            for (i, wanted) in wanted.iter().enumerate() {
                let (wanted, scale) = (wanted.to_f32().unwrap(), scale(terms, true, dtype));
                let got = on_all(dtype, |cx| run(cx, dtype)[i].clone());
                assert_close(&format!("gate gradient {i} {parts:?}"), &got, &wanted, dtype, terms, scale);
            }
        }
    }
}
