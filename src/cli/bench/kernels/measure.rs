//! Checking and timing one call, and the roofline to hold it against.

use serde_json::{Value, json};

use super::subject::{self, Run};
use crate::cli::bench::machine;
use crate::error::{Error, Result};
use crate::ops::Cx;
use crate::ops::calls::{Call, Extras, Noted, Parts};
use crate::ops::elementwise::combine;
use crate::tensor::{DType, Tensor};

/// Inputs are rotated through so many bytes: more than any cache holds.
const COLD_BYTES: f64 = 256e6;
/// Copies of the inputs at most.
const COPIES: usize = 16;
/// Values of the copy that measures the memory.
const COPY: usize = 64 << 20;

/// What a device does at best.
pub struct Roof {
    /// operations a second of a large product
    pub flops: f64,
    /// bytes a second of a large copy, read and written
    pub bytes: f64,
}

impl Roof {
    /// Measures it.
    ///
    /// # Errors
    /// Memory that runs out.
    pub fn measure(cx: &Cx) -> Result<Self> {
        let count = match cx.device().name().as_str() {
            name if name.starts_with("cuda") => COPY,
            _ => COPY / 64,
        };
        let x = Tensor::from_f32(cx.device(), &vec![1.0; count], [count])?;
        let mut best = f64::INFINITY;
        for _ in 0..6 {
            best = best.min(cx.device().time(&mut || combine(cx, &[(1.0, &x)], 0.0).map(drop))?);
        }
        Ok(Roof { flops: machine::matmul_rate(cx)?, bytes: 8.0 * count as f64 / best })
    }
}

/// What a check finds out.
pub struct Checked {
    /// largest error as a share of the largest value
    pub error: f64,
    /// the kernels that a call starts, in order
    pub kernels: Vec<&'static str>,
}

/// The error that a call may have: its results are rounded once, and sums in another order, of values rounded to the
/// type between two products (attention's weights, a normalised input), differ by a few more roundings.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 2f64.powi(-14),
        DType::F16 => 2f64.powi(-8),
        DType::BF16 => 2f64.powi(-5),
    }
}

/// Makes the call on the device of `cx` and on that of `reference`, the CPU, with the same values.
///
/// # Errors
/// The results differ by more than rounding; NaN differs.
pub fn check(cx: &Cx, reference: &Cx, noted: &Noted) -> Result<Checked> {
    let cx = &cx.with_dtype(noted.dtype);
    let (run, own) = (subject::make(cx, noted)?, subject::make(reference, noted)?);
    let (found, kernels) = match cx.device().gpu() {
        Some(gpu) => gpu.started(|| run(cx))?,
        None => (run(cx)?, Vec::new()),
    };
    let (mut worst, mut allowed) = (0f64, tolerance(noted.dtype));
    for (found, wanted) in found.iter().zip(own(reference)?) {
        // What is stored in another type than the networks' is rounded to that one.
        allowed = allowed.max(tolerance(found.dtype()));
        let (found, wanted) = (found.to_f32()?, wanted.to_f32()?);
        let largest = wanted.iter().fold(f64::MIN_POSITIVE, |most, v| most.max(f64::from(v.abs())));
        for (f, w) in found.iter().zip(&wanted) {
            let error = f64::from((f - w).abs()) / largest;
            worst = if error.is_nan() { f64::INFINITY } else { worst.max(error) };
        }
    }
    if worst <= allowed {
        return Ok(Checked { error: worst, kernels });
    }
    Err(Error::internal(format!(
        "a result is off by {worst:.1e} of its largest value, allowed are {allowed:.1e}"
    )))
}

/// Copies of the inputs to rotate.
fn copies(cx: &Cx, noted: &Noted) -> usize {
    match cx.device().name().starts_with("cuda") {
        true => ((COLD_BYTES / noted.call.bytes(noted.dtype).max(1.0)) as usize).clamp(1, COPIES),
        false => 1,
    }
}

/// Seconds of one call, the least of `repeats` batches of about `batch` seconds. On a GPU the calls of a batch are
/// recorded, so that what starts them takes no part.
///
/// # Errors
/// Memory that runs out.
pub fn time(cx: &Cx, noted: &Noted, repeats: usize, batch: f64) -> Result<f64> {
    let cx = &cx.with_dtype(noted.dtype);
    let runs = (0..copies(cx, noted)).map(|_| subject::make(cx, noted)).collect::<Result<Vec<_>>>()?;
    rotate(cx, &runs, repeats, batch)
}

/// Seconds of the product alone by the vendor's library, likewise; `None` for other ops or where there is none.
///
/// # Errors
/// Memory that runs out.
pub fn time_library(cx: &Cx, noted: &Noted, repeats: usize, batch: f64) -> Result<Option<f64>> {
    let cx = &cx.with_dtype(noted.dtype);
    let made = (0..copies(cx, noted))
        .map(|_| subject::make_library(cx, noted))
        .collect::<Result<Option<Vec<_>>>>()?;
    made.map(|runs| rotate(cx, &runs, repeats, batch)).transpose()
}

