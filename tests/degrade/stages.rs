//! Stage by stage, with the parameters of make.py.

use tasr::train::degrade::filter::filter;
use tasr::train::degrade::jpeg;
use tasr::train::degrade::kernels::{Kernel, Profile};
use tasr::train::degrade::resize::{Antialiased, Kind, resize, resize_bytes, scale};
use tasr::train::degrade::usm::sharpened;
use tasr::train::degrade::{Crop, Random};

use crate::{check, close, photo, stored};

/// Rounding of values near 1 in f32, and of sums of up to 441 products.
const ROUNDING: f32 = 2e-6;

#[test]
fn kernels_and_filters() {
    let kernels = [
        ("gaussian", Kernel::bivariate(13, [1.7, 0.6], 0.7, Profile::Gaussian)),
        ("generalized", Kernel::bivariate(9, [2.1, 1.2], -2.0, Profile::Generalized(0.8))),
        ("plateau", Kernel::bivariate(21, [1.1, 2.7], 1.3, Profile::Plateau(1.6))),
        ("sinc", Kernel::sinc(15, 1.9)),
    ];
    for (name, kernel) in kernels {
        close(name, &kernel.weights, &stored(&format!("kernel.{name}")).1, 1e-7);
        check(&format!("filtered.{name}"), &filter(&photo(), &kernel), ROUNDING);
    }
}

#[test]
fn every_kernel_has_sum_one_and_is_symmetric() {
    for size in (7..=21).step_by(2) {
        for kernel in [
            Kernel::sinc(size, 0.7),
            Kernel::sinc(size, 3.1),
            Kernel::bivariate(size, [0.2, 3.0], 1.0, Profile::Gaussian),
            Kernel::bivariate(size, [3.0, 0.3], -1.0, Profile::Generalized(0.5)),
            Kernel::bivariate(size, [1.0, 1.0], 0.0, Profile::Plateau(2.0)),
        ] {
            let sum: f32 = kernel.weights.iter().sum();
            assert!((sum - 1.0).abs() < 1e-5, "{size}: sum {sum}");
            let turned: Vec<f32> = kernel.weights.iter().rev().copied().collect();
            close("turned by 180 degrees", &kernel.weights, &turned, 1e-8);
        }
    }
}

#[test]
fn sharpening() {
    check("sharpened", &sharpened(&photo()), ROUNDING);
}

#[test]
fn resizing() {
    for (name, kind) in [("area", Kind::Area), ("bilinear", Kind::Bilinear), ("bicubic", Kind::Bicubic)] {
        for (h, w) in [(17, 60), (80, 19), (43, 52)] {
            check(&format!("resized.{name}.{h}x{w}"), &resize(&photo(), (h, w), kind), ROUNDING);
        }
        for factor in [0.37, 1.43] {
            check(&format!("scaled.{name}.{factor}"), &scale(&photo(), factor, kind), ROUNDING);
        }
    }
}

#[test]
fn pillow_resizing_agrees_to_the_byte() {
    for (name, filter, size) in [
        ("box", Antialiased::Box, (21, 26)),
        ("bicubic", Antialiased::Bicubic, (61, 37)),
        ("bicubic", Antialiased::Bicubic, (16, 20)),
    ] {
        let key = format!("pillow.{name}.{}x{}", size.0, size.1);
        check(&key, &resize_bytes(&photo(), size, filter), 1e-6);
    }
}

#[test]
fn simulated_jpeg() {
    for quality in [31.7, 61.3, 94.2] {
        // One rounding of a coefficient the other way would show as 0.01 and more.
        check(&format!("jpeg.{quality}"), &jpeg::simulated(&photo(), quality), 1e-4);
    }
}

/// Encoders differ in their integer DCTs and decoders in how they enlarge chroma: by a byte or two on average.
#[test]
fn real_jpeg_is_that_of_libjpeg_up_to_a_few_bytes() {
    let apart =
        |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f32>() / a.len() as f32;
    let mut losses = Vec::new();
    for quality in [30, 75, 97] {
        let found = jpeg::encoded(&photo(), quality).expect("encodes");
        let (_, expected) = stored(&format!("encoded.{quality}"));
        let error = apart(&found.values, &expected);
        let loss = apart(&photo().values, &found.values);
        assert!(error < 2.0 / 255.0, "quality {quality}: mean error {error}, loss {loss}");
        // It is as far from the photo as libjpeg's is.
        let of_libjpeg = apart(&photo().values, &expected);
        assert!((loss / of_libjpeg - 1.0).abs() < 0.15, "quality {quality}: loss {loss} for {of_libjpeg}");
        losses.push(loss);
    }
    assert!(losses[0] > 1.1 * losses[1] && losses[1] > 1.1 * losses[2], "{losses:?}");
}

#[test]
fn crops_have_their_size_whatever_the_picture() {
    let random = &mut Random::new(0, 0, 0);
    for size in [8, 16, 24, 40, 48, 64, 160] {
        for crop in [Crop::Random, Crop::Centre, Crop::Fit] {
            let square = crop.apply(&photo(), size, random);
            assert_eq!((square.height, square.width, square.values.len()), (size, size, size * size * 3));
        }
    }
    let centre = Crop::Centre.apply(&photo(), 40, random);
    assert_eq!(centre.values[..3], photo().values[(52 + 6) * 3..][..3]);
}
