//! Devices, inputs and the comparator of the kernel tests.

use std::sync::OnceLock;

use tasr::device::gpu::emulator::{self, Options, Order};
use tasr::device::{Device, Purpose};
use tasr::ops::Cx;
use tasr::tensor::{DType, Shape, Tensor};

pub const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// The devices under test: the emulator in every order of threads, or the GPU that TASR_TEST_DEVICE names.
pub fn devices() -> &'static [Device] {
    static DEVICES: OnceLock<Vec<Device>> = OnceLock::new();
    DEVICES.get_or_init(own_devices)
}

/// The same, opened for one test: what it counts or records is its own.
pub fn own_devices() -> Vec<Device> {
    test_gpu().map_or_else(|| emulators((8, 0)), |name| vec![Device::open(&name).unwrap()])
}

/// The same as sm_90a, whose kernels only some plans choose; none where a GPU is tested that is another.
pub fn hopper_devices() -> &'static [Device] {
    static DEVICES: OnceLock<Vec<Device>> = OnceLock::new();
    DEVICES.get_or_init(|| match test_gpu() {
        None => emulators((9, 0)),
        Some(_) => devices().iter().filter(|d| gpu(d).info().capability == (9, 0)).cloned().collect(),
    })
}

fn test_gpu() -> Option<String> {
    std::env::var("TASR_TEST_DEVICE").ok().filter(|name| name != "emulator")
}

fn emulators(capability: (i32, i32)) -> Vec<Device> {
    [Order::Ascending, Order::Descending, Order::Shuffled]
        .map(|order| emulator::open(Options { order, capability, ..Options::default() }))
        .into()
}

pub fn gpu(device: &Device) -> &tasr::device::Gpu {
    match device {
        Device::Gpu(gpu) => gpu,
        other => panic!("{other:?} is no GPU"),
    }
}

/// Uniform in [-1, 1), the same for the same seed.
pub fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// What `dtype` keeps of `values`.
pub fn rounded(values: &[f32], dtype: DType) -> Vec<f32> {
    match dtype {
        DType::F32 => values.to_vec(),
        DType::F16 => values.iter().map(|v| half::f16::from_f32(*v).to_f32()).collect(),
        DType::BF16 => values.iter().map(|v| half::bf16::from_f32(*v).to_f32()).collect(),
    }
}

/// `values` on `device` as `dtype`.
pub fn upload(device: &Device, values: &[f32], shape: impl Into<Shape>, dtype: DType) -> Tensor {
    Tensor::from_f32_as(device, values, shape, dtype, Purpose::Activation).unwrap()
}

/// Half the distance between neighbours at 1.
fn rounding(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 2f64.powi(-24),
        DType::F16 => 2f64.powi(-11),
        DType::BF16 => 2f64.powi(-8),
    }
}

/// The error that a result stored as `dtype` may have: its own rounding relative to the value, and for each
/// of the `length` f32 additions that made it an f32 rounding relative to `scale`, the size of what was added.
pub fn tolerance(value: f32, dtype: DType, length: usize, scale: f32) -> f64 {
    let subnormal = if dtype == DType::F16 { 2f64.powi(-25) } else { 0.0 };
    1.01 * rounding(dtype) * f64::from(value.abs())
        + 2f64.powi(-23) * (length as f64 + 8.0) * f64::from(scale)
        + subnormal
}

/// Compares element by element; NaN fails.
#[track_caller]
pub fn assert_close(name: &str, got: &[f32], wanted: &[f32], dtype: DType, length: usize, scale: f32) {
    assert_eq!(got.len(), wanted.len(), "{name}: another number of elements");
    let mut worst = (0.0, 0);
    for (i, (g, w)) in got.iter().zip(wanted).enumerate() {
        let ratio = f64::from((g - w).abs()) / tolerance(*w, dtype, length, scale);
        let ratio = if ratio.is_nan() { f64::INFINITY } else { ratio };
        if ratio > worst.0 {
            worst = (ratio, i);
        }
    }
    let (ratio, i) = worst;
    assert!(
        ratio <= 1.0,
        "{name} {}: element {i} is {}, expected {} ({ratio:.1} times the tolerance)",
        dtype.name(),
        got[i],
        wanted[i]
    );
}

/// Runs `case` on every device: all must give the same bits. Returns them.
#[track_caller]
pub fn on_all(dtype: DType, case: impl Fn(&Cx) -> Tensor) -> Vec<f32> {
    on_each(devices(), dtype, case).unwrap()
}

/// The same on sm_90a; nothing where a GPU is tested that is another.
#[track_caller]
pub fn on_hopper(dtype: DType, case: impl Fn(&Cx) -> Tensor) -> Option<Vec<f32>> {
    on_each(hopper_devices(), dtype, case)
}

#[track_caller]
fn on_each(devices: &[Device], dtype: DType, case: impl Fn(&Cx) -> Tensor) -> Option<Vec<f32>> {
    let mut first: Option<Vec<f32>> = None;
    for device in devices {
        let cx = Cx::new(device.clone(), dtype).unwrap();
        let got = case(&cx).to_f32().unwrap();
        if let Some(before) = &first {
            let same = before.iter().zip(&got).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "the result depends on the order of threads");
        }
        first.get_or_insert(got);
    }
    first
}

/// The CPU's context, the oracle.
pub fn oracle() -> Cx {
    Cx::new(Device::cpu(), DType::F32).unwrap()
}
