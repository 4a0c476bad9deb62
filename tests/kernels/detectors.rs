//! Every detector of the emulator catches a planted bug, and lets the same kernel pass without it.

use bytemuck::NoUninit;

use crate::support::*;
use tasr::device::gpu::emulator::{self, Options, Order};
use tasr::device::gpu::kernels::{Kernel, planted};
use tasr::device::gpu::{Gpu, Grid};
use tasr::device::{Device, Purpose};
use tasr::tensor::{DType, Tensor, TensorMut};

const COUNT: usize = 256;
/// Of PlantedShared.
const SHARED: u32 = (256 + 64 + 1) * 4;

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct PlantedParams {
    out: u64,
    input: u64,
    counter: u64,
    count: u32,
    bug: u32,
}

struct Case {
    device: Device,
    input: Tensor,
    counter: Tensor,
    out: TensorMut,
}

impl Case {
    fn new(order: Order, out: Option<f32>) -> Self {
        let device = emulator::open(Options { check: true, order, ..Options::default() });
        let input = upload(&device, &random(1, COUNT), [COUNT], DType::F32);
        let counter = upload(&device, &[0.0], [1], DType::F32);
        let mut made = TensorMut::allocate(&device, [COUNT], DType::F32, Purpose::Activation).unwrap();
        if let Some(value) = out {
            made.write_f32(&[value; COUNT]).unwrap();
        }
        Case { device, input, counter, out: made }
    }

    fn gpu(&self) -> &Gpu {
        gpu(&self.device)
    }

    fn run(&mut self, kernel: Kernel, grid: Grid, bug: u32) -> Result<Vec<f32>, String> {
        let params = PlantedParams {
            out: self.out.address().unwrap(),
            input: self.input.address().unwrap(),
            counter: self.counter.address().unwrap(),
            count: COUNT as u32,
            bug,
        };
        // SAFETY: the emulator stops a kernel before it leaves its memory.
        unsafe { self.gpu().launch(kernel, grid, &params) }.map_err(|error| error.to_string())?;
        let out = std::mem::replace(
            &mut self.out,
            TensorMut::allocate(&self.device, [COUNT], DType::F32, Purpose::Activation).unwrap(),
        );
        out.freeze().to_f32().map_err(|error| error.to_string())
    }
}

/// `kernel` passes with bug 0, and with each other bug fails in every order of threads with a message that
/// holds one of the words, parted by `|`: which of two mistakes is met first can depend on the order.
#[track_caller]
fn catches(kernel: Kernel, grid: Grid, out: Option<f32>, bugs: &[(u32, &str)]) {
    for order in [Order::Ascending, Order::Descending, Order::Shuffled] {
        let right = Case::new(order, out).run(kernel, grid, 0);
        assert!(right.is_ok(), "{}: {right:?}", kernel.name());
        for (bug, words) in bugs {
            let wrong = Case::new(order, out).run(kernel, grid, *bug);
            let message = wrong.expect_err(&format!("{} bug {bug} in order {order:?}", kernel.name()));
            assert!(
                words.split('|').any(|word| message.contains(word)),
                "{} bug {bug}: {message}",
                kernel.name()
            );
            assert!(
                message.contains(&format!("kernel {}", kernel.name())) || message.contains("nothing wrote")
            );
        }
    }
}

const BLOCK: Grid = Grid { blocks: [1, 1, 1], threads: 256, shared_bytes: SHARED };
const WARP: Grid = Grid { threads: 32, ..BLOCK };

#[test]
fn missing_and_divergent_barriers() {
    let bugs = [
        (1, "race: |unwritten memory"),
        (2, "divergent barrier|race: |unwritten memory"),
        (3, "divergent barrier"),
        (4, "divergent barrier"),
        (5, "race: "),
    ];
    catches(planted::PLANTED_NEIGHBOUR, BLOCK, None, &bugs);
    catches(planted::PLANTED_HALF_BARRIER, BLOCK, None, &[(1, "divergent barrier")]);
}

#[test]
fn missing_and_divergent_warp_synchronisation() {
    let bugs = [(1, "race: |unwritten memory"), (2, "__shfl_xor_sync")];
    catches(planted::PLANTED_WITHIN_WARP, WARP, Some(0.0), &bugs);
}

#[test]
fn global_memory_out_of_bounds_unwritten_and_misaligned() {
    let bugs = [
        (1, "out of bounds: reads 4 bytes of global memory"),
        (2, "out of bounds: writes 4 bytes of global memory"),
        (3, "nothing wrote its byte 1020"),
        (4, "out of bounds: reads 4 bytes at"),
        (5, "misaligned"),
    ];
    catches(planted::PLANTED_COPY, BLOCK, None, &bugs);
}

#[test]
fn a_kernel_that_reads_an_unwritten_tensor() {
    let mut case = Case::new(Order::Ascending, None);
    case.input =
        TensorMut::allocate(&case.device, [COUNT], DType::F32, Purpose::Activation).unwrap().freeze();
    let message = case.run(planted::PLANTED_COPY, BLOCK, 0).unwrap_err();
    assert!(message.contains("unwritten memory: reads 4 bytes of global memory"), "{message}");
}

#[test]
fn freed_memory_is_out_of_bounds() {
    let mut case = Case::new(Order::Ascending, None);
    let freed = upload(&case.device, &random(1, COUNT), [COUNT], DType::F32);
    let params = PlantedParams {
        out: case.out.address().unwrap(),
        input: freed.address().unwrap(),
        counter: 0,
        count: COUNT as u32,
        bug: 0,
    };
    drop(freed);
    // SAFETY: the emulator stops a kernel before it leaves its memory.
    let message =
        unsafe { case.gpu().launch(planted::PLANTED_COPY, BLOCK, &params) }.unwrap_err().to_string();
    assert!(message.contains("out of bounds: reads 4 bytes of global memory"), "{message}");
}

