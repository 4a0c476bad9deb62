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
            Memory::PlannedSpan(_) | Memory::PlannedWeight => return None,
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
            Memory::Mapped { .. } | Memory::PlannedSpan(_) | Memory::PlannedWeight => return None,
        };
        // SAFETY: as in `host`; `&mut self` makes this the only access.
        Some(unsafe { std::slice::from_raw_parts_mut(pointer, self.bytes) })
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        match (&self.device, &self.memory) {
            (device, Memory::HostSpan { span, .. } | Memory::PlannedSpan(span)) => device.free(*span),
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
            Memory::PlannedSpan(_) | Memory::PlannedWeight => "planned",
        };
        write!(f, "Storage({kind}, {} bytes)", self.bytes)
    }
}
