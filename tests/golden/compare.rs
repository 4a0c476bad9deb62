//! Holds found tensors against golden ones.

use std::fmt;

use tasr::error::Result;

use tasr::tensor::DType;

use crate::case::{Case, Values};
use crate::place;

/// The largest error that a tensor may have, as a share of the golden tensor's largest value.
pub const TOLERANCE: f32 = 1e-3;
/// For what comes after the last step, and for tensors stored as f16.
pub const LOOSE: f32 = 2e-3;

/// What f32 leaves of a value that is zero, as a share of the largest of its kind.
const NOISE: f32 = 1e-6;

/// What f16 must reach, in dB.
const PSNR: f64 = 45.0;

/// Values that are stored one after the other on the longest way through a network: about 30 residual and attention
/// blocks of UNet and adapters, each of which stores some ten.
const STORED: f32 = 300.0;

/// The error that networks in half precision may have. Each stored value is rounded by up to half a unit in the last
/// place, in either direction, and norms keep later layers from making more of it, so that errors add up like steps
/// of a random walk: its length is the root of the number of steps. Guidance takes `cfg` times one prediction and
/// `cfg - 1` times another away from it.
fn half_tolerance(dtype: DType, case: &Case) -> f32 {
    let rounding = match dtype {
        DType::F32 => return 0.0,
        DType::F16 => 2f32.powi(-11),
        DType::BF16 => 2f32.powi(-8),
    };
    let guidance = match case.kind() {
        "pipeline" => 2.0 * case.number("cfg", 4.0) as f32 - 1.0,
        _ => 1.0,
    };
    STORED.sqrt() * rounding * guidance.max(1.0)
}

/// The largest error of each row of `width` values, as a share of the row's largest golden value, or of `scales` where
/// they are larger.
fn row_errors(found: &[f32], golden: &[f32], width: usize, scales: &[f32]) -> Vec<f32> {
    let largest = |values: &[f32]| values.iter().fold(0.0f32, |a, v| a.max(v.abs()));
    let floor = NOISE * largest(golden);
    let rows = found.chunks(width).zip(golden.chunks(width)).enumerate();
    rows.map(|(i, (found, golden))| {
        let differences: Vec<f32> = found.iter().zip(golden).map(|(f, g)| f - g).collect();
        let scale = largest(golden).max(floor).max(scales.get(i).copied().unwrap_or(0.0));
        if scale > 0.0 { largest(&differences) / scale } else { largest(&differences) }
    })
    .collect()
}

/// One tensor's result.
struct Row {
    name: String,
    /// max |found - golden| / max |golden|, or what is wrong
    error: std::result::Result<f32, String>,
    tolerance: f32,
}

impl Row {
    /// Bytes of a picture from networks in half precision: its noise may be `PSNR` below the full scale, in bf16 as
    /// much more as its roundings are coarser. As error counts how far the noise is above.
    fn psnr(name: &str, found: &Values, golden: &Values, dtype: DType) -> Self {
        let coarser = if dtype == DType::BF16 { 20.0 * 8f64.log10() } else { 0.0 };
        let squares: f64 = found.1.iter().zip(&golden.1).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        let noise = 10.0 * (squares / golden.1.len().max(1) as f64 / 255f64.powi(2)).log10();
        let error = match found.0 == golden.0 {
            true => Ok(10f32.powf(((noise + PSNR - coarser) / 20.0) as f32)),
            false => Err(format!("shape {:?}, expected {:?}", found.0, golden.0)),
        };
        Row { name: format!("{name} ({:.1} dB)", -noise), error, tolerance: 1.0 }
    }

    fn passed(&self) -> bool {
        // Written so that NaN fails.
        matches!(self.error, Ok(error) if error <= self.tolerance)
    }

    /// Error in units of the tolerance; what is wrong sorts last.
    fn badness(&self) -> f32 {
        match self.error {
            Ok(error) if !error.is_nan() => error / self.tolerance.max(f32::MIN_POSITIVE),
            _ => f32::INFINITY,
        }
    }
}

/// All tensors of a case.
#[derive(Default)]
pub struct Comparison {
    rows: Vec<Row>,
    not_built: Vec<String>,
}

