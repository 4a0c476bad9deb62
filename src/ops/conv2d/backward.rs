//! Gradients of convolutions: of the input (dgrad), of the weights (wgrad), of prologue and epilogue.

use super::{Conv2d, ConvWeight, Geometry, Padding, cpu_backward, cuda_backward};
use crate::autograd::Gradients;
use crate::device::Target;
use crate::error::Result;
use crate::ops::elementwise::split_into;
use crate::ops::group_norm::{Affine, affine_gradient};
use crate::ops::{Accumulate, Cx, Epilogue, OwnedEpilogue, OwnedSegments, widened};
use crate::tensor::{DType, Tensor};

/// What the backward of a convolution keeps.
pub struct Saved {
    geometry: Geometry,
    input: OwnedSegments,
    prologue: Option<Affine>,
    upsample: bool,
    stride: usize,
    padding: Padding,
    weight: ConvWeight,
    epilogue: OwnedEpilogue,
}

impl Saved {
    pub fn new(geometry: Geometry, conv: &Conv2d, weight: &ConvWeight, epilogue: &Epilogue) -> Self {
        Saved {
            geometry,
            input: conv.input.owned(),
            prologue: conv.prologue.cloned(),
            upsample: conv.upsample,
            stride: conv.stride,
            padding: conv.padding,
            weight: weight.clone(),
            epilogue: epilogue.owned(),
        }
    }

    fn conv(&self) -> Conv2d<'_> {
        Conv2d {
            input: self.input.view(),
            prologue: self.prologue.as_ref(),
            upsample: self.upsample,
            stride: self.stride,
            padding: self.padding,
        }
    }

    /// From the gradient [N, H', W', O] of the result to those of everything that the convolution read.
    pub fn backward(&self, cx: &Cx, gradient: &Tensor, gradients: &mut Gradients) -> Result<()> {
        let (geometry, scale, conv) = (&self.geometry, self.epilogue.scale, self.conv());
        self.epilogue.backward(cx, gradient, gradients)?;
        if gradients.wants(self.weight.packed()) {
            let found = weight_gradient(cx, geometry, &conv, gradient, scale)?;
            gradients.add(cx, self.weight.packed(), found)?;
        }
        let coefficients = conv.prologue.is_some_and(|affine| gradients.wants(&affine.coefficients));
        if !coefficients && !gradients.wants_any(&conv.input) {
            return Ok(());
        }
        let inner = input_gradient(cx, geometry, &self.weight, gradient, scale)?;
        match conv.prologue {
            Some(affine) => affine_gradient(cx, &conv.input, affine, &inner, gradients),
            None => split_into(cx, &inner, &conv.input, gradients),
        }
    }
}

/// `scale` times the gradient of what was convolved, after the prologue and before the upsampling:
/// gradient [N, H', W', O] -> [N, H, W, C].
fn input_gradient(
    cx: &Cx,
    geometry: &Geometry,
    weight: &ConvWeight,
    gradient: &Tensor,
    scale: f32,
) -> Result<Tensor> {
    if cx.device().target() == Target::Gpu {
        return cuda_backward::input_gradient(cx, geometry, weight, gradient, scale);
    }
    if widened::applies(cx, gradient.dtype()) {
        let (weight, gradient) = (weight.wide(cx)?, widened::wide(cx, gradient)?);
        return widened::narrow(cx, &input_gradient(cx, geometry, &weight, &gradient, scale)?);
    }
    let &Geometry { n, h, w, c, .. } = geometry;
    let mut result = cx.allocate([n, h, w, c], gradient.dtype())?;
    let mut scratch = cx.allocate([cpu_backward::input_scratch(geometry, weight)], DType::F32)?;
    if !cx.device().is_plan() {
        let out = (scratch.host_mut()?, result.host_mut()?);
        cpu_backward::input_gradient(geometry, weight, gradient, scale, out)?;
    }
    Ok(result.freeze())
}

/// `scale` times the gradient of the weights, as checkpoints have them: f32 [O, C, k, k].
fn weight_gradient(
    cx: &Cx,
    geometry: &Geometry,
    conv: &Conv2d,
    gradient: &Tensor,
    scale: f32,
) -> Result<Tensor> {
    if cx.device().target() == Target::Gpu {
        return cuda_backward::weight_gradient(cx, geometry, conv, gradient, scale);
    }
    if widened::applies(cx, gradient.dtype()) {
        let input = widened::wide_segments(cx, &conv.input)?;
        let conv = Conv2d { input: input.view(), ..conv.clone() };
        return weight_gradient(cx, geometry, &conv, &widened::wide(cx, gradient)?, scale);
    }
    let &Geometry { c, o, kernel, .. } = geometry;
    let mut result = cx.allocate([o, c, kernel, kernel], DType::F32)?;
    let mut scratch = cx.allocate([cpu_backward::weight_scratch(geometry, conv)], DType::F32)?;
    if !cx.device().is_plan() {
        let out = (scratch.host_mut()?, result.host_mut()?);
        cpu_backward::weight_gradient(geometry, conv, gradient, scale, out)?;
    }
    Ok(result.freeze())
}
