//! GPUs: memory in slabs, kernels with handles resolved once, launches. One `Gpu` type serves the real device
//! and the emulator, which differ in their [`Driver`] only.

mod arch_path;
mod counts;
pub mod cuda;
mod driver;
#[cfg(feature = "emulator")]
pub mod emulator;
pub mod kernels;
mod library;
mod replay;
pub mod tensor_map;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::arena::{ALIGNMENT, Allocator, Span};
use super::{DType, Purpose};
use crate::error::{Error, Result};
pub use arch_path::ArchPath;
pub use counts::Counts;
use counts::Tally;
pub use driver::{Driver, GpuInfo, Grid};
use kernels::Kernel;
pub use library::LibraryProduct;
pub use replay::Replay;
use tensor_map::{Boxes, TensorMap};

/// Spans of one purpose over slabs of the device.
#[derive(Debug, Default)]
struct Pool {
    allocator: Allocator,
    slabs: Vec<Option<u64>>,
}

/// An opened GPU.
#[derive(Debug)]
pub struct Gpu {
    driver: Box<dyn Driver>,
    path: ArchPath,
    weights: Mutex<Pool>,
    activations: Mutex<Pool>,
    counters: Mutex<Counters>,
    tally: Tally,
    /// work is recorded, not done
    capturing: AtomicBool,
}

/// Zeros with which blocks count each other; see `arrive_last` in kernels/common/grid.cuh.
#[derive(Debug, Default)]
struct Counters {
    /// How many the last of `slabs` holds.
    count: usize,
    /// The first that was not handed out last.
    next: usize,
    slabs: Vec<u64>,
}

impl Gpu {
    pub fn new(driver: Box<dyn Driver>, path: ArchPath) -> Self {
        Gpu {
            driver,
            path,
            weights: Mutex::default(),
            activations: Mutex::default(),
            counters: Mutex::default(),
            tally: Tally::default(),
            capturing: AtomicBool::new(false),
        }
    }

    pub fn info(&self) -> &GpuInfo {
        self.driver.info()
    }

    /// GPU, architecture, memory, driver and kernels in a few lines.
    pub fn describe(&self) -> String {
        let info = self.info();
        let path = if self.path == ArchPath::Sm80 { ", only those of sm_80" } else { "" };
        format!(
            "{}\ncompute capability {}.{}, {} multiprocessors, {} MiB of memory\ndriver for CUDA {}.{}\nkernels: {}{path}",
            info.name,
            info.capability.0,
            info.capability.1,
            info.multiprocessors,
            info.memory >> 20,
            info.driver.0,
            info.driver.1,
            self.driver.kernel_source()
        )
    }

    /// True when `kernel` exists for this device's architecture, and the path that plans take has it.
    pub fn has(&self, kernel: Kernel) -> bool {
        let on_path = self.path == ArchPath::Best || kernel.architectures().is_empty();
        on_path && self.driver.has(kernel)
    }

    /// True when plans may choose the kernels of sm_90a: those of one file stand for all.
    pub fn specialised(&self) -> bool {
        kernels::GEMM_128X128_SM90.of(DType::F16).is_ok_and(|kernel| self.has(kernel))
    }

    /// What a kernel needs to copy `boxes` by TMA.
    ///
    /// # Errors
    /// TMA has no such tensor or box, or the driver is too old.
    pub fn tensor_map<const R: usize>(&self, boxes: &Boxes<R>) -> Result<TensorMap> {
        self.driver.tensor_map(&boxes.tiling()?)
    }

    fn pool(&self, purpose: Purpose) -> MutexGuard<'_, Pool> {
        let pool = match purpose {
            Purpose::Weight => &self.weights,
            Purpose::Activation => &self.activations,
        };
        // A panic while the lock is held leaves the bookkeeping consistent: it is updated last.
        pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A span of `bytes` and its address.
    pub(super) fn allocate(&self, bytes: usize, purpose: Purpose) -> Result<(Span, u64)> {
        let pool = &mut *self.pool(purpose);
        let wanted = bytes + self.driver.guard();
        let span = match pool.allocator.allocate(wanted) {
            Some(span) => span,
            None => {
                self.add_slab(pool, wanted.next_multiple_of(ALIGNMENT).max(self.driver.slab()))?;
                pool.allocator.allocate(wanted).ok_or_else(|| Error::internal("a fresh slab is too small"))?
            }
        };
        let slab = pool.slabs[span.slab].ok_or_else(|| Error::internal("a span lies in a missing slab"))?;
        let address = slab + span.offset as u64;
        self.driver.span_taken(address, bytes);
        Ok((span, address))
    }

