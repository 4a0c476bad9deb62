//! kernels/gemm.

use crate::support::*;
use tasr::ops::linear::{LinearWeight, library_linear, linear, linear_geglu};
use tasr::ops::{Activation, Cx, Epilogue};
use tasr::tensor::DType;

/// [images, rows an image, k, n]: odd sizes, one row, more than a tile in each direction, many tiles of k.
const SHAPES: [[usize; 4]; 6] =
    [[1, 1, 8, 8], [2, 1, 64, 72], [1, 77, 40, 65], [3, 43, 33, 130], [2, 100, 320, 136], [1, 200, 24, 256]];

#[test]
fn linear_matches_the_cpu_with_every_epilogue() {
    let all = [Activation::None, Activation::Silu, Activation::Gelu, Activation::Relu];
    for dtype in DTYPES {
        for (index, [images, rows, k, n]) in SHAPES.into_iter().enumerate() {
            let values = |seed, count| rounded(&random(seed, count), dtype);
            let (x, w) = (values(1, images * rows * k), values(2, n * k));
            let (bias, per_image) = (random(3, n), values(4, images * n));
            let residual = values(5, images * rows * n);
            let run = |cx: &Cx, dtype| {
                let on = |v: &[f32], shape: &[usize]| match *shape {
                    [a, b] => upload(cx.device(), v, [a, b], dtype),
                    _ => upload(cx.device(), v, [shape[0], shape[1], shape[2]], dtype),
                };
                let bias = upload(cx.device(), &bias, [n], DType::F32);
                let per_image = on(&per_image, &[images, n]);
                let residual = on(&residual, &[images, rows, n]);
                let weight = LinearWeight::pack(cx, &w, [n, k]).unwrap();
                let epilogue = match index % 3 {
                    0 => Epilogue::default(),
                    1 => Epilogue::bias(Some(&bias)).activation(all[index % 4]).residual(&residual),
                    _ => Epilogue::bias(Some(&bias)).per_image(&per_image).residual(&residual).scale(0.5),
                };
                linear(cx, &on(&x, &[images, rows, k]), &weight, &epilogue).unwrap()
            };
            let wanted = run(&oracle(), DType::F32).to_f32().unwrap();
            let got = on_all(dtype, |cx| run(cx, dtype));
            assert_close(&format!("linear {rows}x{k}x{n}"), &got, &wanted, dtype, k, 3.0);
        }
    }
}

#[test]
fn geglu_matches_the_cpu() {
    for dtype in DTYPES {
        for [images, rows, k, h] in [[1, 1, 8, 8], [2, 70, 48, 100], [1, 130, 33, 37]] {
            let values = |seed, count| rounded(&random(seed, count), dtype);
            let (x, w, bias) = (values(1, images * rows * k), values(2, 2 * h * k), random(3, 2 * h));
            let run = |cx: &Cx, dtype| {
                let weight = LinearWeight::pack(cx, &w, [2 * h, k]).unwrap();
                let x = upload(cx.device(), &x, [images, rows, k], dtype);
                linear_geglu(cx, &x, &weight, &upload(cx.device(), &bias, [2 * h], DType::F32)).unwrap()
            };
            let wanted = run(&oracle(), DType::F32).to_f32().unwrap();
            let got = on_all(dtype, |cx| run(cx, dtype));
            // Value and gate are sums of size sqrt(k), and the result is their product.
            assert_close(&format!("geglu {rows}x{k}x{h}"), &got, &wanted, dtype, k, 30.0);
        }
    }
}

#[test]
fn both_tile_sizes_run() {
    // The emulator has few multiprocessors, so a large product takes large tiles and a tiny one small ones.
    let (m, n, k) = (300, 390, 96);
    let (x, w) = (rounded(&random(1, m * k), DType::F16), rounded(&random(2, n * k), DType::F16));
    let run = |cx: &Cx, dtype| {
        let weight = LinearWeight::pack(cx, &w, [n, k]).unwrap();
        linear(cx, &upload(cx.device(), &x, [1, m, k], dtype), &weight, &Epilogue::default()).unwrap()
    };
    let wanted = run(&oracle(), DType::F32).to_f32().unwrap();
    assert_close("linear", &on_all(DType::F16, |cx| run(cx, DType::F16)), &wanted, DType::F16, k, 3.0);
    let wrong = on_all(DType::F16, |cx| {
        let weight = LinearWeight::pack(cx, &w, [n, k]).unwrap();
        let bias = upload(cx.device(), &vec![0.0; n], [n], DType::F16);
        let x = upload(cx.device(), &x, [1, m, k], DType::F16);
        let error = linear(cx, &x, &weight, &Epilogue::bias(Some(&bias))).unwrap_err().to_string();
        assert!(error.contains("an epilogue is given f16 where it takes f32"), "{error}");
        x
    });
    assert_eq!(wrong.len(), m * k);
}

#[test]
fn the_library_multiplies_as_ours_do_and_can_be_recorded() {
    for dtype in DTYPES {
        for device in own_devices() {
            let cx = &Cx::new(device, dtype).unwrap();
            let gpu = cx.device().gpu().unwrap();
            if !gpu.has_library() {
                println!("NOT RUN: {} has no cuBLASLt", gpu.info().name);
                continue;
            }
            // Rows of 16 bytes, as cuBLASLt wants them.
            for [m, k, n] in [[1, 8, 8], [77, 64, 72], [130, 320, 136]] {
                let (x, w) = (rounded(&random(1, m * k), dtype), rounded(&random(2, n * k), dtype));
                let product = |cx: &Cx, dtype, library: bool| {
                    let weight = LinearWeight::pack(cx, &w, [n, k]).unwrap();
                    let x = upload(cx.device(), &x, [m, k], dtype);
                    match library {
                        true => library_linear(cx, &x, &weight).unwrap().to_f32().unwrap(),
                        false => linear(cx, &x, &weight, &Epilogue::default()).unwrap().to_f32().unwrap(),
                    }
                };
                let wanted = product(&oracle(), DType::F32, false);
                assert_close(
                    &format!("library {m}x{k}x{n}"),
                    &product(cx, dtype, true),
                    &wanted,
                    dtype,
                    k,
                    3.0,
                );
                assert!(
                    library_linear(
                        &oracle(),
                        &upload(oracle().device(), &x, [m, k], DType::F32),
                        &LinearWeight::pack(&oracle(), &w, [n, k]).unwrap()
                    )
                    .is_err()
                );
                let weight = LinearWeight::pack(cx, &w, [n, k]).unwrap();
                let x = upload(cx.device(), &x, [m, k], dtype);
                let (result, replay) = gpu.capture(|| library_linear(cx, &x, &weight)).unwrap();
                // SAFETY: inputs and result are alive.
                unsafe { replay.run() }.unwrap();
                assert_close("library, recorded", &result.to_f32().unwrap(), &wanted, dtype, k, 3.0);
            }
        }
    }
}
