//! Whether a transfer is worth waiting for: a server that drips is never silent for long.

use std::time::{Duration, Instant};

/// The least that a transfer brings.
#[derive(Clone, Copy, Debug)]
pub struct Least {
    /// on average over `span`
    pub bytes_per_second: f64,
    pub span: Duration,
}

/// Counts bytes over one span of time after another.
pub struct Pace {
    least: Least,
    began: Instant,
    came: u64,
    too_slow: bool,
}

impl Pace {
    pub fn new(least: Least, now: Instant) -> Self {
        Pace { least, began: now, came: 0, too_slow: false }
    }

    /// Counts bytes that came.
    pub fn count(&mut self, bytes: usize, now: Instant) {
        self.came += bytes as u64;
        // Pieces come when they like: a span may be longer than planned.
        let elapsed = now - self.began;
        if elapsed >= self.least.span {
            self.too_slow |= (self.came as f64) < self.least.bytes_per_second * elapsed.as_secs_f64();
            (self.began, self.came) = (now, 0);
        }
    }

    /// Whether a span that has ended brought too little.
    pub fn too_slow(&self) -> bool {
        self.too_slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a transfer of at least 100 bytes a second, in spans of 10 s, is too slow when (bytes, second) have come.
    fn too_slow(bytes_per_second: f64, pieces: &[(usize, f64)]) -> bool {
        let start = Instant::now();
        let mut pace = Pace::new(Least { bytes_per_second, span: Duration::from_secs(10) }, start);
        for &(bytes, second) in pieces {
            pace.count(bytes, start + Duration::from_secs_f64(second));
        }
        pace.too_slow()
    }

    #[test]
    fn a_span_with_too_few_bytes_is_told_at_its_end() {
        assert!(!too_slow(100.0, &[(1, 9.0)]), "the span has not ended");
        assert!(!too_slow(100.0, &[(1, 9.0), (999, 10.0)]), "1000 bytes in 10 s are 100 a second");
        assert!(too_slow(100.0, &[(1, 9.0), (998, 10.0)]));
        assert!(too_slow(100.0, &[(5000, 10.0), (999, 20.0)]), "the next span begins anew");
        assert!(!too_slow(100.0, &[(1500, 15.0)]), "1500 bytes in 15 s are 100 a second, too");
        assert!(too_slow(100.0, &[(1400, 15.0)]));
        assert!(too_slow(100.0, &[(0, 10.0), (5000, 20.0)]), "what was too slow stays so");
        assert!(!too_slow(0.0, &[(0, 1e6)]), "no least, no complaint");
    }
}
