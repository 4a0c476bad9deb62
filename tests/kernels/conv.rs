//! kernels/conv.

use std::collections::BTreeSet;

use crate::support::*;
use rayon::ThreadPoolBuilder;
use tasr::device::gpu::emulator::{self, Options, Order};
use tasr::device::{Device, Target};
use tasr::ops::conv2d::plan::{Problem, View};
use tasr::ops::conv2d::{Conv2d, ConvWeight, Padding, conv2d};
use tasr::ops::group_norm::Affine;
use tasr::ops::{Activation, Cx, Epilogue, Segment, Segments};
use tasr::tensor::{DType, Tensor};

/// One convolution.
#[derive(Clone, Debug)]
pub struct Case {
    /// images, height, width
    pub size: [usize; 3],
    /// channels of a part, and whether it is a sum
    pub parts: Vec<(usize, bool)>,
    pub outputs: usize,
    pub kernel: usize,
    pub stride: usize,
    pub padding: Padding,
    pub upsample: bool,
    pub prologue: Option<Activation>,
    /// every part of the epilogue, or none
    pub epilogue: bool,
    /// one row for all images
    pub common: bool,
}

pub fn case(size: [usize; 3], parts: &[(usize, bool)], outputs: usize, kernel: usize) -> Case {
    Case {
        size,
        parts: parts.to_vec(),
        outputs,
        kernel,
        stride: 1,
        padding: Padding::Same,
        upsample: false,
        prologue: None,
        epilogue: false,
        common: false,
    }
}

impl Case {
    pub fn stride_2(self, padding: Padding) -> Self {
        Case { stride: 2, padding, ..self }
    }

    pub fn upsampled(self) -> Self {
        Case { upsample: true, ..self }
    }

    pub fn normed(self, activation: Activation) -> Self {
        Case { prologue: Some(activation), ..self }
    }

    pub fn finished(self) -> Self {
        Case { epilogue: true, ..self }
    }

    fn channels(&self) -> usize {
        self.parts.iter().map(|part| part.0).sum()
    }

    fn fused(&self) -> bool {
        self.prologue.is_some() || self.parts.iter().any(|&(c, sum)| sum || c % 8 != 0)
    }

    fn out(&self) -> [usize; 2] {
        let [_, h, w] = self.size;
        let zoom = if self.upsample { 2 } else { 1 };
        let around = if self.padding == Padding::Same { self.kernel / 2 * 2 } else { 1 };
        [h, w].map(|size| (size * zoom + around - self.kernel) / self.stride + 1)
    }

    /// The problem that the op makes of it in halves.
    fn problem(&self) -> Problem {
        let ([images, h, w], [out_h, out_w]) = (self.size, self.out());
        let problem = Problem {
            images,
            h,
            w,
            channels: self.channels(),
            outputs: self.outputs,
            kernel: self.kernel,
            stride: self.stride,
            pad: if self.padding == Padding::Same { self.kernel / 2 } else { 0 },
            view: if self.upsample { View::Doubled } else { View::Stored },
            out_h,
            out_w,
            dtype: DType::F16,
            fused: self.fused(),
            normed: self.prologue.is_some(),
        };
        problem.flattened()
    }

