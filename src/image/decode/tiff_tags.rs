//! The first tag directory of a TIFF or BigTIFF file, as far as it must be known before the decoder sees it.

use super::samples::with_capacity;
use super::truncated;
use crate::error::Result;
use crate::image::Format;
use std::borrow::Cow;

const PHOTOMETRIC: u64 = 262;
const PALETTE: u64 = 3;
const BLACK_IS_ZERO: u16 = 1;

/// Reads whole numbers of a file in its byte order.
struct Words<'a> {
    bytes: &'a [u8],
    big_endian: bool,
}

impl Words<'_> {
    /// `length` bytes (at most 8) at `at`, or `None` past the end.
    fn at(&self, at: u64, length: usize) -> Option<u64> {
        let at = usize::try_from(at).ok()?;
        let word = self.bytes.get(at..at.checked_add(length)?)?;
        let join = |n: u64, &b: &u8| n << 8 | u64::from(b);
        Some(if self.big_endian { word.iter().fold(0, join) } else { word.iter().rev().fold(0, join) })
    }
}

/// Checks that no tag claims more bytes than the file has, since the decoder allocates what a tag claims; and makes a
/// palette picture readable. The decoder refuses the photometric interpretation "palette", though its pixels are
/// stored like grey: the returned file has that tag changed to "black is zero", and the flag says that it had to be.
pub(super) fn prepare(bytes: &[u8]) -> Result<(Cow<'_, [u8]>, bool)> {
    match palette_entry(bytes) {
        None => Err(truncated(Format::Tiff)),
        Some(None) => Ok((Cow::Borrowed(bytes), false)),
        Some(Some(value_at)) => {
            let mut changed = with_capacity::<u8>(bytes.len() as u64)?;
            changed.extend_from_slice(bytes);
            let big_endian = bytes.first() == Some(&b'M');
            let value = if big_endian { BLACK_IS_ZERO.to_be_bytes() } else { BLACK_IS_ZERO.to_le_bytes() };
            changed[value_at..value_at + 2].copy_from_slice(&value);
            Ok((Cow::Owned(changed), true))
        }
    }
}

/// Where the value "palette" stands in the file, if it does; `None` when a tag reaches beyond the file.
fn palette_entry(bytes: &[u8]) -> Option<Option<usize>> {
    let words = Words { bytes, big_endian: bytes.first() == Some(&b'M') };
    // BigTIFF has 8-byte offsets and counts where TIFF has 4-byte ones (and a 2-byte count of entries).
    let big = words.at(2, 2)? == 43;
    let (page_at, count_bytes, word) = if big { (8, 8, 8) } else { (4, 2, 4) };
    let page = words.at(page_at, word)?;
    let entries = words.at(page, count_bytes)?;
    let entry_bytes = 4 + 2 * word as u64;
    let first = page.checked_add(count_bytes as u64)?;
    let mut palette = None;
    for i in 0..entries {
        let at = first.checked_add(i.checked_mul(entry_bytes)?)?;
        let (tag, kind, count) = (words.at(at, 2)?, words.at(at + 2, 2)?, words.at(at + 4, word)?);
        let value_at = at + 4 + word as u64;
        if count.checked_mul(type_bytes(kind))? > bytes.len() as u64 {
            return None;
        }
        if tag == PHOTOMETRIC && words.at(value_at, 2)? == PALETTE {
            palette = Some(value_at as usize);
        }
    }
    Some(palette)
}

/// Bytes of one value of a TIFF field type; 0 for types that no reader knows.
fn type_bytes(kind: u64) -> u64 {
    match kind {
        1 | 2 | 6 | 7 => 1,
        3 | 8 => 2,
        4 | 9 | 11 | 13 => 4,
        5 | 10 | 12 | 16 | 17 | 18 => 8,
        _ => 0,
    }
}
