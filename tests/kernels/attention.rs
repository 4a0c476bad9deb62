//! kernels/attention.

use crate::support::*;
use tasr::ops::Cx;
use tasr::ops::attention::{Heads, attention};
use tasr::tensor::{DType, Tensor};

/// One attention: `q` [n, l, .], `k` and `v` [n, m, .] are columns of one tensor each, or of a common one.
#[derive(Clone, Copy, Debug)]
struct Case {
    n: usize,
    l: usize,
    m: usize,
    heads: usize,
    width: usize,
    causal: bool,
    /// columns of other things on both sides of each operand's
    margin: usize,
    /// how large the queries are
    sharpness: f32,
}

const CASE: Case = Case { n: 1, l: 1, m: 1, heads: 1, width: 64, causal: false, margin: 0, sharpness: 1.0 };

impl Case {
    fn row(&self) -> usize {
        self.heads * self.width + 2 * self.margin
    }

    /// The values of q, k and v with their margins, as `dtype` keeps them.
    fn values(&self, dtype: DType) -> [Vec<f32>; 3] {
        let rows = |seed, count: usize, factor: f32| {
            let values = random(seed, self.n * count * self.row());
            rounded(&values.iter().map(|v| v * factor).collect::<Vec<_>>(), dtype)
        };
        [rows(1, self.l, 3.0 * self.sharpness), rows(2, self.m, 1.0), rows(3, self.m, 1.0)]
    }

    fn run(&self, cx: &Cx, values: &[Vec<f32>; 3], dtype: DType) -> Tensor {
        let [q, k, v] = [0, 1, 2].map(|i| {
            let rows = if i == 0 { self.l } else { self.m };
            upload(cx.device(), &values[i], [self.n, rows, self.row()], dtype)
        });
        let operands = [&q, &k, &v].map(|tensor| Heads::new(tensor, self.margin));
        attention(cx, operands.into(), self.heads, self.width, self.causal).unwrap()
    }

    /// What halves of weights and of results may cost beside the f32 sums, relative to the largest value, 1.
    ///
    /// A weight is rounded to the element type before it meets the values, and its exponent is off by the f32
    /// rounding of a score, which is a sum of `width` products of size up to 3 * sharpness.
    fn slack(&self, dtype: DType) -> f32 {
        let weights = match dtype {
            DType::F32 => 0.0,
            DType::F16 => 2f32.powi(-11),
            DType::BF16 => 2f32.powi(-8),
        };
        let score = 3.0 * self.sharpness * (self.width as f32).sqrt();
        (weights + 2f32.powi(-23) * score * (self.width as f32).sqrt()) / 2f32.powi(-23)
    }

    fn check(&self, dtype: DType) {
        let values = self.values(dtype);
        let wanted = self.run(&oracle(), &values, DType::F32).to_f32().unwrap();
        let got = on_all(dtype, |cx| self.run(cx, &values, dtype));
        assert_close(&format!("{self:?}"), &got, &wanted, dtype, self.slack(dtype) as usize, 1.0);
    }
}

/// The gradients of q, k and v, one behind the other.
fn gradients(cx: &Cx, case: &Case, values: &[Vec<f32>; 3], dtype: DType) -> Tensor {
    let cx = cx.with_tape();
    let tape = cx.tape().unwrap();
    let rows = |i: usize| if i == 0 { case.l } else { case.m };
    let on = |values: &[f32], rows, row| upload(cx.device(), values, [case.n, rows, row], dtype);
    let operands = [0, 1, 2].map(|i| tape.variable(&on(&values[i], rows(i), case.row())));
    let heads = [0, 1, 2].map(|i| Heads::new(&operands[i], case.margin));
    let result = attention(&cx, heads.into(), case.heads, case.width, case.causal).unwrap();
    let all = case.heads * case.width;
    let seed = rounded(&random(4, case.n * case.l * all), dtype);
    let found = tape.backward(&cx, vec![(&result, on(&seed, case.l, all))]).unwrap();
    let found = operands.each_ref().map(|operand| {
        let gradient = found.of(operand).unwrap();
        assert_eq!((gradient.shape(), gradient.dtype()), (operand.shape(), dtype));
        gradient.to_f32().unwrap()
    });
    let joined = found.concat();
    upload(cx.device(), &joined, [joined.len()], DType::F32)
}

