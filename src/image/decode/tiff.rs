//! TIFF, by the `tiff` crate itself: the `image` crate reads neither palettes nor grey with alpha, and does not tell
//! premultiplied alpha from straight.

use super::samples::{Raw, Samples, with_capacity, zeros};
use super::{DecodeLimits, damaged, tiff_tags, truncated, unsupported};
use crate::error::{Error, Result};
use crate::image::Format;
use image::metadata::Orientation;
use std::io::{Cursor, ErrorKind};
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::Tag;
use tiff::{ColorType, TiffError};

/// Bytes that the tags of a small picture may take; the decoder holds 32 bytes a value.
const MIN_TAG_BYTES: u64 = 64 << 20;
/// Most samples a pixel, alpha and extra channels included.
const MAX_CHANNELS: u64 = 8;

type Reader<'a> = Decoder<Cursor<&'a [u8]>>;

pub(super) fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Raw> {
    let (bytes, palette) = tiff_tags::prepare(bytes)?;
    let mut reader = Decoder::new(Cursor::new(bytes.as_ref())).map_err(describe)?;
    let (width, height) = reader.dimensions().map_err(describe)?;
    limits.check(width.into(), height.into())?;
    let (width, height) = (width as usize, height as usize);
    let pixels = (width * height) as u64;
    let mut most = Limits::default();
    let decoded = (pixels * MAX_CHANNELS * 4).max(MIN_TAG_BYTES);
    most.decoding_buffer_size = usize::try_from(decoded).unwrap_or(usize::MAX);
    // No compressed strip is larger than the file.
    most.intermediate_buffer_size = bytes.len();
    let mut reader = reader.with_limits(most);

    let colour = reader.colortype().map_err(describe)?;
    let orientation = reader.find_tag_unsigned::<u8>(Tag::Orientation).ok().flatten();
    let extra = reader.find_tag_unsigned_vec::<u16>(Tag::ExtraSamples).ok().flatten().unwrap_or_default();
    let icc = reader.get_tag_u8_vec(Tag::IccProfile).ok();
    let samples = interleaved(&mut reader, pixels)?;
    let (channels, samples) = match colour {
        ColorType::Gray(bits @ (1 | 2 | 4 | 8)) => {
            let Samples::U8(packed) = samples else {
                return Err(odd("whole numbers of 8 bits were expected"));
            };
            let indices = unpack(&packed, width, height, bits)?;
            match palette.then(|| colour_map(&mut reader, bits)).transpose()? {
                Some(map) => (3, Samples::U8(indices.iter().flat_map(|&i| map[usize::from(i)]).collect())),
                None => {
                    let scale = 255 / ((1u16 << bits) - 1) as u8;
                    (1, Samples::U8(indices.iter().map(|&v| v * scale).collect()))
                }
            }
        }
        _ if palette => return Err(unsupported(Format::Tiff, "a palette of more than 8 bits")),
        ColorType::Gray(16 | 32) => (1, samples),
        ColorType::Multiband { num_samples, .. } => grey_and_more(samples, num_samples.into(), &extra),
        ColorType::RGB(8 | 16 | 32) => (3, samples),
        ColorType::RGBA(8 | 16 | 32) => (4, samples),
        ColorType::CMYK(8 | 16) => (3, cmyk_to_rgb(samples)?),
        other => return Err(unsupported(Format::Tiff, &format!("{other:?}"))),
    };
    let mut notes = Vec::new();
    if reader.more_images() {
        notes.push("the TIFF has several pages: only its first was taken".into());
    }
    Ok(Raw {
        width,
        height,
        channels,
        samples,
        premultiplied: extra.first() == Some(&1),
        orientation: orientation.and_then(Orientation::from_exif).unwrap_or(Orientation::NoTransforms),
        icc,
        notes,
    })
}

/// The samples as `[height, width, channels]`, whether the file stores them so or a plane a channel.
fn interleaved(reader: &mut Reader, pixels: u64) -> Result<Samples> {
    let mut result = DecodingResult::U8(Vec::new());
    let layout = reader.read_image_to_buffer(&mut result).map_err(describe)?;
    if result.as_buffer(0).as_bytes().len() < layout.complete_len {
        return Err(unsupported(Format::Tiff, "more channels than a picture has"));
    }
    let planes = layout.planes;
    Ok(match result {
        DecodingResult::U8(v) => Samples::U8(interleave(v, planes, pixels)?),
        DecodingResult::U16(v) => Samples::U16(interleave(v, planes, pixels)?),
        DecodingResult::F32(v) => Samples::F32(interleave(v, planes, pixels)?),
        _ => {
            return Err(unsupported(
                Format::Tiff,
                "samples other than 8 or 16 bits or 32-bit floating point",
            ));
        }
    })
}

