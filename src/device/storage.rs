//! One allocation on a device, freed when its last owner goes.

use std::fmt;
use std::sync::Arc;

use super::arena::Span;
use super::cpu::HostBytes;
use super::{Device, Purpose};
use crate::error::{Error, Result};

/// Read-only bytes owned elsewhere, for instance a mapped file.
pub type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

enum Memory {
    /// Host memory inside a slab of the CPU's arena.
    HostSpan {
        span: Span,
        pointer: *mut u8,
    },
    /// Host memory of its own.
    Host(HostBytes),
    /// Bytes of a mapped file, from `offset` on.
    Mapped {
        bytes: Bytes,
        offset: usize,
    },
    /// Device memory inside a slab of one of the GPU's pools.
    Gpu {
        span: Span,
        address: u64,
        purpose: Purpose,
    },
    /// Counted only.
    PlannedSpan(Span),
    PlannedWeight,
}

/// One allocation; see the module text.
pub struct Storage {
    device: Device,
    memory: Memory,
    bytes: usize,
}

// SAFETY: a storage is plain memory without thread affinity. Writing goes through `write_bytes`, whose
// caller promises to be the only one; reading is free for all.
unsafe impl Send for Storage {}
// SAFETY: as above.
unsafe impl Sync for Storage {}

impl Storage {
    pub(super) fn allocate(device: &Device, bytes: usize, purpose: Purpose) -> Result<Self> {
        let memory = match (device, purpose) {
            (Device::Cpu(cpu), Purpose::Activation) => {
                let (span, pointer) = cpu.allocate(bytes)?;
                Memory::HostSpan { span, pointer }
            }
            (Device::Cpu(_), Purpose::Weight) => Memory::Host(HostBytes::new(bytes)?),
            (Device::Gpu(gpu), purpose) => {
                let (span, address) = gpu.allocate(bytes, purpose)?;
                Memory::Gpu { span, address, purpose }
            }
            (Device::Plan(plan), Purpose::Activation) => Memory::PlannedSpan(plan.allocate(bytes)),
            (Device::Plan(plan), Purpose::Weight) => {
                plan.add_weights(bytes);
                Memory::PlannedWeight
            }
        };
        Ok(Storage { device: device.clone(), memory, bytes })
    }

    /// Wraps `length` mapped bytes from `offset` on; nothing is copied. CPU only.
    pub fn mapped(device: &Device, bytes: Bytes, offset: usize, length: usize) -> Result<Self> {
        let whole = (*bytes).as_ref().len();
        if offset.checked_add(length).is_none_or(|end| end > whole) {
            return Err(Error::internal("a mapped tensor leaves its file"));
        }
        Ok(Storage { device: device.clone(), memory: Memory::Mapped { bytes, offset }, bytes: length })
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Size in bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The bytes, when they lie in host memory.
    pub fn host(&self) -> Option<&[u8]> {
        let pointer = match &self.memory {
            Memory::HostSpan { pointer, .. } => *pointer,
            Memory::Host(bytes) => bytes.pointer(),
            Memory::Mapped { bytes, offset } => {
                return Some(&(**bytes).as_ref()[*offset..*offset + self.bytes]);
            }
            Memory::Gpu { .. } | Memory::PlannedSpan(_) | Memory::PlannedWeight => return None,
        };
        // SAFETY: the span or block holds at least `self.bytes` bytes, zeroed when made, and lives as
        // long as `self`.
        Some(unsafe { std::slice::from_raw_parts(pointer, self.bytes) })
    }

    /// The bytes for writing, when they lie in writable host memory.
    pub fn host_mut(&mut self) -> Option<&mut [u8]> {
        let pointer = match &self.memory {
            Memory::HostSpan { pointer, .. } => *pointer,
            Memory::Host(bytes) => bytes.pointer(),
            Memory::Mapped { .. } | Memory::Gpu { .. } | Memory::PlannedSpan(_) | Memory::PlannedWeight => {
                return None;
            }
        };
        // SAFETY: as in `host`; `&mut self` makes this the only access.
        Some(unsafe { std::slice::from_raw_parts_mut(pointer, self.bytes) })
    }
}

impl Storage {
    /// The device address of the first byte, when the bytes lie on a GPU.
    pub fn address(&self) -> Option<u64> {
        match self.memory {
            Memory::Gpu { address, .. } => Some(address),
            _ => None,
        }
    }

