//! Philox4x32-10, a counter-based random generator: any block of any stream at once, with no state.
//!
//! Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. For a fixed key it is a
//! bijection of the counter.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const KEY_STEPS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// Four random words for a counter and a key.
#[inline]
pub fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let first = MULTIPLIERS[0] as u64 * counter[0] as u64;
        let second = MULTIPLIERS[1] as u64 * counter[2] as u64;
        counter = [
            (second >> 32) as u32 ^ counter[1] ^ key[0],
            second as u32,
            (first >> 32) as u32 ^ counter[3] ^ key[1],
            first as u32,
        ];
        key = [key[0].wrapping_add(KEY_STEPS[0]), key[1].wrapping_add(KEY_STEPS[1])];
    }
    counter
}

/// Four independent unit normals from the four words of one block (Box & Muller 1958), in f64.
///
/// Each word w becomes the uniform `(w + 1/2) / 2^32`, which is never 0 or 1, so values stay within +-6.77.
#[inline]
pub fn normals(words: [u32; 4]) -> [f64; 4] {
    let uniform = |word: u32| (word as f64 + 0.5) / 4_294_967_296.0;
    let pair = |radius: u32, angle: u32| {
        let radius = (-2.0 * uniform(radius).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * uniform(angle)).sin_cos();
        (radius * cos, radius * sin)
    };
    let (a, b) = pair(words[0], words[1]);
    let (c, d) = pair(words[2], words[3]);
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers that ship with Random123.
    #[test]
    fn known_answers() {
        let all = u32::MAX;
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox4x32([all; 4], [all; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox4x32([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn extreme_words_give_finite_normals() {
        for words in [[0; 4], [u32::MAX; 4], [0, u32::MAX, u32::MAX, 0]] {
            assert!(normals(words).iter().all(|z| z.is_finite() && z.abs() < 6.77), "{words:?}");
        }
    }
}