fn interleave<T: Copy + Default>(samples: Vec<T>, planes: usize, pixels: u64) -> Result<Vec<T>> {
    if planes <= 1 {
        return Ok(samples);
    }
    let pixels = pixels as usize;
    if samples.len() != planes * pixels {
        return Err(damaged(Format::Tiff, "its colour planes differ in size"));
    }
    let mut out = zeros(samples.len() as u64)?;
    for (c, plane) in samples.chunks_exact(pixels).enumerate() {
        out.iter_mut().skip(c).step_by(planes).zip(plane).for_each(|(o, &v)| *o = v);
    }
    Ok(out)
}

/// Grey with extra channels: the first, and alpha where the extra one is said to be alpha (TIFF 6.0, ExtraSamples 1
/// or 2).
fn grey_and_more(samples: Samples, channels: usize, extra: &[u16]) -> (usize, Samples) {
    fn pick<T: Copy>(samples: Vec<T>, channels: usize, kept: usize) -> Vec<T> {
        samples.chunks_exact(channels.max(1)).flat_map(|p| p.iter().take(kept).copied()).collect()
    }
    let kept = if channels >= 2 && matches!(extra.first(), Some(1 | 2)) { 2 } else { 1 };
    let samples = match samples {
        Samples::U8(v) => Samples::U8(pick(v, channels, kept)),
        Samples::U16(v) => Samples::U16(pick(v, channels, kept)),
        Samples::F32(v) => Samples::F32(pick(v, channels, kept)),
    };
    (kept, samples)
}

/// Rows of 1, 2, 4 or 8-bit values, each row padded to a byte, first value in the high bits: a byte a value.
fn unpack(packed: &[u8], width: usize, height: usize, bits: u8) -> Result<Vec<u8>> {
    let bits = usize::from(bits);
    let row_bytes = (width * bits).div_ceil(8);
    if packed.len() != row_bytes * height {
        return Err(odd("its rows have another length than its width says"));
    }
    let mut values = with_capacity((width * height) as u64)?;
    let mask = ((1u16 << bits) - 1) as u8;
    for row in packed.chunks_exact(row_bytes) {
        values.extend((0..width).map(|x| row[x * bits / 8] >> (8 - bits - x * bits % 8) & mask));
    }
    Ok(values)
}

/// Naive conversion without a profile: each ink darkens its complement, black darkens all.
fn cmyk_to_rgb(samples: Samples) -> Result<Samples> {
    Ok(match samples {
        Samples::U8(v) => {
            let mix = |ink: u8, black: u8| {
                let light = u16::from(255 - ink) * u16::from(255 - black);
                ((light + 127) / 255) as u8
            };
            Samples::U8(v.chunks_exact(4).flat_map(|p| [0, 1, 2].map(|c| mix(p[c], p[3]))).collect())
        }
        Samples::U16(v) => {
            let mix = |ink: u16, black: u16| {
                let light = u32::from(65535 - ink) * u32::from(65535 - black);
                ((light + 32767) / 65535) as u16
            };
            Samples::U16(v.chunks_exact(4).flat_map(|p| [0, 1, 2].map(|c| mix(p[c], p[3]))).collect())
        }
        Samples::F32(_) => return Err(unsupported(Format::Tiff, "CMYK in floating point")),
    })
}

/// The colour map of a palette picture: all red, then all green, then all blue values, 16 bits each.
fn colour_map(reader: &mut Reader, bits: u8) -> Result<Vec<[u8; 3]>> {
    let map = reader.get_tag_u16_vec(Tag::ColorMap).map_err(describe)?;
    let colours = 1usize << bits;
    if map.len() != colours * 3 {
        return Err(damaged(Format::Tiff, "its palette has the wrong length"));
    }
    // Some writers store 8-bit values where the format wants 16-bit ones; libtiff tells them apart likewise.
    let shift = if map.iter().all(|&v| v < 256) { 0 } else { 8 };
    Ok((0..colours).map(|i| [0, 1, 2].map(|c| (map[c * colours + i] >> shift) as u8)).collect())
}

fn odd(what: &str) -> Error {
    damaged(Format::Tiff, what)
}

fn describe(error: TiffError) -> Error {
    match error {
        TiffError::IoError(e) if e.kind() == ErrorKind::UnexpectedEof => truncated(Format::Tiff),
        TiffError::UnsupportedError(e) => unsupported(Format::Tiff, &e.to_string()),
        TiffError::LimitsExceeded => {
            damaged(Format::Tiff, "it asks for more memory than a picture of its size needs")
        }
        other => damaged(Format::Tiff, &other.to_string()),
    }
}
