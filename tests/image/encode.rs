//! Pictures to files.

use crate::make::profile;
use std::fs;
use std::io::Cursor;
use tasr::error::Kind;
use tasr::image::{
    DecodeLimits, EncodeOptions, Format, Picture, decode, decode_bytes, encode, encode_bytes, to_byte,
};

fn picture(alpha: bool) -> Picture {
    let (width, height) = (19, 11);
    let colour = (0..width * height * 3).map(|i| (i % 256) as f32 / 255.0).collect();
    let alpha = alpha.then(|| (0..width * height).map(|i| (i % 200) as f32 / 199.0).collect());
    let icc = Some(profile(900, b"RGB "));
    Picture { width, height, colour, alpha, grey: false, bits: 8, icc, format: Format::Png, notes: vec![] }
}

fn text(pairs: &[(&str, &str)]) -> EncodeOptions {
    let text = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    EncodeOptions { text, ..EncodeOptions::default() }
}

#[test]
fn bytes_are_truncated_as_published() {
    for k in 0..=255u8 {
        // Bytes that came from a file come back: the product in f32 never falls below the whole number.
        assert_eq!(to_byte((f64::from(k) / 255.0) as f32), k);
    }
    for (value, byte) in [
        (0.5, 127),
        (0.999, 254),
        (1.0, 255),
        (7.0, 255),
        (-0.2, 0),
        (f32::NAN, 0),
        (f32::INFINITY, 255),
        (f32::NEG_INFINITY, 0),
    ] {
        assert_eq!(to_byte(value), byte, "{value}");
    }
}

#[test]
fn lossless_formats_return_the_bytes_and_the_profile() {
    for alpha in [false, true] {
        for format in [Format::Png, Format::WebP, Format::Tiff, Format::Bmp] {
            let p = picture(alpha && format != Format::Bmp);
            let done = encode_bytes(&p, format, &EncodeOptions::default()).unwrap();
            let back = decode_bytes(&done.bytes, &DecodeLimits::default()).unwrap();
            assert_eq!(back.format, format);
            assert_eq!((back.width, back.height), (19, 11));
            assert_eq!(back.to_rgba8(), p.to_rgba8(), "{format:?}, alpha {alpha}");
            assert_eq!(back.alpha.is_some(), p.alpha.is_some(), "{format:?}");
            match format {
                Format::Bmp => assert!(back.icc.is_none() && done.notes[0].contains("profile")),
                _ => assert!(back.icc == p.icc && done.notes.is_empty(), "{format:?} {:?}", done.notes),
            }
        }
    }
}

#[test]
fn jpeg_keeps_the_profile_and_lies_over_white() {
    let mut p = picture(true);
    p.colour.fill(0.2);
    p.alpha.as_mut().unwrap().fill(0.0);
    let done = encode_bytes(&p, Format::Jpeg, &EncodeOptions::default()).unwrap();
    assert!(done.notes.len() == 1 && done.notes[0].contains("white"), "{:?}", done.notes);
    let back = decode_bytes(&done.bytes, &DecodeLimits::default()).unwrap();
    assert!(back.colour.iter().all(|&v| v > 0.99));
    assert_eq!(back.icc, p.icc);
    let size = |quality| {
        let options = EncodeOptions { jpeg_quality: quality, ..EncodeOptions::default() };
        encode_bytes(&picture(false), Format::Jpeg, &options).unwrap().bytes.len()
    };
    assert!(size(20) < size(98));
}

#[test]
fn a_profile_of_another_colour_space_is_not_passed_on() {
    for space in [b"GRAY", b"CMYK"] {
        let p = Picture { icc: Some(profile(500, space)), ..picture(false) };
        let done = encode_bytes(&p, Format::Png, &EncodeOptions::default()).unwrap();
        assert!(done.notes[0].contains("profile"));
        assert!(decode_bytes(&done.bytes, &DecodeLimits::default()).unwrap().icc.is_none());
    }
}

