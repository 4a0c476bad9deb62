//! The kernels of this build, one constant each: `build.rs` lists them from `kernels/**/*.cu`.

use crate::device::DType;
use crate::error::{Error, Result};

/// A kernel's place in the table of handles that every GPU resolves when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(pub(super) usize);

impl Kernel {
    pub fn name(self) -> &'static str {
        NAMES[self.0]
    }

    /// The only architectures that it is for; empty for all.
    pub(super) fn architectures(self) -> &'static [&'static str] {
        let mut end = 0;
        let module = MODULES.iter().find(|module| {
            end += module.kernels;
            self.0 < end
        });
        module.map_or(&[], |module| module.architectures)
    }
}

/// Kernels that differ in the element type only.
#[derive(Clone, Copy, Debug)]
pub struct Family(&'static str, [Option<Kernel>; 3]);

impl Family {
    /// The kernel for elements of `dtype`.
    ///
    /// # Errors
    /// The family has none.
    pub fn of(&self, dtype: DType) -> Result<Kernel> {
        let kernel = match dtype {
            DType::F32 => self.1[0],
            DType::F16 => self.1[1],
            DType::BF16 => self.1[2],
        };
        kernel
            .ok_or_else(|| Error::internal(format!("kernel {} does not exist for {}", self.0, dtype.name())))
    }
}

/// (file below kernels/, architecture, cubin) of every cubin that this build carries.
pub fn cubins() -> impl Iterator<Item = (&'static str, &'static str, Result<Vec<u8>>)> {
    MODULES.iter().flat_map(|module| {
        module.cubins.iter().map(|(architecture, packed)| (module.name, *architecture, inflate(packed)))
    })
}

/// Unpacks embedded code.
pub(super) fn inflate(bytes: &[u8]) -> Result<Vec<u8>> {
    miniz_oxide::inflate::decompress_to_vec(bytes)
        .map_err(|error| Error::internal(format!("the embedded GPU code is damaged: {error}")))
}

/// The kernels of one file.
pub(super) struct Module {
    pub name: &'static str,
    /// The whole source, for NVRTC.
    pub source: &'static str,
    /// The only architectures that it is for; empty for all.
    pub architectures: &'static [&'static str],
    /// How many kernels it has.
    pub kernels: usize,
    /// (architecture, deflated cubin)
    pub cubins: &'static [(&'static str, &'static [u8])],
    /// Deflated.
    pub ptx: Option<&'static [u8]>,
}

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
