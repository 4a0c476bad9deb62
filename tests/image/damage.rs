//! Files that are cut, changed or made to harm.

use crate::counting::peak_of;
use crate::make::{Random, exif, file, profile, samples};
use std::fs;
use std::path::Path;
use tasr::error::Kind;
use tasr::image::{DecodeLimits, Format, decode_bytes};

/// A limit under which the bound on memory is tight.
const LIMITS: DecodeLimits = DecodeLimits { max_pixels: 1 << 16, max_file_bytes: 1 << 20 };
/// The most that a decode may hold under `LIMITS`: 65,536 pixels as f32 with alpha are 1 MiB; the rest is what
/// decoders keep for tables, a segment of up to 16 MiB that a WebP frame may claim, and a margin.
const MOST: usize = 24 << 20;

fn corpus() -> Vec<(String, Vec<u8>)> {
    let icc = profile(600, b"RGB ");
    let mut files = Vec::new();
    for (format, channels, bits) in [
        (Format::Png, 4, 8),
        (Format::Png, 1, 16),
        (Format::Jpeg, 3, 8),
        (Format::WebP, 4, 8),
        (Format::Tiff, 3, 8),
        (Format::Tiff, 4, 16),
        (Format::Bmp, 4, 8),
    ] {
        let exif = (format != Format::Tiff && format != Format::Bmp).then(|| exif(6));
        let icc = (format != Format::Bmp).then_some(&icc[..]);
        let bytes = file(format, &samples(channels, bits), channels, bits, icc, exif.as_deref());
        files.push((format!("made {format:?} {channels}x{bits}"), bytes));
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/image");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        if !name.ends_with(".expected.png") && !name.ends_with(".md") {
            files.push((name, fs::read(path).unwrap()));
        }
    }
    files.sort();
    files
}

#[test]
fn a_cut_file_is_an_error_or_the_whole_picture() {
    for (name, bytes) in corpus() {
        let whole = decode_bytes(&bytes, &LIMITS).unwrap();
        let mut errors = 0;
        for end in 0..bytes.len() {
            match decode_bytes(&bytes[..end], &LIMITS) {
                Err(_) => errors += 1,
                // What is missing may be metadata after the pixels.
                Ok(p) => {
                    assert_eq!(p.colour, whole.colour, "{name} cut to {end} of {} bytes", bytes.len());
                    assert_eq!(p.alpha, whole.alpha, "{name} cut to {end}");
                }
            }
        }
        assert!(errors * 10 >= bytes.len() * 5, "{name}: only {errors} of {} cuts are errors", bytes.len());
    }
}

#[test]
fn three_thousand_mutations_neither_panic_nor_grow() {
    let files = corpus();
    let mut random = Random(20260801);
    let (mut worst, mut sound, mut broken) = ((0, String::new()), 0, 0);
    for round in 0..3000 {
        let (name, bytes) = &files[round % files.len()];
        let mut bytes = bytes.clone();
        for _ in 0..1 + random.below(8) {
            let at = random.below(bytes.len());
            match random.below(8) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = random.next() as u8,
                2 => bytes[at] = [0, 0xff, 0x7f, 0x80][random.below(4)],
                // Headers are small: half of the changes go to the first 64 bytes.
                3 | 4 => {
                    let at = random.below(bytes.len().min(64));
                    bytes[at] = random.next() as u8;
                }
                5 => bytes.truncate(1 + at),
                6 => {
                    let end = (at + random.below(40)).min(bytes.len());
                    let part = bytes[at..end].to_vec();
                    bytes.splice(at..at, part);
                }
                _ => {
                    let end = (at + 4).min(bytes.len());
                    bytes[at..end].fill(0xff);
                }
            }
        }
        let (result, peak) = peak_of(|| decode_bytes(&bytes, &LIMITS));
        match result {
            Ok(p) => {
                sound += 1;
                assert_eq!(p.colour.len(), p.width * p.height * 3, "{name}");
                assert!(p.colour.iter().all(|v| (0.0..=1.0).contains(v)), "{name}, round {round}");
            }
            Err(e) => {
                broken += 1;
                let text = e.to_string();
                assert!(matches!(e.kind(), Kind::Input), "{name}, round {round}: {text}");
                assert!(!text.contains('\n'), "{name}, round {round}: {text}");
            }
        }
        if peak > worst.0 {
            worst = (peak, format!("{name}, round {round}"));
        }
    }
    println!("{sound} decoded, {broken} refused, at most {} KiB held ({})", worst.0 >> 10, worst.1);
    assert!(worst.0 < MOST, "{} bytes held: {}", worst.0, worst.1);
    assert!(broken > 1000 && sound > 100);
}

