//! JPEG, by `zune-jpeg` in strict mode: its lenient mode fills what is missing with grey and reports success.

use super::samples::{Raw, Samples, exif_orientation, zeros};
use super::{DecodeLimits, damaged, guard, truncated};
use crate::error::{Error, Result};
use crate::image::Format;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

pub(super) fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Raw> {
    if !guard::jpeg_is_complete(bytes) {
        return Err(truncated(Format::Jpeg));
    }
    match attempt(bytes, limits, true) {
        // Cameras and old editors leave stray bytes between the headers, which harm nothing.
        Err(Failure::Decoder(e)) if e.to_string().contains("Extra bytes between headers") => {
            attempt(bytes, limits, false)
        }
        other => other,
    }
    .map_err(|failure| match failure {
        Failure::Decoder(e) => damaged(Format::Jpeg, &plain(&e)),
        Failure::Ours(e) => e,
    })
}

enum Failure {
    Decoder(DecodeErrors),
    Ours(Error),
}

impl From<DecodeErrors> for Failure {
    fn from(e: DecodeErrors) -> Self {
        Failure::Decoder(e)
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Failure::Ours(e)
    }
}

fn attempt(bytes: &[u8], limits: &DecodeLimits, strict: bool) -> std::result::Result<Raw, Failure> {
    // JPEG sides end at 65,535; the pixel count is held by `limits`.
    let options = DecoderOptions::default()
        .set_strict_mode(strict)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_max_scans(1000);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers()?;
    let (width, height) = decoder.dimensions().ok_or_else(|| damaged(Format::Jpeg, "its size is missing"))?;
    limits.check(width as u64, height as u64)?;
    let grey = matches!(decoder.input_colorspace(), Some(ColorSpace::Luma));
    let (space, channels) = if grey { (ColorSpace::Luma, 1) } else { (ColorSpace::RGB, 3) };
    decoder.set_options(options.jpeg_set_out_colorspace(space));
    let length = (width * height * channels) as u64;
    if decoder.output_buffer_size().map(|n| n as u64) != Some(length) {
        return Err(damaged(Format::Jpeg, "its size and its channels do not fit").into());
    }
    let mut buffer = zeros::<u8>(length)?;
    decoder.decode_into(&mut buffer)?;
    Ok(Raw {
        width,
        height,
        channels,
        samples: Samples::U8(buffer),
        premultiplied: false,
        orientation: exif_orientation(decoder.exif().map(Vec::as_slice)),
        icc: decoder.icc_profile(),
        notes: Vec::new(),
    })
}

/// The decoder's reason on one line.
fn plain(error: &DecodeErrors) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}
