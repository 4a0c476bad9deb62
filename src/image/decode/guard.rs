//! Checks on a file's outer structure that the decoders leave out.

use super::{DecodeLimits, damaged, truncated, unsupported};
use crate::error::Result;
use crate::image::Format;

/// Whether a JPEG runs to its end-of-image marker. Decoders are content without one, but then the last rows may be
/// invented.
pub(super) fn jpeg_is_complete(bytes: &[u8]) -> bool {
    let mut at = 2;
    let mut in_scan = false;
    loop {
        // Up to the next marker: entropy-coded data in a scan, fill or stray bytes between segments.
        match bytes.get(at..).and_then(|rest| rest.iter().position(|&b| b == 0xff)) {
            Some(skip) => at += skip,
            None => return false,
        }
        match bytes.get(at + 1) {
            None => return false,
            // A fill byte.
            Some(0xff) => at += 1,
            // A stuffed 0xff, restart markers and markers without a body.
            Some(0x00 | 0x01 | 0xd0..=0xd8) => at += 2,
            Some(0xd9) => return in_scan,
            Some(&marker) => {
                let Some(length) = bytes.get(at + 2..at + 4) else { return false };
                in_scan |= marker == 0xda;
                at += 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
            }
        }
    }
}

/// Checks that every chunk of a WebP lies within the file and that no frame is larger than the canvas: the decoder
/// allocates both from what the file claims.
pub(super) fn webp(bytes: &[u8], limits: &DecodeLimits) -> Result<()> {
    let riff = bytes.get(4..8).map(le32).ok_or_else(|| truncated(Format::WebP))?;
    // The size leaves out the first eight bytes. A missing pad byte at the very end is harmless.
    let end = 8 + u64::from(riff);
    if end > bytes.len() as u64 + 1 {
        return Err(truncated(Format::WebP));
    }
    webp_chunks(bytes, 12, bytes.len().min(end as usize), None, limits)
}

fn webp_chunks(
    bytes: &[u8],
    mut at: usize,
    end: usize,
    mut canvas: Option<(u64, u64)>,
    limits: &DecodeLimits,
) -> Result<()> {
    while at + 8 <= end {
        let (name, size) = (&bytes[at..at + 4], le32(&bytes[at + 4..at + 8]) as usize);
        let Some(body) = bytes.get(at + 8..).and_then(|rest| rest.get(..size)) else {
            return Err(truncated(Format::WebP));
        };
        let frame = match name {
            b"VP8X" if body.len() >= 10 && canvas.is_none() => {
                let size = (1 + le24(&body[4..]), 1 + le24(&body[7..]));
                limits.check(size.0, size.1)?;
                canvas = Some(size);
                None
            }
            b"VP8 " if body.len() >= 10 => {
                let side = |at: usize| u64::from(u16::from_le_bytes([body[at], body[at + 1]]) & 0x3fff);
                Some((side(6), side(8)))
            }
            b"VP8L" if body.len() >= 5 => {
                let packed = u64::from(le32(&body[1..]));
                let size = (1 + (packed & 0x3fff), 1 + (packed >> 14 & 0x3fff));
                // The one size that the format allows and the decoder, which keeps 14 bits of it, reads as 0.
                if size.0 == 16_384 || size.1 == 16_384 {
                    return Err(unsupported(Format::WebP, "a side of 16384 pixels"));
                }
                Some(size)
            }
            b"ANMF" if body.len() > 16 => {
                let size = (1 + le24(&body[6..]), 1 + le24(&body[9..]));
                webp_chunks(bytes, at + 8 + 16, at + 8 + body.len(), Some(size), limits)?;
                Some(size)
            }
            _ => None,
        };
        if let Some((width, height)) = frame {
            limits.check(width, height)?;
            if canvas.is_some_and(|(w, h)| width > w || height > h) {
                return Err(damaged(Format::WebP, "a frame is larger than the picture"));
            }
        }
        at += 8 + size + size % 2;
    }
    Ok(())
}

fn le24(bytes: &[u8]) -> u64 {
    u64::from(bytes[0]) | u64::from(bytes[1]) << 8 | u64::from(bytes[2]) << 16
}

fn le32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}
