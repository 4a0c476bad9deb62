//! Stored little-endian bytes to floating-point values, with one rounding.

use bytemuck::cast_slice_mut;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::dtype::Dtype;

/// Values converted at a time where a staging buffer is needed.
const PIECE: usize = 1024;

/// A floating-point type that stored tensors convert to: `f32`, `f64`, `f16`, `bf16`.
///
/// Narrowing rounds to nearest, ties to even, straight from the stored type; overflow gives infinity.
pub trait Float: bytemuck::Pod + Send + Sync {
    /// The dtype with these very bits.
    const DTYPE: Dtype;
    fn from_f64(value: f64) -> Self;
    fn from_f32(value: f32) -> Self;
    /// `out[i] = values[i]`, both of one length.
    fn from_f32s(values: &[f32], out: &mut [Self]) {
        out.iter_mut().zip(values).for_each(|(o, v)| *o = Self::from_f32(*v));
    }
    fn is_infinite(self) -> bool;
}

impl Float for f32 {
    const DTYPE: Dtype = Dtype::F32;
    fn from_f64(value: f64) -> f32 {
        value as f32
    }
    fn from_f32(value: f32) -> f32 {
        value
    }
    fn is_infinite(self) -> bool {
        self.is_infinite()
    }
}

impl Float for f64 {
    const DTYPE: Dtype = Dtype::F64;
    fn from_f64(value: f64) -> f64 {
        value
    }
    fn from_f32(value: f32) -> f64 {
        f64::from(value)
    }
    fn is_infinite(self) -> bool {
        self.is_infinite()
    }
}

impl Float for f16 {
    const DTYPE: Dtype = Dtype::F16;
    fn from_f64(value: f64) -> f16 {
        f16::from_f32(to_odd(value))
    }
    fn from_f32(value: f32) -> f16 {
        f16::from_f32(value)
    }
    fn from_f32s(values: &[f32], out: &mut [f16]) {
        out.convert_from_f32_slice(values);
    }
    fn is_infinite(self) -> bool {
        self.is_infinite()
    }
}

impl Float for bf16 {
    const DTYPE: Dtype = Dtype::BF16;
    fn from_f64(value: f64) -> bf16 {
        bf16::from_f32(to_odd(value))
    }
    fn from_f32(value: f32) -> bf16 {
        bf16::from_f32(value)
    }
    fn from_f32s(values: &[f32], out: &mut [bf16]) {
        out.convert_from_f32_slice(values);
    }
    fn is_infinite(self) -> bool {
        self.is_infinite()
    }
}

/// `value` in float32, rounded to odd where inexact: rounding that to a 16-bit type gives the same as
/// rounding `value` itself would. (The half crate goes through the nearest float32 on some processors,
/// which rounds twice.)
fn to_odd(value: f64) -> f32 {
    let near = value as f32;
    if f64::from(near) == value || !near.is_finite() {
        return near;
    }
    let away_from_zero = f64::from(near).abs() > value.abs();
    f32::from_bits((near.to_bits() - u32::from(away_from_zero)) | 1)
}

/// Converts `out.len()` stored values of `dtype`; `bytes` holds exactly them, at any alignment.
///
/// Returns false, with `out` untouched, if `dtype` is not floating point.
pub(crate) fn floats<T: Float>(dtype: Dtype, bytes: &[u8], out: &mut [T]) -> bool {
    debug_assert_eq!(bytes.len(), out.len() * dtype.size());
    if dtype == T::DTYPE && cfg!(target_endian = "little") {
        bytemuck::cast_slice_mut::<T, u8>(out).copy_from_slice(bytes);
        return true;
    }
    match dtype {
        Dtype::F32 => staged(bytes, out, |raw, values: &mut [f32]| {
            for (v, b) in values.iter_mut().zip(raw.chunks_exact(4)) {
                *v = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            }
        }),
        Dtype::F16 => staged(bytes, out, |raw, values: &mut [f32]| {
            let mut bits = [0u16; PIECE];
            let halves: &mut [f16] = cast_slice_mut(half_bits(raw, &mut bits));
            halves.convert_to_f32_slice(values);
        }),
        Dtype::BF16 => staged(bytes, out, |raw, values: &mut [f32]| {
            for (v, b) in values.iter_mut().zip(raw.chunks_exact(2)) {
                *v = f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16);
            }
        }),
        Dtype::F64 => {
            for (o, b) in out.iter_mut().zip(bytes.chunks_exact(8)) {
                *o = T::from_f64(f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]));
            }
        }
        Dtype::I64 | Dtype::I32 | Dtype::I16 | Dtype::I8 | Dtype::U8 | Dtype::Bool => return false,
    }
    true
}

