//! The eight EXIF orientations, in every format that can carry them.

use crate::make::{HEIGHT, WIDTH, exif, file, samples, scaled, tiff_file};
use image::metadata::Orientation;
use image::{DynamicImage, RgbaImage};
use tasr::image::{DecodeLimits, Format, Picture, decode_bytes};

fn check(p: &Picture, stored: &[u16], orientation: u8, what: &str) {
    let bytes = stored.iter().map(|&v| v as u8).collect();
    let mut oracle = DynamicImage::ImageRgba8(RgbaImage::from_raw(WIDTH, HEIGHT, bytes).unwrap());
    oracle.apply_orientation(Orientation::from_exif(orientation).unwrap());
    assert_eq!((p.width, p.height), (oracle.width() as usize, oracle.height() as usize), "{what}");
    let alpha = p.alpha.as_ref().unwrap();
    for (i, pixel) in oracle.to_rgba8().pixels().enumerate() {
        for c in 0..3 {
            assert_eq!(p.colour[3 * i + c], scaled(u16::from(pixel.0[c]), 8), "{what}, pixel {i}");
        }
        assert_eq!(alpha[i], scaled(u16::from(pixel.0[3]), 8), "{what}, pixel {i}");
    }
}

#[test]
fn all_eight_are_applied() {
    let stored = samples(4, 8);
    for orientation in 1..=8 {
        for format in [Format::Png, Format::WebP] {
            let bytes = file(format, &stored, 4, 8, None, Some(&exif(orientation)));
            let p = decode_bytes(&bytes, &DecodeLimits::default()).unwrap();
            check(&p, &stored, orientation, &format!("{format:?} {orientation}"));
        }
        let bytes = tiff_file(&stored, 4, 8, None, orientation.into());
        let p = decode_bytes(&bytes, &DecodeLimits::default()).unwrap();
        check(&p, &stored, orientation, &format!("TIFF {orientation}"));
    }
}

#[test]
fn jpeg_is_turned_as_well() {
    let stored: Vec<u16> = (0..WIDTH * HEIGHT).map(|i| (i * 7) as u16).collect();
    let upright =
        decode_bytes(&file(Format::Jpeg, &stored, 1, 8, None, None), &DecodeLimits::default()).unwrap();
    for orientation in 1..=8 {
        let bytes = file(Format::Jpeg, &stored, 1, 8, None, Some(&exif(orientation)));
        let p = decode_bytes(&bytes, &DecodeLimits::default()).unwrap();
        let grey = upright.colour.iter().step_by(3).map(|v| (v * 255.0).round() as u8).collect();
        let mut oracle = DynamicImage::ImageLuma8(image::GrayImage::from_raw(WIDTH, HEIGHT, grey).unwrap());
        oracle.apply_orientation(Orientation::from_exif(orientation).unwrap());
        let got: Vec<u8> = p.colour.iter().step_by(3).map(|v| (v * 255.0).round() as u8).collect();
        assert_eq!((p.width as u32, p.height as u32), (oracle.width(), oracle.height()));
        assert_eq!(got, oracle.into_luma8().into_raw(), "orientation {orientation}");
    }
}

#[test]
fn png_exif_after_the_pixels_counts() {
    let stored = samples(4, 8);
    let mut bytes = file(Format::Png, &stored, 4, 8, None, None);
    let end = bytes.len() - 12;
    let block = exif(6);
    let mut chunk = (block.len() as u32).to_be_bytes().to_vec();
    let mut body = b"eXIf".to_vec();
    body.extend(block);
    // CRC-32 of type and data (PNG annex D), bit by bit.
    let crc = !body.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 })
    });
    chunk.extend(body);
    chunk.extend(crc.to_be_bytes());
    bytes.splice(end..end, chunk);
    let p = decode_bytes(&bytes, &DecodeLimits::default()).unwrap();
    check(&p, &stored, 6, "late eXIf");
}

#[test]
fn a_nonsense_orientation_is_none() {
    let stored = samples(4, 8);
    let p = decode_bytes(&file(Format::Png, &stored, 4, 8, None, Some(&exif(77))), &DecodeLimits::default());
    check(&p.unwrap(), &stored, 1, "orientation 77");
}
