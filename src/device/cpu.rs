//! The CPU as a device: host slabs for activations, rayon's threads for work.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::MatrixUnit;
use super::arena::{ALIGNMENT, Allocator, Span};
use crate::error::{Error, Result};

/// A new slab is at least this large; untouched pages cost nothing.
const SLAB: usize = 64 << 20;

/// Zeroed, aligned host memory that frees itself.
#[derive(Debug)]
pub struct HostBytes {
    /// what the system gave
    block: NonNull<u8>,
    layout: Layout,
    /// bytes from the block's start to the first aligned one
    skip: usize,
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
        // Asked for a large alignment, the standard allocator writes the zeros itself and so touches every
        // page; asked for a small one, it takes fresh pages from the system. So the aligning is done here.
        let size = bytes.max(1).checked_add(ALIGNMENT).ok_or_else(too_much)?;
        let layout = Layout::from_size_align(size, align_of::<u64>()).map_err(|_| too_much())?;
        // SAFETY: the layout has a size of at least one byte.
        let block = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(too_much)?;
        let address = block.as_ptr() as usize;
        Ok(HostBytes { block, layout, skip: address.next_multiple_of(ALIGNMENT) - address })
    }

    pub fn pointer(&self) -> *mut u8 {
        // SAFETY: `skip` is less than ALIGNMENT, and the block is that much longer than `len`.
        unsafe { self.block.as_ptr().add(self.skip) }
    }

    pub fn len(&self) -> usize {
        self.layout.size() - ALIGNMENT
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Drop for HostBytes {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this very layout.
        unsafe { dealloc(self.block.as_ptr(), self.layout) }
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
    unit: MatrixUnit,
    memory: Mutex<Memory>,
}

impl Cpu {
    /// Uses rayon's current pool, whose size the program sets once at its start, and the fastest unit for bf16.
    pub fn new() -> Self {
        Cpu { threads: rayon::current_num_threads(), unit: MatrixUnit::best(), memory: Mutex::default() }
    }

    /// The same with `unit` for products of bf16.
    ///
    /// # Errors
    /// This machine has no such unit.
    pub fn with_unit(unit: MatrixUnit) -> Result<Self> {
        if !MatrixUnit::available().contains(&unit) {
            return Err(
                Error::device(format!("this processor has no {}", unit.name())).fix("let the program choose")
            );
        }
        Ok(Cpu { unit, ..Self::new() })
    }

    /// Who multiplies matrices of bf16.
    pub fn unit(&self) -> MatrixUnit {
        self.unit
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_memory_is_aligned_zeroed_and_as_long_as_asked() {
        for bytes in [0, 1, 255, 4096, 1 << 20] {
            let memory = HostBytes::new(bytes).unwrap();
            assert_eq!(memory.pointer() as usize % ALIGNMENT, 0);
            assert_eq!(memory.len(), bytes.max(1));
            // SAFETY: `len` bytes are there, zeroed, and nobody else has them.
            let whole = unsafe { std::slice::from_raw_parts_mut(memory.pointer(), memory.len()) };
            assert!(whole.iter().all(|&byte| byte == 0));
            whole.fill(1);
        }
        assert!(HostBytes::new(usize::MAX).is_err());
        assert!(HostBytes::new(usize::MAX / 4).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn pages_that_are_not_used_are_not_touched() {
        let resident = || -> usize {
            let text = std::fs::read_to_string("/proc/self/statm").unwrap();
            text.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
        };
        let before = resident();
        let memory = HostBytes::new(1 << 30).unwrap();
        assert!(resident() < before + (512 << 20), "{} bytes were touched", memory.len());
    }
}
