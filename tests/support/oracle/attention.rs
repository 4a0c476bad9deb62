//! Attention with the whole score matrix, and its gradients.

use crate::support::Array;

/// A head's operand: columns from `offset` on of [N, L, W].
pub type View<'a> = (&'a Array, usize);

/// Row `i` of head `head` of image `image`.
fn row((array, offset): View<'_>, image: usize, i: usize, head: usize, width: usize) -> &[f64] {
    let start = (image * array.shape[1] + i) * array.last() + offset + head * width;
    &array.values[start..start + width]
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `sum += factor * row`
fn add(sum: &mut [f64], factor: f64, row: &[f64]) {
    sum.iter_mut().zip(row).for_each(|(s, r)| *s += factor * r);
}

/// softmax(query . key / sqrt(width)) over the keys that query `i` sees.
fn weights(
    (q, k): (View, View),
    image: usize,
    i: usize,
    head: usize,
    width: usize,
    causal: bool,
) -> Vec<f64> {
    let seen = if causal { i + 1 } else { k.0.shape[1] };
    let query = row(q, image, i, head, width);
    let scores: Vec<f64> =
        (0..seen).map(|j| dot(query, row(k, image, j, head, width)) / (width as f64).sqrt()).collect();
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / total).collect()
}

pub fn attention((q, k, v): (View, View, View), heads: usize, width: usize, causal: bool) -> Array {
    let (n, l) = (q.0.shape[0], q.0.shape[1]);
    let mut result = Array::build(&[n, l, heads * width], |_| 0.0);
    for image in 0..n {
        for head in 0..heads {
            for i in 0..l {
                let out = &mut result.values[((image * l + i) * heads + head) * width..][..width];
                for (j, weight) in weights((q, k), image, i, head, width, causal).into_iter().enumerate() {
                    add(out, weight, row(v, image, j, head, width));
                }
            }
        }
    }
    result
}

/// The gradients of q, k and v, each [N, rows, heads * width], from that of the result.
pub fn gradients(
    (q, k, v): (View, View, View),
    heads: usize,
    width: usize,
    causal: bool,
    gradient: &Array,
) -> [Array; 3] {
    let (n, l, m) = (q.0.shape[0], q.0.shape[1], k.0.shape[1]);
    let all = heads * width;
    let mut made = [l, m, m].map(|rows| Array::build(&[n, rows, all], |_| 0.0));
    let place = |rows: usize, image: usize, i: usize, head: usize| {
        let start = ((image * rows + i) * heads + head) * width;
        start..start + width
    };
    for image in 0..n {
        for head in 0..heads {
            for i in 0..l {
                let weights = weights((q, k), image, i, head, width, causal);
                let g = row((gradient, 0), image, i, head, width);
                let slopes: Vec<f64> =
                    (0..weights.len()).map(|j| dot(g, row(v, image, j, head, width))).collect();
                let mean = dot(&weights, &slopes);
                for (j, (weight, slope)) in weights.iter().zip(&slopes).enumerate() {
                    let d = weight * (slope - mean) / (width as f64).sqrt();
                    let (query, key) = (row(q, image, i, head, width), row(k, image, j, head, width));
                    add(&mut made[0].values[place(l, image, i, head)], d, key);
                    add(&mut made[1].values[place(m, image, j, head)], d, query);
                    add(&mut made[2].values[place(m, image, j, head)], *weight, g);
                }
            }
        }
    }
    made
}