impl Comparison {
    /// Compares with the case's tensor `name`, if the case kept it. Tensors stored as f16 get `LOOSE`.
    pub fn check(
        &mut self,
        case: &Case,
        name: &str,
        found: (Vec<usize>, Vec<f32>),
        tolerance: f32,
    ) -> Result<()> {
        let widened = half_tolerance(place::context()?.dtype(), case);
        self.check_f32(case, name, found, tolerance.max(widened))
    }

    /// The same for what is computed in f32 whatever the networks are.
    pub fn check_f32(
        &mut self,
        case: &Case,
        name: &str,
        found: (Vec<usize>, Vec<f32>),
        tolerance: f32,
    ) -> Result<()> {
        if !case.has(name) {
            return Ok(());
        }
        let tolerance = if case.is_half(name) { tolerance.max(LOOSE) } else { tolerance };
        let golden = case.values(name)?;
        self.rows.push(Row { name: name.into(), error: largest(&found, &golden), tolerance });
        Ok(())
    }

    /// As [`Comparison::check`] for a gradient through ReLUs: an input of one that rounds to the other side of zero
    /// changes the gradient in its whole receptive field, so up to 1 % of the elements may be further off, by ten
    /// times the tolerance. (In f64 PyTorch is as far from its own f32 gradient of CLIP RN50: 8e-3 in 0.3 % of them.)
    pub fn check_through_relus(
        &mut self,
        case: &Case,
        name: &str,
        found: (Vec<usize>, Vec<f32>),
        tolerance: f32,
    ) -> Result<()> {
        if !case.has(name) {
            return Ok(());
        }
        let golden = case.values(name)?;
        let error = largest(&found, &golden).map(|whole| {
            let scale = golden.1.iter().fold(f32::MIN_POSITIVE, |a, v| a.max(v.abs()));
            let mut errors: Vec<f32> =
                found.1.iter().zip(&golden.1).map(|(f, g)| (f - g).abs() / scale).collect();
            errors.sort_by(f32::total_cmp);
            let most = errors[(errors.len() * 99 / 100).min(errors.len() - 1)];
            most.max(whole / 10.0)
        });
        self.rows.push(Row { name: name.into(), error, tolerance });
        Ok(())
    }

    /// Compares rows of `width` values, each by its own largest golden value. Rows that are nothing but rounding
    /// beside the largest of all (the keys of an attention over one token have no gradient) by `NOISE` of that.
    pub fn check_rows(
        &mut self,
        case: &Case,
        name: &str,
        found: (Vec<usize>, Vec<f32>),
        width: usize,
        tolerance: f32,
    ) -> Result<()> {
        if !case.has(name) {
            return Ok(());
        }
        let golden = case.values(name)?;
        let mut error = largest(&found, &golden);
        if error.is_ok() {
            let errors = row_errors(&found.1, &golden.1, width, &[]);
            let worst = errors.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
            let (row, value) = worst.unwrap_or((0, 0.0));
            error = if value <= tolerance { Ok(value) } else { Err(format!("row {row}: error {value:.2e}")) };
        }
        self.rows.push(Row { name: name.into(), error, tolerance });
        Ok(())
    }

    /// As [`Comparison::check_rows`] for gradients, a row a tensor. In half precision `rounded` is the tolerance of three
    /// quarters of the rows, three times that of 95 %, and no row may be off by as much as it is large; a row's scale is at
    /// least its value in `scales`. A gradient that is a sum of large terms of both signs, as those of single biases are, keeps less
    /// than its terms do, and what is wrong with an adapter's map is wrong with all of its tensors. (On
    /// `train_tiny`, 75 %, 95 % and the worst of the adapters' norms: PyTorch in bf16, by autocast or throughout, 1.4e-2,
    /// 3.2e-2 and 0.19; the CPU's portable unit 2.4e-2, 5.1e-2 and 0.31, emulated AMX, which adds up in another order,
    /// 1.9e-2, 5.3e-2 and 0.52.)
    pub fn check_gradients(
        &mut self,
        case: &Case,
        name: &str,
        found: (Vec<usize>, Vec<f32>),
        width: usize,
        (tolerance, rounded): (f32, f32),
        scales: &[f32],
    ) -> Result<()> {
        if !case.has(name) || place::context()?.dtype() == DType::F32 {
            return self.check_rows(case, name, found, width, tolerance);
        }
        const MOST: f32 = 1.0;
        let golden = case.values(name)?;
        let error = largest(&found, &golden).map(|_| {
            let mut errors = row_errors(&found.1, &golden.1, width, scales);
            errors.sort_by(f32::total_cmp);
            let at = |percent: usize| errors.get(errors.len() * percent / 100).copied().unwrap_or(0.0);
            let worst = errors.last().copied().unwrap_or(0.0);
            at(75).max(at(95) / 3.0).max(worst * rounded / MOST)
        });
        self.rows.push(Row { name: name.into(), error, tolerance: rounded });
        Ok(())
    }

