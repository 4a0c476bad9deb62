//! How work is timed and reported, the same for every benchmark of whole networks.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::parts::Work;
use crate::cli::interrupt::Interrupt;
use crate::error::{Error, Result};
use crate::ops::Cx;

/// Repeats, threads and the form of the report.
#[derive(clap::Args)]
pub struct Timing {
    /// Timed runs of each part, of which the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    pub repeats: u16,
    /// Runs of each part before the timed ones
    #[arg(long, default_value_t = 1)]
    warmup: u16,
    /// Threads of the CPU [default: one for each core]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// After a part's warm-up, say "ready" and wait until this file exists: others may use the machine meanwhile
    #[arg(long, value_name = "FILE", hide = true)]
    gate: Option<PathBuf>,
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
}

impl Timing {
    /// Starts as many threads as asked for.
    ///
    /// # Errors
    /// The system refuses.
    pub fn start_threads(&self) -> Result<()> {
        let Some(threads) = self.threads else { return Ok(()) };
        rayon::ThreadPoolBuilder::new()
            .num_threads(usize::from(threads))
            .build_global()
            .map_err(|e| Error::internal(format!("cannot start {threads} threads: {e}")).at("--threads"))
    }

    /// The median milliseconds of `work`, after the warm-up. On a GPU the first two runs of a step bring memory and
    /// record it, so that these are never timed.
    ///
    /// # Errors
    /// Those of `work`, and an interrupt.
    pub fn median(&self, interrupt: &Interrupt, cx: &Cx, work: &mut Work) -> Result<f64> {
        let warmup = if cx.device().gpu().is_some() { self.warmup.max(2) } else { self.warmup };
        for _ in 0..warmup {
            interrupt.check()?;
            work()?;
        }
        self.wait_for_gate(interrupt)?;
        let mut taken = Vec::with_capacity(usize::from(self.repeats));
        for _ in 0..self.repeats {
            interrupt.check()?;
            cx.device().synchronize()?;
            let start = Instant::now();
            work()?;
            cx.device().synchronize()?;
            taken.push(start.elapsed().as_secs_f64() * 1e3);
        }
        Ok(median(&mut taken))
    }

    fn wait_for_gate(&self, interrupt: &Interrupt) -> Result<()> {
        let Some(gate) = &self.gate else { return Ok(()) };
        eprintln!("ready");
        while !gate.exists() {
            interrupt.check()?;
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// The middle value, or the mean of the two in the middle.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    (values[low] + values[high]) / 2.0
}

/// `value` with so many digits after the point.
pub fn rounded(value: f64, digits: i32) -> f64 {
    let unit = 10f64.powi(digits);
    (value * unit).round() / unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&mut [9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [9.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&mut [4.0]), 4.0);
    }
}
