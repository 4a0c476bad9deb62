//! Token matrices: means and joins.

use tasr::ops::tokens::{join_tokens, mean_token};

use crate::support::{Array, Random, Trial, run};

#[test]
fn the_mean_of_all_tokens() {
    for (n, l, c) in [(1, 1, 1), (2, 56, 7), (1, 257, 20), (3, 4, 64)] {
        let trial = Trial::new(format!("[{n}, {l}, {c}]"), vec![Random::new(1).array(&[n, l, c])], l);
        run(
            &trial,
            |cx, inputs| Ok(vec![mean_token(cx, &inputs[0])?]),
            |inputs| {
                vec![Array::build(&[n, 1, c], |at| {
                    (0..l).map(|i| inputs[0].at(&[at[0], i, at[2]])).sum::<f64>() / l as f64
                })]
            },
        );
    }
}

#[test]
fn tokens_before_tokens() {
    for (n, l, m, c) in [(1, 1, 1, 1), (2, 1, 56, 7), (3, 5, 2, 4)] {
        let mut random = Random::new(2);
        let inputs = vec![random.array(&[n, l, c]), random.array(&[n, m, c])];
        run(
            &Trial::new(format!("[{n}, {l} + {m}, {c}]"), inputs, 1),
            |cx, inputs| Ok(vec![join_tokens(cx, &inputs[0], &inputs[1])?]),
            |inputs| {
                vec![Array::build(&[n, l + m, c], |at| match at[1].checked_sub(l) {
                    None => inputs[0].at(at),
                    Some(i) => inputs[1].at(&[at[0], i, at[2]]),
                })]
            },
        );
    }
}