#[test]
fn shared_memory_out_of_bounds_and_unwritten() {
    let bugs = [
        (1, "unwritten memory: reads 4 bytes of shared memory"),
        (2, "out of bounds: reads 4 bytes of shared memory"),
        (3, "out of bounds: writes 4 bytes of shared memory"),
    ];
    catches(planted::PLANTED_SHARED_MEMORY, BLOCK, None, &bugs);
    let little = Grid { shared_bytes: SHARED - 300, ..BLOCK };
    let message =
        Case::new(Order::Ascending, None).run(planted::PLANTED_SHARED_MEMORY, little, 0).unwrap_err();
    assert!(message.contains("out of bounds: writes 4 bytes of shared memory"), "{message}");
}

#[test]
fn races_between_blocks() {
    let grid = Grid { blocks: [7, 1, 1], threads: 64, shared_bytes: SHARED };
    let bugs = [(1, "race: writes what another thread wrote"), (3, "race: ")];
    for order in [Order::Ascending, Order::Descending] {
        let sum = Case::new(order, Some(0.0)).run(planted::PLANTED_BLOCKS, grid, 0).unwrap();
        let wanted: f32 = random(1, COUNT)[..7].iter().sum();
        assert!((sum[0] - wanted).abs() < 1e-6);
        // Blocks run in any order: whether the write or the read comes first, there is a race.
        for (bug, words) in bugs.iter().chain(&[(2, "race: ")]) {
            let message = Case::new(order, Some(0.0)).run(planted::PLANTED_BLOCKS, grid, *bug).unwrap_err();
            assert!(message.contains(words), "bug {bug}: {message}");
        }
    }
}

/// Two blocks on two host threads that touch an element at once: neither check may miss the other's record.
#[test]
fn races_at_the_same_moment() {
    let pair = Grid { blocks: [2, 1, 1], threads: 1, shared_bytes: SHARED };
    for bug in [4, 5] {
        let missed = (0..500)
            .filter(|_| {
                Case::new(Order::Ascending, Some(0.0)).run(planted::PLANTED_BLOCKS, pair, bug).is_ok()
            })
            .count();
        assert_eq!(missed, 0, "of 500 races of bug {bug}");
    }
}

/// The detector numbers launches in 13 bits: one that comes 8192 later is still another one.
#[test]
fn launches_with_the_same_number_are_no_race() {
    let mut case = Case::new(Order::Ascending, Some(0.0));
    let mut other = TensorMut::allocate(&case.device, [COUNT], DType::F32, Purpose::Activation).unwrap();
    let launch = |kernel: Kernel, grid: Grid, out: &mut TensorMut| {
        let params = PlantedParams {
            out: out.address().unwrap(),
            input: case.input.address().unwrap(),
            counter: 0,
            count: grid.threads,
            bug: 0,
        };
        // SAFETY: the emulator stops a kernel before it leaves its memory.
        unsafe { gpu(&case.device).launch(kernel, grid, &params) }.unwrap();
    };
    // Every thread adds to the first element, the last one at last; then the first one writes it.
    launch(planted::PLANTED_ATOMICS, BLOCK, &mut case.out);
    for _ in 1..8192 {
        launch(planted::PLANTED_COPY, WARP, &mut other);
    }
    launch(planted::PLANTED_COPY, BLOCK, &mut case.out);
}

#[test]
fn asynchronous_copies_that_are_not_waited_for() {
    let bugs = [
        (1, "unwritten memory: reads 4 bytes of shared memory"),
        (2, "unwritten memory: reads 4 bytes of shared memory"),
        (3, "race: |unwritten memory"),
        (4, "race: writes what another thread read|unwritten memory"),
        (5, "misaligned"),
    ];
    catches(planted::PLANTED_ASYNCHRONOUS, BLOCK, None, &bugs);
}

#[test]
fn tensor_core_operations_need_the_whole_warp_and_written_aligned_rows() {
    let bugs = [(1, "ldmatrix"), (2, "unwritten memory: reads 16 bytes of shared memory"), (3, "misaligned")];
    catches(planted::PLANTED_TENSOR_CORES, WARP, Some(0.0), &bugs);
    let ones = Case::new(Order::Ascending, Some(0.0)).run(planted::PLANTED_TENSOR_CORES, WARP, 0).unwrap();
    assert_eq!(ones[..32], [64.0; 32]);
}

#[test]
fn sums_without_atomics() {
    catches(planted::PLANTED_ATOMICS, BLOCK, Some(0.0), &[(1, "race: ")]);
}

#[test]
fn launches_that_the_kernel_is_not_made_for() {
    let mut case = Case::new(Order::Ascending, None);
    let mut refused = |grid, words: &str| {
        let message = case.run(planted::PLANTED_COPY, grid, 0).unwrap_err();
        assert!(message.contains(words), "{message}");
    };
    refused(Grid { threads: 512, ..BLOCK }, "launched with 512 threads a block, made for 1 to 256");
    refused(Grid { threads: 0, ..BLOCK }, "launched with 0 threads");
    refused(Grid { shared_bytes: 300_000, ..BLOCK }, "launched with 300000 bytes of shared memory");
    // SAFETY: refused before anything runs.
    let message = unsafe { case.gpu().launch(planted::PLANTED_COPY, BLOCK, &1u64) }.unwrap_err().to_string();
    assert!(message.contains("given 8 bytes of params, takes 32"), "{message}");
}
