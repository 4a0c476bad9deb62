//! Picture file to [`Picture`].
//!
//! The format is found by content, not by name. Samples become `value / 255` or `value / 65535`, divided in `f64` and
//! rounded once to `f32` (what `torch.tensor(pixels / 255.0, dtype=torch.float32)` gives). The EXIF orientation is
//! applied, the ICC profile is kept. Of an animation or a file of many pages the first picture is taken, with a note.
//!
//! Damaged input is an error, never a picture that is grey from the middle on. Sizes are checked against
//! [`DecodeLimits`] before the pixels are allocated, and a panic inside a decoder is caught and reported as damage.

mod guard;
mod jpeg;
mod png;
mod quiet;
mod raster;
mod samples;
mod tiff;
mod tiff_tags;

use super::format::describe_unknown;
use super::{Format, Picture};
use crate::error::{Error, Result};
use samples::Raw;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// How large an input may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Width times height.
    pub max_pixels: u64,
    /// Bytes of the file.
    pub max_file_bytes: u64,
}

impl Default for DecodeLimits {
    /// 100 million pixels (1.2 GB as `f32` colour), 1 GiB of file.
    fn default() -> Self {
        DecodeLimits { max_pixels: 100_000_000, max_file_bytes: 1 << 30 }
    }
}

impl DecodeLimits {
    /// Refuses an empty or oversized picture, before anything of its size is allocated.
    fn check(&self, width: u64, height: u64) -> Result<()> {
        if width == 0 || height == 0 {
            return Err(Error::input(format!("the picture is empty ({width} x {height} pixels)")));
        }
        if width.checked_mul(height).is_none_or(|pixels| pixels > self.max_pixels) {
            let most = self.max_pixels;
            return Err(Error::input(format!(
                "the picture says that it has {width} x {height} pixels, the most is {most} in all"
            ))
            .fix("crop it or cut it into parts"));
        }
        Ok(())
    }
}

/// Reads and decodes a picture file within the default [`DecodeLimits`].
///
/// # Errors
/// [`Io`](crate::error::Kind::Io) when the file cannot be read, [`Input`](crate::error::Kind::Input) when it is not a
/// picture, is damaged or too large, [`Memory`](crate::error::Kind::Memory) when its pixels cannot be allocated; each
/// names the file.
pub fn decode(path: &Path) -> Result<Picture> {
    let limits = DecodeLimits::default();
    let bytes = read(path, &limits)?;
    decode_bytes(&bytes, &limits).map_err(|e| e.at(path.display().to_string()))
}

/// Width and height as the header of a picture file says them, before its orientation is applied; `None` when it has
/// none that can be read, which [`decode`] will explain. Reads no pixels.
pub fn stated_size(path: &Path) -> Option<(usize, usize)> {
    let is_file = std::fs::metadata(path).is_ok_and(|about| about.is_file());
    let read = || ::image::ImageReader::open(path).ok()?.with_guessed_format().ok()?.into_dimensions().ok();
    let (width, height) = if is_file { quiet::catch(read).ok().flatten()? } else { return None };
    DecodeLimits::default().check(width.into(), height.into()).ok()?;
    Some((width as usize, height as usize))
}

/// Decodes a picture held in memory. See [`decode`] for the errors; these name no file.
pub fn decode_bytes(bytes: &[u8], limits: &DecodeLimits) -> Result<Picture> {
    let Some(format) = Format::sniff(bytes) else {
        return Err(Error::input(describe_unknown(bytes)).fix("give a PNG, JPEG, WebP, TIFF or BMP picture"));
    };
    let raw = quiet::catch(|| decode_raw(format, bytes, limits))
        .unwrap_or_else(|panic| Err(damaged(format, &format!("its decoder failed on it ({panic})"))))?;
    raw.into_picture(format)
}

fn decode_raw(format: Format, bytes: &[u8], limits: &DecodeLimits) -> Result<Raw> {
    match format {
        Format::Png => png::decode(bytes, limits),
        Format::Jpeg => jpeg::decode(bytes, limits),
        Format::WebP => raster::webp(bytes, limits),
        Format::Tiff => tiff::decode(bytes, limits),
        Format::Bmp => raster::bmp(bytes, limits),
    }
}

fn read(path: &Path, limits: &DecodeLimits) -> Result<Vec<u8>> {
    let failed = |e: std::io::Error| Error::io("read the picture", path, &e);
    let place = || path.display().to_string();
    let about = std::fs::metadata(path).map_err(failed)?;
    if about.is_dir() {
        return Err(Error::input("this is a folder, not a picture").at(place()));
    }
    if !about.is_file() {
        return Err(Error::input("this is not a regular file").at(place()));
    }
    let too_large = || {
        let most = limits.max_file_bytes >> 20;
        Error::input(format!("the file is larger than {most} MiB, the most that is read")).at(place())
    };
    if about.len() > limits.max_file_bytes {
        return Err(too_large());
    }
    let mut bytes = samples::with_capacity(about.len())?;
    // The length may have changed since it was asked, so the limit is held while reading as well.
    let most = limits.max_file_bytes.saturating_add(1);
    File::open(path).map_err(failed)?.take(most).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limits.max_file_bytes {
        return Err(too_large());
    }
    Ok(bytes)
}

/// The error for a file that starts as `format` and goes on wrong.
fn damaged(format: Format, what: &str) -> Error {
    Error::input(format!("the {} picture is damaged: {what}", format.name()))
        .fix("copy or download it again, or save it anew from a picture editor")
}

/// The error for a file that ends too early.
fn truncated(format: Format) -> Error {
    damaged(format, "the file ends before the picture does")
}

/// The error for a well-formed file of a kind that is not read.
fn unsupported(format: Format, what: &str) -> Error {
    Error::input(format!("this kind of {} picture is not read: {what}", format.name()))
        .fix("save it as an 8-bit or 16-bit RGB PNG")
}
