//! kernels/conv: the gradients of input and weights, and the layouts of weights.

use crate::support::*;
use tasr::device::gpu::emulator::Options;
use tasr::device::{Device, Target};
use tasr::ops::conv2d::{Conv2d, ConvWeight, Padding, conv2d};
use tasr::ops::group_norm::Affine;
use tasr::ops::{Activation, Cx, Epilogue, Segment, Segments};
use tasr::tensor::{DType, Tensor};

/// One convolution whose gradients are wanted.
#[derive(Clone, Debug)]
struct Case {
    /// images, height, width
    size: [usize; 3],
    /// channels of a part, and whether it is a sum
    parts: &'static [(usize, bool)],
    outputs: usize,
    kernel: usize,
    stride: usize,
    padding: Padding,
    upsample: bool,
    normed: bool,
}

const PLAIN: Case = Case {
    size: [2, 5, 7],
    parts: &[(24, false)],
    outputs: 40,
    kernel: 3,
    stride: 1,
    padding: Padding::Same,
    upsample: false,
    normed: false,
};

fn cases() -> Vec<Case> {
    let right_below = Padding::RightBelow;
    vec![
        PLAIN,
        Case { size: [1, 1, 1], parts: &[(8, false)], outputs: 8, ..PLAIN },
        Case { size: [1, 9, 17], parts: &[(40, false)], outputs: 72, ..PLAIN },
        Case { size: [3, 4, 4], parts: &[(32, false)], outputs: 1, ..PLAIN },
        Case { size: [1, 6, 5], parts: &[(3, false)], outputs: 20, ..PLAIN },
        Case { size: [1, 6, 5], parts: &[(16, false)], outputs: 5, ..PLAIN },
        Case { parts: &[(40, false)], outputs: 24, kernel: 1, ..PLAIN },
        Case { size: [1, 9, 8], stride: 2, ..PLAIN },
        Case { size: [2, 8, 6], stride: 2, padding: right_below, ..PLAIN },
        Case { size: [1, 7, 9], stride: 2, padding: right_below, ..PLAIN },
        Case { size: [1, 7, 9], padding: right_below, ..PLAIN },
        Case { size: [1, 7, 6], kernel: 1, stride: 2, ..PLAIN },
        Case { size: [2, 3, 5], upsample: true, ..PLAIN },
        Case { size: [1, 5, 2], upsample: true, kernel: 1, ..PLAIN },
    ]
}

/// What only the weights' gradient reads: sums, several parts, norms.
fn fused_cases() -> Vec<Case> {
    vec![
        Case { size: [2, 9, 8], parts: &[(40, true), (24, false)], normed: true, ..PLAIN },
        Case { parts: &[(5, true), (30, false)], outputs: 66, ..PLAIN },
        Case { size: [3, 4, 5], parts: &[(40, true)], kernel: 1, normed: true, ..PLAIN },
        Case { size: [1, 4, 5], upsample: true, normed: true, ..PLAIN },
    ]
}

impl Case {
    fn channels(&self) -> usize {
        self.parts.iter().map(|part| part.0).sum()
    }

    /// Gradients of the first part (`of_input`) or of the weights, of a convolution scaled by 0.5.
    fn gradient(&self, cx: &Cx, of_input: bool, dtype: DType, computed: DType) -> Tensor {
        let ([n, h, w], c, o) = (self.size, self.channels(), self.outputs);
        let cx = &cx.with_tape();
        let tape = cx.tape().unwrap();
        let on = |seed, shape: [usize; 4]| {
            let values = rounded(&random(seed, shape.iter().product()), dtype);
            upload(cx.device(), &values, shape, computed)
        };
        let mut tensors: Vec<_> = self
            .parts
            .iter()
            .zip(10..)
            .map(|(&(c, sum), seed)| (on(seed, [n, h, w, c]), sum.then(|| on(seed + 50, [n, h, w, c]))))
            .collect();
        let values = rounded(&random(1, o * c * self.kernel * self.kernel), dtype);
        let mut weight = ConvWeight::pack(cx, &values, [o, c, self.kernel, self.kernel]).unwrap();
        match of_input {
            true => tensors[0].0 = tape.variable(&tensors[0].0),
            false => weight = weight.with_node(tape.variable(weight.packed()).node()),
        }
        let affine = self.normed.then(|| Affine {
            coefficients: upload(cx.device(), &random(2, n * 2 * c), [n, 2, c], DType::F32),
            activation: Activation::Silu,
        });
        let parts = tensors.iter().map(|(tensor, plus)| Segment { tensor, plus: plus.as_ref() }).collect();
        let conv = Conv2d {
            prologue: affine.as_ref(),
            upsample: self.upsample,
            ..Conv2d::new(Segments::new(parts)).stride(self.stride, self.padding)
        };
        let result = conv2d(cx, &conv, &weight, &Epilogue::default().scale(0.5)).unwrap();
        let seed = on(9, result.nhwc().unwrap());
        let gradients = tape.backward(cx, vec![(&result, seed)]).unwrap();
        gradients.of(if of_input { &tensors[0].0 } else { weight.packed() }).unwrap().clone()
    }

