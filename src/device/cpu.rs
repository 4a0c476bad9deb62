//! The CPU as a device: host slabs for activations, rayon's threads for work.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::arena::{ALIGNMENT, Allocator, Span};
use crate::error::{Error, Result};

/// A new slab is at least this large; untouched pages cost nothing.
const SLAB: usize = 64 << 20;

/// Zeroed, aligned host memory that frees itself.
#[derive(Debug)]
pub struct HostBytes {
    pointer: NonNull<u8>,
    layout: Layout,
}

// SAFETY: `HostBytes` owns its memory as a `Box<[u8]>` would; it has no thread affinity.
unsafe impl Send for HostBytes {}
// SAFETY: shared access hands out only the address; writers are serialised by the owners of spans.
unsafe impl Sync for HostBytes {}

impl HostBytes {
    /// `bytes` zeroed bytes; the pages are not touched before they are used.
    pub fn new(bytes: usize) -> Result<Self> {
        let too_much = || {
            Error::memory(format!("cannot allocate {} MiB of memory", bytes >> 20))
                .fix("use a smaller --tile or --batch")
        };
        let layout = Layout::from_size_align(bytes.max(1), ALIGNMENT).map_err(|_| too_much())?;
        // SAFETY: the layout has a size of at least one byte.
        let pointer = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(too_much)?;
        Ok(HostBytes { pointer, layout })
    }

    pub fn pointer(&self) -> *mut u8 {
        self.pointer.as_ptr()
    }

    pub fn len(&self) -> usize {
        self.layout.size()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for HostBytes {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this very layout.
        unsafe { dealloc(self.pointer.as_ptr(), self.layout) }
    }
}

#[derive(Debug, Default)]
struct Memory {
    allocator: Allocator,
    slabs: Vec<Option<HostBytes>>,
}

impl Memory {
    fn add_slab(&mut self, bytes: usize) -> Result<()> {
        let slab = HostBytes::new(bytes)?;
        let index = self.allocator.add_slab(bytes);
        if index == self.slabs.len() {
            self.slabs.push(None);
        }
        self.slabs[index] = Some(slab);
        Ok(())
    }
}

/// The CPU device.
#[derive(Debug)]
pub struct Cpu {
    threads: usize,
    memory: Mutex<Memory>,
}

impl Cpu {
    /// Uses rayon's current pool, whose size the program sets once at its start.
    pub fn new() -> Self {
        Cpu { threads: rayon::current_num_threads(), memory: Mutex::default() }
    }

    pub fn threads(&self) -> usize {
        self.threads
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // A panic while the lock is held leaves the bookkeeping consistent: it is updated last.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A span of `bytes` and its address.
    pub fn allocate(&self, bytes: usize) -> Result<(Span, *mut u8)> {
        let memory = &mut *self.memory();
        let span = match memory.allocator.allocate(bytes) {
            Some(span) => span,
            None => {
                memory.add_slab(bytes.next_multiple_of(ALIGNMENT).max(SLAB))?;
                memory
                    .allocator
                    .allocate(bytes)
                    .ok_or_else(|| Error::internal("a fresh slab is too small"))?
            }
        };
        let slab = memory.slabs[span.slab].as_ref();
        let slab = slab.ok_or_else(|| Error::internal("a span lies in a missing slab"))?;
        // SAFETY: the allocator keeps `offset + length` within the slab.
        Ok((span, unsafe { slab.pointer().add(span.offset) }))
    }

    pub fn free(&self, span: Span) {
        self.memory().allocator.free(span);
    }

    /// Makes one slab of `bytes`, as a plan asked for, if so much is not there already.
    pub fn reserve(&self, bytes: usize) -> Result<()> {
        let memory = &mut *self.memory();
        if memory.allocator.reserved() < bytes { memory.add_slab(bytes) } else { Ok(()) }
    }

    /// Gives slabs that hold nothing back to the system.
    pub fn trim(&self) {
        let memory = &mut *self.memory();
        for slab in memory.allocator.take_empty_slabs() {
            memory.slabs[slab] = None;
        }
    }

    /// The most activation bytes that were in use at once.
    pub fn peak(&self) -> usize {
        self.memory().allocator.peak()
    }
}

impl Default for Cpu {
    fn default() -> Self {
        Self::new()
    }
}
