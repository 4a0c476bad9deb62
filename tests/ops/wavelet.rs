//! Colour fixing.

use tasr::ops::wavelet::{LEVELS, adain_fix, low_frequencies, wavelet_fix};

use crate::support::oracle::image as oracle;
use crate::support::{Random, Trial, run};

const SHAPES: [[usize; 4]; 6] =
    [[1, 1, 1, 1], [1, 1, 5, 3], [2, 4, 1, 3], [2, 7, 9, 3], [1, 40, 37, 3], [3, 33, 5, 4]];

#[test]
fn blurs_replicate_the_edges() {
    let mut random = Random::new(91);
    for shape in SHAPES {
        for levels in [0, 1, 3, 5] {
            run(
                &Trial::new(
                    format!("low_frequencies {shape:?}, {levels}"),
                    vec![random.array(&shape).plain()],
                    9,
                ),
                |cx, inputs| Ok(vec![low_frequencies(cx, &inputs[0], levels)?]),
                |inputs| vec![oracle::low_frequencies(&inputs[0], levels)],
            );
        }
    }
}

#[test]
fn colours_come_from_the_reference() {
    let mut random = Random::new(92);
    for shape in SHAPES {
        let inputs = vec![random.array(&shape).plain(), random.array(&shape).map(|v| 0.3 * v + 0.5).plain()];
        for levels in [2, LEVELS] {
            run(
                &Trial::new(format!("wavelet_fix {shape:?}, {levels}"), inputs.clone(), 9),
                |cx, inputs| Ok(vec![wavelet_fix(cx, &inputs[0], &inputs[1], levels)?]),
                |inputs| vec![oracle::wavelet_fix(&inputs[0], &inputs[1], levels)],
            );
        }
        run(
            &Trial::new(format!("adain_fix {shape:?}"), inputs, 9),
            |cx, inputs| Ok(vec![adain_fix(cx, &inputs[0], &inputs[1])?]),
            |inputs| vec![oracle::adain_fix(&inputs[0], &inputs[1])],
        );
    }
}
