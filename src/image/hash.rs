//! A fingerprint of what a picture shows, the same whatever file it came from.

use super::{Picture, to_byte};

const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// FNV-1a, 64 bits (Fowler, Noll, Vo; the parameters of the IETF draft draft-eastlake-fnv): for each byte, xor then
/// multiply by the prime.
pub fn fnv1a_64(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

/// The hash that seeds the noise of a picture: [`fnv1a_64`] over the width and the height as little-endian `u32`, then
/// the colour bytes `[height, width, 3]` by [`to_byte`](super::to_byte).
///
/// It does not see the file's name, format, profile or transparency, so a picture keeps its noise when it is renamed
/// or converted without loss. Two pictures that differ in one byte of colour, or in shape, get unrelated noise.
pub fn content_hash(picture: &Picture) -> u64 {
    // A side fits u32: decoding refuses larger pictures, and such a buffer could not be held.
    let side = |n: usize| (n as u32).to_le_bytes();
    let size = side(picture.width).into_iter().chain(side(picture.height));
    fnv1a_64(size.chain(picture.colour.iter().map(|&v| to_byte(v))))
}
