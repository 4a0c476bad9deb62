//! Whether a transfer is worth waiting for: a server that drips is never silent for long.

use std::time::{Duration, Instant};

/// Counts bytes over one span of time after another.
pub struct Pace {
    /// bytes in a span, below which the transfer is too slow
    least: f64,
    span: Duration,
    began: Instant,
    came: u64,
}

impl Pace {
    /// `slowest`: bytes a second, on average over `span`.
    pub fn new(slowest: f64, span: Duration, now: Instant) -> Self {
        Pace { least: slowest * span.as_secs_f64(), span, began: now, came: 0 }
    }

    /// Counts bytes that came; -> whether the span that ends with them, if one does, brought enough.
    pub fn holds(&mut self, bytes: usize, now: Instant) -> bool {
        self.came += bytes as u64;
        let elapsed = now - self.began;
        if elapsed < self.span {
            return true;
        }
        // Pieces come when they like: a span may be longer than planned.
        let enough = self.came as f64 * self.span.as_secs_f64() >= self.least * elapsed.as_secs_f64();
        (self.began, self.came) = (now, 0);
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_with_too_few_bytes_is_told_at_its_end() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut pace = Pace::new(100.0, Duration::from_secs(10), start);
        assert!(pace.holds(1, at(9.0)), "the span has not ended");
        assert!(pace.holds(999, at(10.0)), "1000 bytes in 10 s are 100 a second");
        assert!(!pace.holds(999, at(20.0)), "the next span begins anew");
        assert!(pace.holds(1500, at(35.0)), "1500 bytes in 15 s are 100 a second, too");
        assert!(!pace.holds(1400, at(50.0)));
        let mut patient = Pace::new(0.0, Duration::from_secs(10), start);
        assert!(patient.holds(0, at(1e6)), "no least, no complaint");
    }
}
