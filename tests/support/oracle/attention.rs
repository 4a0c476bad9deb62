//! Attention with the whole score matrix.

use crate::support::Array;

/// A head's operand: columns from `offset` on of [N, L, W].
pub type View<'a> = (&'a Array, usize);

pub fn attention((q, k, v): (View, View, View), heads: usize, width: usize, causal: bool) -> Array {
    let (n, l, m) = (q.0.shape[0], q.0.shape[1], k.0.shape[1]);
    let row = |(array, offset): View, image: usize, i: usize, head: usize| -> Vec<f64> {
        let w = array.last();
        let start = (image * array.shape[1] + i) * w + offset + head * width;
        array.values[start..start + width].to_vec()
    };
    let mut result = Array::build(&[n, l, heads * width], |_| 0.0);
    for image in 0..n {
        for head in 0..heads {
            let keys: Vec<_> = (0..m).map(|j| row(k, image, j, head)).collect();
            let values: Vec<_> = (0..m).map(|j| row(v, image, j, head)).collect();
            for i in 0..l {
                let query = row(q, image, i, head);
                let seen = if causal { i + 1 } else { m };
                let scores: Vec<f64> = keys[..seen]
                    .iter()
                    .map(|key| query.iter().zip(key).map(|(a, b)| a * b).sum::<f64>() / (width as f64).sqrt())
                    .collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
                let total: f64 = weights.iter().sum();
                let out = &mut result.values[((image * l + i) * heads + head) * width..][..width];
                for (weight, value) in weights.iter().zip(&values) {
                    out.iter_mut().zip(value).for_each(|(o, v)| *o += weight / total * v);
                }
            }
        }
    }
    result
}