    fn add_slab(&self, pool: &mut Pool, bytes: usize) -> Result<()> {
        self.tally.slab();
        let address = self.driver.allocate(bytes)?;
        let index = pool.allocator.add_slab(bytes);
        if index == pool.slabs.len() {
            pool.slabs.push(None);
        }
        pool.slabs[index] = Some(address);
        Ok(())
    }

    pub(super) fn free(&self, span: Span, address: u64, bytes: usize, purpose: Purpose) {
        let mut pool = self.pool(purpose);
        self.driver.span_freed(address, bytes);
        pool.allocator.free(span);
    }

    /// Makes one slab of `bytes` for activations, if so much is not there already.
    pub fn reserve(&self, bytes: usize) -> Result<()> {
        let pool = &mut *self.pool(Purpose::Activation);
        if pool.allocator.reserved() < bytes { self.add_slab(pool, bytes) } else { Ok(()) }
    }

    /// Gives slabs that hold nothing back to the device.
    pub fn trim(&self) {
        for purpose in [Purpose::Weight, Purpose::Activation] {
            let pool = &mut *self.pool(purpose);
            for slab in pool.allocator.take_empty_slabs() {
                if let Some(address) = pool.slabs[slab].take() {
                    // SAFETY: the slab came from `allocate`, holds no span, and the driver waits for all work.
                    unsafe { self.driver.free(address) };
                }
            }
        }
    }

    /// The most activation bytes that were in use at once.
    pub fn peak(&self) -> usize {
        self.pool(Purpose::Activation).allocator.peak()
    }

    /// Bytes of the weights alive now.
    pub fn weight_bytes(&self) -> usize {
        self.pool(Purpose::Weight).allocator.live()
    }

    /// Bytes that the device could still give, and those of its slabs that are in use by nobody.
    pub fn available(&self) -> Option<usize> {
        let idle = |purpose| {
            let allocator = &self.pool(purpose).allocator;
            allocator.reserved() - allocator.live()
        };
        Some(self.driver.available()? + idle(Purpose::Weight) + idle(Purpose::Activation))
    }

    /// How often the host had to do with the device so far.
    pub fn counts(&self) -> Counts {
        self.tally.read()
    }

    pub(super) fn driver(&self) -> &dyn Driver {
        &*self.driver
    }

    /// Copies to the device what `fill` makes; see [`Driver::upload`].
    ///
    /// # Safety
    /// `to` starts `bytes` allocated bytes.
    pub(super) unsafe fn upload(
        &self,
        to: u64,
        bytes: usize,
        fill: &mut dyn FnMut(usize, &mut [u8]),
    ) -> Result<()> {
        self.must_not_capture("a copy from the host")?;
        self.tally.upload();
        // SAFETY: the caller's promise.
        unsafe { self.driver.upload(to, bytes, fill) }
    }

    /// Copies from the device, once all work before is done.
    ///
    /// # Safety
    /// `from` starts `to.len()` allocated bytes.
    pub(super) unsafe fn download(&self, from: u64, to: &mut [u8]) -> Result<()> {
        self.must_not_capture("a copy to the host")?;
        self.tally.download();
        // SAFETY: the caller's promise.
        unsafe { self.driver.download(from, to) }
    }

    /// A recording holds what the device does alone.
    fn must_not_capture(&self, what: &str) -> Result<()> {
        if self.capturing.load(Ordering::Relaxed) {
            return Err(Error::internal(format!("{what} in work that is recorded")));
        }
        Ok(())
    }

