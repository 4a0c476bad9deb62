//! The GPUs of this machine.

use cudarc::driver::{result, sys};

use super::super::driver::GpuInfo;
use crate::error::{Error, Result};

fn no_device(why: impl std::fmt::Display) -> Error {
    Error::device(format!("no CUDA device: {why}")).at("--device cuda").fix("use --device cpu")
}

/// The GPUs of this machine, or the reason why there is none.
pub fn list() -> Result<Vec<GpuInfo>> {
    // SAFETY: only tries to open the library; nothing of it is called yet.
    if !unsafe { sys::is_culib_present() } {
        return Err(no_device("the NVIDIA driver (libcuda) is not installed"));
    }
    result::init().map_err(no_device)?;
    let count = result::device::get_count().map_err(no_device)?;
    if count <= 0 {
        return Err(no_device("the driver sees no GPU"));
    }
    let mut version = 0;
    // SAFETY: `version` outlives the call, which writes one integer.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(no_device)?;
    (0..count).map(|i| describe(i, version)).collect()
}

fn describe(ordinal: i32, version: i32) -> Result<GpuInfo> {
    use sys::CUdevice_attribute_enum::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
        CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN as SHARED,
        CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT as MULTIPROCESSORS,
    };
    let device = result::device::get(ordinal).map_err(no_device)?;
    // SAFETY: `device` is a handle that the driver has just given.
    let attribute = |which| unsafe { result::device::get_attribute(device, which) }.map_err(no_device);
    Ok(GpuInfo {
        ordinal: ordinal as usize,
        device: format!("cuda:{ordinal}"),
        name: result::device::get_name(device).map_err(no_device)?,
        capability: (attribute(MAJOR)?, attribute(MINOR)?),
        // SAFETY: as above.
        memory: unsafe { result::device::total_mem(device) }.map_err(no_device)?,
        driver: (version / 1000, version % 1000 / 10),
        multiprocessors: attribute(MULTIPROCESSORS)? as u32,
        shared_bytes: attribute(SHARED)? as u32,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_machine_without_a_driver_gets_one_clear_sentence() {
        if let Err(error) = super::list() {
            let text = error.to_string();
            assert!(text.starts_with("--device cuda: no CUDA device: "), "{text}");
            assert!(text.ends_with("use --device cpu"), "{text}");
        }
    }
}
