//! Layer norm over rows of every length.

use tasr::ops::layer_norm::layer_norm;

use crate::support::oracle::norm as oracle;
use crate::support::{Array, Random, Trial, check_gradients, run};
use tasr::autograd::Cx;
use tasr::tensor::Tensor;

#[test]
fn rows_of_every_length() {
    let mut random = Random::new(31);
    for (rows, c, offset) in [
        (&[1][..], 8, 0.0),
        (&[3], 15, 0.0),
        (&[2, 77], 16, 0.0),
        (&[1, 33], 17, 0.0),
        (&[2, 3, 5], 320, 0.0),
        (&[1, 65], 1280, 20.0),
        (&[40], 1, 0.0),
        (&[2, 5], 2, 0.0),
    ] {
        let shape = [rows, &[c]].concat();
        let inputs = vec![
            random.array(&shape).map(|v| v + offset),
            random.array(&[c]).plain(),
            random.array(&[c]).plain(),
        ];
        // Two close values in a short row differ by little: their rounding is magnified.
        let magnification: f64 = if c == 2 { 100.0 } else { 4.0 * offset };
        let trial = Trial::new(format!("layer_norm {shape:?}"), inputs, c).magnified(magnification);
        let op =
            |cx: &Cx, inputs: &[Tensor]| Ok(vec![layer_norm(cx, &inputs[0], &inputs[1], &inputs[2], 1e-5)?]);
        let oracle = |inputs: &[Array]| {
            vec![oracle::layer_norm(&inputs[0], &inputs[1], &inputs[2], f64::from(1e-5f32))]
        };
        run(&trial, op, oracle);
        check_gradients(&trial, op, oracle);
    }
}