impl Case {
    /// The weights, their slopes, the result that enters these and the gradients themselves are rounded to the
    /// element type once each; the slopes are differences, which doubles what they inherit. All is relative to
    /// the largest gradient of any operand.
    fn check_gradients(&self, dtype: DType) {
        let values = self.values(dtype);
        let wanted = gradients(&oracle(), self, &values, DType::F32).to_f32().unwrap();
        let largest = wanted.iter().fold(0f32, |a, b| a.max(b.abs()));
        let got = on_all(dtype, |cx| gradients(cx, self, &values, dtype));
        let length = 6 * self.slack(dtype) as usize + self.l.max(self.m);
        assert_close(&format!("gradients, {self:?}"), &got, &wanted, dtype, length, largest);
    }
}

#[test]
fn warpgroups_of_sm90_match_the_cpu() {
    for dtype in [DType::F16, DType::BF16] {
        // Queries and keys that end within a tile, one tile of keys, several, more than the ring has.
        for (n, l, m, heads, margin) in [(2, 130, 77, 4, 0), (4, 5, 1, 4, 8), (1, 129, 700, 8, 0)] {
            let case = Case { n, l, m, heads, margin, ..CASE };
            let values = case.values(dtype);
            let wanted = case.run(&oracle(), &values, DType::F32).to_f32().unwrap();
            let Some(got) = on_hopper(dtype, |cx| case.run(cx, &values, dtype)) else { return };
            let name = format!("sm_90a, {case:?}");
            assert_close(&name, &got, &wanted, dtype, case.slack(dtype) as usize, 1.0);
        }
        let case = Case { n: 2, l: 140, m: 300, heads: 4, ..CASE };
        let values = case.values(dtype);
        let wanted = gradients(&oracle(), &case, &values, DType::F32).to_f32().unwrap();
        let largest = wanted.iter().fold(0f32, |a, b| a.max(b.abs()));
        let Some(got) = on_hopper(dtype, |cx| gradients(cx, &case, &values, dtype)) else { return };
        let length = 6 * case.slack(dtype) as usize + case.m;
        assert_close("gradients after sm_90a", &got, &wanted, dtype, length, largest);
    }
}

#[test]
fn large_scores_do_not_overflow_on_sm90() {
    let case = Case { n: 2, l: 140, m: 300, heads: 4, sharpness: 300.0, ..CASE };
    for dtype in [DType::F16, DType::BF16] {
        let values = case.values(dtype);
        let wanted = case.run(&oracle(), &values, DType::F32).to_f32().unwrap();
        let Some(got) = on_hopper(dtype, |cx| case.run(cx, &values, dtype)) else { return };
        assert_close("sm_90a", &got, &wanted, dtype, case.slack(dtype) as usize, 1.0);
    }
}

#[test]
fn gradients_of_every_length() {
    for dtype in DTYPES {
        for (l, m) in [(1, 1), (3, 77), (65, 33)] {
            Case { n: 1 + l % 2, l, m, heads: 1 + m % 2, ..CASE }.check_gradients(dtype);
        }
    }
}

#[test]
fn gradients_of_every_width_and_mask() {
    for dtype in DTYPES {
        for (width, margin) in [(5, 0), (8, 8), (64, 4)] {
            Case { l: 20, m: 30, heads: 2, width, margin, ..CASE }.check_gradients(dtype);
        }
        for width in [72, 130] {
            Case { l: 7, m: 10, width, ..CASE }.check_gradients(dtype);
        }
        for (l, width) in [(1, 64), (70, 64), (70, 7)] {
            Case { l, m: l, width, causal: true, ..CASE }.check_gradients(dtype);
        }
    }
}

#[test]
fn gradients_of_the_autoencoders_head() {
    for dtype in [DType::F16, DType::BF16] {
        Case { l: 66, m: 130, width: 512, ..CASE }.check_gradients(dtype);
        Case { n: 2, l: 67, m: 67, heads: 2, width: 136, causal: true, margin: 8, ..CASE }
            .check_gradients(dtype);
    }
}

#[test]
fn gradients_of_large_scores() {
    for dtype in DTYPES {
        Case { l: 70, m: 140, sharpness: 20.0, ..CASE }.check_gradients(dtype);
    }
}