    /// Notes that something is wrong.
    pub fn fail(&mut self, name: &str, what: &str) {
        self.rows.push(Row { name: name.into(), error: Err(what.into()), tolerance: 0.0 });
    }

    /// Bytes: values may differ by 1 in at most 0.1 % of the places.
    pub fn check_bytes(&mut self, case: &Case, name: &str, found: (Vec<usize>, Vec<f32>)) -> Result<()> {
        if !case.has(name) {
            return Ok(());
        }
        let golden = case.values(name)?;
        let dtype = place::context()?.dtype();
        if dtype != DType::F32 {
            self.rows.push(Row::psnr(name, &found, &golden, dtype));
            return Ok(());
        }
        let differing = found.1.iter().zip(&golden.1).filter(|(a, b)| a != b).count();
        let far =
            found.1.iter().zip(&golden.1).filter(|(a, b)| (**a - **b).abs() > 1.0 || a.is_nan()).count();
        let error = match () {
            () if found.0 != golden.0 => Err(format!("shape {:?}, expected {:?}", found.0, golden.0)),
            () if far > 0 => Err(format!("{far} bytes differ by more than 1")),
            () => Ok(differing as f32 / golden.1.len().max(1) as f32),
        };
        self.rows.push(Row { name: name.into(), error, tolerance: 1e-3 });
        Ok(())
    }

    /// Notes a tensor of the case that nothing was compared with.
    pub fn absent(&mut self, name: &str) {
        let error = Err("nothing was computed for it".into());
        self.rows.push(Row { name: name.into(), error, tolerance: 0.0 });
    }

    /// Notes a tensor of a part of the system that does not exist yet.
    pub fn not_built(&mut self, name: &str) {
        self.not_built.push(name.into());
    }

    /// True when everything that the case holds belongs to what exists.
    pub fn all_built(&self) -> bool {
        self.not_built.is_empty()
    }

    /// True if a row named `name` was added.
    pub fn has(&self, name: &str) -> bool {
        self.rows.iter().any(|row| row.name.split(' ').next() == Some(name))
    }

    pub fn passed(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(Row::passed)
    }
}

fn largest(
    found: &(Vec<usize>, Vec<f32>),
    golden: &(Vec<usize>, Vec<f32>),
) -> std::result::Result<f32, String> {
    if found.0 != golden.0 || found.1.len() != golden.1.len() {
        return Err(format!("shape {:?}, expected {:?}", found.0, golden.0));
    }
    if let Some(place) = found.1.iter().position(|v| !v.is_finite()) {
        return Err(format!("{} at {place}", found.1[place]));
    }
    let scale = golden.1.iter().fold(0.0f32, |a, v| a.max(v.abs()));
    let error = found.1.iter().zip(&golden.1).fold(0.0f32, |a, (f, g)| a.max((f - g).abs()));
    Ok(if scale > 0.0 { error / scale } else { error })
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let worst = self.rows.iter().max_by(|a, b| a.badness().total_cmp(&b.badness()));
        let bad = self.rows.iter().filter(|row| !row.passed());
        for row in bad {
            match &row.error {
                Ok(error) => {
                    writeln!(f, "    FAILED {}: error {error:.2e} > {:.0e}", row.name, row.tolerance)?
                }
                Err(what) => writeln!(f, "    FAILED {}: {what}", row.name)?,
            }
        }
        if !self.not_built.is_empty() {
            writeln!(f, "    NOT BUILT, so not compared: {}", self.not_built.join(", "))?;
        }
        for picture in self.rows.iter().filter(|row| row.passed() && row.name.ends_with("dB)")) {
            writeln!(f, "    {}", picture.name)?;
        }
        match worst.map(|row| (&row.error, row)) {
            Some((Ok(error), row)) => {
                write!(
                    f,
                    "    {} tensors, worst error {error:.2e} of {:.0e} ({})",
                    self.rows.len(),
                    row.tolerance,
                    row.name
                )
            }
            _ => write!(f, "    {} tensors", self.rows.len()),
        }
    }
}