/// Claims of a great size in headers that are otherwise right.
#[test]
fn claimed_sizes_are_refused_before_memory_is_taken() {
    let made = |format| file(format, &samples(3, 8), 3, 8, None, None);
    let mut png = made(Format::Png);
    png[16..24].copy_from_slice(&[0, 1, 0x86, 0xa0, 0, 1, 0x86, 0xa0]);
    let crc = !png[12..29].iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |c, _| if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 })
    });
    png[29..33].copy_from_slice(&crc.to_be_bytes());
    let mut jpeg = made(Format::Jpeg);
    let frame = jpeg.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].fill(0xff);
    let mut bmp = made(Format::Bmp);
    bmp[18..26].copy_from_slice(&[0x40, 0x9c, 0, 0, 0x40, 0x9c, 0, 0]);
    let mut webp = made(Format::WebP);
    let frame = webp.windows(4).position(|w| w == b"VP8L").unwrap();
    webp[frame + 9..frame + 13].copy_from_slice(&(16_382u32 | 16_382 << 14).to_le_bytes());
    let mut tiff = made(Format::Tiff);
    let page = u32::from_le_bytes(tiff[4..8].try_into().unwrap()) as usize;
    for entry in 0..usize::from(tiff[page]) {
        let at = page + 2 + 12 * entry;
        // Width, height, and rows a strip, so that the one strip still covers the picture.
        if matches!((tiff[at], tiff[at + 1]), (0, 1) | (1, 1) | (0x16, 1)) {
            tiff[at + 2..at + 12].copy_from_slice(&[4, 0, 1, 0, 0, 0, 0xa0, 0x86, 1, 0]);
        }
    }
    for (name, bytes) in [("png", png), ("jpeg", jpeg), ("bmp", bmp), ("webp", webp), ("tiff", tiff)] {
        let (result, peak) = peak_of(|| decode_bytes(&bytes, &DecodeLimits::default()));
        let e = result.unwrap_err();
        assert_eq!(e.kind(), Kind::Input);
        assert!(e.to_string().contains("pixels, the most is"), "{name}: {e}");
        assert!(peak < 8 << 20, "{name}: {peak} bytes");
    }
}

#[test]
fn a_tag_that_claims_more_than_the_file_is_refused() {
    let mut tiff = file(Format::Tiff, &samples(3, 8), 3, 8, Some(&profile(600, b"RGB ")), None);
    let page = u32::from_le_bytes(tiff[4..8].try_into().unwrap()) as usize;
    let entry = (0..usize::from(tiff[page])).map(|i| page + 2 + 12 * i);
    let icc = entry.into_iter().find(|&at| tiff[at..at + 2] == 34675u16.to_le_bytes()).unwrap();
    tiff[icc + 4..icc + 8].copy_from_slice(&0x0fff_ffff_u32.to_le_bytes());
    let (result, peak) = peak_of(|| decode_bytes(&tiff, &DecodeLimits::default()));
    assert!(result.unwrap_err().to_string().contains("ends before"));
    assert!(peak < 1 << 20, "{peak}");
}

#[test]
fn zero_sides_are_refused() {
    let mut bmp = file(Format::Bmp, &samples(3, 8), 3, 8, None, None);
    bmp[18..22].fill(0);
    assert_eq!(decode_bytes(&bmp, &LIMITS).unwrap_err().kind(), Kind::Input);
    let mut jpeg = file(Format::Jpeg, &samples(3, 8), 3, 8, None, None);
    let frame = jpeg.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    jpeg[frame + 7..frame + 9].fill(0);
    assert_eq!(decode_bytes(&jpeg, &LIMITS).unwrap_err().kind(), Kind::Input);
}

#[test]
fn a_large_file_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.png");
    // A hole: it takes no space on disk.
    fs::File::create(&path).unwrap().set_len((1 << 30) + 1).unwrap();
    let (result, peak) = peak_of(|| tasr::image::decode(&path));
    assert!(result.unwrap_err().to_string().contains("larger than 1024 MiB"));
    assert!(peak < 1 << 16);
}