    /// Copies bytes from `start` on to the host, wherever they lie.
    pub fn read(&self, start: usize, to: &mut [u8]) -> Result<()> {
        let end = self.range(start, to.len())?;
        match (&self.device, self.address(), self.host()) {
            (_, _, Some(host)) => to.copy_from_slice(&host[start..end]),
            // SAFETY: the range was checked against the allocation, which lives as long as `self`.
            (Device::Gpu(gpu), Some(address), _) => unsafe { gpu.download(address + start as u64, to)? },
            _ => to.fill(0),
        }
        Ok(())
    }

    /// Copies `from` to the bytes from `start` on, wherever they lie.
    pub fn write(&mut self, start: usize, from: &[u8]) -> Result<()> {
        self.write_with(start, from.len(), &mut |at, piece| piece.copy_from_slice(&from[at..][..piece.len()]))
    }

    /// Writes `bytes` bytes from `start` on, in pieces that `fill` makes: it is given the place of a piece within
    /// the whole, a multiple of 256, and room for it, which on a GPU is pinned memory on its way to the device.
    pub fn write_with(
        &mut self,
        start: usize,
        bytes: usize,
        fill: &mut dyn FnMut(usize, &mut [u8]),
    ) -> Result<()> {
        let end = self.range(start, bytes)?;
        match (&self.device, self.address()) {
            // SAFETY: the range was checked against the allocation; `&mut self` makes this the only access.
            (Device::Gpu(gpu), Some(address)) => unsafe { gpu.upload(address + start as u64, bytes, fill) },
            (Device::Plan(_), _) => Ok(()),
            _ => {
                let host =
                    self.host_mut().ok_or_else(|| Error::internal("mapped memory cannot be written"))?;
                fill(0, &mut host[start..end]);
                Ok(())
            }
        }
    }

    /// Sets every byte to zero.
    pub fn clear(&mut self) -> Result<()> {
        match (&self.device, self.address()) {
            // SAFETY: the whole allocation; `&mut self` makes this the only access.
            (Device::Gpu(gpu), Some(address)) => unsafe { gpu.driver().clear(address, self.bytes) },
            (Device::Plan(_), _) => Ok(()),
            _ => {
                let host =
                    self.host_mut().ok_or_else(|| Error::internal("mapped memory cannot be written"))?;
                host.fill(0);
                Ok(())
            }
        }
    }

    /// Copies `bytes` from `source` (at `from`) to `start`, both on one GPU; nothing on a planning device.
    pub fn copy_on_device(
        &mut self,
        start: usize,
        source: &Storage,
        from: usize,
        bytes: usize,
    ) -> Result<()> {
        // SAFETY: `&mut self` and `&source` cannot be one allocation.
        unsafe { self.overwrite(start, source, from, bytes) }
    }

    /// As [`Storage::copy_on_device`], for memory that others hold too: they see the new content in the order of
    /// the device's work.
    ///
    /// # Safety
    /// `self` and `source` are different allocations.
    pub(crate) unsafe fn overwrite(
        &self,
        start: usize,
        source: &Storage,
        from: usize,
        bytes: usize,
    ) -> Result<()> {
        self.range(start, bytes)?;
        source.range(from, bytes)?;
        match (&self.device, self.address(), source.address()) {
            (Device::Gpu(gpu), Some(to), Some(own)) => {
                // SAFETY: both ranges were checked, and do not overlap as the caller promises.
                unsafe { gpu.driver().copy(to + start as u64, own + from as u64, bytes) }
            }
            (Device::Plan(_), ..) => Ok(()),
            _ => Err(Error::internal("a device copy of memory that is not on the device")),
        }
    }

    /// `start + length` after checking that the range exists.
    fn range(&self, start: usize, length: usize) -> Result<usize> {
        match start.checked_add(length) {
            Some(end) if end <= self.bytes => Ok(end),
            _ => Err(Error::internal(format!("bytes {start}..+{length} of {}", self.bytes))),
        }
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        match (&self.device, &self.memory) {
            (Device::Cpu(cpu), Memory::HostSpan { span, .. }) => cpu.free(*span),
            (Device::Gpu(gpu), Memory::Gpu { span, address, purpose }) => {
                gpu.free(*span, *address, self.bytes, *purpose);
            }
            (Device::Plan(plan), Memory::PlannedSpan(span)) => plan.free(*span),
            (Device::Plan(plan), Memory::PlannedWeight) => plan.drop_weights(self.bytes),
            _ => {}
        }
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.memory {
            Memory::HostSpan { .. } => "host span",
            Memory::Host(_) => "host",
            Memory::Mapped { .. } => "mapped",
            Memory::Gpu { .. } => "gpu",
            Memory::PlannedSpan(_) | Memory::PlannedWeight => "planned",
        };
        write!(f, "Storage({kind}, {} bytes)", self.bytes)
    }
}
