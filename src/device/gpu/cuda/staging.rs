//! Large copies to the device, through two pinned buffers: while one is on its way the other is filled.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use cudarc::driver::{result, sys};

use super::event::Event;
use super::failed;
use crate::error::{Error, Result};

/// Bytes of a buffer: far more than a copy costs to start, few enough to stay in a processor's caches of several
/// cores.
const PIECE: usize = 16 << 20;

/// Pinned host memory, and the point at which its last copy is done.
#[derive(Debug)]
struct Buffer {
    memory: NonNull<c_void>,
    free: Event,
}

// SAFETY: plain memory of the driver, with no thread affinity.
unsafe impl Send for Buffer {}

impl Buffer {
    fn new() -> Result<Self> {
        let free = Event::new()?;
        // SAFETY: a plain allocation, freed in `drop`.
        let memory =
            unsafe { result::malloc_host(PIECE, 0) }.map_err(failed("get pinned memory of the host"))?;
        let memory = NonNull::new(memory).ok_or_else(|| Error::internal("pinned memory at address 0"))?;
        Ok(Buffer { memory, free })
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // A failure means that the context is gone, and the copy with it.
        let _ = self.free.wait();
        // SAFETY: allocated in `new` and freed once.
        let _ = unsafe { result::free_host(self.memory.as_ptr()) };
    }
}

/// The buffers, made at the first large copy.
#[derive(Debug, Default)]
pub struct Staging(Mutex<Vec<Buffer>>);

impl Staging {
    /// Copies what `fill` makes, a piece at a time.
    ///
    /// # Safety
    /// The context is current, the stream is alive, and `to` starts `bytes` allocated bytes.
    pub unsafe fn upload(
        &self,
        stream: sys::CUstream,
        to: u64,
        bytes: usize,
        fill: &mut dyn FnMut(usize, &mut [u8]),
    ) -> Result<()> {
        let buffers = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while buffers.len() < 2 {
            buffers.push(Buffer::new()?);
        }
        for (number, start) in (0..bytes).step_by(PIECE).enumerate() {
            let buffer = &buffers[number % 2];
            buffer.free.wait()?;
            let length = PIECE.min(bytes - start);
            // SAFETY: the buffer has PIECE bytes, nothing reads them after `wait`, and the lock keeps others away.
            let piece =
                unsafe { std::slice::from_raw_parts_mut(buffer.memory.as_ptr().cast::<u8>(), length) };
            fill(start, piece);
            // SAFETY: the caller promises the room; the piece is left alone until the event behind the copy.
            unsafe { result::memcpy_htod_async(to + start as u64, piece, stream) }
                .map_err(failed("copy to its memory"))?;
            buffer.free.record(stream)?;
        }
        Ok(())
    }

    /// Gives the buffers back; the context is current.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
