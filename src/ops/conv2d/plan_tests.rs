use super::*;

fn problem([images, size, channels, outputs, kernel, stride]: [usize; 6], fused: bool) -> Problem {
    let out = size / stride;
    Problem {
        images,
        h: size,
        w: size,
        channels,
        outputs,
        kernel,
        stride,
        pad: kernel / 2,
        view: View::Stored,
        out_h: out,
        out_w: out,
        dtype: DType::F16,
        fused,
        normed: fused,
    }
}

/// [images, size, channels, outputs, kernel, stride] of the full-size networks at 512 x 512 with guidance.
fn full_size() -> Vec<[usize; 6]> {
    let mut all = vec![[2, 64, 4, 320, 3, 1], [2, 64, 8, 320, 3, 1], [2, 64, 320, 4, 3, 1]];
    let levels = [(64, 320), (32, 640), (16, 1280), (8, 1280)];
    for (level, (size, c)) in levels.into_iter().enumerate() {
        let below = levels[(level + 1).min(3)].1;
        let above = levels[level.saturating_sub(1)].1;
        for input in [above, c, 2 * c, c + below, c + above] {
            all.extend([[2, size, input, c, 3, 1], [2, size, input, c, 1, 1]]);
        }
        all.push([2, size, c, c, 3, 2]);
        for (h, s) in [(c, c), (below, c), (c, above)] {
            let input = 2 * h + 3 * s;
            let middle = input / 4;
            all.extend([[2, size, input, middle, 3, 1], [2, size, middle, middle / 2, 3, 1]]);
            all.push([2, size, middle / 2, 1, 3, 1]);
        }
    }
    for (size, c) in [(512, 128), (256, 256), (128, 512), (64, 512)] {
        all.extend([
            [1, size, c, c, 3, 1],
            [1, size, 2 * c, c, 1, 1],
            [1, size, c, 3, 3, 1],
            [1, size, c, c, 3, 2],
        ]);
    }
    for c in [64, 96, 128, 160, 192] {
        all.extend([[1, 128, c, 32, 3, 1], [1, 128, c, 64, 3, 1]]);
    }
    all
}

#[test]
fn every_convolution_of_the_networks_has_a_kernel_that_fills_the_gpu() {
    for sizes in full_size() {
        for (fused, dtype) in [(false, DType::F16), (true, DType::BF16), (true, DType::F32)] {
            let problem = Problem { dtype, ..problem(sizes, fused) };
            for multiprocessors in [46, 108, 132] {
                let plan = problem.plan(multiprocessors).unwrap();
                assert!(plan.family(&problem).of(dtype).is_ok());
                assert!(plan.grid.shared_bytes as usize <= MOST_SHARED);
                let blocks = (plan.grid.blocks[0] * plan.grid.blocks[1]) as usize;
                assert_eq!(blocks, plan.tiles[2] * plan.tiles[3] * plan.splits);
                let sums = blocks * plan.tile.pixels * plan.tile.outputs * 4;
                assert!(plan.splits == 1 || sums <= problem.scratch(), "{sizes:?}");
                assert!(plan.splits * plan.split_blocks >= problem.blocks());
                assert!((plan.splits - 1) * plan.split_blocks < problem.blocks());
                // A launch that leaves multiprocessors idle is one whose work is small.
                let products =
                    problem.out_h * problem.out_w * sizes[0] * sizes[2] * sizes[3] * sizes[4] * sizes[4];
                let fills = blocks * 10 >= multiprocessors as usize * 6;
                assert!(dtype == DType::F32 || fills || products < 300_000_000, "{sizes:?}: {plan:?}");
            }
        }
    }
}

#[test]
fn levels_that_are_bound_by_weights_are_split_and_large_ones_are_not() {
    let plan = |sizes, multiprocessors| problem(sizes, true).plan(multiprocessors).unwrap();
    assert!(plan([2, 8, 1280, 1280, 3, 1], 132).splits > 2);
    assert!(plan([2, 8, 6400, 1600, 3, 1], 132).splits > 2);
    let large = plan([16, 64, 320, 320, 3, 1], 132);
    assert_eq!((large.splits, large.tile.pixels), (1, 128));
    assert_eq!(plan([1, 512, 128, 3, 3, 1], 132).tile.outputs, 16);
    assert_eq!(problem([1, 128, 160, 32, 3, 1], false).plan(132).unwrap().tile.outputs, 32);
}

#[test]
fn pixels_of_small_images_share_a_tile_and_plain_1x1_kernels_take_rows() {
    let small = problem([4, 8, 64, 64, 3, 1], true).plan(1).unwrap();
    assert_eq!(small.rectangle.w * small.rectangle.h * small.rectangle.images, small.tile.pixels);
    assert_eq!(small.tiles[2] * small.tile.pixels, 4 * 64);
    let row = problem([3, 5, 64, 64, 1, 1], false).flattened();
    assert_eq!((row.images, row.h, row.w, row.out_w), (1, 1, 75, 75));
    let normed = problem([3, 5, 64, 64, 1, 1], true).flattened();
    assert_eq!((normed.images, normed.w), (3, 5));
}

#[test]
fn sizes_beyond_32_bits_are_refused() {
    assert!(problem([1 << 20, 1 << 12, 8, 8, 3, 1], false).plan(132).is_err());
}
