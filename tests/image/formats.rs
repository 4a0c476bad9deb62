//! Every format, depth and channel count, and the kinds that only other programs write.

use crate::make::{HEIGHT, WIDTH, file, profile, samples, scaled};
use std::fs;
use std::path::{Path, PathBuf};
use tasr::error::Kind;
use tasr::image::{DecodeLimits, Format, content_hash, decode, decode_bytes};

fn read(bytes: &[u8]) -> tasr::error::Result<tasr::image::Picture> {
    decode_bytes(bytes, &DecodeLimits::default())
}

#[test]
fn every_lossless_kind_gives_its_samples_exactly() {
    let kinds: &[(Format, &[usize], &[u8])] = &[
        (Format::Png, &[1, 2, 3, 4], &[8, 16]),
        (Format::Tiff, &[1, 3, 4], &[8, 16]),
        (Format::WebP, &[3, 4], &[8]),
        (Format::Bmp, &[3, 4], &[8]),
    ];
    for &(format, channel_counts, depths) in kinds {
        for &channels in channel_counts {
            for &bits in depths {
                let stored = samples(channels, bits);
                let p = read(&file(format, &stored, channels, bits, None, None)).unwrap();
                let what = format!("{format:?} {channels} channels {bits} bits");
                assert_eq!((p.width, p.height), (WIDTH as usize, HEIGHT as usize), "{what}");
                assert_eq!((p.bits, p.grey, p.format), (bits, channels < 3, format), "{what}");
                assert_eq!(p.alpha.is_some(), channels % 2 == 0, "{what}");
                assert!(p.icc.is_none() && p.notes.is_empty(), "{what}");
                for (i, pixel) in stored.chunks_exact(channels).enumerate() {
                    for c in 0..3 {
                        let want = scaled(pixel[if channels < 3 { 0 } else { c }], bits);
                        assert_eq!(p.colour[3 * i + c].to_bits(), want.to_bits(), "{what}, pixel {i}");
                    }
                    if let Some(alpha) = &p.alpha {
                        assert_eq!(alpha[i], scaled(pixel[channels - 1], bits), "{what}, alpha {i}");
                    }
                }
            }
        }
    }
}

#[test]
fn jpeg_is_near_its_samples() {
    for channels in [1, 3] {
        let stored: Vec<u16> = (0..WIDTH * HEIGHT)
            .flat_map(|i| (0..channels).map(move |c| (i * 3 + 40 * c as u32) as u16 + 20))
            .collect();
        let p = read(&file(Format::Jpeg, &stored, channels, 8, None, None)).unwrap();
        assert_eq!((p.bits, p.grey, p.format, p.alpha), (8, channels == 1, Format::Jpeg, None));
        for (i, pixel) in stored.chunks_exact(channels).enumerate() {
            for c in 0..3 {
                let want = scaled(pixel[c.min(channels - 1)], 8);
                let got = p.colour[3 * i + c];
                assert!((got - want).abs() <= 4.0 / 255.0, "pixel {i}.{c}: {got} for {want}");
            }
        }
    }
}

#[test]
fn fixtures_of_other_programs_read_as_there() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/image");
    let mut seen = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        if name.ends_with(".expected.png") || name.ends_with(".md") {
            continue;
        }
        seen += 1;
        let got = decode(&path).unwrap();
        let want = decode(&PathBuf::from(format!("{}.expected.png", path.display()))).unwrap();
        assert_eq!((got.width, got.height), (33, 21), "{name}");
        let lossy = name.ends_with(".jpg") || name.starts_with("lossy");
        // Decoders may differ in the inverse transform and in the upsampling of colour; CMYK in the rounding.
        let (worst, mean) = match name.as_str() {
            _ if lossy => (24.0, 2.5),
            "deflate_cmyk.tif" => (1.0, 1.0),
            _ => (0.0, 0.0),
        };
        let differences: Vec<f32> =
            got.colour.iter().zip(&want.colour).map(|(a, b)| (a - b).abs() * 255.0).collect();
        let most = differences.iter().copied().fold(0.0, f32::max);
        let average = differences.iter().sum::<f32>() / differences.len() as f32;
        assert!(most <= worst + 1e-3 && average <= mean + 1e-3, "{name}: worst {most}, mean {average}");
        assert_eq!(got.alpha, want.alpha, "{name}");
        assert_eq!(got.notes.len(), usize::from(name.starts_with("animated")), "{name}: {:?}", got.notes);
        assert_eq!(got.grey, name.starts_with("grey") || name.starts_with("bilevel"), "{name}");
    }
    assert_eq!(seen, 13, "a fixture is missing");
}

