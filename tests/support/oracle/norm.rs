//! Group norm and layer norm, by two passes over what is normalised.

use crate::support::Array;

fn mean_and_deviation(values: &[f64], eps: f64) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / values.len() as f64;
    (mean, (variance + eps).sqrt())
}

/// x [N, H, W, C]; `adaln` [N, 2C] or [1, 2C], scales then shifts.
pub fn group_norm(
    x: &Array,
    (gamma, beta): (&Array, &Array),
    groups: usize,
    eps: f64,
    adaln: Option<&Array>,
) -> Array {
    let [n, h, w, c] = x.nhwc();
    let width = c / groups;
    let mut statistics = Vec::new();
    for image in 0..n {
        for group in 0..groups {
            let pixels = image * h * w..(image + 1) * h * w;
            let values: Vec<f64> = pixels
                .flat_map(|pixel| x.values[pixel * c + group * width..][..width].iter().copied())
                .collect();
            statistics.push(mean_and_deviation(&values, eps));
        }
    }
    Array::build(&x.shape, |p| {
        let (mean, deviation) = statistics[p[0] * groups + p[3] / width];
        let y = (x.at(p) - mean) / deviation * gamma.at(&[p[3]]) + beta.at(&[p[3]]);
        match adaln {
            None => y,
            Some(adaln) => {
                let row = p[0] % adaln.shape[0];
                y * (1.0 + adaln.at(&[row, p[3]])) + adaln.at(&[row, c + p[3]])
            }
        }
    })
}

/// x [..., C]
pub fn layer_norm(x: &Array, gamma: &Array, beta: &Array, eps: f64) -> Array {
    let c = x.last();
    let lines = x.values.chunks(c);
    let values = lines.flat_map(|line| {
        let (mean, deviation) = mean_and_deviation(line, eps);
        (0..c).map(|i| (line[i] - mean) / deviation * gamma.values[i] + beta.values[i]).collect::<Vec<_>>()
    });
    Array::new(&x.shape, values.collect())
}
