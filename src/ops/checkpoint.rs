//! Activation checkpointing: a block keeps its inputs only and is computed again in the backward pass.

use super::Cx;
use crate::autograd::Gradients;
use crate::error::Result;
use crate::tensor::Tensor;

/// `forward(layer, cx, inputs)`, recomputed in the backward pass where `cx` asks for it.
///
/// The same code runs both times on the same values, so the result and every gradient have the same bits
/// with and without. Cloning a layer shares its weights.
pub fn checkpoint<L: Clone + 'static>(
    cx: &Cx,
    layer: &L,
    inputs: &[&Tensor],
    forward: impl Fn(&L, &Cx, &[&Tensor]) -> Result<Tensor> + 'static,
) -> Result<Tensor> {
    let (result, ()) =
        checkpoint_with(cx, layer, inputs, move |layer, cx, inputs| Ok((forward(layer, cx, inputs)?, ())))?;
    Ok(result)
}

/// As [`checkpoint`] for a block that gives something to look at beside its result.
pub fn checkpoint_with<L: Clone + 'static, E>(
    cx: &Cx,
    layer: &L,
    inputs: &[&Tensor],
    forward: impl Fn(&L, &Cx, &[&Tensor]) -> Result<(Tensor, E)> + 'static,
) -> Result<(Tensor, E)> {
    if !cx.checkpointing() {
        return forward(layer, cx, inputs);
    }
    // On a tape of its own, which goes when the block ends: it says whether anything here is differentiated.
    let inner = cx.with_inner_tape().with_checkpointing(false);
    let (result, beside) = forward(layer, &inner, inputs)?;
    if !inner.tracks(&[&result]) {
        return Ok((result, beside));
    }
    drop(inner);
    let Some(tape) = cx.tape() else { return Ok((result, beside)) };
    let layer = layer.clone();
    let inputs: Vec<Tensor> = inputs.iter().map(|&input| input.clone()).collect();
    let backward = move |cx: &Cx, gradient: &Tensor, gradients: &mut Gradients| -> Result<()> {
        let inner = cx.with_tape_within(gradients).with_checkpointing(false);
        let (result, _) = forward(&layer, &inner, &inputs.iter().collect::<Vec<_>>())?;
        let Some(tape) = inner.tape() else { return Ok(()) };
        tape.backward_within(&inner, &result, gradient.clone(), gradients)
    };
    Ok((tape.record(result.detached(), Box::new(backward)), beside))
}