    /// The convolution with inputs as `dtype` keeps them, computed in `computed`.
    pub fn run(&self, cx: &Cx, dtype: DType, computed: DType) -> Tensor {
        let ([n, h, w], c, o) = (self.size, self.channels(), self.outputs);
        let on = |seed, shape: [usize; 4]| {
            let values = rounded(&random(seed, shape.iter().product()), dtype);
            upload(cx.device(), &values, shape, computed)
        };
        let tensors: Vec<_> = self
            .parts
            .iter()
            .zip(10..)
            .map(|(&(c, sum), seed)| (on(seed, [n, h, w, c]), sum.then(|| on(seed + 50, [n, h, w, c]))))
            .collect();
        let parts = tensors.iter().map(|(tensor, plus)| Segment { tensor, plus: plus.as_ref() }).collect();
        let values = rounded(&random(1, o * c * self.kernel * self.kernel), dtype);
        let weight = ConvWeight::pack(cx, &values, [o, c, self.kernel, self.kernel]).unwrap();
        let affine = self.prologue.map(|activation| Affine {
            coefficients: upload(cx.device(), &random(2, n * 2 * c), [n, 2, c], DType::F32),
            activation,
        });
        let bias = upload(cx.device(), &random(3, o), [o], DType::F32);
        let rows = if self.common { 1 } else { n };
        let per_image = on(4, [1, 1, rows, o]).reshape([rows, o]).unwrap();
        let [out_h, out_w] = self.out();
        let residual = on(5, [n, out_h, out_w, o]);
        let epilogue = match self.epilogue {
            true => Epilogue::bias(Some(&bias))
                .per_image(&per_image)
                .activation(Activation::LeakyRelu(0.2))
                .scale(0.5)
                .residual(&residual),
            false => Epilogue::default(),
        };
        let conv = Conv2d {
            prologue: affine.as_ref(),
            upsample: self.upsample,
            ..Conv2d::new(Segments::new(parts)).stride(self.stride, self.padding)
        };
        conv2d(cx, &conv, &weight, &epilogue).unwrap()
    }

    /// What a result may be off beside its own rounding and that of f32 sums: in halves, what is summed or normed on
    /// the way is rounded once more, to an error like a random walk's.
    pub fn scale(&self, dtype: DType) -> (usize, f32) {
        let terms = self.channels() * self.kernel * self.kernel;
        let unit = match dtype {
            _ if !self.fused() => 0.0,
            DType::F32 => 0.0,
            DType::F16 => 2f32.powi(-11),
            DType::BF16 => 2f32.powi(-8),
        };
        (terms, 3.0 + unit * (terms as f32).sqrt() / (2f32.powi(-23) * (terms + 8) as f32))
    }

    fn check(&self) {
        for dtype in DTYPES {
            let wanted = self.run(&oracle(), dtype, DType::F32).to_f32().unwrap();
            let got = on_all(dtype, |cx| self.run(cx, dtype, dtype));
            let (terms, scale) = self.scale(dtype);
            assert_close(&format!("{self:?}"), &got, &wanted, dtype, terms, scale);
        }
    }
}

fn cases() -> Vec<Case> {
    vec![
        // Plain inputs, one part and several.
        case([1, 1, 1], &[(8, false)], 1, 3),
        case([1, 5, 7], &[(8, false)], 24, 3).finished(),
        case([2, 9, 11], &[(40, false), (64, false)], 70, 3).finished(),
        case([1, 3, 130], &[(32, false)], 30, 3),
        case([1, 16, 16], &[(8, false)], 250, 3).finished(),
        case([1, 5, 9], &[(72, false)], 130, 3).finished(),
        case([1, 9, 20], &[(64, false)], 64, 3),
        // Four images share a tile.
        Case { common: true, ..case([5, 4, 4], &[(48, false)], 40, 3).finished() },
        case([3, 2, 5], &[(72, false), (8, false)], 130, 1).finished(),
        case([2, 70, 3], &[(200, false)], 33, 1),
        // Stride 2, upsampling.
        case([1, 9, 8], &[(40, false)], 64, 3).stride_2(Padding::Same),
        case([2, 8, 10], &[(32, false)], 24, 3).stride_2(Padding::RightBelow).finished(),
        case([1, 7, 5], &[(16, true)], 24, 3).stride_2(Padding::RightBelow).normed(Activation::Silu),
        case([1, 7, 6], &[(8, false)], 24, 1).stride_2(Padding::Same),
        case([2, 4, 5], &[(40, false)], 40, 3).upsampled(),
        case([1, 6, 3], &[(24, true)], 17, 3).upsampled().normed(Activation::Relu),
        case([1, 5, 9], &[(16, false)], 24, 3),
        Case { padding: Padding::RightBelow, ..case([1, 6, 9], &[(16, false)], 24, 3) },
        // Sums, norms, parts that are no multiple of 8.
        case([2, 9, 11], &[(40, true), (24, false), (8, true)], 21, 3).normed(Activation::Silu).finished(),
        case([1, 16, 15], &[(40, true)], 256, 3),
        case([5, 3, 3], &[(40, false)], 64, 3).normed(Activation::Gelu),
        case([4, 3, 3], &[(72, true)], 40, 1).normed(Activation::Silu).finished(),
        case([1, 8, 32], &[(8, true)], 64, 3).normed(Activation::LeakyRelu(0.1)),
        case([1, 6, 7], &[(3, false)], 40, 3).finished(),
        case([1, 6, 7], &[(4, false), (4, false)], 40, 3),
        case([2, 5, 4], &[(5, false), (1, true), (30, true)], 70, 3).normed(Activation::None),
        // Few outputs.
        case([1, 8, 17], &[(64, false)], 3, 3).finished(),
        case([2, 5, 9], &[(40, false)], 4, 3).normed(Activation::Silu),
        case([2, 5, 9], &[(40, true)], 1, 3),
    ]
}