    fn check(&self, of_input: bool) {
        let terms = match of_input {
            true => self.outputs * self.kernel * self.kernel,
            false => self.size.iter().product::<usize>() * if self.upsample { 4 } else { 1 },
        };
        for dtype in DTYPES {
            let wanted = self.gradient(&oracle(), of_input, dtype, DType::F32).to_f32().unwrap();
            let got = on_all(dtype, |cx| self.gradient(cx, of_input, dtype, dtype));
            // What is summed or normed, and the turned weights of a doubled input, are rounded once more.
            let again = self.normed || self.parts.iter().any(|part| part.1) || of_input && self.upsample;
            let unit = match dtype {
                DType::F16 if again => 2f32.powi(-11),
                DType::BF16 if again => 2f32.powi(-8),
                _ => 0.0,
            };
            let scale = 3.0 + unit * (terms as f32).sqrt() / (2f32.powi(-23) * (terms + 8) as f32);
            let stored = if of_input { dtype } else { DType::F32 };
            let name = format!("{} of {self:?}", if of_input { "dgrad" } else { "wgrad" });
            assert_close(&name, &got, &wanted, stored, terms, scale);
        }
    }
}

#[test]
fn the_gradient_of_the_input_matches_the_cpu() {
    cases().iter().for_each(|case| case.check(true));
}

#[test]
fn the_gradient_of_the_weights_matches_the_cpu() {
    cases().iter().chain(&fused_cases()).for_each(|case| case.check(false));
}

#[test]
fn pixels_of_the_weights_gradient_are_split_and_planned() {
    let case = Case { size: [2, 16, 17], parts: &[(40, true)], outputs: 20, normed: true, ..PLAIN };
    let terms = 2 * 16 * 17;
    let wanted = case.gradient(&oracle(), false, DType::F16, DType::F32).to_f32().unwrap();
    let bits = |options: Options| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(8).build().unwrap();
        let device = pool.install(|| tasr::device::gpu::emulator::open(options));
        let cx = Cx::new(device, DType::F16).unwrap();
        let got = case.gradient(&cx, false, DType::F16, DType::F16).to_f32().unwrap();
        assert_eq!(case.gradient(&cx, false, DType::F16, DType::F16).to_f32().unwrap(), got);
        (got, cx.device().peak())
    };
    let (got, _) = bits(Options::default());
    let unit = 2f32.powi(-11) * (terms as f32).sqrt() / (2f32.powi(-23) * (terms + 8) as f32);
    assert_close("split wgrad", &got, &wanted, DType::F32, terms, 3.0 + unit);
    let (again, peak) = bits(Options { check: false, ..Options::default() });
    assert_eq!(got, again);
    let plan = Cx::new(Device::plan(Target::Gpu), DType::F16).unwrap();
    case.gradient(&plan, false, DType::F16, DType::F16);
    assert_eq!(plan.device().peak(), peak);
}

#[test]
fn weights_packed_again_are_as_packed_at_first() {
    for dtype in DTYPES {
        for sizes @ [o, c, k, _] in [[1, 3, 3, 3], [40, 70, 3, 3], [17, 33, 1, 1]] {
            let values = random(1, o * c * k * k);
            let master = |cx: &Cx| upload(cx.device(), &values, [o, c, k, k], DType::F32);
            let wanted = on_all(dtype, |cx| ConvWeight::pack(cx, &values, sizes).unwrap().packed().clone());
            let got = on_all(dtype, |cx| {
                let mut weight = ConvWeight::pack(cx, &vec![7.0; o * c * k * k], sizes).unwrap();
                weight.repack(cx, &master(cx)).unwrap();
                weight.packed().clone()
            });
            assert_eq!(got, wanted, "{sizes:?} {dtype:?}");
        }
    }
}
