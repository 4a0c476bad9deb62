//! The CUDA path on the host processor: the same plans, launches and `.cu` files, host memory as device memory.
//!
//! Every access of the checked build is looked at: out of bounds, memory that nothing wrote, races between
//! threads with no barrier between them, divergent barriers, launches that the kernel is not made for.
//! `TASR_EMULATOR_CHECK=0` takes the fast build instead.

mod product;
mod record;

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rayon::prelude::*;

use super::arch_path::fits;
use super::driver::{Driver, GpuInfo, Grid};
use super::kernels::Kernel;
use super::library::LibraryProduct;
use super::tensor_map::{TensorMap, Tiling};
use super::{ArchPath, Gpu};
use crate::device::cpu::HostBytes;
use crate::device::{DType, Device};
use crate::error::{Error, Result};
use record::{Recordings, Work};

/// Bytes kept free behind each allocation in the checked build.
const GUARD: usize = 4096;
/// Dynamic shared memory of one block, as on sm_90.
const SHARED: u32 = 227 * 1024;
/// Launches that the race detector tells apart; mirrors `record_of` in kernels/emulator/shadow.cpp.
const LAUNCHES: u32 = 1 << 13;
/// What plans divide work by: the same on every machine and with any number of threads, so that results are.
const MULTIPROCESSORS: u32 = 2;

/// Mirrors emulator::Kernel in kernels/emulator/runtime.h.
#[repr(C)]
struct EmulatedKernel {
    name: *const c_char,
    run: unsafe extern "C" fn(*const c_void),
    params_bytes: usize,
    max_threads: u32,
}

/// One entry of a generated table.
#[repr(transparent)]
struct Entry(*const EmulatedKernel);

// SAFETY: points to a constant of the program.
unsafe impl Sync for Entry {}

include!(concat!(env!("OUT_DIR"), "/emulated.rs"));

/// Mirrors emulator::Launch in kernels/emulator/runtime.h.
#[repr(C)]
struct Launch {
    kernel: *const EmulatedKernel,
    params: *const c_void,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    order: u32,
    number: u32,
    failed: c_int,
    failed_at: *const c_void,
    published: *mut u8,
    message: [c_char; 768],
}

unsafe extern "C" {
    fn tasr_emulator_block(launch: *mut Launch, number: u32, checked: c_int);
    fn tasr_emulator_add(base: usize, size: usize) -> c_int;
    fn tasr_emulator_remove(base: usize);
    fn tasr_emulator_forget(base: usize);
    fn tasr_emulator_mark(address: usize, bytes: usize, allocated: c_int, written: c_int);
    fn tasr_emulator_unwritten(address: usize, bytes: usize) -> isize;
}

/// The order in which the threads of a block run between two barriers. Results must not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Ascending = 0,
    Descending = 1,
    Shuffled = 2,
}

/// How kernels are run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub check: bool,
    pub order: Order,
    /// The compute capability to have: (8, 0), or (9, 0) for the kernels of sm_90a.
    pub capability: (i32, i32),
    pub path: ArchPath,
}

impl Default for Options {
    /// Checked unless TASR_EMULATOR_CHECK is 0, in ascending order, as sm_80 unless TASR_EMULATOR_ARCH is sm90.
    fn default() -> Self {
        let check = std::env::var_os("TASR_EMULATOR_CHECK").is_none_or(|value| value != "0");
        let hopper = std::env::var_os("TASR_EMULATOR_ARCH").is_some_and(|value| value == "sm90");
        let capability = if hopper { (9, 0) } else { (8, 0) };
        Options { check, order: Order::Ascending, capability, path: ArchPath::Best }
    }
}

/// A device that emulates one.
pub fn open(options: Options) -> Device {
    Device::Gpu(Arc::new(Gpu::new(Box::new(Emulator::new(options)), options.path)))
}

struct Emulator {
    options: Options,
    info: GpuInfo,
    entries: Vec<*const EmulatedKernel>,
    slabs: Mutex<HashMap<u64, HostBytes>>,
    recordings: Recordings,
    launches: AtomicU32,
}

// SAFETY: the entries point to constants of the program.
unsafe impl Send for Emulator {}
// SAFETY: as above; the slabs are behind a lock.
unsafe impl Sync for Emulator {}

