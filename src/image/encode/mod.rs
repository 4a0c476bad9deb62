//! [`Picture`] to file: 8 bits a sample by [`to_byte`](super::to_byte), also for 16-bit sources.
//!
//! The sampler's result carries no more than 8 bits of meaning, and the published code writes 8 bits, so there is no
//! 16-bit output. Colour is written as RGB, also for grey sources. What a format cannot hold is left out and said in
//! a note: transparency in JPEG and BMP is laid over white, profiles for another colour space than RGB are dropped.

mod atomic;
mod formats;

use super::{Format, Picture};
use crate::error::{Error, Result};
pub use atomic::write_whole;
use std::path::Path;

/// How to write a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodeOptions {
    /// The format; `None` takes the one that the path's extension names.
    pub format: Option<Format>,
    /// 1 (smallest file) to 100 (best picture).
    pub jpeg_quality: u8,
    /// Key and text pairs, written to PNG files only. A key has 1 to 79 Latin-1 characters.
    pub text: Vec<(String, String)>,
}

impl Default for EncodeOptions {
    /// By extension, JPEG quality 95, no text.
    fn default() -> Self {
        EncodeOptions { format: None, jpeg_quality: 95, text: Vec::new() }
    }
}

/// An encoded picture and what was left out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    pub bytes: Vec<u8>,
    /// Each a sentence for the user.
    pub notes: Vec<String>,
}

/// Writes `picture` to `path`, replacing a file that is there. The bytes go to a temporary file in the same folder
/// that is renamed at the end, so `path` never holds half a picture. Returns the notes of [`Encoded`].
///
/// # Errors
/// [`Usage`](crate::error::Kind::Usage) for an extension that names no format or bad options,
/// [`Input`](crate::error::Kind::Input) when the format cannot hold a picture of this size,
/// [`Io`](crate::error::Kind::Io) when writing fails; each names the file.
pub fn encode(picture: &Picture, path: &Path, options: &EncodeOptions) -> Result<Vec<String>> {
    let place = || path.display().to_string();
    let format = options.format.or_else(|| Format::from_path(path)).ok_or_else(|| {
        Error::usage("the extension names no picture format that can be written")
            .at(place())
            .fix("use .png, .jpg, .webp, .tif or .bmp")
    })?;
    let Encoded { bytes, notes } = encode_bytes(picture, format, options).map_err(|e| e.at(place()))?;
    write_whole(path, &bytes)?;
    Ok(notes)
}

/// Encodes `picture` in memory; `options.format` is not looked at. See [`encode`] for the errors; these name no file.
pub fn encode_bytes(picture: &Picture, format: Format, options: &EncodeOptions) -> Result<Encoded> {
    let (width, height) = (picture.width, picture.height);
    let alpha_fits = picture.alpha.as_ref().is_none_or(|a| a.len() == picture.pixels());
    if picture.colour.is_empty() || picture.colour.len() != picture.pixels() * 3 || !alpha_fits {
        return Err(Error::internal(format!("the samples do not fill a {width} x {height} picture")));
    }
    check_size(format, width, height)?;
    if !(1..=100).contains(&options.jpeg_quality) {
        let quality = options.jpeg_quality;
        return Err(Error::usage(format!("JPEG quality is {quality}")).fix("give 1 to 100"));
    }
    let mut notes = Vec::new();
    let pixels = pixels_for(picture, format, &mut notes);
    let icc = profile_for(picture, format, &mut notes);
    let bytes = match format {
        Format::Png => formats::png(&pixels, icc, &options.text),
        Format::Jpeg => formats::jpeg(&pixels, icc, options.jpeg_quality),
        Format::WebP => formats::webp(&pixels, icc),
        Format::Tiff => formats::tiff(&pixels, icc),
        Format::Bmp => formats::bmp(&pixels),
    }?;
    Ok(Encoded { bytes, notes })
}

/// Whether a picture of this size can be written, to know before it is computed.
///
/// # Errors
/// [`Input`](crate::error::Kind::Input) when a side is longer than the format's headers can say.
pub fn check_size(format: Format, width: usize, height: usize) -> Result<()> {
    let largest = match format {
        Format::Png => i32::MAX as usize,
        Format::Jpeg | Format::Bmp => 65_535,
        Format::WebP => 16_383,
        Format::Tiff => u32::MAX as usize,
    };
    if width <= largest && height <= largest {
        return Ok(());
    }
    let name = format.name();
    Err(Error::input(format!(
        "{name} holds at most {largest} pixels a side, the picture has {width} x {height}"
    ))
    .fix("choose another format, such as png"))
}

/// The bytes to store: `[height, width, channels]`, channels 3 or 4.
struct Pixels {
    width: u32,
    height: u32,
    alpha: bool,
    bytes: Vec<u8>,
}

fn pixels_for(picture: &Picture, format: Format, notes: &mut Vec<String>) -> Pixels {
    // Sides were checked to fit the format, and thereby u32.
    let (width, height) = (picture.width as u32, picture.height as u32);
    let pixels = |alpha, bytes| Pixels { width, height, alpha, bytes };
    match &picture.alpha {
        None => pixels(false, picture.to_rgb8()),
        Some(alpha) if matches!(format, Format::Jpeg | Format::Bmp) => {
            notes.push(format!("{} holds no transparency: it was laid over white", format.name()));
            let over_white = |(rgb, &a): (&[f32], &f32)| {
                [rgb[0], rgb[1], rgb[2]].map(|v| super::to_byte(v.clamp(0.0, 1.0) * a + (1.0 - a)))
            };
            pixels(false, picture.colour.chunks_exact(3).zip(alpha).flat_map(over_white).collect())
        }
        Some(_) => pixels(true, picture.to_rgba8()),
    }
}

/// The profile to store: only one for RGB describes the RGB that is written.
fn profile_for<'a>(picture: &'a Picture, format: Format, notes: &mut Vec<String>) -> Option<&'a [u8]> {
    let icc = picture.icc.as_deref()?;
    if format == Format::Bmp {
        notes.push("BMP holds no colour profile here: it was left out".into());
        None
    } else if icc.get(16..20) != Some(b"RGB ") {
        notes.push("the colour profile is not one for RGB and was left out".into());
        None
    } else if format == Format::Jpeg && icc.len() > 255 * (65_533 - 14) {
        notes.push("the colour profile is too large for JPEG and was left out".into());
        None
    } else {
        Some(icc)
    }
}
