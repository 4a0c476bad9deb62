//! Group norm over segments, with and without AdaLN, written out.

use tasr::ops::group_norm::{GroupNorm, group_norm, normalise};
use tasr::ops::{Activation, Segment, Segments};

use crate::support::oracle::{conv, norm as oracle, pointwise};
use crate::support::{Array, Random, Trial, check_gradients, run};
use tasr::autograd::Cx;
use tasr::error::Result;
use tasr::tensor::Tensor;

struct Case {
    size: [usize; 3],
    parts: Vec<(usize, bool)>,
    groups: usize,
    /// rows of AdaLN, 0 for none
    adaln: usize,
    activation: Activation,
    /// how far the input lies from zero, in deviations
    offset: f64,
}

impl Case {
    fn check(&self, random: &mut Random) {
        let ([n, h, w], groups, eps) = (self.size, self.groups, 1e-5f32);
        let c: usize = self.parts.iter().map(|part| part.0).sum();
        let mut inputs = vec![random.array(&[c]).plain(), random.array(&[c]).plain()];
        if self.adaln > 0 {
            inputs.push(random.array(&[self.adaln, 2 * c]));
        }
        for &(c, sum) in &self.parts {
            for _ in 0..1 + usize::from(sum) {
                inputs.push(random.array(&[n, h, w, c]).map(|v| v + self.offset));
            }
        }
        let first = inputs.len() - self.parts.iter().map(|part| 1 + usize::from(part.1)).sum::<usize>();
        let name = format!(
            "group_norm {:?} {:?} / {groups}, adaln {}, offset {}",
            self.size, self.parts, self.adaln, self.offset
        );
        // One pixel of one channel has no variance: eps alone divides, and rounding is magnified.
        let lone = if h * w * (c / groups) < 8 { 1.0 / f64::from(eps).sqrt() } else { 1.0 };
        let trial = Trial::new(name, inputs, h * w * c / groups).magnified(lone.max(4.0 * self.offset));
        let op = |cx: &Cx, inputs: &[Tensor]| -> Result<Vec<Tensor>> {
            let mut rest = inputs[first..].iter();
            let mut next = || rest.next().expect("a segment");
            let parts = self.parts.iter().map(|&(_, sum)| {
                let tensor = next();
                Segment { tensor, plus: sum.then(&mut next) }
            });
            let segments = Segments::new(parts.collect());
            let norm = GroupNorm { gamma: &inputs[0], beta: &inputs[1], groups, eps };
            let adaln = (self.adaln > 0).then(|| &inputs[2]);
            let affine = group_norm(cx, &segments, &norm, adaln, self.activation)?;
            Ok(vec![normalise(cx, &segments, &affine)?])
        };
        let oracle = |inputs: &[Array]| {
            let mut rest = inputs[first..].iter();
            let mut next = || rest.next().expect("a segment");
            let parts: Vec<_> = self
                .parts
                .iter()
                .map(|&(_, sum)| {
                    let array = next();
                    (array, sum.then(&mut next))
                })
                .collect();
            let x = conv::concatenate(&parts);
            let adaln = (self.adaln > 0).then(|| &inputs[2]);
            let y = oracle::group_norm(&x, (&inputs[0], &inputs[1]), groups, f64::from(eps), adaln);
            vec![y.map(|v| pointwise::activate(v, self.activation))]
        };
        run(&trial, op, oracle);
        // A single pixel of a single channel has no gradient in x: two large terms cancel.
        if self.offset < 100.0 && h * w * (c / groups) > 1 {
            check_gradients(&trial.magnified(2.0), op, oracle);
        }
    }
}

#[test]
fn odd_sizes_segments_and_adaln() {
    let mut random = Random::new(21);
    let plain = |c: usize| vec![(c, false)];
    for (size, parts, groups, adaln) in [
        ([1, 1, 1], plain(64), 4, 0),
        ([2, 1, 3], plain(6), 3, 0),
        ([3, 5, 4], plain(10), 1, 3),
        ([2, 9, 15], plain(32), 32, 1),
        ([1, 16, 8], vec![(5, false), (7, true), (4, false)], 4, 1),
        ([3, 13, 21], vec![(3, true), (30, false)], 11, 3),
        ([2, 40, 41], vec![(12, true), (8, false), (8, true), (4, false)], 8, 0),
    ] {
        for activation in [Activation::None, Activation::Silu] {
            Case { size, parts: parts.clone(), groups, adaln, activation, offset: 0.0 }.check(&mut random);
        }
    }
}

#[test]
fn a_single_pixel_of_a_single_channel_becomes_beta() {
    let (size, parts) = ([2, 1, 1], vec![(5, false)]);
    let activation = Activation::None;
    Case { size, parts, groups: 5, adaln: 0, activation, offset: 0.0 }.check(&mut Random::new(1));
}

#[test]
fn a_large_mean_does_not_drown_the_deviation() {
    let mut random = Random::new(22);
    for offset in [10.0, 1000.0] {
        let (size, parts) = ([2, 31, 33], vec![(8, false), (8, false)]);
        Case { size, parts, groups: 4, adaln: 0, activation: Activation::None, offset }.check(&mut random);
    }
}
