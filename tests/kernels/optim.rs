//! kernels/optim, and the CPU's optimiser against f64.

use crate::support::*;
use tasr::ops::adamw::{AdamW, Parameter, Scaling, adamw, gradient_norm};
use tasr::ops::{Cx, overwrite};
use tasr::tensor::{DType, Tensor};

/// Less than eight, a chunk, several with a short last one.
const COUNTS: [usize; 6] = [1, 7, 64, 8192, 8193, 20_011];
const SETTINGS: AdamW = AdamW { rate: 1e-2, beta1: 0.9, beta2: 0.99, eps: 1e-8, decay: 1e-2 };
const SCALE: f32 = 0.5;
const STEPS: u64 = 3;

/// The gradients of a step, as `dtype` stores them: every third tensor's are f32.
fn step_gradients(cx: &Cx, step: u64, dtype: DType) -> Vec<Tensor> {
    let one = |(i, count): (usize, &usize)| {
        let values = random(100 * step + i as u64, *count);
        let own = if i % 3 == 0 { DType::F32 } else { dtype };
        let stored = if cx.device().target() == tasr::device::Target::Cpu { DType::F32 } else { own };
        upload(cx.device(), &rounded(&values, own), [*count], stored)
    };
    COUNTS.iter().enumerate().map(one).collect()
}

/// Masters, means, squares and copies after some steps, one after the other.
fn train(cx: &Cx, dtype: DType, limit: Option<f32>) -> Vec<f32> {
    let state = |seed: u64, scale: f32| -> Vec<Tensor> {
        let one = |(i, count): (usize, &usize)| {
            let values: Vec<_> = random(seed + i as u64, *count).iter().map(|v| v * scale).collect();
            upload(cx.device(), &values, [*count], DType::F32)
        };
        COUNTS.iter().enumerate().map(one).collect()
    };
    let (mut masters, mut firsts, mut seconds) = (state(1, 1.0), state(0, 0.0), state(0, 0.0));
    let mut copies: Vec<_> =
        COUNTS.iter().map(|c| upload(cx.device(), &vec![0.0; *c], [*c], cx.dtype())).collect();
    for step in 1..=STEPS {
        let gradients = step_gradients(cx, step, dtype);
        let norm = gradient_norm(cx, &gradients.iter().collect::<Vec<_>>(), SCALE).unwrap();
        let state = masters.iter_mut().zip(&mut firsts).zip(&mut seconds).zip(&gradients).zip(&mut copies);
        let mut parameters: Vec<_> = state
            .enumerate()
            .map(|(i, ((((master, first), second), gradient), copy))| Parameter {
                master,
                first,
                second,
                gradient,
                copy: (i != 2).then_some(copy),
            })
            .collect();
        let scaling = Scaling { scale: SCALE, limit: limit.map(|limit| (limit, &norm)) };
        adamw(cx, &mut parameters, &SETTINGS, &scaling, step).unwrap();
    }
    let all = masters.iter().chain(&firsts).chain(&seconds).chain(&copies);
    all.flat_map(|tensor| tensor.to_f32().unwrap()).collect()
}

/// The same in f64 from the definition in PyTorch's documentation; copies are left out.
fn definition(dtype: DType, limit: Option<f32>) -> Vec<f64> {
    let cx = oracle();
    let (mut masters, mut firsts, mut seconds) = (Vec::new(), Vec::new(), Vec::new());
    for (i, &count) in COUNTS.iter().enumerate() {
        masters.push(random(1 + i as u64, count).iter().map(|&v| f64::from(v)).collect::<Vec<_>>());
        firsts.push(vec![0.0f64; count]);
        seconds.push(vec![0.0f64; count]);
    }
    let AdamW { rate, beta1, beta2, eps, decay } = SETTINGS;
    let [rate, beta1, beta2, eps, decay] = [rate, beta1, beta2, eps, decay].map(f64::from);
    for step in 1..=STEPS {
        let gradients: Vec<Vec<f64>> = step_gradients(&cx, step, dtype)
            .iter()
            .map(|tensor| tensor.to_f32().unwrap().iter().map(|&g| f64::from(g * SCALE)).collect())
            .collect();
        let norm = gradients.iter().flatten().map(|g| g * g).sum::<f64>().sqrt();
        let factor = limit.map_or(1.0, |limit| (f64::from(limit) / (norm + 1e-6)).min(1.0));
        for (t, gradients) in gradients.iter().enumerate() {
            for (i, g) in gradients.iter().map(|g| g * factor).enumerate() {
                masters[t][i] -= rate * decay * masters[t][i];
                firsts[t][i] = beta1 * firsts[t][i] + (1.0 - beta1) * g;
                seconds[t][i] = beta2 * seconds[t][i] + (1.0 - beta2) * g * g;
                let mean = firsts[t][i] / (1.0 - beta1.powi(step as i32));
                let square = seconds[t][i] / (1.0 - beta2.powi(step as i32));
                masters[t][i] -= rate * mean / (square.sqrt() + eps);
            }
        }
    }
    masters.into_iter().chain(firsts).chain(seconds).flatten().collect()
}

