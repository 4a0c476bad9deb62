//! What the machine can do at best, and how much memory the process took.

use std::time::Instant;

use crate::error::Result;
use crate::ops::elementwise::cast;
use crate::ops::linear::{LinearWeight, linear};
use crate::ops::{Cx, Epilogue};
use crate::tensor::Tensor;

/// Side of the square product.
const SIDE: usize = 2048;
/// Products after the first, which pages memory in.
const REPEATS: usize = 5;

/// Operations a second of a large square matrix product, the best of a few: what the arithmetic of all parts is
/// held against.
///
/// # Errors
/// Memory that runs out.
pub fn matmul_rate(cx: &Cx) -> Result<f64> {
    let values: Vec<f32> = (0..SIDE * SIDE).map(|i| (i % 251) as f32 / 251.0 - 0.5).collect();
    let weight = LinearWeight::pack(cx, &values, [SIDE, SIDE])?;
    let x = cast(cx, &Tensor::from_f32(cx.device(), &values, [SIDE, SIDE])?, cx.dtype())?;
    let mut best = f64::INFINITY;
    for _ in 0..=REPEATS {
        let start = Instant::now();
        linear(cx, &x, &weight, &Epilogue::default())?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(2.0 * (SIDE as f64).powi(3) / best)
}

/// Forgets the peak so far, so that [`peak_bytes`] tells of what comes after. Only some systems can.
pub fn forget_peak() {
    if cfg!(target_os = "linux") {
        // Without it the peak of an earlier part may stand for a later one; nothing else depends on it.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
    }
}

/// The most memory that the process has held at once, mapped files included; `None` where the system does not tell.
pub fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn the_peak_grows_with_touched_memory() {
        let before = peak_bytes().expect("linux tells");
        let held = vec![1u8; 64 << 20];
        assert!(held.iter().all(|byte| *byte == 1));
        assert!(peak_bytes().expect("linux tells") >= before.max(64 << 20));
    }
}
