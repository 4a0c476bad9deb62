//! Token matrices: means and joins.

use tasr::ops::tokens::{join_tokens, mean_token};

use tasr::autograd::Cx;
use tasr::tensor::Tensor;

use crate::support::{Array, Random, Trial, check_gradients, run};

#[test]
fn the_mean_of_all_tokens() {
    for (n, l, c) in [(1, 1, 1), (2, 56, 7), (1, 257, 20), (3, 4, 64)] {
        let trial =
            Trial::new(format!("[{n}, {l}, {c}]"), vec![Random::new(1).array(&[n, l, c])], l).emulated();
        let op = |cx: &Cx, inputs: &[Tensor]| Ok(vec![mean_token(cx, &inputs[0])?]);
        let oracle = |inputs: &[Array]| {
            vec![Array::build(&[n, 1, c], |at| {
                (0..l).map(|i| inputs[0].at(&[at[0], i, at[2]])).sum::<f64>() / l as f64
            })]
        };
        run(&trial, op, oracle);
        check_gradients(&trial, op, oracle);
    }
}

#[test]
fn tokens_before_tokens() {
    for (n, l, m, c) in [(1, 1, 1, 1), (2, 1, 56, 7), (3, 5, 2, 4)] {
        let mut random = Random::new(2);
        let inputs = vec![random.array(&[n, l, c]), random.array(&[n, m, c])];
        let trial = Trial::new(format!("[{n}, {l} + {m}, {c}]"), inputs, 1).emulated();
        let op = |cx: &Cx, inputs: &[Tensor]| Ok(vec![join_tokens(cx, &inputs[0], &inputs[1])?]);
        let oracle = |inputs: &[Array]| {
            vec![Array::build(&[n, l + m, c], |at| match at[1].checked_sub(l) {
                None => inputs[0].at(at),
                Some(i) => inputs[1].at(&[at[0], i, at[2]]),
            })]
        };
        run(&trial, op, oracle);
        check_gradients(&trial, op, oracle);
    }
}
