//! Looking things up: token embeddings and the sinusoidal embedding of timesteps.

mod cuda;

use super::Cx;
use super::host::element::{HostElement, with_element};
use crate::device::{Device, Target};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// `table[token] + positions[place]`: tokens [N][L], table [V, D], positions [L, D] -> [N, L, D].
///
/// # Errors
/// A token beyond the table, or another length than the positions have.
pub fn embed_tokens(cx: &Cx, tokens: &[&[u32]], table: &Tensor, positions: &Tensor) -> Result<Tensor> {
    let (vocabulary, d) = (table.shape()[0], table.shape().last());
    let l = positions.shape()[0];
    for row in tokens {
        if row.len() != l {
            return Err(Error::internal(format!("{} tokens, the text tower takes {l}", row.len())));
        }
        if let Some(token) = row.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(Error::weights(format!("token {token} is beyond the vocabulary of {vocabulary}")));
        }
    }
    let mut result = cx.allocate([tokens.len(), l, d], cx.dtype())?;
    let own_tokens = match cx.device().target() {
        Target::Cpu => 0,
        Target::Gpu => tokens.len() * l,
    };
    let mut own_tokens = cx.allocate([own_tokens], DType::F32)?;
    match cx.device() {
        Device::Cpu(_) => with_element!(result.dtype(), T => {
            let (table, positions) = (table.host::<f32>()?, positions.host::<f32>()?);
            for (lines, row) in result.host_mut::<T>()?.chunks_exact_mut(l * d).zip(tokens) {
                for (place, (line, &token)) in lines.chunks_exact_mut(d).zip(row.iter()).enumerate() {
                    let pair = table[token as usize * d..][..d].iter().zip(&positions[place * d..][..d]);
                    line.iter_mut().zip(pair).for_each(|(v, (a, b))| *v = T::narrow(a + b));
                }
            }
            Ok(())
        })?,
        Device::Gpu(gpu) => {
            cuda::embed_tokens(gpu, tokens, [table, positions], &mut own_tokens, &mut result)?
        }
        Device::Plan(_) => {}
    }
    cx.constant("embed_tokens", &[table, positions], result.freeze())
}

/// Cosines, then sines, of `t * 10000^(-i / half)`: [width] for one timestep, in f32 as published.
pub fn timestep_embedding(t: f32, width: usize) -> Vec<f32> {
    let half = width / 2;
    let angle = |i: usize| {
        let frequency = (-(10000f64.ln() as f32) * i as f32 / half as f32).exp();
        t * frequency
    };
    (0..half).map(|i| angle(i).cos()).chain((0..half).map(|i| angle(i).sin())).collect()
}