    /// The result of `work`, and the names of the kernels that this thread started for it.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn started<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Vec<&'static str>)> {
        self.tally.log();
        let done = work();
        let names = self.tally.take_log();
        Ok((done?, names))
    }

    /// Seconds that the device takes for what `work` starts: by its own clock on a GPU, by the host's on the
    /// emulator.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn time(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
        self.driver.time(work)
    }

    /// The address of `count` zeros (u32) for a launch whose blocks count each other and that leaves zeros
    /// behind. They are handed out in turn, so that launches of several threads do not meet in them; work that one
    /// thread starts is done in order anyway.
    pub fn counters(&self, count: usize) -> Result<u64> {
        /// So many that a run asks the device once.
        const LEAST: usize = 1 << 16;
        let counters = &mut *self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        if counters.count < count || counters.slabs.is_empty() {
            let count = count.max(2 * counters.count).max(LEAST);
            // Their clearing would be recorded and not done.
            self.must_not_capture("new counters")?;
            self.tally.slab();
            let address = self.driver.allocate(4 * count)?;
            self.driver.span_taken(address, 4 * count);
            // Earlier launches may still use the smaller ones, so these stay.
            counters.slabs.push(address);
            // SAFETY: just allocated with this size.
            unsafe { self.driver.clear(address, 4 * count)? };
            (counters.count, counters.next) = (count, 0);
        }
        if counters.next + count > counters.count {
            counters.next = 0;
        }
        let first = counters.next;
        counters.next += count;
        let slab = counters.slabs.last().ok_or_else(|| Error::internal("no counters were made"))?;
        Ok(slab + 4 * first as u64)
    }

    /// Starts `kernel` with `params`.
    ///
    /// # Safety
    /// `P` mirrors the kernel's params struct, and every address in it starts as much memory, alive until the
    /// work is done, as the kernel uses. Memory of tensors is: it returns to a pool whose next user comes
    /// later in the same order of work.
    ///
    /// # Errors
    /// The device refuses the launch; the emulator also reports what the kernel did wrong.
    pub unsafe fn launch<P: bytemuck::NoUninit>(&self, kernel: Kernel, grid: Grid, params: &P) -> Result<()> {
        if grid.blocks.contains(&0) {
            return Ok(());
        }
        if grid.blocks[1].max(grid.blocks[2]) > 65_535 || grid.blocks[0] > i32::MAX as u32 {
            return Err(Error::device(format!(
                "{} needs {:?} blocks, more than a launch has",
                kernel.name(),
                grid.blocks
            ))
            .fix("use a smaller --tile or --batch"));
        }
        self.tally.launch(kernel.name());
        // SAFETY: the caller's promise.
        unsafe { self.driver.launch(kernel, grid, bytemuck::bytes_of(params)) }
    }

    /// True when products can be left to the vendor's library.
    pub fn has_library(&self) -> bool {
        self.driver.has_library()
    }

    /// Starts a product of the vendor's library; on the emulator the host computes it.
    ///
    /// # Safety
    /// As [`Gpu::launch`]: the addresses start as much memory, alive until the work is done, as the sizes say, and `out`
    /// overlaps neither input.
    ///
    /// # Errors
    /// The library is not there or refuses the shape.
    pub unsafe fn library_product(&self, product: &LibraryProduct) -> Result<()> {
        self.tally.launch("cublasLtMatmul");
        // SAFETY: the caller's promise.
        unsafe { self.driver.library_product(product) }
    }

    /// Waits for all work and reports what failed.
    pub fn synchronize(&self) -> Result<()> {
        self.must_not_capture("waiting")?;
        self.tally.wait();
        self.driver.synchronize()
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        for purpose in [Purpose::Weight, Purpose::Activation] {
            for address in std::mem::take(&mut self.pool(purpose).slabs).into_iter().flatten() {
                // SAFETY: the slab came from `allocate`; storages keep the device alive, so none is left.
                unsafe { self.driver.free(address) };
            }
        }
        let counters = self.counters.get_mut().unwrap_or_else(PoisonError::into_inner);
        for address in std::mem::take(&mut counters.slabs) {
            // SAFETY: as above; `free` waits for all work.
            unsafe { self.driver.free(address) };
        }
    }
}