impl std::fmt::Debug for Emulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Emulator({:?})", self.options)
    }
}

impl Emulator {
    fn new(options: Options) -> Self {
        let tables = if options.check { checked() } else { fast() };
        let info = GpuInfo {
            ordinal: 0,
            device: "emulator".into(),
            name: format!("kernel emulator{}", if options.check { ", checked" } else { "" }),
            capability: options.capability,
            memory: usize::MAX >> 20 << 20,
            driver: (13, 0),
            multiprocessors: MULTIPROCESSORS,
            shared_bytes: SHARED,
        };
        let entries = tables.into_iter().flatten().map(|entry| entry.0).collect();
        Emulator {
            options,
            info,
            entries,
            slabs: Mutex::default(),
            recordings: Recordings::default(),
            launches: AtomicU32::default(),
        }
    }

    /// The number of the next launch. Where numbers begin again, accesses of so long ago are forgotten, else they
    /// would count as ones of the launch that now has their number.
    fn next_launch(&self) -> u32 {
        let number = self.launches.fetch_add(1, Ordering::Relaxed) % LAUNCHES;
        if number == 0 && self.options.check {
            for base in self.slabs.lock().unwrap_or_else(PoisonError::into_inner).keys() {
                // SAFETY: only looks the address up and clears what is known of it.
                unsafe { tasr_emulator_forget(*base as usize) }
            }
        }
        number
    }

    /// Tells the checks about bytes that something else than a kernel wrote.
    fn written(&self, address: u64, bytes: usize) {
        if self.options.check {
            // SAFETY: only looks the address up and marks it.
            unsafe { tasr_emulator_mark(address as usize, bytes, 1, 1) }
        }
    }

    fn must_be_written(&self, address: u64, bytes: usize) -> Result<()> {
        if !self.options.check {
            return Ok(());
        }
        // SAFETY: only looks the address up.
        match unsafe { tasr_emulator_unwritten(address as usize, bytes) } {
            -1 => Ok(()),
            at => Err(Error::device(format!(
                "a copy of {bytes} bytes reads unwritten memory: nothing wrote its byte {at}"
            ))
            .at("emulator")),
        }
    }
}

impl Driver for Emulator {
    fn info(&self) -> &GpuInfo {
        &self.info
    }

    fn kernel_source(&self) -> String {
        "compiled for the host processor".into()
    }

    fn has(&self, kernel: Kernel) -> bool {
        let made_for = kernel.architectures();
        kernel.0 < self.entries.len()
            && (made_for.is_empty() || made_for.iter().any(|name| fits(name, &self.info).is_some()))
    }

    fn tensor_map(&self, tiling: &Tiling) -> Result<TensorMap> {
        Ok(encode(tiling))
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        let slab = HostBytes::new(bytes)?;
        let address = slab.pointer() as usize;
        // SAFETY: the range is that of the slab, which is removed before it is freed.
        if self.options.check && unsafe { tasr_emulator_add(address, bytes) } == 0 {
            return Err(
                Error::memory("the emulator has no memory for its checks").fix("set TASR_EMULATOR_CHECK=0")
            );
        }
        self.slabs.lock().unwrap_or_else(PoisonError::into_inner).insert(address as u64, slab);
        Ok(address as u64)
    }

    unsafe fn free(&self, address: u64) {
        if self.options.check {
            // SAFETY: the slab is still there.
            unsafe { tasr_emulator_remove(address as usize) }
        }
        self.slabs.lock().unwrap_or_else(PoisonError::into_inner).remove(&address);
    }

    fn slab(&self) -> usize {
        1 << 20
    }

    fn guard(&self) -> usize {
        if self.options.check { GUARD } else { 0 }
    }

    fn available(&self) -> Option<usize> {
        None
    }

    fn span_taken(&self, address: u64, bytes: usize) {
        if self.options.check && !self.recordings.take(|| Work::Taken { address, bytes }) {
            // SAFETY: only looks the address up and marks it.
            unsafe { tasr_emulator_mark(address as usize, bytes, 1, 0) }
        }
    }

    fn span_freed(&self, address: u64, bytes: usize) {
        if self.options.check && !self.recordings.take(|| Work::Freed { address, bytes }) {
            // SAFETY: only looks the address up and marks it.
            unsafe { tasr_emulator_mark(address as usize, bytes, 0, 0) }
        }
    }