#[test]
fn png_palettes_low_depths_and_transparent_colours_expand() {
    use png::{BitDepth, ColorType};
    for (depth, bits) in [(BitDepth::One, 1), (BitDepth::Two, 2), (BitDepth::Four, 4), (BitDepth::Eight, 8)] {
        for palette in [true, false] {
            let levels = 1usize << bits;
            let mut out = Vec::new();
            let mut e = png::Encoder::new(&mut out, 8, 1);
            e.set_depth(depth);
            e.set_color(if palette { ColorType::Indexed } else { ColorType::Grayscale });
            let colours: Vec<u8> = (0..levels * 3).map(|i| (i * 5 + 3) as u8).collect();
            if palette {
                e.set_palette(colours.clone());
                e.set_trns(vec![0u8, 128]);
            }
            let indices: Vec<usize> = (0..8).map(|i| i % levels).collect();
            let row: Vec<u8> = indices
                .chunks(8 / bits)
                .map(|c| c.iter().fold(0u8, |b, &i| ((u16::from(b) << bits) as u8) | i as u8))
                .collect();
            e.write_header().unwrap().write_image_data(&row).unwrap();
            let p = read(&out).unwrap();
            assert_eq!(p.grey, !palette);
            assert_eq!(p.alpha.is_some(), palette);
            for (i, &index) in indices.iter().enumerate() {
                let want = match palette {
                    true => u16::from(colours[index * 3]),
                    false => (index * 255 / (levels - 1)) as u16,
                };
                assert_eq!(p.colour[3 * i], scaled(want, 8), "{bits} bits, palette {palette}");
                if let Some(alpha) = &p.alpha {
                    assert_eq!(alpha[i], [0.0, scaled(128, 8)].get(index).copied().unwrap_or(1.0));
                }
            }
        }
    }
}

#[test]
fn tiff_alpha_is_straight_whether_stored_so_or_multiplied() {
    use tiff::encoder::{TiffEncoder, colortype::RGBA8};
    for (kind, divided) in [(1u16, true), (2, false)] {
        let mut f = std::io::Cursor::new(Vec::new());
        let mut encoder = TiffEncoder::new(&mut f).unwrap();
        let mut page = encoder.new_image::<RGBA8>(2, 1).unwrap();
        page.encoder().write_tag(tiff::tags::Tag::ExtraSamples, &[kind][..]).unwrap();
        page.write_data(&[100, 50, 0, 200, 0, 0, 0, 0]).unwrap();
        let p = read(&f.into_inner()).unwrap();
        let want = if divided { 100.0 / 200.0 } else { 100.0 / 255.0 };
        assert!((p.colour[0] - want).abs() < 1e-6, "kind {kind}: {}", p.colour[0]);
        assert_eq!(p.alpha.unwrap()[1], 0.0);
    }
}

#[test]
fn profiles_are_kept_byte_for_byte() {
    let icc = profile(3144, b"RGB ");
    for format in [Format::Png, Format::Jpeg, Format::WebP, Format::Tiff] {
        let bytes = file(format, &samples(3, 8), 3, 8, Some(&icc), None);
        assert_eq!(read(&bytes).unwrap().icc.as_deref(), Some(&icc[..]), "{format:?}");
    }
    // More than one JPEG segment.
    let long = profile(200_000, b"RGB ");
    let bytes = file(Format::Jpeg, &samples(3, 8), 3, 8, Some(&long), None);
    assert_eq!(read(&bytes).unwrap().icc, Some(long));
    let p = read(&file(Format::Png, &samples(3, 8), 3, 8, Some(&[1; 200]), None)).unwrap();
    assert!(p.icc.is_none() && p.notes[0].contains("profile"), "{:?}", p.notes);
}

#[test]
fn content_decides_not_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = file(Format::WebP, &samples(3, 8), 3, 8, None, None);
    for name in ["a.PNG", "b.jpeg", "c", "d.txt"] {
        let path = folder.path().join(name);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(decode(&path).unwrap().format, Format::WebP);
    }
}

#[test]
fn what_is_no_picture_is_told_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes, says) in [
        ("notes.png", &b"BMW and other cars\nare listed here\n"[..], "text file"),
        ("empty.png", b"", "empty"),
        ("anim.gif", b"GIF89a\x01\0\x01\0", "GIF"),
        ("phone.jpg", b"\0\0\0\x18ftypheic\0\0", "HEIC"),
        ("noise.bmp", &[7, 200, 3, 0, 1, 255, 254, 2], "not a picture"),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let e = decode(&path).unwrap_err();
        let text = e.to_string();
        assert_eq!(e.kind(), Kind::Input, "{text}");
        assert!(text.contains(name) && text.contains(says) && !text.contains('\n'), "{text}");
    }
    let missing = decode(&folder.path().join("gone.png")).unwrap_err();
    assert_eq!(missing.kind(), Kind::Io);
    assert!(missing.to_string().contains("gone.png"));
    assert!(decode(folder.path()).unwrap_err().to_string().contains("folder"));
}

#[test]
fn the_hash_sees_colour_and_shape_only() {
    let stored = samples(3, 8);
    let png = read(&file(Format::Png, &stored, 3, 8, Some(&profile(400, b"RGB ")), None)).unwrap();
    let tiff = read(&file(Format::Tiff, &stored, 3, 8, None, None)).unwrap();
    assert_eq!(content_hash(&png), content_hash(&tiff));
    let mut other = png.clone();
    other.colour[5] = if other.colour[5] > 0.5 { 0.0 } else { 1.0 };
    assert_ne!(content_hash(&png), content_hash(&other));
    let mut turned = png.clone();
    (turned.width, turned.height) = (png.height, png.width);
    assert_ne!(content_hash(&png), content_hash(&turned));
    // The published check values of FNV-1a.
    assert_eq!(tasr::image::hash::fnv1a_64(*b"a"), 0xaf63_dc4c_8601_ec8c);
    assert_eq!(tasr::image::hash::fnv1a_64(*b"foobar"), 0x8594_4171_f739_67e8);
}
