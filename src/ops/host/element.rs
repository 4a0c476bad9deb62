//! Element types that the CPU computes with: always in f32, stored as they are.

use half::bf16;

use crate::tensor::Element;

/// Evaluates an expression, a `Result`, with `$T` standing for the element type that `$dtype` names.
macro_rules! with_element {
    ($dtype:expr, $T:ident => $work:expr) => {
        match $dtype {
            $crate::tensor::DType::F32 => {
                type $T = f32;
                $work
            }
            $crate::tensor::DType::BF16 => {
                type $T = half::bf16;
                $work
            }
            $crate::tensor::DType::F16 => {
                Err($crate::error::Error::internal("the cpu device does not compute in f16"))
            }
        }
    };
}
pub(crate) use with_element;

/// An element that is read as f32 and rounded when it is stored.
pub trait HostElement: Element {
    fn wide(self) -> f32;

    fn narrow(value: f32) -> Self;

    /// Fills `out` with what `work` leaves in its f32 line, which holds anything at first; `buffer` is at least as
    /// long as `out`.
    fn fill(out: &mut [Self], buffer: &mut [f32], work: impl FnOnce(&mut [f32]));

    /// Length of the buffer that lines of `length` elements need.
    fn buffer(length: usize) -> usize;
}

impl HostElement for f32 {
    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn fill(out: &mut [Self], _buffer: &mut [f32], work: impl FnOnce(&mut [f32])) {
        work(out);
    }

    fn buffer(_length: usize) -> usize {
        0
    }
}

impl HostElement for bf16 {
    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    /// To nearest, ties to even, without a branch; NaN stays NaN.
    #[inline(always)]
    fn narrow(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
        let quiet = bits | 0x40_0000;
        bf16::from_bits(((if value.is_nan() { quiet } else { rounded }) >> 16) as u16)
    }

    #[inline(always)]
    fn fill(out: &mut [Self], buffer: &mut [f32], work: impl FnOnce(&mut [f32])) {
        let line = &mut buffer[..out.len()];
        work(line);
        narrow_all(line, out);
    }

    fn buffer(length: usize) -> usize {
        length
    }
}

/// Writes `values` rounded.
#[inline(always)]
pub fn narrow_all<T: HostElement>(values: &[f32], out: &mut [T]) {
    out.iter_mut().zip(values).for_each(|(o, &v)| *o = T::narrow(v));
}

/// Writes `values` as f32.
#[inline(always)]
pub fn widen_all<T: HostElement>(values: &[T], out: &mut [f32]) {
    out.iter_mut().zip(values).for_each(|(o, &v)| *o = v.wide());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_like_its_crate() {
        let mut bits = 0u32;
        for _ in 0..200_000 {
            bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let value = f32::from_bits(bits);
            let (found, expected) = (<bf16 as HostElement>::narrow(value), bf16::from_f32(value));
            assert_eq!(found.to_bits(), expected.to_bits(), "{value:e}, bits {bits:08x}");
            assert!(value.is_nan() || found.wide().to_bits() == expected.to_f32().to_bits());
        }
        for tie in [0x3f80_8000u32, 0x3f81_8000, 0x7f7f_ffff, 0x8000_0000, 0x0000_8001] {
            let value = f32::from_bits(tie);
            assert_eq!(<bf16 as HostElement>::narrow(value).to_bits(), bf16::from_f32(value).to_bits());
        }
    }
}