#[test]
fn steps_of_adamw_match_its_definition() {
    let total: usize = COUNTS.iter().sum();
    for dtype in DTYPES {
        for limit in [None, Some(1.0), Some(1e6)] {
            let wanted: Vec<f32> = definition(dtype, limit).iter().map(|&v| v as f32).collect();
            let on_cpu = train(&oracle(), dtype, limit);
            let got = on_all(dtype, |cx| {
                let all = train(cx, dtype, limit);
                upload(cx.device(), &all, [all.len()], DType::F32)
            });
            for all in [&on_cpu, &got] {
                let name = format!("adamw with limit {limit:?}");
                assert_close(&name, &all[..3 * total], &wanted, DType::F32, 8 * STEPS as usize, 1.0);
            }
            // The copies are the masters, rounded; the third tensor has none.
            let mut start = 0;
            for (i, count) in COUNTS.into_iter().enumerate() {
                let (master, copy) = (&got[start..][..count], &got[3 * total + start..][..count]);
                let expected = if i == 2 { vec![0.0; count] } else { rounded(master, dtype) };
                assert_eq!(copy, expected, "the copy of tensor {i}");
                start += count;
            }
        }
    }
}

#[test]
fn the_norm_of_all_gradients_is_found() {
    for dtype in DTYPES {
        let sum = |cx: &Cx| -> f64 {
            let values =
                step_gradients(cx, 1, dtype).iter().flat_map(|t| t.to_f32().unwrap()).collect::<Vec<_>>();
            values.iter().map(|&v| f64::from(v) * f64::from(v)).sum()
        };
        let wanted = (sum(&oracle()).sqrt() * f64::from(SCALE)) as f32;
        let run = |cx: &Cx| {
            let gradients = step_gradients(cx, 1, dtype);
            gradient_norm(cx, &gradients.iter().collect::<Vec<_>>(), SCALE).unwrap()
        };
        for got in [on_all(dtype, run), run(&oracle()).to_f32().unwrap()] {
            assert_close("gradient_norm", &got, &[wanted], DType::F32, 64, wanted);
        }
    }
    let cx = Cx::new(devices()[0].clone(), DType::F32).unwrap();
    assert_eq!(gradient_norm(&cx, &[], 1.0).unwrap().to_f32().unwrap(), [0.0]);
}

#[test]
fn a_norm_that_is_not_a_number_reaches_the_weights() {
    for cx in devices().iter().map(|device| Cx::new(device.clone(), DType::F32).unwrap()).chain([oracle()]) {
        let one = |value: f32| upload(cx.device(), &[value; 3], [3], DType::F32);
        let (mut master, mut first, mut second) = (one(1.0), one(0.0), one(0.0));
        let gradient = upload(cx.device(), &[1.0, f32::NAN, 1.0], [3], DType::F32);
        let norm = gradient_norm(&cx, &[&gradient], 1.0).unwrap();
        let mut parameters = [Parameter {
            master: &mut master,
            first: &mut first,
            second: &mut second,
            gradient: &gradient,
            copy: None,
        }];
        let scaling = Scaling { scale: 1.0, limit: Some((1.0, &norm)) };
        adamw(&cx, &mut parameters, &SETTINGS, &scaling, 1).unwrap();
        assert!(master.to_f32().unwrap().iter().all(|v| v.is_nan()));
    }
}

#[test]
fn state_that_others_hold_is_not_written() {
    for cx in [Cx::new(devices()[0].clone(), DType::F32).unwrap(), oracle()] {
        let one = |value: f32| upload(cx.device(), &[value; 3], [3], DType::F32);
        let (mut master, mut first, mut second, gradient) = (one(1.0), one(0.0), one(0.0), one(1.0));
        let held = first.clone();
        let mut parameters = [Parameter {
            master: &mut master,
            first: &mut first,
            second: &mut second,
            gradient: &gradient,
            copy: None,
        }];
        let scaling = Scaling { scale: 1.0, limit: None };
        let error = adamw(&cx, &mut parameters, &SETTINGS, &scaling, 1).unwrap_err().to_string();
        assert!(error.contains("others hold"), "{error}");
        assert_eq!(held.to_f32().unwrap(), [0.0; 3]);
    }
}

#[test]
fn weights_are_refreshed_in_place() {
    for dtype in DTYPES {
        let values = random(1, 1003);
        let got = on_all(dtype, |cx| {
            let mut weight = upload(cx.device(), &vec![0.0; 1003], [1003], dtype);
            overwrite(cx, &mut weight, &upload(cx.device(), &values, [17, 59], DType::F32)).unwrap();
            let held = weight.clone();
            assert!(overwrite(cx, &mut weight, &held).is_err());
            held
        });
        assert_eq!(got, rounded(&values, dtype));
    }
}
