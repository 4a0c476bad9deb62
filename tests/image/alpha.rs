//! Transparency around the network.

use tasr::image::alpha::{network_colour, premultiply, recombine, resized, unpremultiply};
use tasr::image::{Format, Picture};

fn picture(width: usize, height: usize, colour: Vec<f32>, alpha: Option<Vec<f32>>) -> Picture {
    let (grey, bits, icc, format, notes) = (false, 8, Some(vec![1, 2]), Format::Png, Vec::new());
    Picture { width, height, colour, alpha, grey, bits, icc, format, notes }
}

/// Left half visible and orange, right half transparent with green underneath.
fn half(width: usize, height: usize) -> Picture {
    let visible = |i: usize| i % width < width / 2;
    let colour = (0..width * height)
        .flat_map(|i| if visible(i) { [1.0, 0.5, 0.0] } else { [0.0, 1.0, 0.0] })
        .collect();
    let alpha = (0..width * height).map(|i| if visible(i) { 1.0 } else { 0.0 }).collect();
    picture(width, height, colour, Some(alpha))
}

#[test]
fn the_network_sees_no_hidden_colour() {
    for (w, h) in [(8, 6), (9, 7), (33, 2), (2, 1)] {
        let p = half(w, h);
        let seen = network_colour(&p);
        for (i, rgb) in seen.chunks_exact(3).enumerate() {
            for (v, want) in rgb.iter().zip([1.0, 0.5, 0.0]) {
                assert!((v - want).abs() < 1e-6, "{w}x{h} pixel {i}: {rgb:?}");
            }
        }
    }
}

#[test]
fn visible_pixels_reach_the_network_unchanged() {
    let mut p = half(8, 6);
    let alpha = p.alpha.as_mut().unwrap();
    alpha[2] = 0.01;
    p.colour[6..9].copy_from_slice(&[0.2, 0.3, 0.9]);
    assert_eq!(network_colour(&p)[6..9], [0.2, 0.3, 0.9]);
    let opaque = picture(8, 6, p.colour.clone(), Some(vec![1.0; 48]));
    assert_eq!(network_colour(&opaque)[..], opaque.colour[..]);
    let hidden = picture(8, 6, p.colour.clone(), Some(vec![0.0; 48]));
    assert!(network_colour(&hidden).iter().all(|&v| v == 0.0));
}

#[test]
fn resize_does_not_bleed() {
    let p = resized(&half(8, 6), 29, 17);
    assert_eq!((p.width, p.height, p.colour.len()), (29, 17, 29 * 17 * 3));
    let alpha = p.alpha.as_ref().unwrap();
    assert!(alpha.iter().all(|a| (0.0..=1.0).contains(a)));
    for (rgb, &a) in p.colour.chunks_exact(3).zip(alpha) {
        if a > 0.02 {
            assert!(rgb[0] > 0.95 && (rgb[1] - 0.5).abs() < 0.05 && rgb[2] < 0.05, "{rgb:?} at alpha {a}");
        }
    }
    assert_eq!(resized(&half(8, 6), 8, 6), half(8, 6));
    // Without alpha it is the plain resize.
    let plain = picture(8, 6, half(8, 6).colour, None);
    assert_eq!(resized(&plain, 5, 9).colour, tasr::image::resize::bicubic(&plain.colour, (8, 6), 3, (5, 9)));
}

#[test]
fn the_result_gets_its_transparency_back() {
    let source = half(8, 6);
    let done = recombine(&source, vec![0.25; 32 * 24 * 3], 32, 24).unwrap();
    let alpha = done.alpha.as_ref().unwrap();
    assert_eq!((done.width, done.height, alpha.len()), (32, 24, 32 * 24));
    let bytes = done.to_rgba8();
    assert_eq!((bytes[3], bytes[31 * 4 + 3]), (255, 0));
    assert!(alpha.iter().all(|a| (0.0..=1.0).contains(a)));
    assert_eq!(done.icc, source.icc);
    assert!(recombine(&source, vec![0.0; 5], 32, 24).is_err());
    assert!(recombine(&source, vec![], 0, 24).is_err());
    let opaque = picture(8, 6, source.colour.clone(), None);
    assert!(recombine(&opaque, vec![0.0; 12], 2, 2).unwrap().alpha.is_none());
}

#[test]
fn premultiplication_and_back() {
    let alpha = [1.0, 0.5, 0.0];
    let mut colour = [0.2, 0.4, 0.6, 0.2, 0.4, 0.6, 0.2, 0.4, 0.6];
    premultiply(&mut colour, &alpha);
    assert_eq!(colour[3..], [0.1, 0.2, 0.3, 0.0, 0.0, 0.0]);
    unpremultiply(&mut colour, &alpha);
    assert_eq!(colour[..], [0.2, 0.4, 0.6, 0.2, 0.4, 0.6, 0.0, 0.0, 0.0]);
}