fn rotate(cx: &Cx, runs: &[Run], repeats: usize, batch: f64) -> Result<f64> {
    let copies = runs.len();
    let once = cx.device().time(&mut || runs[0](cx).map(drop))?;
    let calls = ((batch / once.max(1e-7)) as usize).clamp(1, 1000);
    let mut all = || (0..calls).try_for_each(|i| runs[i % copies](cx).map(drop));
    let mut best = f64::INFINITY;
    match cx.device().gpu() {
        None => {
            for _ in 0..repeats {
                best = best.min(cx.device().time(&mut all)?);
            }
        }
        Some(gpu) => match gpu.capture(all) {
            Ok(((), replay)) => {
                for _ in 0..=repeats {
                    // SAFETY: the inputs live as long as `runs`.
                    best = best.min(gpu.time(&mut || unsafe { replay.run() })?);
                }
            }
            // An op that copies from the host, once a run, cannot be recorded.
            Err(_) => {
                for _ in 0..=repeats {
                    best = best.min(gpu.time(&mut all)?);
                }
            }
        },
    }
    Ok(best / calls as f64)
}

fn text(parts: &Parts) -> String {
    let part = |(c, plus): &(usize, bool)| if *plus { format!("({c}+{c})") } else { c.to_string() };
    match parts.as_slice() {
        [one] => part(one),
        all => format!("cat[{}]", all.iter().map(part).collect::<Vec<_>>().join(" ")),
    }
}

fn finish(extras: &Extras) -> String {
    let mut all = String::new();
    for (there, name) in [(extras.per_image, " +time"), (extras.residual, " +residual")] {
        if there {
            all.push_str(name);
        }
    }
    all
}

/// The sizes of a call in a few characters.
pub fn shape(call: &Call) -> String {
    match call {
        Call::Linear { images, rows, inputs, outputs, extras } => {
            format!("{}x{inputs}x{outputs}{}", images * rows, finish(extras))
        }
        Call::Geglu { rows, inputs, outputs } => format!("{rows}x{inputs}x{outputs}"),
        Call::Conv2d { geometry: g, parts, prologue, extras, .. } => format!(
            "{}x{}x{}x{} -> {} {k}x{k}{}{}{}{}",
            g.n,
            g.h,
            g.w,
            text(parts),
            g.o,
            if g.stride == 2 { " /2" } else { "" },
            if g.zoom == 2 { " up" } else { "" },
            if prologue.is_some() { " norm" } else { "" },
            finish(extras),
            k = g.kernel,
        ),
        Call::AdapterGate { image: [n, h, w], inputs, width, .. } => {
            format!("{n}x{h}x{w}x{inputs} gates {width}")
        }
        Call::Attention(g) => format!(
            "{}x{}x{} of {}x{}{}",
            g.n,
            g.l,
            g.m,
            g.heads,
            g.width,
            if g.causal { " causal" } else { "" }
        ),
        Call::WindowAttention { image: [n, h, w], windows } => format!(
            "{n}x{h}x{w} of {}x{} by {side}x{side}{}",
            windows.heads,
            windows.width,
            if windows.shift > 0 { " shifted" } else { "" },
            side = windows.side,
        ),
        Call::GroupNorm { image: [n, h, w], parts, groups, adaln } => {
            format!("{n}x{h}x{w}x{} by {groups}{}", text(parts), if *adaln { " adaln" } else { "" })
        }
        Call::Normalise { image: [n, h, w], channels } => format!("{n}x{h}x{w}x{channels}"),
        Call::LayerNorm { rows, width } => format!("{rows}x{width}"),
        Call::Combine { count, terms } => format!("{count} of {terms}"),
        Call::Pointwise { count } | Call::DdpmStep { count } => count.to_string(),
        Call::Cast { count, to } => format!("{count} to {}", to.name()),
        Call::Concat { image: [n, h, w], parts } => format!("{n}x{h}x{w}x{}", text(parts)),
        Call::AveragePool { image: [n, h, w, c], factor }
        | Call::PixelUnshuffle { image: [n, h, w, c], factor } => format!("{n}x{h}x{w}x{c} by {factor}"),
        Call::MeanToken { tokens: [n, l, c] } => format!("{n}x{l}x{c}"),
        Call::JoinTokens { images, before, after, channels } => {
            format!("{images}x({before}+{after})x{channels}")
        }
        Call::Resize { image: [n, h, w, c], to: [to_h, to_w] } => format!("{n}x{h}x{w}x{c} to {to_h}x{to_w}"),
        Call::Blur { image: [n, h, w, c], radius } => format!("{n}x{h}x{w}x{c} radius {radius}"),
        Call::Posterior { image: [n, h, w, c] } => format!("{n}x{h}x{w}x{c}"),
    }
}

/// The sizes by name, which other programs make the same work from.
pub fn sizes(call: &Call) -> Value {
    match call {
        Call::Linear { images, rows, inputs, outputs, extras } => {
            json!({"rows": images * rows, "inputs": inputs, "outputs": outputs, "bias": extras.bias})
        }
        Call::Geglu { rows, inputs, outputs } => json!({"rows": rows, "inputs": inputs, "outputs": outputs}),
        Call::Conv2d { geometry: g, .. } => json!({"n": g.n, "h": g.h, "w": g.w, "c": g.c, "o": g.o,
            "kernel": g.kernel, "stride": g.stride, "pad": g.pad, "zoom": g.zoom}),
        Call::Attention(g) => json!({"n": g.n, "l": g.l, "m": g.m, "heads": g.heads, "width": g.width,
            "causal": g.causal}),
        Call::GroupNorm { image, parts, groups, .. } => {
            json!({"image": image, "channels": parts.iter().map(|(c, _)| c).sum::<usize>(), "groups": groups})
        }
        Call::LayerNorm { rows, width } => json!({"rows": rows, "width": width}),
        _ => Value::Null,
    }
}
