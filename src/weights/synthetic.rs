//! Synthetic weights: every value is a pure function of its tensor's name, bit for bit on any machine.
//!
//! With h the FNV-1a 64-bit hash of the UTF-8 name and x_i the i-th output of SplitMix64 seeded with h:
//!
//! ```text
//! r_i = (x_i >> 40) * 2^-23 - 1      in [-1, 1), exact in float32
//! w_i = a * r_i + b                  one float32 multiplication, one addition
//! ```
//!
//! a and b follow from name and shape so that activations of every network stay of order one and no
//! branch (zero convolutions, adapters) is switched off: see [`affine`].

use rayon::prelude::*;

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
/// Values made by one thread at a time.
const PIECE: usize = 1 << 17;

/// FNV-1a, 64 bits.
fn fnv1a64(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3))
}

/// r_i of the tensor whose name has hash `seed`.
fn uniform(seed: u64, i: u64) -> f32 {
    let z = seed.wrapping_add(i.wrapping_add(1).wrapping_mul(GOLDEN));
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    let z = z ^ (z >> 31);
    // 24 bits, so the conversion is exact, and so are the product and the difference.
    (z >> 40) as f32 * (1.0 / 8_388_608.0) - 1.0
}

/// Whether `name` is `last` or ends in `.last`.
fn ends_in(name: &str, last: &str) -> bool {
    name.strip_suffix(last).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Whether `name` ends in `before`, one digit and `after`; the position of `before`, if so.
fn digit_between(name: &str, before: &str, after: &str) -> Option<usize> {
    let rest = name.strip_suffix(after)?;
    let rest = rest.strip_suffix(|c: char| c.is_ascii_digit())?;
    Some(rest.strip_suffix(before)?.len())
}

/// (factor on a, b) for tensors that the general rule does not suit; the first match counts.
fn adjustment(name: &str) -> Option<(f64, f64)> {
    let upconv =
        digit_between(name, "upconv", ".weight").is_some_and(|at| at == 0 || name.as_bytes()[at - 1] == b'.');
    let pair = if ends_in(name, "trunk_conv.weight") {
        (0.01, 0.0) // RRDBNet: every block grows its input by 1.2, 23 blocks by 66.
    } else if upconv || ends_in(name, "HRconv.weight") {
        (1.4, 0.0) // RRDBNet: leaky ReLUs halve the variance.
    } else if ends_in(name, "quant_conv.weight") {
        (2.0, 0.0) // Autoencoder: latents not too small beside unit noise.
    } else if ends_in(name, "conv_last.weight") {
        (0.5, 0.0) // RRDBNet: the clean image varies around
    } else if ends_in(name, "conv_last.bias") {
        (1.0, 0.5) // mid-grey and stays mostly inside [0, 1].
    } else if name.ends_with("decoder.conv_out.weight") {
        (0.5, 0.0) // Autoencoder: the image stays mostly inside [-1, 1].
    } else if name.ends_with("token_embedding.weight") || name.ends_with("positional_embedding") {
        (1.0, 0.0) // Embeddings have no fan-in.
    } else if name.ends_with("running_var") {
        (2.0, 1.0) // Batch norm: variances are positive.
    } else if digit_between(name, "lin", ".model.1.weight").is_some() {
        (0.1, 0.05) // LPIPS: its linear weights are not negative.
    } else if ends_in(name, "logit_scale") {
        (1.0, 4.6) // CLIP: e^4.6 is about the published 100.
    } else {
        return None;
    };
    Some(pair)
}

/// The scale a and the centre b of the values of tensor `name`.
///
/// In general: 0.05 for embeddings; sqrt(3 / fan-in) for weights of two and more axes (unit gain); 0.2
/// around 1 for norm scales; 0.1 for biases.
pub fn affine(name: &str, shape: &[usize]) -> (f32, f32) {
    let (a, b): (f64, f64) = if name.contains("embedding") {
        (0.05, 0.0)
    } else if shape.len() >= 2 {
        let fan_in = shape[1..].iter().map(|d| *d as f64).product::<f64>();
        ((3.0 / fan_in).sqrt(), 0.0)
    } else if name.ends_with("weight") {
        (0.2, 1.0)
    } else {
        (0.1, 0.0)
    };
    let (factor, centre) = adjustment(name).unwrap_or((1.0, b));
    ((a * factor) as f32, centre as f32)
}

/// Fills `out`, row-major, with the values of tensor `name` of shape `shape`, in parallel.
pub fn fill(name: &str, shape: &[usize], out: &mut [f32]) {
    fill_piece(name, shape, 0, out);
}

/// As [`fill`] with the values from row-major position `first` on.
pub fn fill_piece(name: &str, shape: &[usize], first: usize, out: &mut [f32]) {
    out.par_chunks_mut(PIECE)
        .enumerate()
        .for_each(|(i, piece)| fill_at(name, shape, first + i * PIECE, piece));
}

/// Fills `out` with the values from row-major position `first` on.
pub fn fill_at(name: &str, shape: &[usize], first: usize, out: &mut [f32]) {
    let (a, b) = affine(name, shape);
    let seed = fnv1a64(name);
    for (i, value) in out.iter_mut().enumerate() {
        // Rust never fuses these two into one rounding.
        *value = a * uniform(seed, (first + i) as u64) + b;
    }
}
