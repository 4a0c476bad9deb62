//! cuBLASLt, loaded at the first product that wants it. What is chosen for a shape is kept, so that later calls make
//! no decisions; the workspace is there before anything is recorded.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, OnceLock, PoisonError};

use cudarc::cublaslt::{result, sys};
use cudarc::driver::sys as driver;

use super::super::library::LibraryProduct;
use crate::device::DType;
use crate::error::{Error, Result};

/// What NVIDIA advises for its newest GPUs.
pub const WORKSPACE: usize = 32 << 20;

fn failed(doing: &'static str) -> impl Fn(result::CublasError) -> Error {
    move |error| Error::device(format!("cuBLASLt could not {doing}: {error}"))
}

/// True when the library can be loaded. It is asked once: opening half a gigabyte of library takes 80 ms, and every
/// product wants to know.
pub fn is_there() -> bool {
    static THERE: OnceLock<bool> = OnceLock::new();
    // SAFETY: only tries to open the library; nothing of it is called yet.
    *THERE.get_or_init(|| unsafe { sys::is_culib_present() })
}

/// A shape's descriptors and the algorithm for it.
#[derive(Debug)]
struct Prepared {
    operation: sys::cublasLtMatmulDesc_t,
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
}

impl Drop for Prepared {
    fn drop(&mut self) {
        for layout in self.layouts {
            // SAFETY: made by `Prepared::new` and destroyed once; a failure only leaks it.
            let _ = unsafe { result::destroy_matrix_layout(layout) };
        }
        // SAFETY: as above.
        let _ = unsafe { result::destroy_matmul_desc(self.operation) };
    }
}

/// The library's handle, the workspace and what was prepared.
#[derive(Debug)]
struct Library {
    handle: sys::cublasLtHandle_t,
    workspace: u64,
    shapes: HashMap<(DType, usize, usize, usize), Prepared>,
}

// SAFETY: handles of the library, used under a lock by a thread that has made the context current.
unsafe impl Send for Library {}

/// The library of one device. Every call wants its context current.
#[derive(Debug, Default)]
pub struct Cublaslt(Mutex<Option<Library>>);

impl Cublaslt {
    /// Starts `product` on `stream`; `allocate` gives the workspace the first time.
    ///
    /// # Safety
    /// The stream is alive, and the addresses start as much memory as the sizes say.
    pub unsafe fn multiply(
        &self,
        product: &LibraryProduct,
        stream: driver::CUstream,
        allocate: impl FnOnce(usize) -> Result<u64>,
    ) -> Result<()> {
        let own = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let library = match own {
            Some(library) => library,
            empty => {
                let workspace = allocate(WORKSPACE)?;
                let handle = result::create_handle().map_err(failed("start"))?;
                empty.insert(Library { handle, workspace, shapes: HashMap::new() })
            }
        };
        let &LibraryProduct { dtype, m, n, k, a, b, out } = product;
        let handle = library.handle;
        let prepared = match library.shapes.entry((dtype, m, n, k)) {
            std::collections::hash_map::Entry::Occupied(there) => there.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => place.insert(Prepared::new(handle, product)?),
        };
        let (one, zero) = (1f32, 0f32);
        let [left, right, result_layout] = prepared.layouts;
        // SAFETY: handle, descriptors and workspace are alive; the rest is the caller's promise.
        unsafe {
            result::matmul(
                handle,
                prepared.operation,
                (&raw const one).cast(),
                (&raw const zero).cast(),
                b as *const c_void,
                left,
                a as *const c_void,
                right,
                out as *const c_void,
                result_layout,
                out as *mut c_void,
                result_layout,
                &raw const prepared.algorithm,
                library.workspace as *mut c_void,
                WORKSPACE,
                stream.cast(),
            )
        }
        .map_err(failed("multiply"))
    }

    /// Ends the library and gives the workspace to `free`.
    pub fn clear(&self, free: impl FnOnce(u64)) {
        if let Some(library) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            drop(library.shapes);
            // SAFETY: made by `multiply` and destroyed once; a failure only leaks it.
            let _ = unsafe { result::destroy_handle(library.handle) };
            free(library.workspace);
        }
    }
}

impl Prepared {
    /// The library is column-major: our rows are its columns, so it computes out^T [n, m] = b [n, k] . a^T [k, m].
    fn new(handle: sys::cublasLtHandle_t, product: &LibraryProduct) -> Result<Self> {
        let &LibraryProduct { dtype, m, n, k, .. } = product;
        let element = match dtype {
            DType::F32 => sys::cudaDataType_t::CUDA_R_32F,
            DType::F16 => sys::cudaDataType_t::CUDA_R_16F,
            DType::BF16 => sys::cudaDataType_t::CUDA_R_16BF,
        };
        let layout = |rows: usize, columns: usize| {
            result::create_matrix_layout(element, rows as u64, columns as u64, rows as i64)
                .map_err(failed("describe a matrix"))
        };
        let operation = result::create_matmul_desc(
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            sys::cudaDataType_t::CUDA_R_32F,
        )
        .map_err(failed("describe a product"))?;
        // CUBLAS_OP_T, an enumeration of cuBLAS that cuBLASLt takes as its 32-bit number.
        let transposed = 1i32;
        // SAFETY: the attribute is one such value, which outlives the call.
        unsafe {
            result::set_matmul_desc_attribute(
                operation,
                sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA,
                (&raw const transposed).cast(),
                size_of_val(&transposed),
            )
        }
        .map_err(failed("describe a product"))?;
        let layouts = [layout(k, n)?, layout(k, m)?, layout(n, m)?];
        let preference = result::create_matmul_pref().map_err(failed("choose an algorithm"))?;
        let workspace = WORKSPACE;
        // SAFETY: the attribute is one such value, which outlives the call.
        let chosen = unsafe {
            result::set_matmul_pref_attribute(
                preference,
                sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                (&raw const workspace).cast(),
                size_of_val(&workspace),
            )
        }
        // SAFETY: all handles are alive.
        .and_then(|()| unsafe {
            let [left, right, out] = layouts;
            result::get_matmul_algo_heuristic(handle, operation, left, right, out, out, preference)
        });
        // SAFETY: made above and not used any more; a failure only leaks it.
        let _ = unsafe { result::destroy_matmul_pref(preference) };
        let algorithm = chosen.map_err(failed("choose an algorithm"))?.algo;
        Ok(Prepared { operation, layouts, algorithm })
    }
}
