//! The emulator's detectors of what runs beside the warps of sm_90a catch planted bugs.

use bytemuck::NoUninit;

use crate::support::*;
use tasr::device::Purpose;
use tasr::device::gpu::Grid;
use tasr::device::gpu::emulator::{self, Options, Order};
use tasr::device::gpu::kernels::{Kernel, planted};
use tasr::device::gpu::tensor_map::{Boxes, TensorMap};
use tasr::tensor::{DType, TensorMut};

#[repr(C, align(64))]
#[derive(Clone, Copy, NoUninit)]
struct PlantedSm90Params {
    a: TensorMap,
    b: TensorMap,
    out: u64,
    bug: u32,
    pad: u32,
    unused: [u64; 6],
}

const A: usize = 64 * 64;
const B: usize = 128 * 64;
/// Of PlantedSm90Shared.
const SHARED: u32 = (A * 2 + B * 2 + 16) as u32;
const OUT: usize = 64 * 128;

fn inputs() -> (Vec<f32>, Vec<f32>) {
    (rounded(&random(1, A), DType::F16), rounded(&random(2, B), DType::F16))
}

/// What `kernel` leaves in its first `count` results.
fn run(order: Order, kernel: Kernel, threads: u32, bug: u32, count: usize) -> Result<Vec<f32>, String> {
    let options = Options { check: true, order, capability: (9, 0), ..Options::default() };
    let device = emulator::open(options);
    let (a, b) = inputs();
    let (a, b) = (upload(&device, &a, [64, 64], DType::F16), upload(&device, &b, [128, 64], DType::F16));
    let mut out = TensorMut::allocate(&device, [OUT], DType::F32, Purpose::Activation).unwrap();
    out.write_f32(&[0.0; OUT]).unwrap();
    let map = |address, rows: usize| {
        let boxes = Boxes { address, dtype: DType::F16, dims: [64, rows], size: [64, rows as u32] };
        gpu(&device).tensor_map(&boxes).unwrap()
    };
    let params = PlantedSm90Params {
        a: map(a.address().unwrap(), 64),
        b: map(b.address().unwrap(), 128),
        out: out.address().unwrap(),
        bug,
        pad: 0,
        unused: [0; 6],
    };
    let grid = Grid { blocks: [1, 1, 1], threads, shared_bytes: SHARED };
    // SAFETY: the emulator stops a kernel before it leaves its memory.
    unsafe { gpu(&device).launch(kernel, grid, &params) }.map_err(|error| error.to_string())?;
    let mut values = out.freeze().to_f32().map_err(|error| error.to_string())?;
    values.truncate(count);
    Ok(values)
}

/// `kernel` gives `wanted` with bug 0; with each other bug it fails in every order of threads with one of the words,
/// parted by `|`.
#[track_caller]
fn catches(kernel: Kernel, threads: u32, wanted: &[f32], bugs: &[(u32, &str)]) {
    for order in [Order::Ascending, Order::Descending, Order::Shuffled] {
        let right = run(order, kernel, threads, 0, wanted.len());
        assert_close(kernel.name(), &right.unwrap(), wanted, DType::F32, 64, 4.0);
        for (bug, words) in bugs {
            let message = run(order, kernel, threads, *bug, wanted.len())
                .map(|_| format!("{} bug {bug} in order {order:?} is not noticed", kernel.name()))
                .unwrap_or_else(|message| message);
            let named = message.contains(&format!("kernel {}", kernel.name()));
            assert!(
                named && words.split('|').any(|word| message.contains(word)),
                "{} bug {bug}: {message}",
                kernel.name()
            );
        }
    }
}

/// The numeric tests are the detector: with the bug the result is another.
fn is_wrong(kernel: Kernel, threads: u32, wanted: &[f32], bug: u32) {
    let got = run(Order::Ascending, kernel, threads, bug, wanted.len()).unwrap();
    let right = got.iter().zip(wanted).filter(|(g, w)| (*g - *w).abs() < 1e-3).count();
    assert!(right < wanted.len() / 2, "{} bug {bug}: {right} values are right", kernel.name());
}

#[test]
fn copied_boxes_and_their_barriers() {
    let wanted = &inputs().0[..256];
    let bugs = [
        (1, "unwritten memory: reads"),
        (2, "never complete, with 1 arrivals of 1 and 8192 bytes of 8208"),
        (3, "copies bring 8192 bytes, 8176 are expected"),
        (4, "no fence followed its initialisation"),
        (5, "unwritten memory: reads|race: reads what another thread wrote"),
        (6, "race: |unwritten memory"),
        (7, "unwritten memory: reads|never complete"),
        (8, "an arrival more than the 1 of a phase"),
        (9, "the block ends while copies"),
        (10, "misaligned: TMA"),
        (11, "race: mbarrier: no barrier of the block|mbarrier: nothing initialised it|unwritten memory"),
        (12, "the tensor map is not in the params|that is no tensor map"),
    ];
    catches(planted::PLANTED_COPIED_BOX, 256, wanted, &bugs);
    is_wrong(planted::PLANTED_COPIED_BOX, 256, wanted, 13);
}

#[test]
fn products_beside_the_warps() {
    let (a, b) = inputs();
    let wanted: Vec<f32> =
        (0..OUT).map(|i| (0..64).map(|k| a[i / 128 * 64 + k] * b[i % 128 * 64 + k]).sum()).collect();
    let bugs = [
        (1, "no fence since the sums were touched"),
        (2, "wgmma of warp|the block ends while wgmma products"),
        (3, "wgmma.fence: threads of warp 2 have ended|divergent wgmma.fence"),
        (4, "race: writes what another thread read with no barrier between (wgmma of warp"),
        (5, "race: writes what another thread read with no barrier between (wgmma of warp 1)"),
        (6, "unwritten memory: reads 16 bytes of shared memory"),
        (7, "out of bounds: wgmma|race: reads what another thread wrote"),
    ];
    catches(planted::PLANTED_PRODUCTS, 160, &wanted, &bugs);
    for bug in [8, 9, 10] {
        is_wrong(planted::PLANTED_PRODUCTS, 160, &wanted, bug);
    }
}

#[test]
fn tiles_that_threads_write_are_shown_by_a_fence() {
    let bugs = [(1, "did not show it by a fence")];
    catches(planted::PLANTED_SHOWN_TILE, 128, &[64.0; OUT], &bugs);
}
