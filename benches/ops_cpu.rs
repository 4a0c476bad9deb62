//! Times of the CPU ops on the shapes of the full-size networks: `cargo bench --bench ops_cpu [-- FILTER]`, in
//! bf16 with the word `bf16` after it.
//!
//! Each line is the best of several runs: milliseconds, then GFLOP/s for what multiplies or GB/s (read once,
//! written once) for what moves. Where the system tells, the mean CPU time follows and the rate that it would
//! give with all threads busy: on a machine that does other work as well, that is the number to compare.
//! Correctness is the tests' affair.

use std::time::Instant;

use tasr::autograd::Cx;
use tasr::device::Device;
use tasr::error::Result;
use tasr::ops::attention::{Heads, attention};
use tasr::ops::conv2d::{Conv2d, ConvWeight, conv2d};
use tasr::ops::elementwise::{cast, combine};
use tasr::ops::group_norm::{GroupNorm, group_norm, normalise};
use tasr::ops::layer_norm::layer_norm;
use tasr::ops::linear::{LinearWeight, linear, linear_geglu};
use tasr::ops::{Activation, Epilogue, Segment, Segments};
use tasr::tensor::{DType, Shape, Tensor};

struct Bench {
    cx: Cx,
    filter: String,
}

enum Work {
    Flop(f64),
    Bytes(f64),
}

impl Bench {
    /// Runs `op` until it has had its share of time and prints the best run.
    fn time(&self, name: &str, work: Work, op: impl Fn() -> Result<Tensor>) -> Result<()> {
        const SHARE: f64 = 1.5;
        std::hint::black_box(op()?);
        let (start, mut best, mut runs) = (Instant::now(), f64::INFINITY, 0);
        let cpu_before = cpu_seconds();
        while runs < 3 || start.elapsed().as_secs_f64() < SHARE {
            let begin = Instant::now();
            std::hint::black_box(op()?);
            best = best.min(begin.elapsed().as_secs_f64());
            runs += 1;
        }
        let cpu = cpu_seconds().zip(cpu_before).map(|(after, before)| (after - before) / f64::from(runs));
        let (count, unit) = match work {
            Work::Flop(count) => (count / 1e9, "GFLOP/s"),
            Work::Bytes(count) => (count / 1e9, "GB/s"),
        };
        print!("{name:<46} {:>9.2} ms {:>8.1} {unit}", best * 1e3, count / best);
        if let Some(cpu) = cpu {
            let busy = count * rayon::current_num_threads() as f64 / cpu;
            print!("   cpu {:>9.2} ms {busy:>8.1} {unit}", cpu * 1e3);
        }
        println!();
        Ok(())
    }

    fn wanted(&self, name: &str) -> bool {
        name.contains(&self.filter)
    }

    /// Values in [-1, 1) that repeat late.
    fn tensor(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        let tensor = Tensor::from_f32(self.cx.device(), &values(shape.count()), shape)?;
        cast(&self.cx, &tensor, self.cx.dtype())
    }

    /// The same in f32: biases and norms.
    fn plain(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        Tensor::from_f32(self.cx.device(), &values(shape.count()), shape)
    }

