//! The sampler against tensors recorded from the official implementation, to one unit in the last place.
//!
//! `fixtures/sampler.safetensors` holds schedules, windows and tile origins, and as `chain.*` the first 64 latents of
//! a recorded run of 4 steps: start, predictions, noise and result of each step.

use safetensors::{Dtype, SafeTensors};
use tasr::sampler::tiles::{gaussian_window, origins};
use tasr::sampler::{AddNoise, Schedule, schedule};

const FIXTURE: &[u8] = include_bytes!("fixtures/sampler.safetensors");

fn words<const N: usize>(file: &SafeTensors, name: &str, dtype: Dtype) -> Vec<[u8; N]> {
    let tensor = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(tensor.dtype(), dtype, "{name}");
    tensor.data().chunks_exact(N).map(|b| b.try_into().unwrap()).collect()
}

fn floats(file: &SafeTensors, name: &str) -> Vec<f32> {
    words(file, name, Dtype::F32).into_iter().map(f32::from_le_bytes).collect()
}

fn integers(file: &SafeTensors, name: &str) -> Vec<usize> {
    words(file, name, Dtype::I32).into_iter().map(|b| i32::from_le_bytes(b) as usize).collect()
}

/// Distance in representable numbers; both must be finite and of one sign.
fn ulps(a: f32, b: f32) -> u32 {
    assert!(a.is_finite() && b.is_finite() && (a == b || a.signum() == b.signum()), "{a} and {b}");
    a.to_bits().abs_diff(b.to_bits())
}

/// Prints and returns the worst distance; the lengths must agree.
fn worst(name: &str, found: &[f32], expected: &[f32]) -> u32 {
    assert_eq!(found.len(), expected.len(), "{name}");
    let (at, distance) = found
        .iter()
        .zip(expected)
        .map(|(a, b)| if a == b { 0 } else { ulps(*a, *b) })
        .enumerate()
        .max_by_key(|d| d.1)
        .unwrap();
    println!("{name}: worst {distance} ulp, at {at}");
    distance
}

#[test]
fn training_chain() {
    let file = SafeTensors::deserialize(FIXTURE).unwrap();
    let single = |values: Vec<f64>| -> Vec<f32> { values.into_iter().map(|v| v as f32).collect() };
    assert_eq!(worst("betas", &single(schedule::betas()), &floats(&file, "betas")), 0);
    let total = floats(&file, "alphas_cumulative");
    assert_eq!(worst("alphas_cumulative", &single(schedule::alphas_cumprod()), &total), 0);
    let add = AddNoise::new();
    for (t, &total) in total.iter().enumerate() {
        assert!(
            (add.signal[t].powi(2) - total).abs() < 2e-7
                && (add.signal[t].hypot(add.spread[t]) - 1.0).abs() < 2e-7
        );
    }
}

#[test]
fn spaced_schedules() {
    let file = SafeTensors::deserialize(FIXTURE).unwrap();
    for steps in [1, 4, 10, 20, 50] {
        let schedule = Schedule::spaced(steps).unwrap();
        let name = |part: &str| format!("schedule.{steps}.{part}");
        assert_eq!(schedule.timesteps, integers(&file, &name("timesteps")));
        for (part, found) in [
            ("x0_from_x", &schedule.x0_from_x),
            ("x0_from_noise", &schedule.x0_from_noise),
            ("mean_from_x0", &schedule.mean_from_x0),
            ("mean_from_x", &schedule.mean_from_x),
            ("variance", &schedule.variance),
        ] {
            assert_eq!(worst(&name(part), found, &floats(&file, &name(part))), 0);
        }
    }
}

#[test]
fn recorded_chain() {
    let file = SafeTensors::deserialize(FIXTURE).unwrap();
    let mut x = floats(&file, "chain.x_start");
    for (i, step) in Schedule::spaced(4).unwrap().steps().into_iter().enumerate() {
        let (eps, noise) =
            (floats(&file, &format!("chain.step{i}.eps")), floats(&file, &format!("chain.noise.step{i}")));
        for (x, (&eps, &noise)) in x.iter_mut().zip(eps.iter().zip(&noise)) {
            *x = step.coefficients.previous(*x, eps, noise);
        }
        let expected = floats(&file, &format!("chain.step{i}.x_prev"));
        assert_eq!(worst(&format!("step{i}"), &x, &expected), 0);
    }
}

#[test]
fn windows_and_origins() {
    let file = SafeTensors::deserialize(FIXTURE).unwrap();
    for size in [8, 33, 64] {
        let name = format!("window.{size}");
        assert!(worst(&name, &gaussian_window(size), &floats(&file, &name)) <= 1);
    }
    for [length, tile, stride] in [[64, 64, 32], [80, 64, 32], [96, 64, 32], [130, 64, 32], [100, 64, 48]] {
        assert_eq!(
            origins(length, tile, stride).unwrap(),
            integers(&file, &format!("origins.{length}.{tile}.{stride}"))
        );
    }
}
