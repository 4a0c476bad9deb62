//! NVIDIA GPUs through the CUDA driver, which is loaded at run time: the program starts without one.

mod code;
mod cublaslt;
mod event;
mod list;
mod maps;
mod nvrtc;
mod recordings;
mod staging;

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::{result, sys};

use super::driver::{Driver, GpuInfo, Grid};
use super::kernels::Kernel;
use super::library::LibraryProduct;
use super::tensor_map::{TensorMap, Tiling};
use super::{ArchPath, Gpu};
use crate::device::Device;
use crate::error::{Error, Result};
use code::Code;
pub use code::kernels_for;
use cublaslt::Cublaslt;
use event::Event;
pub use list::list;
use recordings::Recordings;
use staging::Staging;

/// Copies up to here go straight to the driver.
const SMALL: usize = 64 << 10;
/// Other threads may allocate while work is recorded.
const MODE: sys::CUstreamCaptureMode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_RELAXED;

/// Says what failed, from the driver's own words.
fn failed(doing: &str) -> impl Fn(result::DriverError) -> Error + '_ {
    move |error| match error.0 {
        sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
            Error::memory(format!("the GPU has no memory left to {doing}"))
                .fix("use a smaller --tile or --batch")
        }
        _ => Error::device(format!("the GPU could not {doing}: {error}")),
    }
}

/// Opens GPU `ordinal`, loads its kernels and resolves every handle.
///
/// # Errors
/// There is no such GPU, it is older than sm_80, or its kernels cannot be loaded.
pub fn open(ordinal: usize) -> Result<Device> {
    let gpus = list()?;
    let info = gpus.get(ordinal).cloned().ok_or_else(|| {
        Error::device(format!("there is no GPU {ordinal}, the driver sees {}", gpus.len()))
            .at("--device")
            .fix(format!("give cuda:0 to cuda:{}", gpus.len() - 1))
    })?;
    if info.capability < (8, 0) {
        return Err(Error::device(format!(
            "{} has compute capability {}.{}, the kernels need 8.0",
            info.name, info.capability.0, info.capability.1
        ))
        .at("--device cuda")
        .fix("use --device cpu"));
    }
    let path = ArchPath::from_environment()?;
    let device = result::device::get(ordinal as i32).map_err(failed("open"))?;
    // SAFETY: `device` is a handle that the driver has just given; the context is released in `drop`.
    let context = unsafe { result::primary_ctx::retain(device) }.map_err(failed("make a context"))?;
    let mut cuda = Cuda {
        info,
        device,
        context,
        stream: std::ptr::null_mut(),
        code: Code::default(),
        staging: Staging::default(),
        recordings: Recordings::default(),
        library: Cublaslt::default(),
    };
    cuda.bind()?;
    cuda.stream =
        result::stream::create(result::stream::StreamKind::NonBlocking).map_err(failed("make a stream"))?;
    cuda.code = Code::load(&cuda.info)?;
    Ok(Device::Gpu(Arc::new(Gpu::new(Box::new(cuda), path))))
}

struct Cuda {
    info: GpuInfo,
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    code: Code,
    staging: Staging,
    recordings: Recordings,
    library: Cublaslt,
}

// SAFETY: driver handles may be used from any thread that has made the context current, which every call does.
unsafe impl Send for Cuda {}
// SAFETY: as above; the driver locks its own state.
unsafe impl Sync for Cuda {}

impl std::fmt::Debug for Cuda {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cuda({})", self.info.name)
    }
}

impl Cuda {
    /// Makes the context current on this thread.
    fn bind(&self) -> Result<()> {
        // SAFETY: the context is retained as long as `self` lives.
        unsafe { result::ctx::set_current(self.context) }.map_err(failed("make its context current"))
    }
}

impl Driver for Cuda {
    fn info(&self) -> &GpuInfo {
        &self.info
    }

    fn kernel_source(&self) -> String {
        self.code.source().to_string()
    }

    fn has(&self, kernel: Kernel) -> bool {
        self.code.function(kernel).is_some()
    }

    fn tensor_map(&self, tiling: &Tiling) -> Result<TensorMap> {
        maps::encode(tiling, &self.info)
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        self.bind()?;
        // SAFETY: a plain allocation; the owner frees it.
        unsafe { result::malloc_sync(bytes) }.map_err(failed(&format!("allocate {} MiB", bytes >> 20)))
    }

    unsafe fn free(&self, address: u64) {
        // A failure here means that the context is gone, and its memory with it.
        if self.bind().is_ok() {
            // SAFETY: the stream is ours.
            let _ = unsafe { result::stream::synchronize(self.stream) };
            // SAFETY: the caller promises that the slab is ours and unused.
            let _ = unsafe { result::free_sync(address) };
        }
    }