    /// A 3x3 convolution of parts of `channels` each; with a norm, group norm and SiLU while it loads.
    fn conv(
        &self,
        name: &str,
        [n, size]: [usize; 2],
        channels: &[usize],
        sums: bool,
        o: usize,
        norm: bool,
    ) -> Result<()> {
        let c: usize = channels.iter().sum();
        let name = format!("conv {name} {c}->{o} @{size} n{n}");
        if !self.wanted(&name) {
            return Ok(());
        }
        let parts = channels.iter().map(|&c| self.tensor([n, size, size, c])).collect::<Result<Vec<_>>>()?;
        let plus = self.tensor([n, size, size, channels[0]])?;
        let segment = |(i, tensor)| Segment { tensor, plus: (sums && i == 1).then_some(&plus) };
        let segments = Segments::new(parts.iter().enumerate().map(segment).collect());
        // As the networks pack them: the UNet's two finer levels for large images.
        let pack = if matches!(size, 32 | 64) { ConvWeight::pack_for_large } else { ConvWeight::pack };
        let weight = pack(&self.cx, &values(o * c * 9), [o, c, 3, 3])?;
        let (gamma, beta, bias) = (self.plain([c])?, self.plain([c])?, self.plain([o])?);
        let norm_weights = GroupNorm { gamma: &gamma, beta: &beta, groups: 32, eps: 1e-5 };
        self.time(&name, Work::Flop((2 * n * size * size * 9 * c * o) as f64), || {
            let conv = Conv2d::new(segments.clone());
            let epilogue = Epilogue::bias(Some(&bias));
            if !norm {
                return conv2d(&self.cx, &conv, &weight, &epilogue);
            }
            let affine = group_norm(&self.cx, &segments, &norm_weights, None, Activation::Silu)?;
            conv2d(&self.cx, &conv.prologue(&affine), &weight, &epilogue)
        })
    }

    fn pointwise(&self, [n, size]: [usize; 2], c: usize, o: usize) -> Result<()> {
        let name = format!("conv 1x1 {c}->{o} @{size} n{n}");
        if !self.wanted(&name) {
            return Ok(());
        }
        let (x, bias) = (self.tensor([n, size, size, c])?, self.plain([o])?);
        let weight = ConvWeight::pack(&self.cx, &values(o * c), [o, c, 1, 1])?;
        self.time(&name, Work::Flop((2 * n * size * size * c * o) as f64), || {
            conv2d(&self.cx, &Conv2d::new(Segments::one(&x)), &weight, &Epilogue::bias(Some(&bias)))
        })
    }

    fn linear(&self, rows: usize, k: usize, o: usize, gated: bool) -> Result<()> {
        let name = format!("linear{} {rows} x {k}->{o}", if gated { "_geglu" } else { "" });
        if !self.wanted(&name) {
            return Ok(());
        }
        let (x, bias) = (self.tensor([2, rows / 2, k])?, self.plain([o])?);
        let weight = LinearWeight::pack(&self.cx, &values(o * k), [o, k])?;
        self.time(&name, Work::Flop((2 * rows * k * o) as f64), || match gated {
            true => linear_geglu(&self.cx, &x, &weight, &bias),
            false => linear(&self.cx, &x, &weight, &Epilogue::bias(Some(&bias))),
        })
    }

    fn attention(&self, n: usize, l: usize, m: usize, heads: usize, width: usize) -> Result<()> {
        let name = format!("attention {l}x{m}, {heads} x {width}, n{n}");
        if !self.wanted(&name) {
            return Ok(());
        }
        let all = heads * width;
        let (q, k, v) = (self.tensor([n, l, all])?, self.tensor([n, m, all])?, self.tensor([n, m, all])?);
        self.time(&name, Work::Flop((4 * n * l * m * all) as f64), || {
            attention(
                &self.cx,
                (Heads::new(&q, 0), Heads::new(&k, 0), Heads::new(&v, 0)),
                heads,
                width,
                false,
            )
        })
    }

