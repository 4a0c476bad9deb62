//! kernels/attention/window.cu.

use crate::support::*;
use tasr::ops::Cx;
use tasr::ops::window_attention::{Windows, window_attention};
use tasr::tensor::DType;

/// As SwinIR cuts and with windows, heads and widths that fill neither a warp nor the kernel's room.
const CASES: [([usize; 3], Windows); 7] = [
    ([1, 16, 24], Windows { side: 8, shift: 4, heads: 2, width: 30 }),
    ([2, 8, 8], Windows { side: 8, shift: 0, heads: 1, width: 64 }),
    ([1, 8, 8], Windows { side: 8, shift: 3, heads: 3, width: 33 }),
    ([2, 14, 7], Windows { side: 7, shift: 3, heads: 1, width: 5 }),
    ([1, 6, 12], Windows { side: 6, shift: 1, heads: 2, width: 40 }),
    ([3, 9, 6], Windows { side: 3, shift: 2, heads: 5, width: 1 }),
    ([2, 2, 5], Windows { side: 1, shift: 0, heads: 3, width: 4 }),
];

#[test]
fn windows_whole_and_shifted_match_the_cpu() {
    for dtype in DTYPES {
        for ([n, h, w], windows @ Windows { side, heads, width, .. }) in CASES {
            let qkv = rounded(&random(1, n * h * w * 3 * heads * width), dtype);
            let places = (2 * side - 1) * (2 * side - 1);
            let run = |cx: &Cx, dtype| {
                let qkv = upload(cx.device(), &qkv, [n, h, w, 3 * heads * width], dtype);
                let bias = upload(cx.device(), &random(2, places * heads), [places, heads], DType::F32);
                window_attention(cx, &qkv, &bias, windows).unwrap()
            };
            let wanted = run(&oracle(), DType::F32).to_f32().unwrap();
            let got = on_all(dtype, |cx| run(cx, dtype));
            // A score is off by the rounding of a sum of `width` products, and a weight as much, relatively.
            assert_close(&format!("{windows:?}"), &got, &wanted, dtype, side * side + 2 * width, 1.0);
        }
    }
}

/// Scores that no exponential holds: queries and keys point the same way, far out.
#[test]
fn large_scores_do_not_overflow() {
    let windows = Windows { side: 8, shift: 4, heads: 1, width: 16 };
    for dtype in DTYPES {
        let values: Vec<_> = random(3, 16 * 8 * 48).iter().map(|v| v * 200.0).collect();
        let values = rounded(&values, dtype);
        let run = |cx: &Cx, dtype| {
            let qkv = upload(cx.device(), &values, [1, 16, 8, 48], dtype);
            let bias = upload(cx.device(), &[0.0; 225], [225, 1], DType::F32);
            window_attention(cx, &qkv, &bias, windows).unwrap()
        };
        let wanted = run(&oracle(), DType::F32).to_f32().unwrap();
        // Scores reach 1e5, of which f32 keeps 1/128.
        let got = on_all(dtype, |cx| run(cx, dtype));
        assert_close("large scores", &got, &wanted, dtype, 1 << 16, 200.0);
    }
}

#[test]
fn what_the_kernel_has_no_room_for_is_said() {
    let cx = Cx::new(devices()[0].clone(), DType::F32).unwrap();
    let windows = Windows { side: 9, shift: 0, heads: 1, width: 2 };
    let qkv = upload(cx.device(), &random(1, 81 * 6), [1, 9, 9, 6], DType::F32);
    let bias = upload(cx.device(), &random(2, 289), [289, 1], DType::F32);
    let error = window_attention(&cx, &qkv, &bias, windows).unwrap_err().to_string();
    assert!(error.contains("64 pixels") && error.contains("--device cpu"), "{error}");
}
