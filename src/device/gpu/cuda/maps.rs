//! Tensor maps for TMA, encoded by the driver.

use cudarc::driver::sys;

use super::super::driver::GpuInfo;
use super::super::tensor_map::{TensorMap, Tiling};
use super::failed;
use crate::device::DType;
use crate::error::{Error, Result};

/// The driver's form of `tiling`: rows of a box swizzled, zeros outside.
pub fn encode(tiling: &Tiling, info: &GpuInfo) -> Result<TensorMap> {
    // Older libraries lack the symbol, which cudarc would look for and panic.
    if info.driver < (12, 0) {
        return Err(Error::device("TMA needs a driver for CUDA 12.0")
            .at("--device cuda")
            .fix("update the driver, or set TASR_ARCH_PATH=sm80"));
    }
    let dtype = match tiling.dtype {
        DType::F32 => sys::CUtensorMapDataType_enum::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
        DType::F16 => sys::CUtensorMapDataType_enum::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        DType::BF16 => sys::CUtensorMapDataType_enum::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
    };
    let swizzle = match tiling.row_bytes() {
        64 => sys::CUtensorMapSwizzle_enum::CU_TENSOR_MAP_SWIZZLE_64B,
        _ => sys::CUtensorMapSwizzle_enum::CU_TENSOR_MAP_SWIZZLE_128B,
    };
    let mut map = sys::CUtensorMap { opaque: [0; 16] };
    let steps = [1u32; 5];
    // SAFETY: every array has an entry for each axis (strides for all but the innermost), and outlives the call,
    // which only computes. The address is not read.
    unsafe {
        sys::cuTensorMapEncodeTiled(
            &mut map,
            dtype,
            tiling.dims.len() as u32,
            tiling.address as *mut _,
            tiling.dims.as_ptr(),
            tiling.strides.as_ptr(),
            tiling.size.as_ptr(),
            steps.as_ptr(),
            sys::CUtensorMapInterleave_enum::CU_TENSOR_MAP_INTERLEAVE_NONE,
            swizzle,
            sys::CUtensorMapL2promotion_enum::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            sys::CUtensorMapFloatOOBfill_enum::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    }
    .result()
    .map_err(failed("encode a tensor map"))
    .map_err(|error| error.at(format!("{tiling:?}")))?;
    Ok(TensorMap(map.opaque))
}
