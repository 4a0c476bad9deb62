//! Activation checkpointing: the same bits, less memory.

use tasr::autograd::Cx;
use tasr::device::Device;
use tasr::error::Result;
use tasr::ops::conv2d::{Conv2d, ConvWeight, conv2d};
use tasr::ops::group_norm::{GroupNorm, group_norm};
use tasr::ops::{Activation, Epilogue, Segments, checkpoint};
use tasr::tensor::{DType, Tensor};

use crate::support::Random;

/// A residual block of two convolutions, or an arbitrary one to be frozen.
#[derive(Clone)]
struct Block {
    weight: ConvWeight,
    gamma: Tensor,
    beta: Tensor,
}

const C: usize = 16;
const SHAPE: [usize; 4] = [4, 48, 48, C];

impl Block {
    fn new(cx: &Cx, random: &mut Random, trained: bool) -> Result<Self> {
        let values: Vec<f32> = random.array(&[C, C, 3, 3]).map(|v| 0.1 * v).to_f32();
        let weight = ConvWeight::pack(cx, &values, [C, C, 3, 3])?;
        let vector = |value: f32| Tensor::from_f32(cx.device(), &[value; C], [C]);
        let (gamma, beta) = (vector(1.0)?, vector(0.1)?);
        let Some(tape) = cx.tape().filter(|_| trained) else { return Ok(Block { weight, gamma, beta }) };
        let node = tape.variable(weight.packed()).node();
        Ok(Block { weight: weight.with_node(node), gamma: tape.variable(&gamma), beta })
    }

    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let norm = GroupNorm { gamma: &self.gamma, beta: &self.beta, groups: 4, eps: 1e-5 };
        let affine = group_norm(cx, &Segments::one(x), &norm, None, Activation::Silu)?;
        let h =
            conv2d(cx, &Conv2d::new(Segments::one(x)).prologue(&affine), &self.weight, &Epilogue::default())?;
        let affine = group_norm(cx, &Segments::one(&h), &norm, None, Activation::Silu)?;
        let conv = Conv2d::new(Segments::one(&h)).prologue(&affine);
        conv2d(cx, &conv, &self.weight, &Epilogue::default().residual(x))
    }
}

/// Gradients of the input and of every block's weights, and the peak of memory. The first two blocks are frozen, and
/// the input is a constant where `constant` says so.
fn run(checkpointing: bool, constant: bool) -> Result<(Vec<Vec<f32>>, usize)> {
    let device = Device::cpu();
    let cx = Cx::new(device.clone(), DType::F32)?.with_tape().with_checkpointing(checkpointing);
    let tape = cx.tape().expect("a tape");
    let mut random = Random::new(5);
    let mut x = Tensor::from_f32(&device, &random.array(&SHAPE).to_f32(), SHAPE)?;
    if !constant {
        x = tape.variable(&x);
    }
    let blocks: Vec<Block> = (0..8).map(|i| Block::new(&cx, &mut random, i >= 2)).collect::<Result<_>>()?;
    let mut h = x.clone();
    for (i, block) in blocks.iter().enumerate() {
        h = checkpoint(&cx, block, &[&h], |block, cx, inputs| block.forward(cx, inputs[0]))?;
        assert_eq!(h.node().is_some(), !constant || i >= 2, "what nothing depends on is not recorded");
    }
    let seed = Tensor::from_f32(&device, &random.array(&SHAPE).to_f32(), SHAPE)?;
    let found = tape.backward(&cx, vec![(&h, seed)])?;
    let mut gradients = Vec::new();
    if !constant {
        gradients.push(found.of(&x).expect("a gradient of x").to_f32()?);
    }
    for block in &blocks[2..] {
        gradients.push(found.of(block.weight.packed()).expect("a gradient of a weight").to_f32()?);
        gradients.push(found.of(&block.gamma).expect("a gradient of gamma").to_f32()?);
    }
    assert!(found.of(blocks[0].weight.packed()).is_none());
    Ok((gradients, device.peak()))
}

#[test]
fn recomputing_gives_the_same_bits_in_less_memory() {
    for constant in [false, true] {
        let (kept, much) = run(false, constant).unwrap();
        let (recomputed, little) = run(true, constant).unwrap();
        assert_eq!(kept, recomputed);
        assert!(kept.iter().flatten().any(|v| *v != 0.0));
        // Of every block but one the middle activation is not kept.
        assert!(little * 10 < much * 8, "{little} bytes with checkpointing, {much} without");
    }
}
