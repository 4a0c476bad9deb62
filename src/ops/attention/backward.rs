//! The gradients of attention in q, k and v.
//!
//! With s = q k^T / sqrt(D), p = exp(s - log-sum-exp), g the gradient of the result and
//! d = p * (g v^T - sum(g * result)): dq = d k / sqrt(D), dk = d^T q / sqrt(D), dv = p^T g
//! (the backward of FlashAttention, Dao et al. 2022).

use super::{Geometry, Heads, cpu_backward, cuda};
use crate::autograd::Gradients;
use crate::device::{Device, Target};
use crate::error::{Error, Result};
use crate::ops::{Accumulate, Cx, widened};
use crate::tensor::{DType, NodeId, Tensor, TensorMut};

/// What the backward pass needs of a forward one.
pub struct Saved {
    pub geometry: Geometry,
    /// q, k and v: a tensor, and where its heads' columns start
    pub operands: [(Tensor, usize); 3],
    pub result: Tensor,
    /// log-sum-exp of the scaled scores, f32 [n, heads, l]
    pub sum_log: Tensor,
}

impl Saved {
    /// The same in f32. A tensor that several operands are columns of is copied once.
    fn wide(&self, cx: &Cx) -> Result<Self> {
        let [q, k, v] = &self.operands;
        let copy = |(tensor, offset): &(Tensor, usize)| Ok::<_, Error>((widened::wide(cx, tensor)?, *offset));
        let copy_or = |operand: &(Tensor, usize), (other, wide): (&Tensor, &Tensor)| match operand.0.node() {
            Some(node) if other.node() == Some(node) && other.shape() == operand.0.shape() => {
                Ok((wide.clone(), operand.1))
            }
            _ => copy(operand),
        };
        let first = copy(q)?;
        let second = copy_or(k, (&q.0, &first.0))?;
        let third = copy_or(v, (&k.0, &second.0))?;
        Ok(Saved {
            geometry: self.geometry,
            operands: [first, second, third],
            result: widened::wide(cx, &self.result)?,
            sum_log: self.sum_log.clone(),
        })
    }

    pub fn heads(&self) -> [Heads<'_>; 3] {
        [0, 1, 2].map(|i| Heads::new(&self.operands[i].0, self.operands[i].1))
    }
}

/// The place of an operand's gradient: columns from `offset` on of a new tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub tensor: usize,
    pub offset: usize,
}

/// Columns from `offset` on of a value of a tape, whose rows have `row`.
#[derive(Clone, Copy, Debug)]
struct Columns {
    value: NodeId,
    row: usize,
    offset: usize,
}

/// The tensors that the gradients of the wanted operands are written to: the operand whose shape each has, and
/// whether the gradients fill it. Operands that are columns of one value share a tensor if their columns differ.
fn layout(operands: [Option<Columns>; 3], all: usize) -> (Vec<(usize, bool)>, [Option<Place>; 3]) {
    struct New {
        operand: usize,
        value: (NodeId, usize),
        taken: Vec<usize>,
    }
    let mut tensors: Vec<New> = Vec::new();
    let places = [0, 1, 2].map(|operand| {
        let Columns { value, row, offset } = operands[operand]?;
        let free = |taken: &[usize]| taken.iter().all(|other| other.abs_diff(offset) >= all);
        let found = tensors.iter().position(|new| new.value == (value, row) && free(&new.taken));
        let tensor = found.unwrap_or_else(|| {
            tensors.push(New { operand, value: (value, row), taken: Vec::new() });
            tensors.len() - 1
        });
        tensors[tensor].taken.push(offset);
        Some(Place { tensor, offset })
    });
    (tensors.iter().map(|new| (new.operand, new.taken.len() * all == new.value.1)).collect(), places)
}

/// Adds the gradients of the operands, from that of the result, to `gradients`.
pub fn backward(cx: &Cx, saved: &Saved, gradient: &Tensor, gradients: &mut Gradients) -> Result<()> {
    let all = saved.geometry.heads * saved.geometry.width;
    let wanted = [0, 1, 2].map(|i| {
        let (tensor, offset) = &saved.operands[i];
        let value = tensor.node().filter(|_| gradients.wants(tensor))?;
        Some(Columns { value, row: tensor.shape().last(), offset: *offset })
    });
    let (tensors, places) = layout(wanted, all);
    let made = operand_gradients(cx, saved, gradient, (&tensors, places))?;
    for (gradient, (operand, _)) in made.into_iter().zip(tensors) {
        gradients.add(cx, &saved.operands[operand].0, gradient)?;
    }
    Ok(())
}

/// The tensors of [`layout`], filled.
fn operand_gradients(
    cx: &Cx,
    saved: &Saved,
    gradient: &Tensor,
    (tensors, places): (&[(usize, bool)], [Option<Place>; 3]),
) -> Result<Vec<Tensor>> {
    if widened::applies(cx, gradient.dtype()) {
        let (saved, gradient) = (saved.wide(cx)?, widened::wide(cx, gradient)?);
        let made = operand_gradients(cx, &saved, &gradient, (tensors, places))?;
        return made.iter().map(|tensor| widened::narrow(cx, tensor)).collect();
    }
    let mut made = Vec::new();
    for &(operand, filled) in tensors {
        let like = &saved.operands[operand].0;
        let mut tensor = cx.allocate(like.shape(), like.dtype())?;
        if !filled {
            tensor.clear()?;
        }
        made.push(tensor);
    }
    let g = &saved.geometry;
    // The CPU makes these where it needs them.
    let sizes = match cx.device().target() {
        Target::Cpu => [0, 0, 0],
        Target::Gpu => [g.n, g.heads, g.l],
    };
    let mut products = cx.allocate(sizes, DType::F32)?;
    match cx.device() {
        Device::Cpu(_) => {
            let mut targets = [None; 3];
            for (i, place) in places.iter().enumerate() {
                if let Some(Place { tensor, offset }) = *place {
                    let shape = made[tensor].shape();
                    let memory = made[tensor].host_mut::<f32>()?;
                    targets[i] = Some(cpu_backward::Target::new(memory, [shape[1], shape[2]], offset));
                }
            }
            cpu_backward::backward(saved, gradient, targets)?;
        }
        Device::Gpu(gpu) => cuda::backward(gpu, saved, gradient, &mut products, (&mut made, places))?,
        Device::Plan(_) => {}
    }
    Ok(made.into_iter().map(TensorMut::freeze).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_of_one_value_share_a_gradient() {
        let place = |tensor, offset| Some(Place { tensor, offset });
        let columns = |value, row, offset| Some(Columns { value, row, offset });
        let joint = layout([0, 8, 16].map(|offset| columns(7, 24, offset)), 8);
        assert_eq!(joint, (vec![(0, true)], [place(0, 0), place(0, 8), place(0, 16)]));
        let cross = layout([columns(1, 8, 0), columns(2, 16, 0), columns(2, 16, 8)], 8);
        assert_eq!(cross, (vec![(0, true), (1, true)], [place(0, 0), place(1, 0), place(1, 8)]));
        let frozen = layout([columns(1, 10, 1), None, None], 8);
        assert_eq!(frozen, (vec![(0, false)], [place(0, 1), None, None]));
        // The same columns as two operands: two gradients, which are added up.
        let same = layout([columns(1, 8, 0), columns(2, 12, 3), columns(2, 12, 4)], 8);
        assert_eq!(same.0, [(0, true), (1, false), (2, false)]);
        assert_eq!(layout([None; 3], 8), (Vec::new(), [None; 3]));
    }
}
