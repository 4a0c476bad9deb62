//! kernels/conv/conv_sm90.cu: convolutions by specialised warps with TMA and wgmma.

use crate::conv::{Case, case, emulated};
use crate::support::*;
use tasr::device::Device;
use tasr::device::gpu::emulator::{Options, Order};
use tasr::ops::conv2d::Padding;
use tasr::ops::{Activation, Cx};
use tasr::tensor::DType;

const HALVES: [DType; 2] = [DType::F16, DType::BF16];

/// Odd images, several in a tile and several tiles in one; parts with tails and of half a step; sums and norms,
/// which are written out first; every width of tile; more tiles than blocks.
fn cases() -> Vec<Case> {
    vec![
        case([1, 1, 1], &[(8, false)], 96, 3),
        case([1, 5, 7], &[(8, false)], 130, 3).finished(),
        case([2, 9, 11], &[(64, false), (32, false), (40, false)], 128, 3).finished(),
        case([5, 4, 4], &[(72, false)], 160, 3).finished(),
        case([1, 17, 19], &[(64, false)], 320, 3),
        case([3, 2, 5], &[(96, false), (8, false)], 250, 1).finished(),
        case([2, 70, 3], &[(200, false)], 100, 1),
        case([2, 6, 10], &[(40, true), (24, false)], 97, 3).normed(Activation::Silu).finished(),
        case([1, 8, 9], &[(64, true), (32, true), (8, false)], 96, 3).finished(),
        Case { padding: Padding::RightBelow, ..case([1, 6, 9], &[(16, false)], 104, 3) },
        Case { common: true, ..case([4, 3, 3], &[(72, true)], 128, 1).normed(Activation::Silu).finished() },
    ]
}

#[test]
fn conv2d_matches_the_cpu() {
    for case in cases() {
        for dtype in HALVES {
            let wanted = case.run(&oracle(), dtype, DType::F32).to_f32().unwrap();
            if let Some(got) = on_hopper(dtype, |cx| case.run(cx, dtype, dtype)) {
                let (terms, scale) = case.scale(dtype);
                assert_close(&format!("{case:?}"), &got, &wanted, dtype, terms, scale);
            }
        }
    }
}

#[test]
fn split_channels_are_added_in_order() {
    let cases = [
        case([2, 3, 5], &[(320, false)], 104, 3).finished(),
        case([1, 8, 8], &[(512, false), (96, false)], 160, 1).finished(),
    ];
    for case in cases {
        let wanted = case.run(&oracle(), DType::F16, DType::F32).to_f32().unwrap();
        let mut before: Option<Vec<f32>> = None;
        for order in [Order::Ascending, Order::Descending, Order::Shuffled] {
            let options = Options { order, capability: (9, 0), ..Options::default() };
            let cx = Cx::new(emulated(24, options), DType::F16).unwrap();
            let got = case.run(&cx, DType::F16, DType::F16).to_f32().unwrap();
            // The counters are left as they were found.
            assert_eq!(case.run(&cx, DType::F16, DType::F16).to_f32().unwrap(), got);
            assert_eq!(*before.get_or_insert(got.clone()), got);
            let (terms, scale) = case.scale(DType::F16);
            assert_close(&format!("{case:?}"), &got, &wanted, DType::F16, terms, scale);
        }
    }
}

#[test]
fn what_the_copy_engine_cannot_read_takes_the_other_kernels() {
    let others = [
        case([1, 5, 6], &[(64, false)], 16, 3),
        case([1, 6, 6], &[(64, false)], 128, 3).stride_2(Padding::Same),
        case([1, 3, 4], &[(64, false)], 128, 3).upsampled(),
        case([1, 5, 6], &[(24, false), (64, false)], 128, 3),
        case([1, 5, 6], &[(12, false)], 128, 3),
    ];
    for case in others {
        for names in kernels_of(&case) {
            assert!(names.iter().all(|name| !name.contains("sm90")), "{case:?}: {names:?}");
        }
    }
}

#[test]
fn what_it_can_read_takes_these_kernels() {
    for names in kernels_of(&case([1, 8, 8], &[(288, false)], 128, 3)) {
        assert!(names.iter().any(|name| name.contains("conv") && name.contains("sm90")), "{names:?}");
    }
}

/// What a case starts on each device of sm_90a.
fn kernels_of(case: &Case) -> Vec<Vec<&'static str>> {
    let of = |device: &Device| {
        let cx = Cx::new(device.clone(), DType::F16).unwrap();
        gpu(device).started(|| Ok(case.run(&cx, DType::F16, DType::F16))).unwrap().1
    };
    hopper_devices().iter().map(of).collect()
}

#[test]
fn memory_is_planned_for_the_kernels_of_the_device() {
    for case in cases() {
        let options = Options { check: false, capability: (9, 0), ..Options::default() };
        let cx = Cx::new(emulated(24, options), DType::F16).unwrap();
        let plan = Cx::new(cx.device().planned(), DType::F16).unwrap();
        case.run(&plan, DType::F16, DType::F16);
        case.run(&cx, DType::F16, DType::F16);
        assert_eq!(plan.device().peak(), cx.device().peak(), "{case:?}");
    }
}