/// Decodes `bytes` piece by piece into f32 (exact for f32, f16 and bf16) and rounds that to `T`.
fn staged<T: Float>(bytes: &[u8], out: &mut [T], decode: impl Fn(&[u8], &mut [f32])) {
    let Some(size) = bytes.len().checked_div(out.len()) else { return };
    let mut values = [0f32; PIECE];
    for (raw, out) in bytes.chunks(PIECE * size).zip(out.chunks_mut(PIECE)) {
        let values = &mut values[..out.len()];
        decode(raw, values);
        T::from_f32s(values, out);
    }
}

/// The 16-bit words of `raw` in `bits`: aligned and in the byte order of this machine.
fn half_bits<'a>(raw: &[u8], bits: &'a mut [u16; PIECE]) -> &'a mut [u16] {
    let bits = &mut bits[..raw.len() / 2];
    for (w, b) in bits.iter_mut().zip(raw.chunks_exact(2)) {
        *w = u16::from_le_bytes([b[0], b[1]]);
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrowing_rounds_once_to_nearest_even() {
        // 1 + 2^-11 lies half way between two f16 values, and 2^-40 more decides; through f32 that
        // would be lost and the tie would go to 1.0.
        let value = 1.0 + 2f64.powi(-11) + 2f64.powi(-40);
        let mut out = [f16::ZERO];
        assert!(floats(Dtype::F64, &value.to_le_bytes(), &mut out));
        assert_eq!(out[0].to_f64(), 1.0 + 2f64.powi(-10));
        // The same for bf16, below zero, and where float32 itself underflows.
        assert_eq!(
            <bf16 as Float>::from_f64(-1.0 - 2f64.powi(-8) - 2f64.powi(-50)).to_f64(),
            -1.0 - 2f64.powi(-7)
        );
        assert_eq!(<bf16 as Float>::from_f64(1.0 + 2f64.powi(-8) - 2f64.powi(-50)).to_f64(), 1.0);
        assert_eq!(<f16 as Float>::from_f64(-1e-300).to_bits(), 0x8000);
        assert_eq!(<f16 as Float>::from_f64(f64::MAX), f16::INFINITY);
        let tie = 1.0f32 + 2f32.powi(-11);
        assert!(floats(Dtype::F32, &tie.to_le_bytes(), &mut out));
        assert_eq!(out[0].to_f64(), 1.0);
    }

    #[test]
    fn every_half_value_converts_as_the_half_crate_says() {
        let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let mut out = vec![0f32; 1 << 16];
        assert!(floats(Dtype::F16, &all, &mut out));
        for (bits, value) in (0..=u16::MAX).zip(&out) {
            let expected = f16::from_bits(bits).to_f32();
            assert!(*value == expected || (value.is_nan() && expected.is_nan()), "{bits:#06x}");
        }
        assert!(floats(Dtype::BF16, &all, &mut out));
        for (bits, value) in (0..=u16::MAX).zip(&out) {
            let expected = bf16::from_bits(bits).to_f32();
            assert!(*value == expected || (value.is_nan() && expected.is_nan()), "{bits:#06x}");
        }
    }

    #[test]
    fn integers_are_refused() {
        assert!(!floats(Dtype::I64, &[0; 8], &mut [0f32]));
    }
}
