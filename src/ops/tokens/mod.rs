//! Token matrices put together: the mean of all pixels as a token, and tokens before other tokens.

mod cuda;

use rayon::prelude::*;

use super::calls::{Call, note};
use super::host::element::{HostElement, with_element};
use super::sums::column_sums;
use super::{Accumulate, Cx};
use crate::device::{Device, Target};
use crate::error::{Error, Result};
use crate::tensor::{Shape, Tensor};
use cuda::{Move, move_tokens};

/// [N, L, C] after checking the number of axes.
fn nlc(tensor: &Tensor) -> Result<[usize; 3]> {
    let wrong = |_| Error::internal(format!("{} is not [N, L, C]", tensor.shape()));
    tensor.shape().to_vec().try_into().map_err(wrong)
}

/// The mean over the tokens: [N, L, C] -> [N, 1, C].
pub fn mean_token(cx: &Cx, x: &Tensor) -> Result<Tensor> {
    let [n, l, c] = nlc(x)?;
    if l == 0 {
        return Err(Error::internal("the mean of no tokens"));
    }
    note(cx, x.dtype(), || Call::MeanToken { tokens: [n, l, c] });
    let result = match cx.device().target() {
        Target::Cpu => {
            let mut result = cx.allocate([n, 1, c], x.dtype())?;
            if let Device::Cpu(_) = cx.device() {
                with_element!(result.dtype(), T => {
                    let lines = result.host_mut::<T>()?.par_chunks_mut(c.max(1));
                    lines.zip(x.host::<T>()?.par_chunks((l * c).max(1))).for_each(|(mean, tokens)| {
                        for (channel, mean) in mean.iter_mut().enumerate() {
                            let column = tokens[channel..].iter().step_by(c);
                            *mean = T::narrow(column.map(|t| t.wide()).sum::<f32>() / l as f32);
                        }
                    });
                    Ok(())
                })?;
            }
            result.freeze()
        }
        Target::Gpu => column_sums(cx, x, n, 1.0 / l as f32, x.dtype())?.reshape([n, 1, c])?,
    };
    let input = x.clone();
    Ok(cx.record(&[x], result, move |cx, gradient, gradients| {
        let spread = repeated(cx, gradient, input.shape(), 1.0 / l as f32)?;
        gradients.add(cx, &input, spread)
    }))
}

/// `factor` times the one token of each image, for all its tokens.
fn repeated(cx: &Cx, token: &Tensor, shape: Shape, factor: f32) -> Result<Tensor> {
    let c = shape.last();
    let mut result = cx.allocate(shape, token.dtype())?;
    match cx.device() {
        Device::Cpu(_) => with_element!(result.dtype(), T => {
            let images = result.host_mut::<T>()?.par_chunks_mut((shape[1] * c).max(1));
            images.zip(token.host::<T>()?.par_chunks(c.max(1))).for_each(|(tokens, one)| {
                for token in tokens.chunks_exact_mut(c) {
                    token.iter_mut().zip(one).for_each(|(t, v)| *t = T::narrow(v.wide() * factor));
                }
            });
            Ok(())
        })?,
        Device::Gpu(gpu) => {
            let all = Move { from: 0, to: 0, count: shape[1], repeat: true, factor };
            move_tokens(gpu, token, all, &mut result)?;
        }
        Device::Plan(_) => {}
    }
    Ok(result.freeze())
}

/// [N, L, C] before [N, M, C]: [N, L + M, C].
///
/// # Errors
/// Other images or channels in the second.
pub fn join_tokens(cx: &Cx, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let ([n, l, c], [n_b, m, c_b]) = (nlc(a)?, nlc(b)?);
    if (n, c) != (n_b, c_b) {
        return Err(Error::internal(format!("tokens {} before {}", a.shape(), b.shape())));
    }
    note(cx, a.dtype(), || Call::JoinTokens { images: n, before: l, after: m, channels: c });
    let mut result = cx.allocate([n, l + m, c], a.dtype())?;
    match cx.device() {
        Device::Cpu(_) => with_element!(result.dtype(), T => {
            let (a, b) = (a.host::<T>()?, b.host::<T>()?);
            let images = result.host_mut::<T>()?.par_chunks_mut(((l + m) * c).max(1));
            images.enumerate().for_each(|(image, tokens)| {
                let (first, second) = tokens.split_at_mut(l * c);
                first.copy_from_slice(&a[image * l * c..][..l * c]);
                second.copy_from_slice(&b[image * m * c..][..m * c]);
            });
            Ok(())
        })?,
        Device::Gpu(gpu) => {
            for (part, to, count) in [(a, 0, l), (b, l, m)] {
                let whole = Move { from: 0, to, count, repeat: false, factor: 1.0 };
                move_tokens(gpu, part, whole, &mut result)?;
            }
        }
        Device::Plan(_) => {}
    }
    let parts = [a.clone(), b.clone()];
    Ok(cx.record(&[a, b], result.freeze(), move |cx, gradient, gradients| {
        for (part, first) in parts.iter().zip([0, l]) {
            let slice = cut(cx, gradient, first, part.shape())?;
            gradients.add(cx, part, slice)?;
        }
        Ok(())
    }))
}

/// Tokens `first..` of each image, as many as `shape` has.
fn cut(cx: &Cx, x: &Tensor, first: usize, shape: Shape) -> Result<Tensor> {
    let [_, l, c] = nlc(x)?;
    let mut result = cx.allocate(shape, x.dtype())?;
    match cx.device() {
        Device::Cpu(_) => with_element!(result.dtype(), T => {
            let count = shape[1] * c;
            let images = result.host_mut::<T>()?.par_chunks_mut(count.max(1));
            images.zip(x.host::<T>()?.par_chunks((l * c).max(1))).for_each(|(part, whole)| {
                part.copy_from_slice(&whole[first * c..][..count]);
            });
            Ok(())
        })?,
        Device::Gpu(gpu) => {
            let part = Move { from: first, to: 0, count: shape[1], repeat: false, factor: 1.0 };
            move_tokens(gpu, x, part, &mut result)?;
        }
        Device::Plan(_) => {}
    }
    Ok(result.freeze())
}
