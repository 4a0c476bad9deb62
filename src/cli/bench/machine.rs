//! What the machine can do at best, and how much memory the process took.

use crate::device::Purpose;
use crate::error::Result;
use crate::ops::linear::{LinearWeight, linear};
use crate::ops::{Cx, Epilogue};
use crate::tensor::Tensor;

/// Side of the square product: small enough for each, large enough for its best rate.
const SIDES: [(&str, usize); 3] = [("cpu", 2048), ("emulator", 128), ("cuda", 8192)];
/// Products after the first, which pages memory in.
const REPEATS: usize = 5;

/// Operations a second of a large square matrix product, the best of a few: what the arithmetic of all parts is
/// held against.
///
/// # Errors
/// Memory that runs out.
pub fn matmul_rate(cx: &Cx) -> Result<f64> {
    let name = cx.device().name();
    let side = SIDES.iter().find(|(device, _)| name.starts_with(device)).map_or(1024, |(_, side)| *side);
    let values: Vec<f32> = (0..side * side).map(|i| (i % 251) as f32 / 251.0 - 0.5).collect();
    let weight = LinearWeight::pack(cx, &values, [side, side])?;
    let x = Tensor::from_f32_as(cx.device(), &values, [side, side], cx.dtype(), Purpose::Activation)?;
    let mut best = f64::INFINITY;
    for _ in 0..=REPEATS {
        best = best.min(cx.device().time(&mut || linear(cx, &x, &weight, &Epilogue::default()).map(drop))?);
    }
    Ok(2.0 * (side as f64).powi(3) / best)
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
