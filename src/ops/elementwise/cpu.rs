//! Pointwise arithmetic on the CPU: in f32, whatever the tensors are stored as.

use rayon::prelude::*;

use crate::error::Result;
use crate::ops::host::element::{HostElement, widen_all, with_element};
use crate::ops::host::math::vectorised;
use crate::ops::host::rows::{Pixels, activate};
use crate::ops::{Activation, Segments};
use crate::tensor::{Tensor, TensorMut};

/// Elements of a task.
pub(super) const BLOCK: usize = 1 << 14;

pub fn combine<T: HostElement>(terms: &[(f32, &Tensor)], constant: f32, result: &mut [T]) -> Result<()> {
    let terms = terms.iter().map(|(f, t)| Ok((*f, t.host::<T>()?))).collect::<Result<Vec<_>>>()?;
    let buffer = || vec![0.0; T::buffer(BLOCK)];
    result.par_chunks_mut(BLOCK).enumerate().for_each_init(buffer, |buffer, (block, out)| {
        let range = block * BLOCK..block * BLOCK + out.len();
        vectorised!({
            T::fill(
                out,
                buffer,
                #[inline(always)]
                |sums| {
                    sums.fill(constant);
                    for (factor, values) in &terms {
                        let values = &values[range.clone()];
                        sums.iter_mut().zip(values).for_each(|(v, x)| *v += factor * x.wide());
                    }
                },
            );
        });
    });
    Ok(())
}

pub fn pointwise<T: HostElement>(x: &Tensor, activation: Activation, result: &mut [T]) -> Result<()> {
    let buffer = || vec![0.0; T::buffer(BLOCK)];
    let chunks = result.par_chunks_mut(BLOCK).zip(x.host::<T>()?.par_chunks(BLOCK));
    chunks.for_each_init(buffer, |buffer, (out, x)| {
        vectorised!({
            T::fill(
                out,
                buffer,
                #[inline(always)]
                |values| {
                    widen_all(x, values);
                    activate(values, activation);
                },
            );
        });
    });
    Ok(())
}

pub fn concat<T: HostElement>(segments: &Segments, c: usize, result: &mut [T]) -> Result<()> {
    let pixels = Pixels::<T>::new(segments)?;
    let buffer = || vec![0.0; T::buffer(c)];
    result.par_chunks_exact_mut(c).enumerate().for_each_init(buffer, |buffer, (index, line)| {
        T::fill(
            line,
            buffer,
            #[inline(always)]
            |values| pixels.read(index, values),
        );
    });
    Ok(())
}

pub fn stack<T: HostElement>(tensors: &[&Tensor], result: &mut [T]) -> Result<()> {
    let mut out = result;
    for tensor in tensors {
        let (head, tail) = out.split_at_mut(tensor.shape().count());
        head.copy_from_slice(tensor.host()?);
        out = tail;
    }
    Ok(())
}

/// `x` stored as `result` is.
pub fn cast(x: &Tensor, result: &mut TensorMut) -> Result<()> {
    with_element!(x.dtype(), From => with_element!(result.dtype(), To => {
        let chunks = result.host_mut::<To>()?.par_chunks_mut(BLOCK).zip(x.host::<From>()?.par_chunks(BLOCK));
        chunks.for_each(|(out, x)| {
            vectorised!({ out.iter_mut().zip(x).for_each(|(o, x)| *o = To::narrow(x.wide())) });
        });
        Ok(())
    }))
}