    unsafe fn upload(&self, to: u64, bytes: usize, fill: &mut dyn FnMut(usize, &mut [u8])) -> Result<()> {
        // SAFETY: the caller promises that `to` has the room; device memory is host memory here, and initialised.
        fill(0, unsafe { std::slice::from_raw_parts_mut(to as *mut u8, bytes) });
        self.written(to, bytes);
        Ok(())
    }

    unsafe fn download(&self, from: u64, to: &mut [u8]) -> Result<()> {
        self.must_be_written(from, to.len())?;
        // SAFETY: as in `upload`.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    unsafe fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<()> {
        if self.recordings.take(|| Work::Copy { to, from, bytes }) {
            return Ok(());
        }
        self.must_be_written(from, bytes)?;
        // SAFETY: as in `upload`; the caller promises that the ranges do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes) };
        self.written(to, bytes);
        Ok(())
    }

    unsafe fn clear(&self, address: u64, bytes: usize) -> Result<()> {
        if self.recordings.take(|| Work::Clear { address, bytes }) {
            return Ok(());
        }
        // SAFETY: as in `upload`.
        unsafe { std::ptr::write_bytes(address as *mut u8, 0, bytes) };
        self.written(address, bytes);
        Ok(())
    }

    unsafe fn launch(&self, kernel: Kernel, grid: Grid, params: &[u8]) -> Result<()> {
        if self.recordings.take(|| Work::Launch { kernel, grid, params: params.to_vec() }) {
            return Ok(());
        }
        let entry = self.entries[kernel.0];
        // SAFETY: the entries point to constants of the program.
        let made_for = unsafe { &*entry };
        let refuse = |why: String| Err(Error::device(why).at(format!("kernel {}", kernel.name())));
        if grid.threads == 0 || grid.threads > made_for.max_threads {
            return refuse(format!(
                "launched with {} threads a block, made for 1 to {}",
                grid.threads, made_for.max_threads
            ));
        }
        if grid.shared_bytes > SHARED {
            return refuse(format!(
                "launched with {} bytes of shared memory, a block has {SHARED}",
                grid.shared_bytes
            ));
        }
        if params.len() != made_for.params_bytes {
            return refuse(format!(
                "given {} bytes of params, takes {}",
                params.len(),
                made_for.params_bytes
            ));
        }
        // Kernels read the params as a struct that is up to 64-byte aligned.
        let aligned = HostBytes::new(params.len())?;
        // SAFETY: `aligned` was made with this length.
        unsafe { std::ptr::copy_nonoverlapping(params.as_ptr(), aligned.pointer(), params.len()) };
        let blocks = grid.blocks.iter().product::<u32>();
        let mut published = vec![0u8; blocks as usize];
        let mut launch = Launch {
            kernel: entry,
            params: aligned.pointer() as *const c_void,
            grid: grid.blocks,
            block: [grid.threads, 1, 1],
            shared_bytes: grid.shared_bytes,
            order: self.options.order as u32,
            number: self.next_launch(),
            failed: 0,
            failed_at: std::ptr::null(),
            published: published.as_mut_ptr(),
            message: [0; 768],
        };
        struct Shared(*mut Launch);
        // SAFETY: the runtime changes the launch by atomic operations only, except for the message, which
        // the one block writes that failed first.
        unsafe impl Sync for Shared {}
        let shared = Shared(&mut launch);
        let check = c_int::from(self.options.check);
        (0..blocks).into_par_iter().for_each(|number| {
            let shared = &shared;
            // SAFETY: the launch outlives the loop; the caller promises that the params are the kernel's.
            unsafe { tasr_emulator_block(shared.0, number, check) }
        });
        if launch.failed == 0 {
            return Ok(());
        }
        // SAFETY: the runtime ends the message with a zero.
        let mut message = unsafe { CStr::from_ptr(launch.message.as_ptr()) }.to_string_lossy().into_owned();
        if let Some(place) = place(launch.failed_at) {
            message = format!("{message}, at {place}");
        }
        Err(Error::device(message).at("emulator"))
    }

    fn has_library(&self) -> bool {
        true
    }

