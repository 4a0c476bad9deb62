//! Resizing pictures on the host, by the rule that the device follows too.

use crate::ops::resize::resize_bicubic_host;

/// Bicubic with antialias (see [`crate::ops::resize`]): `[height, width, channels]` to `[out_height, out_width,
/// channels]`. All sizes must be at least 1 and `pixels` as long as its shape says.
pub fn bicubic(
    pixels: &[f32],
    (width, height): (usize, usize),
    channels: usize,
    (out_width, out_height): (usize, usize),
) -> Vec<f32> {
    resize_bicubic_host(pixels, [1, height, width, channels], out_height, out_width)
}
