//! kernels/elementwise/tokens.cu, and the mean of tokens.

use crate::support::*;
use tasr::ops::Cx;
use tasr::ops::tokens::{join_tokens, mean_token};
use tasr::tensor::DType;

/// One element, an image's odd rows, more rows than a slice of a sum, more than a block.
const SIZES: [[usize; 4]; 5] = [[1, 1, 1, 1], [2, 56, 1, 7], [3, 5, 2, 4], [1, 257, 3, 20], [2, 1, 49, 136]];

#[test]
fn means_of_tokens_match_the_cpu() {
    for dtype in DTYPES {
        for [n, l, _, c] in SIZES {
            let values = rounded(&random(1, n * l * c), dtype);
            let run =
                |cx: &Cx, dtype| mean_token(cx, &upload(cx.device(), &values, [n, l, c], dtype)).unwrap();
            let wanted = run(&oracle(), DType::F32).to_f32().unwrap();
            let got = on_all(dtype, |cx| run(cx, dtype));
            assert_close(&format!("mean of [{n}, {l}, {c}]"), &got, &wanted, dtype, l, 1.0);
        }
    }
}

#[test]
fn tokens_are_joined_bit_for_bit() {
    for dtype in DTYPES {
        for [n, l, m, c] in SIZES {
            let [a, b] = [(1, l), (2, m)].map(|(seed, count)| rounded(&random(seed, n * count * c), dtype));
            let got = on_all(dtype, |cx| {
                let (a, b) =
                    (upload(cx.device(), &a, [n, l, c], dtype), upload(cx.device(), &b, [n, m, c], dtype));
                join_tokens(cx, &a, &b).unwrap()
            });
            let images = a.chunks(l * c).zip(b.chunks(m * c));
            let wanted: Vec<_> = images.flat_map(|(a, b)| [a, b].concat()).collect();
            assert!(got == wanted, "[{n}, {l} + {m}, {c}] in {}", dtype.name());
        }
    }
}
