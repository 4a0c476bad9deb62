//! Space to channels.

use tasr::ops::pixel_unshuffle::pixel_unshuffle;

use crate::support::{Array, Random, Trial, run};

#[test]
fn blocks_become_channels() {
    for (shape, factor) in [([1, 8, 16, 3], 8), ([2, 6, 4, 5], 2), ([1, 3, 3, 1], 3), ([1, 2, 3, 4], 1)] {
        let [n, h, w, c] = shape;
        let trial =
            Trial::new(format!("{shape:?} by {factor}"), vec![Random::new(1).array(&shape)], 1).emulated();
        run(
            &trial,
            |cx, inputs| Ok(vec![pixel_unshuffle(cx, &inputs[0], factor)?]),
            |inputs| {
                let sizes = [n, h / factor, w / factor, c * factor * factor];
                vec![Array::build(&sizes, |place| {
                    let (channel, rest) = (place[3] / (factor * factor), place[3] % (factor * factor));
                    let (dy, dx) = (rest / factor, rest % factor);
                    inputs[0].at(&[place[0], place[1] * factor + dy, place[2] * factor + dx, channel])
                })]
            },
        );
    }
}
