//! Average pooling and its gradient.

use tasr::ops::average_pool::average_pool;

use tasr::autograd::Cx;
use tasr::tensor::Tensor;

use crate::support::{Array, Random, Trial, check_gradients, run};

fn oracle(x: &Array, factor: usize) -> Array {
    let [n, h, w, c] = x.nhwc();
    Array::build(&[n, h / factor, w / factor, c], |place| {
        let at = |i: usize| {
            let (y, x_) = (place[1] * factor + i / factor, place[2] * factor + i % factor);
            x.at(&[place[0], y, x_, place[3]])
        };
        (0..factor * factor).map(at).sum::<f64>() / (factor * factor) as f64
    })
}

#[test]
fn blocks_are_averaged_and_the_rest_left_out() {
    for (shape, factor) in
        [([1, 4, 6, 3], 2), ([2, 5, 7, 5], 2), ([1, 3, 3, 1], 3), ([3, 2, 9, 4], 2), ([1, 4, 5, 2], 1)]
    {
        let trial =
            Trial::new(format!("{shape:?} by {factor}"), vec![Random::new(1).array(&shape)], 4).emulated();
        let op = |cx: &Cx, inputs: &[Tensor]| Ok(vec![average_pool(cx, &inputs[0], factor)?]);
        let oracle = |inputs: &[Array]| vec![oracle(&inputs[0], factor)];
        run(&trial, op, oracle);
        check_gradients(&trial, op, oracle);
    }
}
