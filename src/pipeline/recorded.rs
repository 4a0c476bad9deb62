//! Model calls recorded once and replayed: what changes between calls lies at fixed addresses.

use std::sync::Arc;

use super::denoiser::Times;
use crate::device::Gpu;
use crate::device::gpu::Replay;
use crate::error::Result;
use crate::ops::Cx;
use crate::tensor::{DType, Input, Tensor, TensorMut};

/// Elements between two projections of a row: what the widest loads of kernels want.
const ALIGNMENT: usize = 128;

/// Projections of all timesteps, side by side, and the row that recorded calls read.
pub struct Rows {
    /// [timesteps, width]
    table: Tensor,
    /// [1, width]
    current: Input,
}

impl Rows {
    pub fn new(cx: &Cx, times: &Times) -> Result<Self> {
        let (mut width, mut count, mut all) = (0, 0, Vec::new());
        times.map(&mut |part| {
            all.push((width, part.clone()));
            width += part.shape().last().next_multiple_of(ALIGNMENT);
            count = part.shape()[0];
            Ok(part.clone())
        })?;
        let dtype = all.first().map_or(DType::F32, |(_, part)| part.dtype());
        let mut table = cx.allocate([count, width], dtype)?;
        // The room between projections is copied with them.
        table.clear()?;
        for (place, part) in all {
            for row in 0..count {
                table.copy_on_device(row * width + place, &part.narrow(row, 1)?)?;
            }
        }
        Ok(Rows { table: TensorMut::freeze(table), current: Input::new(cx.device(), [1, width], dtype)? })
    }

    /// `times` of the current row.
    pub fn views(&self, times: &Times) -> Result<Times> {
        let mut place = 0;
        times.map(&mut |part| {
            let width = part.shape().last();
            let view = self.current.tensor().slice(place, [1, width])?;
            place += width.next_multiple_of(ALIGNMENT);
            Ok(view)
        })
    }

    /// Makes the row of timestep `index` the current one.
    pub fn select(&self, index: usize) -> Result<()> {
        self.current.set(&self.table.narrow(index, 1)?)
    }
}

/// A recorded call for inputs of one shape.
pub struct Recorded {
    x: Input,
    hint: Input,
    result: Tensor,
    replay: Replay,
}

impl Recorded {
    /// Records `call`, given its inputs and the projections `times`.
    pub fn new(
        cx: &Cx,
        gpu: &Arc<Gpu>,
        (x, hint): (&Tensor, &Tensor),
        times: &Times,
        call: impl FnOnce(&Tensor, &Tensor, &Times) -> Result<Tensor>,
    ) -> Result<Self> {
        let input = |like: &Tensor| Input::new(cx.device(), like.shape(), like.dtype());
        let (x, hint) = (input(x)?, input(hint)?);
        let (result, replay) = gpu.capture(|| call(x.tensor(), hint.tensor(), times))?;
        Ok(Recorded { x, hint, result, replay })
    }

    /// The result of the call for these inputs, until the next run.
    ///
    /// # Safety
    /// What else the call read when it was recorded is alive.
    pub unsafe fn run(&self, x: &Tensor, hint: &Tensor) -> Result<Tensor> {
        self.x.set(x)?;
        self.hint.set(hint)?;
        // SAFETY: inputs and result are held here, the rest is the caller's promise.
        unsafe { self.replay.run()? };
        Ok(self.result.clone())
    }
}
