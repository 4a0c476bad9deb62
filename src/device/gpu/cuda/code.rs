//! Loading the kernels: cubins of this build, else its PTX, else NVRTC over the embedded sources.

use std::ffi::{CString, c_void};

use cudarc::driver::{result, sys};

use super::super::arch_path::fits;
use super::super::driver::GpuInfo;
use super::super::kernels::{Kernel, MODULES, Module, NAMES, inflate};
use super::{failed, nvrtc};
use crate::error::{Error, Result};

/// Loaded modules and the handle of every kernel that this GPU can run.
#[derive(Default)]
pub struct Code {
    modules: Vec<sys::CUmodule>,
    functions: Vec<Option<sys::CUfunction>>,
    source: String,
}

impl Code {
    /// Loads every module for the architecture of `info`; the context is current.
    pub fn load(info: &GpuInfo) -> Result<Self> {
        let mut code = Code { source: kernels_for(info), ..Code::default() };
        let mut next = 0;
        for module in MODULES {
            let names = &NAMES[next..next + module.kernels];
            next += module.kernels;
            match Choice::of(module, info) {
                Some(choice) => code
                    .add(module, names, &choice, info)
                    .map_err(|error| error.at(format!("kernels/{}.cu", module.name)))?,
                None => code.functions.extend(names.iter().map(|_| None)),
            }
        }
        Ok(code)
    }

    fn add(&mut self, module: &Module, names: &[&str], choice: &Choice, info: &GpuInfo) -> Result<()> {
        let image = choice.image()?;
        // SAFETY: a cubin carries its length, and PTX ends with a zero, which `image` adds.
        let handle = unsafe { result::module::load_data(image.as_ptr() as *const c_void) }
            .map_err(failed(&format!("load the kernels ({})", choice.kind())))?;
        self.modules.push(handle);
        for name in names {
            let c_name = CString::new(*name).map_err(|_| Error::internal("a kernel name holds a zero"))?;
            // SAFETY: the module is loaded.
            let function = unsafe { result::module::get_function(handle, c_name) }
                .map_err(failed(&format!("find kernel {name} of {}", module.name)))?;
            allow_shared(function, info.shared_bytes)?;
            self.functions.push(Some(function));
        }
        Ok(())
    }

    pub fn function(&self, kernel: Kernel) -> Option<sys::CUfunction> {
        self.functions.get(kernel.0).copied().flatten()
    }

    /// Where the kernels came from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Unloads everything; the context is current.
    pub fn unload(&mut self) {
        for module in self.modules.drain(..) {
            // SAFETY: loaded by `add`; nothing runs any more. A failure leaves it to the context's end.
            let _ = unsafe { result::module::unload(module) };
        }
        self.functions.clear();
    }
}

/// Lets a kernel take all the shared memory that a block can have, beside what it declares itself.
fn allow_shared(function: sys::CUfunction, most: u32) -> Result<()> {
    use sys::CUfunction_attribute_enum::{
        CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as DYNAMIC,
        CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES as STATIC,
    };
    // SAFETY: the function belongs to a loaded module.
    let own = unsafe { result::function::get_function_attribute(function, STATIC) }
        .map_err(failed("inspect a kernel"))?;
    // SAFETY: as above.
    unsafe { result::function::set_function_attribute(function, DYNAMIC, most as i32 - own) }
        .map_err(failed("give a kernel shared memory"))
}

/// Where the kernels of a GPU come from: cubins, PTX or NVRTC, and for which architecture. Nothing is loaded.
pub fn kernels_for(info: &GpuInfo) -> String {
    let mut kinds: Vec<_> =
        MODULES.iter().filter_map(|module| Choice::of(module, info)).map(|choice| choice.kind()).collect();
    kinds.sort();
    kinds.dedup();
    kinds.join(", ")
}

/// The code of a module that suits a GPU best.
enum Choice {
    Cubin { architecture: &'static str, packed: &'static [u8] },
    Ptx { packed: &'static [u8] },
    Source { module: &'static Module, architecture: String },
}

impl Choice {
    /// `None` when the module is for other architectures.
    fn of(module: &'static Module, info: &GpuInfo) -> Option<Self> {
        let listed = module.architectures;
        if !listed.is_empty() && !listed.iter().any(|a| fits(a, info).is_some()) {
            return None;
        }
        let best = module.cubins.iter().filter_map(|(a, packed)| Some((fits(a, info)?, *a, *packed))).max();
        if let Some((_, architecture, packed)) = best {
            return Some(Choice::Cubin { architecture, packed });
        }
        if let Some(packed) = module.ptx {
            return Some(Choice::Ptx { packed });
        }
        let own = format!("sm_{}{}", info.capability.0, info.capability.1);
        let special = listed.iter().any(|a| format!("sm_{a}") == format!("{own}a"));
        Some(Choice::Source { module, architecture: if special { own + "a" } else { own } })
    }

    fn kind(&self) -> String {
        match self {
            Choice::Cubin { architecture, .. } => format!("cubins for sm_{architecture}"),
            Choice::Ptx { .. } => "PTX, compiled by the driver".into(),
            Choice::Source { architecture, .. } => format!("NVRTC for {architecture}"),
        }
    }

    /// What the driver loads.
    fn image(&self) -> Result<Vec<u8>> {
        match self {
            Choice::Cubin { packed, .. } => inflate(packed),
            Choice::Ptx { packed } => {
                let mut text = inflate(packed)?;
                text.push(0);
                Ok(text)
            }
            Choice::Source { module, architecture } => nvrtc::cubin(module.name, module.source, architecture),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn embedded_code_unpacks() {
        for (module, architecture, cubin) in super::super::super::kernels::cubins() {
            assert_eq!(&cubin.unwrap()[..4], b"\x7fELF", "{module} sm_{architecture}");
        }
    }
}