#[test]
fn conv2d_matches_the_cpu() {
    cases().iter().for_each(Case::check);
}

#[test]
fn the_cases_run_every_tile() {
    // The cases are small: a GPU of many multiprocessors takes small tiles for them.
    let multiprocessors = gpu(&devices()[0]).info().multiprocessors.min(2);
    let tiles: BTreeSet<_> = cases()
        .iter()
        .chain(&split_cases())
        .map(|case| {
            let plan = case.problem().plan(multiprocessors).unwrap();
            (plan.tile.pixels, plan.tile.outputs, case.fused())
        })
        .collect();
    for wanted in [(128, 128), (128, 64), (64, 64)] {
        for fused in [false, true] {
            assert!(tiles.contains(&(wanted.0, wanted.1, fused)), "{wanted:?} fused {fused}: {tiles:?}");
        }
    }
    assert!(tiles.contains(&(128, 32, false)) && tiles.iter().any(|tile| tile.1 == 16), "{tiles:?}");
}

/// Deep and small: their channels are split when there are multiprocessors for it.
fn split_cases() -> Vec<Case> {
    vec![
        case([2, 3, 5], &[(320, false)], 24, 3).finished(),
        case([1, 8, 8], &[(200, true), (104, false)], 72, 3).normed(Activation::Silu).finished(),
        case([1, 7, 9], &[(1000, false)], 40, 1).finished(),
        case([1, 8, 9], &[(300, true)], 3, 3),
    ]
}

/// The emulator with `multiprocessors`, which its plans then fill.
pub fn emulated(multiprocessors: usize, options: Options) -> Device {
    let pool = ThreadPoolBuilder::new().num_threads(multiprocessors).build().unwrap();
    pool.install(|| emulator::open(options))
}

#[test]
fn split_channels_are_added_in_order() {
    for case in split_cases() {
        let plan = case.problem().plan(24).unwrap();
        assert!(plan.splits > 2, "{case:?}: {plan:?}");
        for dtype in [DType::F16, DType::BF16] {
            let wanted = case.run(&oracle(), dtype, DType::F32).to_f32().unwrap();
            let mut before: Option<Vec<f32>> = None;
            for order in [Order::Ascending, Order::Descending, Order::Shuffled] {
                let cx = Cx::new(emulated(24, Options { order, ..Options::default() }), dtype).unwrap();
                let got = case.run(&cx, dtype, dtype).to_f32().unwrap();
                // The counters are left as they were found.
                assert_eq!(case.run(&cx, dtype, dtype).to_f32().unwrap(), got);
                assert_eq!(*before.get_or_insert(got.clone()), got);
                let (terms, scale) = case.scale(dtype);
                assert_close(&format!("{case:?}"), &got, &wanted, dtype, terms, scale);
            }
        }
    }
}

#[test]
fn memory_is_planned_without_the_device() {
    for case in cases().iter().chain(&split_cases()) {
        let plan = Cx::new(Device::plan(Target::Gpu), DType::F16).unwrap();
        case.run(&plan, DType::F16, DType::F16);
        let device = emulated(24, Options { check: false, ..Options::default() });
        let cx = Cx::new(device, DType::F16).unwrap();
        case.run(&cx, DType::F16, DType::F16);
        assert_eq!(plan.device().peak(), cx.device().peak(), "{case:?}");
    }
}