    fn moving(&self) -> Result<()> {
        let (n, size, c) = (2, 64, 1600);
        let bytes = (n * size * size * c * 4) as f64;
        if self.wanted("group_norm") || self.wanted("normalise") {
            let x = self.tensor([n, size, size, c])?;
            let (gamma, beta) = (self.plain([c])?, self.plain([c])?);
            let norm = GroupNorm { gamma: &gamma, beta: &beta, groups: 32, eps: 1e-5 };
            let segments = Segments::one(&x);
            let statistics = |activation| group_norm(&self.cx, &segments, &norm, None, activation);
            self.time(&format!("group_norm {c} @{size} n{n}"), Work::Bytes(bytes), || {
                Ok(statistics(Activation::None)?.coefficients)
            })?;
            for activation in [Activation::None, Activation::Silu] {
                let affine = statistics(activation)?;
                self.time(
                    &format!("normalise {activation:?} {c} @{size} n{n}"),
                    Work::Bytes(2.0 * bytes),
                    || normalise(&self.cx, &segments, &affine),
                )?;
            }
        }
        if self.wanted("layer_norm") {
            let x = self.tensor([n, 4096, 320])?;
            let (gamma, beta) = (self.plain([320])?, self.plain([320])?);
            self.time("layer_norm 8192 x 320", Work::Bytes(8.0 * (n * 4096 * 320) as f64), || {
                layer_norm(&self.cx, &x, &gamma, &beta, 1e-5)
            })?;
        }
        if self.wanted("combine") {
            let (a, b) = (self.tensor([n, size, size, 320])?, self.tensor([n, size, size, 320])?);
            let bytes = 12.0 * a.shape().count() as f64;
            self.time("combine a + b, 320 @64 n2", Work::Bytes(bytes), || {
                combine(&self.cx, &[(1.0, &a), (1.0, &b)], 0.0)
            })?;
        }
        Ok(())
    }
}

/// CPU time of this process so far, in Linux's ticks of 10 ms.
fn cpu_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = text.rsplit(')').next()?.split_whitespace().collect();
    let ticks = |i: usize| fields.get(i)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / 100.0)
}

fn values(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919) % 10_007) as f32 / 5003.5 - 1.0).collect()
}

fn main() -> Result<()> {
    // Cargo passes `--bench`; the first other word narrows the choice.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let dtype = if words.iter().any(|word| word == "bf16") { DType::BF16 } else { DType::F32 };
    let filter = words.into_iter().find(|word| word != "bf16").unwrap_or_default();
    let b = Bench { cx: Cx::new(Device::cpu(), dtype)?, filter };
    println!("{} threads, {}", rayon::current_num_threads(), dtype.name());
    b.conv("unet", [2, 64], &[320], false, 320, false)?;
    b.conv("unet norm", [2, 64], &[320], false, 320, true)?;
    b.conv("unet norm", [2, 64], &[640], false, 320, true)?;
    b.conv("unet", [1, 32], &[1280], false, 640, false)?;
    b.conv("unet", [1, 16], &[1280], false, 1280, false)?;
    b.conv("unet", [2, 16], &[1280], false, 1280, false)?;
    b.conv("unet", [1, 8], &[2560], false, 1280, false)?;
    b.conv("unet", [2, 8], &[2560], false, 1280, false)?;
    b.conv("adapter", [2, 64], &[1600], false, 400, false)?;
    b.conv("adapter segments", [2, 16], &[1280; 5], true, 1600, false)?;
    b.conv("adapter segments norm", [2, 16], &[1280; 5], true, 1600, true)?;
    b.conv("vae", [1, 512], &[128], false, 128, false)?;
    b.conv("vae norm", [1, 512], &[128], false, 128, true)?;
    b.conv("vae", [1, 512], &[3], false, 128, false)?;
    b.conv("vae", [1, 512], &[128], false, 3, false)?;
    b.conv("rrdb", [1, 128], &[64], false, 32, false)?;
    b.conv("rrdb segments", [1, 128], &[64, 32, 32, 32], false, 32, false)?;
    b.conv("rrdb segments", [1, 128], &[64, 32, 32, 32, 32], false, 64, false)?;
    b.conv("rrdb", [1, 256], &[64], false, 64, false)?;
    b.pointwise([2, 64], 960, 320)?;
    b.linear(8192, 320, 320, false)?;
    b.linear(8192, 320, 2560, true)?;
    b.linear(8192, 1280, 320, false)?;
    b.linear(512, 1280, 10240, true)?;
    b.attention(2, 4096, 4096, 5, 64)?;
    b.attention(2, 1024, 1024, 10, 64)?;
    b.attention(1, 4096, 4096, 1, 512)?;
    b.attention(2, 4096, 77, 5, 64)?;
    b.moving()
}
