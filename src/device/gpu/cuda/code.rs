//! Loading the kernels: cubins of this build, else its PTX, else NVRTC over the embedded sources.

use std::ffi::{CString, c_void};

use cudarc::driver::{result, sys};

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
        let mut code = Code::default();
        let (mut kinds, mut next) = (Vec::new(), 0);
        for module in MODULES {
            let names = &NAMES[next..next + module.kernels];
            next += module.kernels;
            match Image::choose(module, info)? {
                Some(image) => {
                    kinds.push(image.kind.clone());
                    code.add(module, names, image, info)
                        .map_err(|error| error.at(format!("kernels/{}.cu", module.name)))?;
                }
                None => code.functions.extend(names.iter().map(|_| None)),
            }
        }
        kinds.sort();
        kinds.dedup();
        code.source = kinds.join(", ");
        Ok(code)
    }

    fn add(&mut self, module: &Module, names: &[&str], image: Image, info: &GpuInfo) -> Result<()> {
        // SAFETY: a cubin carries its length, and PTX ends with a zero, which `Image` adds.
        let handle = unsafe { result::module::load_data(image.bytes.as_ptr() as *const c_void) }
            .map_err(failed(&format!("load the kernels ({})", image.kind)))?;
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

/// Something that the driver loads.
struct Image {
    kind: String,
    bytes: Vec<u8>,
}

impl Image {
    /// The best code of `module` for `info`; `None` when the module is for other architectures.
    fn choose(module: &Module, info: &GpuInfo) -> Result<Option<Self>> {
        let (major, minor) = info.capability;
        let own = format!("{major}{minor}");
        if !module.architectures.is_empty() && !module.architectures.iter().any(|a| fits(a, info).is_some()) {
            return Ok(None);
        }
        let best = module.cubins.iter().filter_map(|(a, bytes)| Some((fits(a, info)?, a, bytes))).max();
        if let Some((_, architecture, bytes)) = best {
            return Ok(Some(Image { kind: format!("cubins for sm_{architecture}"), bytes: inflate(bytes)? }));
        }
        if let Some(bytes) = module.ptx {
            let mut bytes = inflate(bytes)?;
            bytes.push(0);
            return Ok(Some(Image { kind: "PTX, compiled by the driver".into(), bytes }));
        }
        let suffix = if module.architectures.iter().any(|a| **a == format!("{own}a")) { "a" } else { "" };
        let bytes = nvrtc::cubin(module.name, module.source, &format!("sm_{own}{suffix}"))?;
        Ok(Some(Image { kind: format!("NVRTC for sm_{own}"), bytes }))
    }
}

/// How near the cubin architecture `name` is to the GPU, `None` when it does not run there: the same major
/// version and no higher minor one, and for names with a letter exactly the same.
fn fits(name: &str, info: &GpuInfo) -> Option<u32> {
    let digits = name.trim_end_matches(char::is_alphabetic);
    let number: u32 = digits.parse().ok()?;
    let own = info.capability.0 as u32 * 10 + info.capability.1 as u32;
    let special = digits.len() < name.len();
    let runs = number / 10 == own / 10 && number <= own && (!special || number == own);
    runs.then_some(number * 2 + u32::from(special))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(major: i32, minor: i32) -> GpuInfo {
        GpuInfo {
            ordinal: 0,
            name: String::new(),
            capability: (major, minor),
            memory: 0,
            driver: (13, 0),
            multiprocessors: 1,
            shared_bytes: 0,
        }
    }

    #[test]
    fn a_cubin_runs_on_its_major_version_from_its_minor_version_on() {
        let runs = |name: &str, major, minor| fits(name, &gpu(major, minor)).is_some();
        assert!(runs("80", 8, 0) && runs("80", 8, 6) && runs("86", 8, 9) && runs("90a", 9, 0));
        assert!(!runs("86", 8, 0) && !runs("90a", 10, 0) && !runs("100", 12, 0) && !runs("80", 9, 0));
        assert!(fits("89", &gpu(8, 9)) > fits("86", &gpu(8, 9)));
        assert!(runs("100", 10, 3) && runs("120", 12, 1));
    }

    #[test]
    fn embedded_code_unpacks() {
        for (module, architecture, cubin) in super::super::super::kernels::cubins() {
            assert_eq!(&cubin.unwrap()[..4], b"\x7fELF", "{module} sm_{architecture}");
        }
    }
}
