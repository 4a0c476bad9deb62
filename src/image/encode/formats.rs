//! One function a format: pixels, profile and text to file bytes.

use super::Pixels;
use crate::error::{Error, Result};
use image::codecs::{bmp::BmpEncoder, jpeg::JpegEncoder, webp::WebPEncoder};
use image::{ExtendedColorType, ImageEncoder, ImageError};
use std::borrow::Cow;
use std::fmt::Display;
use std::io::Cursor;
use tiff::encoder::{Compression, DeflateLevel, Predictor, TiffEncoder, colortype};
use tiff::tags::{ExtraSamples, Tag};

fn failed(error: impl Display) -> Error {
    Error::internal(format!("the picture cannot be encoded: {error}"))
}

fn image_type(pixels: &Pixels) -> ExtendedColorType {
    if pixels.alpha { ExtendedColorType::Rgba8 } else { ExtendedColorType::Rgb8 }
}

/// PNG with the profile in iCCP, and text in tEXt where it is Latin-1 and in iTXt (UTF-8) where it is not.
pub(super) fn png(pixels: &Pixels, icc: Option<&[u8]>, text: &[(String, String)]) -> Result<Vec<u8>> {
    let mut info = png::Info::with_size(pixels.width, pixels.height);
    info.color_type = if pixels.alpha { png::ColorType::Rgba } else { png::ColorType::Rgb };
    info.bit_depth = png::BitDepth::Eight;
    info.icc_profile = icc.map(Cow::Borrowed);
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::with_info(&mut bytes, info).map_err(failed)?;
    for (key, value) in text {
        check_key(key)?;
        // The format ends a text at its length, but readers in C end it at the first zero.
        let value = value.replace('\0', "");
        if value.chars().all(|c| u32::from(c) < 256) {
            encoder.add_text_chunk(key.clone(), value).map_err(failed)?;
        } else {
            encoder.add_itxt_chunk(key.clone(), value).map_err(failed)?;
        }
    }
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&pixels.bytes).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(bytes)
}

/// The rule for keywords of PNG 11.3.4.2: 1 to 79 printable Latin-1 characters, spaces only single and inside.
fn check_key(key: &str) -> Result<()> {
    let printable = |c: char| matches!(u32::from(c), 0x20..=0x7e | 0xa1..=0xff);
    let spaced = key.starts_with(' ') || key.ends_with(' ') || key.contains("  ");
    if (1..=79).contains(&key.chars().count()) && key.chars().all(printable) && !spaced {
        return Ok(());
    }
    Err(Error::usage(format!("{key:?} cannot be the key of a PNG text"))
        .fix("use 1 to 79 Latin-1 characters, with single spaces between words"))
}

/// Baseline JPEG with the profile in APP2.
pub(super) fn jpeg(pixels: &Pixels, icc: Option<&[u8]>, quality: u8) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    write(JpegEncoder::new_with_quality(&mut bytes, quality), pixels, icc)?;
    Ok(bytes)
}

/// Lossless WebP with the profile in ICCP.
pub(super) fn webp(pixels: &Pixels, icc: Option<&[u8]>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    write(WebPEncoder::new_lossless(&mut bytes), pixels, icc)?;
    Ok(bytes)
}

pub(super) fn bmp(pixels: &Pixels) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    write(BmpEncoder::new(&mut bytes), pixels, None)?;
    Ok(bytes)
}

fn write(mut encoder: impl ImageEncoder, pixels: &Pixels, icc: Option<&[u8]>) -> Result<()> {
    if let Some(icc) = icc {
        encoder.set_icc_profile(icc.to_vec()).map_err(failed)?;
    }
    encoder.write_image(&pixels.bytes, pixels.width, pixels.height, image_type(pixels)).map_err(|e| match e {
        // The one failure that a valid picture can meet is a format whose file size field is too small.
        ImageError::Encoding(_) | ImageError::Limits(_) | ImageError::Parameter(_) => {
            Error::input(format!("the picture is too large for this format: {e}"))
                .fix("choose another format, such as png")
        }
        other => failed(other),
    })
}

/// Deflated TIFF with the profile in tag 34675; alpha is marked as straight.
pub(super) fn tiff(pixels: &Pixels, icc: Option<&[u8]>) -> Result<Vec<u8>> {
    let mut file = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut file)
        .map_err(failed)?
        .with_compression(Compression::Deflate(DeflateLevel::Balanced))
        .with_predictor(Predictor::Horizontal);
    if pixels.alpha {
        let mut page = encoder.new_image::<colortype::RGBA8>(pixels.width, pixels.height).map_err(failed)?;
        let straight = [ExtraSamples::UnassociatedAlpha.to_u16()];
        page.encoder().write_tag(Tag::ExtraSamples, &straight[..]).map_err(failed)?;
        if let Some(icc) = icc {
            page.encoder().write_tag(Tag::IccProfile, icc).map_err(failed)?;
        }
        page.write_data(&pixels.bytes).map_err(failed)?;
    } else {
        let mut page = encoder.new_image::<colortype::RGB8>(pixels.width, pixels.height).map_err(failed)?;
        if let Some(icc) = icc {
            page.encoder().write_tag(Tag::IccProfile, icc).map_err(failed)?;
        }
        page.write_data(&pixels.bytes).map_err(failed)?;
    }
    Ok(file.into_inner())
}
