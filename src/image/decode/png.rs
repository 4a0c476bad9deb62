//! PNG, by the `png` crate itself: unlike the `image` crate it also shows EXIF that stands after the pixels.

use super::samples::{Raw, Samples, exif_orientation, zeros};
use super::{DecodeLimits, damaged, truncated, unsupported};
use crate::error::{Error, Result};
use crate::image::Format;
use png::{BitDepth, ColorType, DecodingError, Limits, Transformations};
use std::io::{Cursor, ErrorKind};

/// Bytes that the decoder may hold beside the pixels: rows, colour profile, palette.
const MAX_SIDE_BYTES: usize = 64 << 20;

pub(super) fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Raw> {
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: MAX_SIDE_BYTES });
    decoder.set_ignore_text_chunk(true);
    // Palettes, transparent colours and 1, 2 or 4 bits become plain 8-bit channels; 16 bits stay.
    decoder.set_transformations(Transformations::EXPAND);
    let header = decoder.read_header_info().map_err(describe)?;
    limits.check(header.width.into(), header.height.into())?;
    let mut reader = decoder.read_info().map_err(describe)?;
    let (width, height) = reader.info().size();
    let (colour, depth) = reader.output_color_type();
    let channels = match colour {
        ColorType::Grayscale => 1,
        ColorType::GrayscaleAlpha => 2,
        ColorType::Rgb => 3,
        ColorType::Rgba => 4,
        ColorType::Indexed => return Err(damaged(Format::Png, "its palette is missing")),
    };
    let length = reader.output_buffer_size().ok_or_else(|| damaged(Format::Png, "its size overflows"))?;
    let mut buffer = zeros::<u8>(length as u64)?;
    reader.next_frame(&mut buffer).map_err(describe)?;
    let samples = match depth {
        BitDepth::Sixteen => {
            let pairs = buffer.chunks_exact(2);
            Samples::U16(pairs.map(|b| u16::from_be_bytes([b[0], b[1]])).collect())
        }
        BitDepth::Eight => Samples::U8(buffer),
        _ => return Err(unsupported(Format::Png, "fewer than 8 bits after expansion")),
    };
    let mut notes = Vec::new();
    if reader.info().is_animated() {
        notes.push("the PNG is animated: only its first frame was taken".into());
    }
    // The pixels are whole by now: what follows them can only add the orientation.
    let _trailing_damage = reader.finish();
    let info = reader.info();
    Ok(Raw {
        width: width as usize,
        height: height as usize,
        channels,
        samples,
        premultiplied: false,
        orientation: exif_orientation(info.exif_metadata.as_deref()),
        icc: info.icc_profile.as_ref().map(|icc| icc.to_vec()),
        notes,
    })
}

fn describe(error: DecodingError) -> Error {
    match error {
        DecodingError::IoError(e) if e.kind() == ErrorKind::UnexpectedEof => truncated(Format::Png),
        DecodingError::LimitsExceeded => {
            damaged(Format::Png, "it asks for more memory than a picture of its size needs")
        }
        other => damaged(Format::Png, &other.to_string()),
    }
}
