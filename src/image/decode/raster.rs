//! WebP and BMP, by the `image` crate.

use super::samples::{Raw, Samples, zeros};
use super::{DecodeLimits, damaged, guard, truncated, unsupported};
use crate::error::{Error, Result};
use crate::image::Format;
use image::codecs::{bmp::BmpDecoder, webp::WebPDecoder};
use image::error::ImageError;
use image::metadata::Orientation;
use image::{ColorType, ImageDecoder};
use std::io::{Cursor, ErrorKind};

pub(super) fn webp(bytes: &[u8], limits: &DecodeLimits) -> Result<Raw> {
    guard::webp(bytes, limits)?;
    let decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(|e| describe(Format::WebP, e))?;
    let animated = decoder.has_animation();
    let mut raw = decode(Format::WebP, decoder, limits)?;
    if animated {
        raw.notes.push("the WebP is animated: only its first frame was taken".into());
    }
    Ok(raw)
}

pub(super) fn bmp(bytes: &[u8], limits: &DecodeLimits) -> Result<Raw> {
    let decoder = BmpDecoder::new(Cursor::new(bytes)).map_err(|e| describe(Format::Bmp, e))?;
    decode(Format::Bmp, decoder, limits)
}

fn decode(format: Format, mut decoder: impl ImageDecoder, limits: &DecodeLimits) -> Result<Raw> {
    let (width, height) = decoder.dimensions();
    limits.check(width.into(), height.into())?;
    let channels = match decoder.color_type() {
        ColorType::L8 => 1,
        ColorType::La8 => 2,
        ColorType::Rgb8 => 3,
        ColorType::Rgba8 => 4,
        other => return Err(unsupported(format, &format!("{other:?} pixels"))),
    };
    // A damaged EXIF or ICC block says nothing about the pixels.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let icc = decoder.icc_profile().ok().flatten();
    let mut buffer = zeros::<u8>(decoder.total_bytes())?;
    decoder.read_image(&mut buffer).map_err(|e| describe(format, e))?;
    Ok(Raw {
        width: width as usize,
        height: height as usize,
        channels,
        samples: Samples::U8(buffer),
        premultiplied: false,
        orientation,
        icc,
        notes: Vec::new(),
    })
}

fn describe(format: Format, error: ImageError) -> Error {
    match error {
        ImageError::IoError(e) if e.kind() == ErrorKind::UnexpectedEof => truncated(format),
        ImageError::Unsupported(e) => unsupported(format, &e.to_string()),
        other => damaged(format, &other.to_string()),
    }
}