#[test]
fn png_text_is_latin1_or_utf8() {
    let options =
        text(&[("parameters", "steps 20, cfg 4.5"), ("Caf\u{e9}", "na\u{ef}ve"), ("prompt", "山 photo")]);
    let done = encode_bytes(&picture(true), Format::Png, &options).unwrap();
    let reader = png::Decoder::new(Cursor::new(&done.bytes)).read_info().unwrap();
    let info = reader.info();
    let latin: Vec<_> =
        info.uncompressed_latin1_text.iter().map(|t| (t.keyword.as_str(), t.text.as_str())).collect();
    assert_eq!(latin, [("parameters", "steps 20, cfg 4.5"), ("Caf\u{e9}", "na\u{ef}ve")]);
    assert_eq!(info.utf8_text[0].keyword, "prompt");
    assert_eq!(info.utf8_text[0].get_text().unwrap(), "山 photo");
    for key in ["", " a", "a  b", "山", &"k".repeat(80)] {
        let e = encode_bytes(&picture(false), Format::Png, &text(&[(key, "v")])).unwrap_err();
        assert_eq!(e.kind(), Kind::Usage, "{key:?}");
    }
}

#[test]
fn files_appear_whole_under_their_name() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.png", "b.JPG", "c.webp", "d.tiff", "e.bmp"] {
        let path = folder.path().join(name);
        fs::write(&path, b"older").unwrap();
        encode(&picture(false), &path, &EncodeOptions::default()).unwrap();
        assert_eq!(Some(decode(&path).unwrap().format), Format::from_path(&path));
    }
    let options = EncodeOptions { format: Some(Format::WebP), ..EncodeOptions::default() };
    encode(&picture(false), &folder.path().join("no-extension"), &options).unwrap();
    assert_eq!(decode(&folder.path().join("no-extension")).unwrap().format, Format::WebP);
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 6, "{left:?}");
}

#[test]
fn failures_name_the_file_and_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let p = picture(false);
    let missing = folder.path().join("none/a.png");
    let e = encode(&p, &missing, &EncodeOptions::default()).unwrap_err();
    assert!(
        e.kind() == Kind::Io && e.to_string().contains("none") && e.to_string().contains("create"),
        "{e}"
    );
    let taken = folder.path().join("b.png");
    fs::create_dir(&taken).unwrap();
    assert!(encode(&p, &taken, &EncodeOptions::default()).unwrap_err().to_string().contains("b.png"));
    let e = encode(&p, &folder.path().join("c.gif"), &EncodeOptions::default()).unwrap_err();
    assert!(e.kind() == Kind::Usage && e.to_string().contains("c.gif"), "{e}");
    let bad = EncodeOptions { jpeg_quality: 0, ..EncodeOptions::default() };
    assert_eq!(encode(&p, &folder.path().join("d.jpg"), &bad).unwrap_err().kind(), Kind::Usage);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    #[cfg(target_os = "linux")]
    {
        let e = encode(&p, "/proc/a.png".as_ref(), &EncodeOptions::default()).unwrap_err();
        assert!(e.kind() == Kind::Io && e.to_string().starts_with("/proc/a.png"), "{e}");
    }
}

#[test]
fn a_size_that_the_format_cannot_hold_is_told() {
    for (format, width) in [(Format::WebP, 16_384), (Format::Jpeg, 65_536)] {
        let p = Picture { width, height: 1, colour: vec![0.5; width * 3], alpha: None, ..picture(false) };
        let e = encode_bytes(&p, format, &EncodeOptions::default()).unwrap_err();
        assert!(e.kind() == Kind::Input && e.to_string().contains("at most"), "{e}");
        assert!(encode_bytes(&p, Format::Png, &EncodeOptions::default()).is_ok());
    }
    let wrong = Picture { width: 3, ..picture(false) };
    assert_eq!(
        encode_bytes(&wrong, Format::Png, &EncodeOptions::default()).unwrap_err().kind(),
        Kind::Internal
    );
}
