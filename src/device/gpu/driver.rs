//! What a GPU can do, whether it is real or emulated.

use std::fmt;

use super::kernels::Kernel;
use super::library::LibraryProduct;
use super::tensor_map::{TensorMap, Tiling};
use crate::error::Result;

/// The shape of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    pub blocks: [u32; 3],
    pub threads: u32,
    /// dynamic shared memory of a block
    pub shared_bytes: u32,
}

impl Grid {
    /// `blocks` blocks of `threads` threads in a row.
    pub fn linear(blocks: u32, threads: u32) -> Self {
        Grid { blocks: [blocks, 1, 1], threads, shared_bytes: 0 }
    }

    pub fn shared(self, bytes: u32) -> Self {
        Grid { shared_bytes: bytes, ..self }
    }
}

/// What plans need to know of a device, and what `tasr info --device` says of it.
#[derive(Clone, Debug)]
pub struct GpuInfo {
    pub ordinal: usize,
    /// What `--device` calls it: cuda:0, emulator.
    pub device: String,
    pub name: String,
    /// Compute capability, for instance (9, 0).
    pub capability: (i32, i32),
    pub memory: usize,
    /// The CUDA version of the driver, for instance (13, 0).
    pub driver: (i32, i32),
    pub multiprocessors: u32,
    /// Dynamic shared memory that one block can have.
    pub shared_bytes: u32,
}

/// Memory and launches of one device. All work is done in the order of the calls.
///
/// Addresses are those of the device.
pub trait Driver: Send + Sync + fmt::Debug {
    fn info(&self) -> &GpuInfo;

    /// How the kernels reached the device: "cubins for sm_90a", "PTX", ...
    fn kernel_source(&self) -> String;

    /// True when `kernel` exists for this device's architecture.
    fn has(&self, kernel: Kernel) -> bool;

    /// Encodes what TMA is to copy.
    fn tensor_map(&self, tiling: &Tiling) -> Result<TensorMap>;

    /// A slab of at least `bytes`, 256-byte aligned.
    fn allocate(&self, bytes: usize) -> Result<u64>;

    /// Gives a slab back once all work is done.
    ///
    /// # Safety
    /// The slab came from `allocate`, and nothing uses it any more.
    unsafe fn free(&self, address: u64);

    /// The least bytes worth asking `allocate` for.
    fn slab(&self) -> usize {
        64 << 20
    }

    /// Bytes to leave free behind each span, so that an overrun is noticed.
    fn guard(&self) -> usize {
        0
    }

    /// Bytes that `allocate` could still give, if the device tells.
    fn available(&self) -> Option<usize>;

    /// A span of a slab is in use from now on, its content unspecified.
    fn span_taken(&self, _address: u64, _bytes: usize) {}

    /// A span is free again.
    fn span_freed(&self, _address: u64, _bytes: usize) {}

    /// Copies `bytes` bytes to the device, in pieces that `fill` makes: it is given the place of a piece within
    /// the whole, a multiple of 256, and room for it. While one piece is on its way the next is made.
    ///
    /// # Safety
    /// `to` starts `bytes` allocated bytes.
    unsafe fn upload(&self, to: u64, bytes: usize, fill: &mut dyn FnMut(usize, &mut [u8])) -> Result<()>;

    /// Copies from the device after all work before it.
    ///
    /// # Safety
    /// `from` starts `to.len()` allocated bytes.
    unsafe fn download(&self, from: u64, to: &mut [u8]) -> Result<()>;

    /// Copies within the device.
    ///
    /// # Safety
    /// Both addresses start `bytes` allocated bytes that do not overlap.
    unsafe fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<()>;

    /// Sets bytes to zero.
    ///
    /// # Safety
    /// `address` starts `bytes` allocated bytes.
    unsafe fn clear(&self, address: u64, bytes: usize) -> Result<()>;

    /// Starts `kernel`.
    ///
    /// # Safety
    /// `params` are those of `kernel`, and every address in them starts as much memory as it uses.
    unsafe fn launch(&self, kernel: Kernel, grid: Grid, params: &[u8]) -> Result<()>;

    /// True when the vendor's library of matrix products is there, or what stands in for it.
    fn has_library(&self) -> bool;

    /// Starts a product of the library.
    ///
    /// # Safety
    /// The addresses start as much memory as the sizes say, and `out` overlaps neither input.
    unsafe fn library_product(&self, product: &LibraryProduct) -> Result<()>;

    /// From now on launches, copies and clears are recorded and not done.
    fn begin_capture(&self) -> Result<()>;

    /// Ends the recording and keeps it under the number returned. After an error nothing is kept, and work is
    /// done again.
    fn end_capture(&self) -> Result<usize>;

    /// Starts all that was recorded, in its order, with one call.
    ///
    /// # Safety
    /// Every address in the recorded work still starts the memory that it started then.
    unsafe fn replay(&self, recording: usize) -> Result<()>;

    /// Drops a recording, once its replays are done.
    fn forget(&self, recording: usize);

    /// Seconds that the device takes for what `work` starts.
    ///
    /// # Errors
    /// Those of `work`.
    fn time(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<f64>;

    /// Waits for all work and reports what failed.
    fn synchronize(&self) -> Result<()>;
}
