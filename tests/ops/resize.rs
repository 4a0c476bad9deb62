//! Bicubic resizing, up and down, to and from a single pixel.

use tasr::ops::resize::resize_bicubic;

use crate::support::oracle::image as oracle;
use crate::support::{Array, Random, Trial, check_gradients, run};
use tasr::autograd::Cx;
use tasr::tensor::Tensor;

fn check(random: &mut Random, shape: [usize; 4], h: usize, w: usize) {
    let inputs = vec![random.array(&shape).plain()];
    let trial = Trial::new(format!("resize {shape:?} to {h} x {w}"), inputs, 16);
    let op = |cx: &Cx, inputs: &[Tensor]| Ok(vec![resize_bicubic(cx, &inputs[0], h, w)?]);
    let oracle = |inputs: &[Array]| vec![oracle::resize_bicubic(&inputs[0], h, w)];
    run(&trial, op, oracle);
    if h * w * shape[1] * shape[2] < 40_000 {
        check_gradients(&trial, op, oracle);
    }
}

#[test]
fn sizes_up_and_down() {
    let mut random = Random::new(81);
    for (shape, h, w) in [
        ([1, 1, 1, 1], 1, 1),
        ([1, 1, 1, 3], 4, 7),
        ([2, 4, 7, 3], 1, 1),
        ([1, 5, 5, 3], 5, 20),
        ([1, 5, 6, 4], 20, 6),
        ([3, 17, 13, 3], 68, 52),
        ([1, 71, 49, 3], 305, 210),
        ([1, 100, 64, 3], 23, 17),
        ([2, 3, 90, 1], 50, 9),
    ] {
        check(&mut random, shape, h, w);
    }
    for _ in 0..40 {
        let mut size = || random.within(1..=24);
        let (shape, h, w) = ([1 + size() % 2, size(), size(), 1 + size() % 4], size(), size());
        check(&mut random, shape, h, w);
    }
}