    unsafe fn library_product(&self, product: &LibraryProduct) -> Result<()> {
        if self.recordings.take(|| Work::Product(*product)) {
            return Ok(());
        }
        let &LibraryProduct { dtype, m, n, k, a, b, out } = product;
        self.must_be_written(a, m * k * dtype.size())?;
        self.must_be_written(b, n * k * dtype.size())?;
        // SAFETY: the caller promises that the addresses start these matrices, and `out` overlaps neither input.
        unsafe {
            match dtype {
                DType::F32 => product::multiply::<f32>(product, |v| v, |v| v),
                DType::F16 => product::multiply::<half::f16>(product, half::f16::to_f32, half::f16::from_f32),
                DType::BF16 => {
                    product::multiply::<half::bf16>(product, half::bf16::to_f32, half::bf16::from_f32)
                }
            }
        }
        self.written(out, m * n * dtype.size());
        Ok(())
    }

    fn begin_capture(&self) -> Result<()> {
        self.recordings.begin();
        Ok(())
    }

    fn end_capture(&self) -> Result<usize> {
        self.recordings.end()
    }

    unsafe fn replay(&self, recording: usize) -> Result<()> {
        for work in self.recordings.of(recording)?.iter() {
            match work {
                // SAFETY: as when it was recorded: the caller promises that the memory is alive.
                Work::Launch { kernel, grid, params } => unsafe { self.launch(*kernel, *grid, params)? },
                // SAFETY: as above.
                Work::Copy { to, from, bytes } => unsafe { self.copy(*to, *from, *bytes)? },
                // SAFETY: as above.
                Work::Clear { address, bytes } => unsafe { self.clear(*address, *bytes)? },
                // SAFETY: as above.
                Work::Product(product) => unsafe { self.library_product(product)? },
                Work::Taken { address, bytes } => self.span_taken(*address, *bytes),
                Work::Freed { address, bytes } => self.span_freed(*address, *bytes),
            }
        }
        Ok(())
    }

    fn forget(&self, recording: usize) {
        self.recordings.forget(recording);
    }

    fn time(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
        let start = Instant::now();
        work()?;
        Ok(start.elapsed().as_secs_f64())
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
}

/// Mirrors EncodedMap in kernels/emulator/async.h.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
struct EncodedMap {
    mark: u64,
    base: u64,
    stride: [u64; 4],
    dims: [u32; 5],
    size: [u32; 5],
    rank: u32,
    element_bytes: u32,
    swizzle: u32,
    unused: [u32; 7],
}
const _: () = assert!(size_of::<EncodedMap>() == 128);

/// The map that the emulated TMA reads.
fn encode(tiling: &Tiling) -> TensorMap {
    let mut map = EncodedMap {
        mark: 0x7061_6d5f_726e_7374,
        base: tiling.address,
        stride: [0; 4],
        dims: [1; 5],
        size: [1; 5],
        rank: tiling.dims.len() as u32,
        element_bytes: tiling.dtype.size() as u32,
        swizzle: tiling.row_bytes() as u32,
        unused: [0; 7],
    };
    map.stride.iter_mut().zip(&tiling.strides).for_each(|(to, &from)| *to = from);
    map.dims.iter_mut().zip(&tiling.dims).for_each(|(to, &from)| *to = from as u32);
    map.size.iter_mut().zip(&tiling.size).for_each(|(to, &from)| *to = from);
    TensorMap(bytemuck::cast(map))
}

/// File and line of the code before a return address.
fn place(address: *const c_void) -> Option<String> {
    let mut found = None;
    if !address.is_null() {
        backtrace::resolve((address as usize - 1) as *mut c_void, |symbol| {
            if let (None, Some(file), Some(line)) = (&found, symbol.filename(), symbol.lineno()) {
                found = Some(format!("{}:{line}", file.display()));
            }
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::gpu::kernels;

    #[test]
    fn the_tables_are_in_the_order_of_the_kernel_list() {
        for tables in [checked(), fast()] {
            let entries: Vec<_> = tables.into_iter().flatten().collect();
            assert_eq!(entries.len(), kernels::NAMES.len());
            for (entry, name) in entries.iter().zip(kernels::NAMES) {
                // SAFETY: entries and their names are constants of the program.
                let own = unsafe { CStr::from_ptr((*entry.0).name) };
                assert_eq!(own.to_str(), Ok(*name));
            }
        }
    }
}
