//! kernels/gemm/gemm_sm90.cu: products by specialised warps with TMA and wgmma.

use crate::support::*;
use tasr::device::gpu::ArchPath;
use tasr::device::gpu::emulator::{self, Options};
use tasr::device::gpu::kernels;
use tasr::ops::linear::{LinearWeight, linear, linear_geglu};
use tasr::ops::{Activation, Cx, Epilogue};
use tasr::tensor::{DType, Tensor};

const HALVES: [DType; 2] = [DType::F16, DType::BF16];

/// [images, rows an image, k, n]: less than a tile; tails in every direction; k beyond the ring of stages; tiles
/// of each width; more tiles than blocks; k shared among blocks.
const SHAPES: [[usize; 4]; 7] = [
    [1, 1, 8, 8],
    [2, 65, 72, 65],
    [3, 43, 456, 130],
    [1, 130, 136, 320],
    [1, 300, 64, 500],
    [2, 3, 1288, 40],
    [1, 140, 520, 72],
];

struct Case {
    x: Vec<f32>,
    w: Vec<f32>,
    bias: Vec<f32>,
    per_image: Vec<f32>,
    residual: Vec<f32>,
    shape: [usize; 4],
    index: usize,
}

impl Case {
    fn run(&self, cx: &Cx, dtype: DType) -> Tensor {
        let [images, rows, k, n] = self.shape;
        let on = |v: &[f32], shape: [usize; 3]| upload(cx.device(), v, shape, dtype);
        let bias = upload(cx.device(), &self.bias, [n], DType::F32);
        let per_image = upload(cx.device(), &self.per_image, [images, n], dtype);
        let residual = on(&self.residual, [images, rows, n]);
        let weight = LinearWeight::pack(cx, &self.w, [n, k]).unwrap();
        let epilogue = match self.index % 3 {
            0 => Epilogue::default(),
            1 => Epilogue::bias(Some(&bias)).activation(Activation::Silu).residual(&residual),
            _ => Epilogue::bias(Some(&bias)).per_image(&per_image).residual(&residual).scale(0.5),
        };
        linear(cx, &on(&self.x, [images, rows, k]), &weight, &epilogue).unwrap()
    }
}

#[test]
fn linear_matches_the_cpu() {
    for dtype in HALVES {
        for (index, shape) in SHAPES.into_iter().enumerate() {
            let [images, rows, k, n] = shape;
            let values = |seed, count| rounded(&random(seed, count), dtype);
            let case = Case {
                x: values(1, images * rows * k),
                w: values(2, n * k),
                bias: values(3, n),
                per_image: values(4, images * n),
                residual: values(5, images * rows * n),
                shape,
                index,
            };
            let wanted = case.run(&oracle(), DType::F32).to_f32().unwrap();
            if let Some(got) = on_hopper(dtype, |cx| case.run(cx, dtype)) {
                assert_close(&format!("linear {shape:?}"), &got, &wanted, dtype, k, 3.0);
            }
        }
    }
}

#[test]
fn geglu_matches_the_cpu() {
    for dtype in HALVES {
        for [images, rows, k, h] in [[1, 1, 8, 8], [2, 70, 48, 100], [1, 130, 328, 37], [1, 260, 64, 130]] {
            let values = |seed, count| rounded(&random(seed, count), dtype);
            let (x, w, bias) = (values(1, images * rows * k), values(2, 2 * h * k), values(3, 2 * h));
            let run = |cx: &Cx, dtype| {
                let weight = LinearWeight::pack(cx, &w, [2 * h, k]).unwrap();
                let x = upload(cx.device(), &x, [images, rows, k], dtype);
                linear_geglu(cx, &x, &weight, &upload(cx.device(), &bias, [2 * h], DType::F32)).unwrap()
            };
            let wanted = run(&oracle(), DType::F32).to_f32().unwrap();
            if let Some(got) = on_hopper(dtype, |cx| run(cx, dtype)) {
                // Value and gate are sums of size sqrt(k), and the result is their product.
                assert_close(&format!("geglu {rows}x{k}x{h}"), &got, &wanted, dtype, k, 30.0);
            }
        }
    }
}

#[test]
fn only_the_right_architecture_and_path_have_the_kernels() {
    let kernel = kernels::GEMM_128X128_SM90.of(DType::F16).unwrap();
    let has = |capability, path| {
        let device = emulator::open(Options { capability, path, ..Options::default() });
        gpu(&device).has(kernel)
    };
    assert!(has((9, 0), ArchPath::Best));
    assert!(!has((9, 0), ArchPath::Sm80) && !has((8, 0), ArchPath::Best) && !has((10, 0), ArchPath::Best));
    // The path makes a plan, and with it the result: bits differ from those of sm_90a, values do not.
    let (x, w) = (rounded(&random(1, 40 * 640), DType::F16), rounded(&random(2, 48 * 640), DType::F16));
    let run = |path| {
        let device = emulator::open(Options { capability: (9, 0), path, ..Options::default() });
        let cx = Cx::new(device, DType::F16).unwrap();
        let weight = LinearWeight::pack(&cx, &w, [48, 640]).unwrap();
        let x = upload(cx.device(), &x, [1, 40, 640], DType::F16);
        linear(&cx, &x, &weight, &Epilogue::default()).unwrap().to_f32().unwrap()
    };
    let (best, sm80) = (run(ArchPath::Best), run(ArchPath::Sm80));
    assert_close("sm_80 path", &sm80, &best, DType::F16, 2 * 640, 3.0);
}
