//! The networks of an upscale one after the other on a GPU, against the CPU: a run in small, without the 512 pixels
//! that a real one works at.

use crate::support::*;
use tasr::device::gpu::Counts;
use tasr::device::gpu::emulator::{self, Options};
use tasr::device::{Device, Purpose};
use tasr::models::Variant;
use tasr::models::config::SystemConfig;
use tasr::ops::Cx;
use tasr::ops::diffusion::ddpm_step;
use tasr::ops::elementwise::combine;
use tasr::ops::finite::FiniteChecks;
use tasr::ops::wavelet::{LEVELS, wavelet_fix};
use tasr::pipeline::{Conditions, Denoiser, Steering, Weights};
use tasr::sampler::guidance::Guidance;
use tasr::sampler::schedule::Schedule;
use tasr::tensor::{DType, Tensor};

/// Side of the picture.
const SIDE: usize = 64;
const STEPS: usize = 4;

/// What a run gives, and what the host had to do with the device in each step.
struct Upscaled {
    image: Vec<f32>,
    steps: Vec<Counts>,
}

/// A picture whose neighbouring pixels are alike, in [0, 1].
fn picture() -> Vec<f32> {
    let wave = |i: usize, channel: usize| {
        let (y, x) = ((i / SIDE) as f32, (i % SIDE) as f32);
        0.5 + 0.3 * (y * 0.11 + channel as f32).sin() * (x * 0.07).cos() + 0.15 * ((x + 2.0 * y) * 0.21).sin()
    };
    (0..SIDE * SIDE).flat_map(|i| [wave(i, 0), wave(i, 1), wave(i, 2)]).collect()
}

fn upscale(device: Device, dtype: DType) -> Upscaled {
    let cx = &Cx::new(device, dtype).unwrap();
    let config = SystemConfig::preset("tiny").unwrap();
    let weights = Weights::synthetic(config, Some(Variant::Official));
    let features = |seed| {
        let tower = weights.load_text(cx).unwrap();
        let tokens: Vec<u32> = (seed..seed + 77).collect();
        tower.forward(cx, &[&tokens]).unwrap()
    };
    let conditions = Conditions { positive: features(1), negative: Some(features(200)) };
    let system = weights.load(cx).unwrap();
    let (vae, sampler) = (system.vae.get().unwrap(), system.sampler.get().unwrap());
    let clean = upload(cx.device(), &picture(), [1, SIDE, SIDE, 3], DType::F32);
    let hint = vae.encode(cx, &combine(cx, &[(2.0, &clean)], -1.0).unwrap(), None).unwrap();
    let [_, h, w, c] = hint.nhwc().unwrap();
    let draw = |seed| {
        // A sum of uniform values is near to a normal one.
        let all: Vec<Vec<f32>> = (0..12).map(|i| random(seed * 12 + i, h * w * c)).collect();
        let values: Vec<f32> = (0..h * w * c).map(|i| all.iter().map(|v| v[i]).sum::<f32>() * 0.5).collect();
        Tensor::from_f32_as(cx.device(), &values, [1, h, w, c], DType::F32, Purpose::Activation).unwrap()
    };
    let schedule = Schedule::spaced(STEPS).unwrap().steps();
    let timesteps: Vec<f32> = schedule.iter().map(|step| step.timestep as f32).collect();
    let steering = Steering { guidance: Guidance::new(4.5).unwrap(), control_scale: Some(1.0) };
    let denoiser = Denoiser::new(cx, sampler.networks(), &timesteps, &conditions, steering).unwrap();
    let mut checks = FiniteChecks::new(cx, STEPS).unwrap();
    let (mut x, mut steps) = (draw(1000), Vec::new());
    for (i, step) in schedule.iter().enumerate() {
        let before = cx.device().gpu().map(|gpu| gpu.counts());
        let eps = denoiser.predict(i, true, &x, &hint).unwrap();
        let noise = draw(i as u64);
        x = ddpm_step(cx, &x, &eps, &noise, &step.coefficients).unwrap();
        checks.note(cx, i, &x).unwrap();
        steps.extend(cx.device().gpu().zip(before).map(|(gpu, before)| gpu.counts() - before));
    }
    assert_eq!(checks.first().unwrap(), None);
    drop(denoiser);
    let decoded = vae.decode(cx, &x).unwrap();
    let unit = combine(cx, &[(0.5, &decoded)], 0.5).unwrap();
    Upscaled { image: wavelet_fix(cx, &unit, &clean, LEVELS).unwrap().to_f32().unwrap(), steps }
}

/// The device under test; the emulator without its checks, which every kernel has passed in tests of its own.
fn device() -> Device {
    match std::env::var("TASR_TEST_DEVICE") {
        Ok(name) if name != "emulator" => Device::open(&name).unwrap(),
        _ => emulator::open(Options { check: false, ..Options::default() }),
    }
}

/// Peak signal to noise ratio of pictures in [0, 1], in dB.
fn psnr(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let squares: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    -10.0 * (squares / a.len() as f64).log10()
}

#[test]
fn a_run_agrees_with_the_cpu_in_every_element_type_and_steps_are_replays() {
    let wanted = upscale(Device::cpu(), DType::F32);
    assert!(wanted.steps.is_empty() && wanted.image.iter().all(|v| v.is_finite()));
    // f16 is held to the project's own bar; bf16 has 8 times its rounding, 18 dB; f32 adds in another order only.
    for (dtype, least) in [(DType::F32, 75.0), (DType::F16, 45.0), (DType::BF16, 27.0)] {
        let device = device();
        let plan = device.planned();
        upscale(plan.clone(), dtype);
        device.reserve(plan.peak()).unwrap();
        let found = upscale(device.clone(), dtype);
        let ratio = psnr(&found.image, &wanted.image);
        println!("{}: {ratio:.1} dB from the CPU's f32", dtype.name());
        assert!(ratio >= least, "{}: {ratio:.1} dB, expected {least}", dtype.name());
        // The plan knows no recordings: what they touch stays taken beside the latents of the next steps.
        let (planned, taken) = (plan.peak(), device.peak());
        println!("planned {planned} bytes, taken {taken}");
        assert!(taken <= 2 * planned, "planned {planned}, taken {taken}");
        for (i, spent) in found.steps.iter().enumerate() {
            assert_eq!((spent.downloads, spent.waits), (0, 0), "step {i} waits for the device");
            if i > 1 {
                // The noise goes up, one replay is the whole call, and what is left is the sampler's arithmetic.
                assert_eq!((spent.replays, spent.slabs, spent.uploads), (1, 0, 1), "step {i}: {spent:?}");
                assert!(spent.launches <= 3, "step {i}: {spent:?}");
            }
        }
    }
}