#[test]
fn gradients_in_blocks_of_either_size() {
    for dtype in [DType::F16, DType::BF16] {
        Case { n: 3, l: 150, m: 77, heads: 3, ..CASE }.check_gradients(dtype);
        Case { l: 77, m: 140, ..CASE }.check_gradients(dtype);
        Case { l: 140, m: 140, heads: 2, causal: true, ..CASE }.check_gradients(dtype);
    }
}

#[test]
fn lengths_of_every_kind() {
    for dtype in DTYPES {
        for (l, m) in [(1, 1), (3, 77), (65, 64), (64, 65), (130, 129), (77, 200)] {
            Case { n: 1 + l % 2, l, m, heads: 1 + m % 2, ..CASE }.check(dtype);
        }
    }
}

#[test]
fn widths_of_every_kernel() {
    for dtype in DTYPES {
        for width in [1, 5, 8, 24, 64] {
            Case { l: 70, m: 70, heads: 2, width, ..CASE }.check(dtype);
        }
        for width in [72, 128, 136, 200] {
            Case { l: 9, m: 70, width, ..CASE }.check(dtype);
        }
    }
    // f32 has no kernel of its own for wide heads.
    Case { l: 3, m: 5, width: 512, ..CASE }.check(DType::F32);
    for dtype in [DType::F16, DType::BF16] {
        Case { l: 65, m: 129, width: 512, ..CASE }.check(dtype);
    }
}

#[test]
fn the_autoencoders_head_is_causal_and_cut_off_like_the_others() {
    for dtype in [DType::F16, DType::BF16] {
        Case { l: 66, m: 66, width: 512, causal: true, ..CASE }.check(dtype);
        Case { n: 2, l: 5, m: 3, heads: 2, width: 264, margin: 8, ..CASE }.check(dtype);
    }
}

#[test]
fn causal_masks() {
    for dtype in DTYPES {
        for (l, width) in [(1, 64), (77, 64), (140, 64), (100, 80), (70, 7)] {
            Case { l, m: l, heads: 2, width, causal: true, ..CASE }.check(dtype);
        }
    }
}

#[test]
fn operands_inside_wider_rows() {
    for dtype in DTYPES {
        // A margin of 8 keeps 16-byte rows, 4 does not.
        for margin in [8, 4] {
            Case { n: 2, l: 33, m: 40, heads: 3, width: 16, margin, ..CASE }.check(dtype);
        }
        let (n, l, heads, width) = (2, 50, 2, 64);
        let all = heads * width;
        let joint = rounded(&random(7, n * l * 3 * all), dtype);
        let run = |cx: &Cx, dtype| {
            let x = upload(cx.device(), &joint, [n, l, 3 * all], dtype);
            let operands = [0, all, 2 * all].map(|offset| Heads::new(&x, offset));
            attention(cx, operands.into(), heads, width, true).unwrap()
        };
        let wanted = run(&oracle(), DType::F32).to_f32().unwrap();
        let got = on_all(dtype, |cx| run(cx, dtype));
        assert_close("joint", &got, &wanted, dtype, CASE.slack(dtype) as usize, 1.0);
    }
}

#[test]
fn large_scores_do_not_overflow() {
    for dtype in DTYPES {
        for width in [64, 9] {
            Case { l: 20, m: 150, width, sharpness: 300.0, ..CASE }.check(dtype);
        }
    }
    for dtype in [DType::F16, DType::BF16] {
        for width in [128, 512] {
            Case { l: 20, m: 150, width, sharpness: 300.0, ..CASE }.check(dtype);
        }
    }
}

#[test]
fn blocks_of_either_size_run() {
    // The emulator has few multiprocessors, so that few blocks are enough for large ones.
    for dtype in [DType::F16, DType::BF16] {
        Case { n: 3, l: 257, m: 77, heads: 3, ..CASE }.check(dtype);
    }
}

#[test]
fn other_element_types_are_refused() {
    let cx = Cx::new(devices()[0].clone(), DType::F16).unwrap();
    let tensor = |dtype| upload(cx.device(), &[0.0; 64], [1, 1, 64], dtype);
    let (q, k) = (tensor(DType::F16), tensor(DType::F32));
    let operands = (Heads::new(&q, 0), Heads::new(&q, 0), Heads::new(&k, 0));
    let error = attention(&cx, operands, 1, 64, false).unwrap_err().to_string();
    assert!(error.contains("attention of f16 meets f32"), "{error}");
}
