//! Launches of kernels/optim/adamw.cu.

use bytemuck::{NoUninit, Pod, Zeroable};

use super::{AdamW, Factors, Parameter, Scaling};
use crate::device::Gpu;
use crate::device::gpu::{Grid, kernels};
use crate::error::{Error, Result};
use crate::ops::gpu::{address_or_null, aligned, must_be_f32};
use crate::tensor::{DType, Tensor, TensorMut};

/// Elements of a block.
const CHUNK: usize = 8192;
const THREADS: u32 = 256;
/// GradientNormShared in the kernel's file.
const NORM_SHARED: u32 = 2184;

/// Mirrors Parameter in kernels/optim/adamw.cu.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Entry {
    master: u64,
    first: u64,
    second: u64,
    gradient: u64,
    copy: u64,
    count: u64,
    chunks_end: u32,
    gradient_type: u32,
    copy_type: u32,
    aligned: u32,
}
const _: () = assert!(size_of::<Entry>() == 64);

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct GradientNormParams {
    norm: u64,
    table: u64,
    partial: u64,
    counter: u64,
    parameters: u32,
    chunks: u32,
    scale: f32,
    pad: u32,
}
const _: () = assert!(size_of::<GradientNormParams>() == 48);

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct AdamWParams {
    table: u64,
    norm: u64,
    parameters: u32,
    limit: f32,
    scale: f32,
    keep: f32,
    step: f32,
    root: f32,
    beta1: f32,
    beta2: f32,
    eps: f32,
    pad: u32,
}
const _: () = assert!(size_of::<AdamWParams>() == 56);

/// f32 of the table of so many tensors.
pub fn table(tensors: usize) -> usize {
    tensors * size_of::<Entry>() / size_of::<f32>()
}

/// Blocks for all elements of `tensors`.
pub fn chunks<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> usize {
    tensors.map(|tensor| tensor.shape().count().div_ceil(CHUNK)).sum()
}

/// Numbers of element types as the kernel has them.
fn stored(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::BF16 => 2,
    }
}

/// Numbers the chunks of the entries, writes them to the device, and counts the chunks.
fn upload(entries: &mut [Entry], table: &mut TensorMut) -> Result<u32> {
    let (whole, mut end) = (table.shape().count(), 0);
    for entry in entries.iter_mut() {
        end += (entry.count as usize).div_ceil(CHUNK);
        entry.chunks_end = u32::try_from(end)
            .map_err(|_| Error::internal("more parameters than one launch has blocks for"))?;
        let addresses = [entry.master, entry.first, entry.second, entry.gradient, entry.copy];
        entry.aligned = aligned(addresses);
    }
    // The table travels as the bits of floats.
    let floats: &[f32] = bytemuck::cast_slice(entries);
    if floats.len() != whole {
        return Err(Error::internal("a table of parameters of another size"));
    }
    table.write_f32(floats)?;
    Ok(end as u32)
}

/// Fills `result` [1]; `scratch` is a [`table`] and a number for each of the [`chunks`].
pub fn gradient_norm(
    gpu: &Gpu,
    gradients: &[&Tensor],
    scale: f32,
    [table, partial]: &mut [TensorMut; 2],
    result: &mut TensorMut,
) -> Result<()> {
    let entry = |gradient: &&Tensor| {
        Ok(Entry {
            gradient: gradient.address()?,
            count: gradient.shape().count() as u64,
            gradient_type: stored(gradient.dtype()),
            ..Entry::zeroed()
        })
    };
    let mut entries = gradients.iter().map(entry).collect::<Result<Vec<_>>>()?;
    let chunks = upload(&mut entries, table)?;
    if chunks == 0 {
        return result.clear();
    }
    let params = GradientNormParams {
        norm: result.address()?,
        table: table.address()?,
        partial: partial.address()?,
        counter: gpu.counters(1)?,
        parameters: entries.len() as u32,
        chunks,
        scale,
        pad: 0,
    };
    // SAFETY: the table was just written from the gradients, which live as long as the call.
    unsafe { gpu.launch(kernels::GRADIENT_NORM, Grid::linear(chunks, THREADS).shared(NORM_SHARED), &params) }
}

/// One step; `device_table` is a [`table`]. The op checked every parameter.
pub fn adamw(
    gpu: &Gpu,
    parameters: &[Parameter],
    settings: &AdamW,
    scaling: &Scaling,
    factors: Factors,
    device_table: &mut TensorMut,
) -> Result<()> {
    let entry = |parameter: &Parameter| {
        let copy = parameter.copy.as_deref();
        Ok(Entry {
            master: parameter.master.address()?,
            first: parameter.first.address()?,
            second: parameter.second.address()?,
            gradient: parameter.gradient.address()?,
            copy: address_or_null(copy)?,
            count: parameter.master.shape().count() as u64,
            gradient_type: stored(parameter.gradient.dtype()),
            copy_type: copy.map_or(0, |copy| stored(copy.dtype())),
            ..Entry::zeroed()
        })
    };
    let mut entries = parameters.iter().map(entry).collect::<Result<Vec<_>>>()?;
    let chunks = upload(&mut entries, device_table)?;
    let (limit, norm) = scaling.limit.unzip();
    must_be_f32("a norm of gradients", norm)?;
    let params = AdamWParams {
        table: device_table.address()?,
        norm: address_or_null(norm)?,
        parameters: entries.len() as u32,
        limit: limit.unwrap_or(0.0),
        scale: scaling.scale,
        keep: factors.keep,
        step: factors.step,
        root: factors.root,
        beta1: settings.beta1,
        beta2: settings.beta2,
        eps: settings.eps,
        pad: 0,
    };
    // SAFETY: the op checked that all of a parameter have its size and that what is written is held by nobody
    // else; the table was just written from them.
    unsafe { gpu.launch(kernels::ADAMW, Grid::linear(chunks, THREADS), &params) }
}