    fn available(&self) -> Option<usize> {
        self.bind().ok()?;
        result::mem_get_info().ok().map(|(free, _)| free)
    }

    unsafe fn upload(&self, to: u64, bytes: usize, fill: &mut dyn FnMut(usize, &mut [u8])) -> Result<()> {
        self.bind()?;
        if bytes <= SMALL {
            let mut piece = vec![0; bytes];
            fill(0, &mut piece);
            // SAFETY: the caller promises the room; from pageable memory the driver has copied before it returns.
            return unsafe { result::memcpy_htod_async(to, &piece, self.stream) }
                .map_err(failed("copy to its memory"));
        }
        // SAFETY: the context is current, the stream is ours, and the caller promises the room.
        unsafe { self.staging.upload(self.stream, to, bytes, fill) }
    }

    unsafe fn download(&self, from: u64, to: &mut [u8]) -> Result<()> {
        self.bind()?;
        // SAFETY: the caller promises the bytes; `to` outlives the copy, which is waited for.
        unsafe { result::memcpy_dtoh_async(to, from, self.stream) }
            .map_err(failed("copy from its memory"))?;
        self.synchronize()
    }

    unsafe fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<()> {
        self.bind()?;
        // SAFETY: the caller's promise.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream) }
            .map_err(failed("copy within its memory"))
    }

    unsafe fn clear(&self, address: u64, bytes: usize) -> Result<()> {
        self.bind()?;
        // SAFETY: the caller's promise.
        unsafe { result::memset_d8_async(address, 0, bytes, self.stream) }.map_err(failed("clear memory"))
    }

    unsafe fn launch(&self, kernel: Kernel, grid: Grid, params: &[u8]) -> Result<()> {
        self.bind()?;
        let function = self.code.function(kernel).ok_or_else(|| {
            Error::internal(format!("kernel {} is not made for {}", kernel.name(), self.info.name))
        })?;
        let [x, y, z] = grid.blocks;
        // The driver reads the one params struct before it returns.
        let mut arguments = [params.as_ptr() as *mut c_void];
        // SAFETY: the caller promises that the params are the kernel's.
        unsafe {
            result::launch_kernel(
                function,
                (x, y, z),
                (grid.threads, 1, 1),
                grid.shared_bytes,
                self.stream,
                &mut arguments,
            )
        }
        .map_err(failed("start a kernel"))
        .map_err(|error| error.at(format!("kernel {} {grid:?}", kernel.name())))
    }

    fn has_library(&self) -> bool {
        cublaslt::is_there()
    }

    unsafe fn library_product(&self, product: &LibraryProduct) -> Result<()> {
        self.bind()?;
        if !cublaslt::is_there() {
            return Err(Error::device("cuBLASLt is not installed").at("--device cuda"));
        }
        // SAFETY: the stream is ours, the rest is the caller's promise.
        unsafe { self.library.multiply(product, self.stream, |bytes| self.allocate(bytes)) }
    }

    fn begin_capture(&self) -> Result<()> {
        self.bind()?;
        // SAFETY: the stream is ours.
        unsafe { result::stream::begin_capture(self.stream, MODE) }.map_err(failed("record its work"))
    }

    fn end_capture(&self) -> Result<usize> {
        self.bind()?;
        // SAFETY: the stream is ours and was put into capture by `begin_capture`.
        unsafe { self.recordings.end(self.stream) }
    }

    unsafe fn replay(&self, recording: usize) -> Result<()> {
        self.bind()?;
        // SAFETY: the stream is ours; the caller promises that what the work uses is alive.
        unsafe { self.recordings.launch(recording, self.stream) }
    }

    fn forget(&self, recording: usize) {
        if self.bind().is_ok() {
            // A graph that runs may be destroyed: the driver keeps it until it has ended.
            self.recordings.forget(recording);
        }
    }

    fn time(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
        self.bind()?;
        let (start, end) = (Event::new()?, Event::new()?);
        start.record(self.stream)?;
        work()?;
        end.record(self.stream)?;
        end.since(&start)
    }

    fn synchronize(&self) -> Result<()> {
        self.bind()?;
        // SAFETY: the stream is ours.
        unsafe { result::stream::synchronize(self.stream) }.map_err(failed("finish its work"))
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        if self.bind().is_ok() {
            self.recordings.clear();
            // SAFETY: the workspace came from `allocate`; all work is done when it is freed.
            self.library.clear(|workspace| unsafe { self.free(workspace) });
            self.staging.clear();
            self.code.unload();
            if !self.stream.is_null() {
                // SAFETY: the stream is ours and nothing uses it any more.
                let _ = unsafe { result::stream::destroy(self.stream) };
            }
        }
        // SAFETY: retained in `open`.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}
