use super::*;
use crate::ops::host::element::HostElement;

fn value(i: usize) -> f32 {
    ((i * 7919 + 13) % 251) as f32 / 125.0 - 1.0
}

fn rounded(count: usize, seed: usize) -> Vec<bf16> {
    (0..count).map(|i| HostElement::narrow(value(i + seed))).collect()
}

/// Every kernel of this machine, each once.
fn kernels() -> impl Iterator<Item = (&'static str, &'static Kernel)> {
    MatrixUnit::available().iter().map(|unit| (unit.name(), Kernel::of(*unit)))
}

/// A product of rows with several taps, against its definition in f64.
fn check(rows: usize, outputs: usize, channels: usize, taps: usize) {
    let layout = Layout { outputs, channels, taps };
    let values: Vec<f32> = rounded(outputs * channels * taps, 5).iter().map(|v| v.wide()).collect();
    let mut packed = vec![bf16::from_f32(f32::NAN); layout.elements()];
    layout.pack(&values, &mut packed);
    // Tap t of row r lies at row r + t, as in a convolution along one axis.
    let stride = channels.next_multiple_of(STEP);
    let mut a = vec![bf16::ZERO; (rows + taps) * stride];
    for (row, line) in a.chunks_exact_mut(stride).enumerate() {
        line[..channels].copy_from_slice(&rounded(channels, row * 31));
    }
    for (name, kernel) in kernels() {
        // An odd cut into runs: the results of the second half come first.
        let half = rows / 2;
        let runs = [(0, half, rows - half), (half * stride, rows - half, 0)];
        let product = Product {
            kernel,
            a: &a,
            stride,
            blocks: &rows_in_blocks(runs, stride, kernel.rows()),
            chunks: &layout.chunks(|tap| tap * stride),
            weights: Panels::new(&packed, layout.depth()),
        };
        let mut found = vec![f32::NAN; rows * outputs];
        let shared = Shared::new(&mut found);
        product.run(&Cut::of(rows, layout.panels()), |row, panels, sums| {
            let first = panels[0] * COLUMNS;
            let columns = sums.len().min(outputs - first);
            // SAFETY: each row and panel comes once.
            unsafe { shared.slice(row * outputs + first, columns) }.copy_from_slice(&sums[..columns]);
        });
        for row in 0..rows {
            let out = if row < half { row + rows - half } else { row - half };
            for output in 0..outputs {
                let (mut exact, mut size) = (0f64, 1f64);
                for tap in 0..taps {
                    for c in 0..channels {
                        let x = f64::from(a[(row + tap) * stride + c].wide());
                        let term = x * f64::from(values[(output * channels + c) * taps + tap]);
                        (exact, size) = (exact + term, size + term.abs());
                    }
                }
                let found = f64::from(found[out * outputs + output]);
                // f32 sums drift like the square root of their number.
                let allowed = size * 2f64.powi(-24) * (4.0 + ((channels * taps) as f64).sqrt());
                assert!(
                    (found - exact).abs() <= allowed,
                    "{name}: {rows} rows, {channels} x {taps} -> {outputs}: {found} for {exact}"
                );
            }
        }
    }
}

#[test]
fn every_unit_multiplies_awkward_sizes() {
    for (rows, outputs, channels, taps) in [
        (1, 1, 1, 1),
        (2, 31, 3, 1),
        (5, 32, 32, 1),
        (7, 33, 45, 1),
        (33, 65, 31, 9),
        (64, 8, 65, 9),
        (17, 40, 130, 9),
        (300, 3, 7, 1),
        (31, 350, 600, 1),
    ] {
        check(rows, outputs, channels, taps);
    }
}

#[test]
fn every_unit_passes_the_check_that_comes_before_its_use() {
    for (name, kernel) in kernels() {
        assert!(agrees(kernel), "{name}");
    }
}

#[test]
fn the_check_notices_a_wrong_kernel() {
    unsafe fn nothing(_: &Call) {}
    assert!(!agrees(&Kernel { rows: 4, multiply: nothing }));
}

#[test]
fn blocks_cover_every_row_once_and_are_even() {
    for most in [4, 8, 32] {
        for rows in 0..100 {
            let blocks = rows_in_blocks([(7, rows, 1000)], 3, most);
            let mut next = 0;
            for block in &blocks {
                assert_eq!((block.first, block.sums, block.out), (7 + 3 * next, next, 1000 + next));
                assert!(block.rows <= most && block.rows + 1 >= rows.div_ceil(blocks.len()));
                next += block.rows;
            }
            assert_eq!((next, blocks.len()), (rows, rows.div_ceil(most)));
        }
    }
}

#[test]
fn cuts_take_every_panel_once_and_gates_with_their_values() {
    for (rows, panels) in [(1, 1), (128, 40), (8192, 10), (100_000, 300), (3, 7)] {
        let cut = Cut::of(rows, panels);
        let all: Vec<usize> = cut.panels.iter().flatten().copied().collect();
        assert_eq!(all, (0..panels).collect::<Vec<_>>());
        let gated = Cut::gated(rows, panels * COLUMNS);
        for group in &gated.panels {
            let (values, gates) = group.split_at(group.len() / 2);
            assert!(values.iter().zip(gates).all(|(v, g)| v + panels == *g));
        }
        let mut all: Vec<usize> = gated.panels.into_iter().flatten().collect();
        all.sort_unstable();
        assert_eq!(all, (0..2 * panels).collect::<Vec<_>>());
    }
    assert_eq!(Cut::gated(10, 33).panels, [[0, 1, 2].to_vec()]);
}

#[test]
#[should_panic(expected = "leaves its rows")]
fn rows_that_are_not_there_are_refused() {
    let (a, b) = (rounded(64, 0), rounded(STEP * COLUMNS, 0));
    let blocks = [Block { first: 0, rows: 3, sums: 0, out: 0 }];
    let span = [Span { offset: 0, length: 2 }];
    Kernel::of(MatrixUnit::Portable).multiply(
        (&a, 32),
        &blocks,
        &span,
        &b,
        (&mut [0.0; 3 * COLUMNS], COLUMNS),
        false,
    );
}
