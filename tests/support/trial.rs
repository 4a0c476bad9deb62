//! A trial of an op: the same inputs on the device under test, on the planning device and in the oracle.

use std::sync::{Arc, OnceLock};

use rayon::{ThreadPool, ThreadPoolBuilder};
use tasr::autograd::Cx;
use tasr::device::{Cpu, Device, MatrixUnit};
use tasr::error::Result;
use tasr::ops::Activation;
use tasr::ops::elementwise::cast;
use tasr::tensor::{DType, Tensor};

use super::array::{Stored, shape};
use super::{Array, Tolerance, compare};

/// The op that is tried. What tries it takes it by reference, so that it is compiled once, not for every trial.
pub type Op<'a> = dyn Fn(&Cx, &[Tensor]) -> Result<Vec<Tensor>> + Sync + 'a;
/// What its results should be.
pub type Oracle<'a> = dyn Fn(&[Array]) -> Vec<Array> + 'a;

/// Element types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Types {
    All,
    F32,
    /// those that round to half as many bits
    Halves,
}

/// What is tried, and how exact it has to be.
#[derive(Clone, Debug)]
pub struct Trial {
    pub name: String,
    pub inputs: Vec<Array>,
    /// products in the longest sum
    pub terms: usize,
    /// how much the computation magnifies the rounding of its inputs
    pub magnification: f64,
    /// the element types that it is tried in, of those that a device has
    pub types: Types,
    /// gradients are rounded before they are added up over pixels: those behind an activation
    pub rounds_terms: bool,
    /// tried on the emulator too
    pub emulated: bool,
}

impl Trial {
    pub fn new(name: impl Into<String>, inputs: Vec<Array>, terms: usize) -> Self {
        Trial {
            name: name.into(),
            inputs,
            terms,
            magnification: 1.0,
            types: Types::All,
            rounds_terms: false,
            emulated: false,
        }
    }

    pub fn types(self, types: Types) -> Self {
        Trial { types, ..self }
    }

    /// With an activation other than none, terms of gradients are stored.
    pub fn behind(self, activation: Activation) -> Self {
        Trial { rounds_terms: activation != Activation::None, ..self }
    }

    pub fn magnified(self, magnification: f64) -> Self {
        Trial { magnification, ..self }
    }

    /// The emulator tries it too, in builds that have it: for small inputs, since it takes an access at a time.
    pub fn emulated(self) -> Self {
        Trial { emulated: true, ..self }
    }
}

/// The devices under test, each with the element types that it computes in. `TASR_TEST_DEVICE` names the only one.
pub fn targets(trial: &Trial) -> Vec<(String, Vec<DType>)> {
    let names = match std::env::var("TASR_TEST_DEVICE") {
        Ok(name) => vec![name],
        Err(_) if trial.emulated && cfg!(feature = "emulator") => vec!["cpu".into(), "emulator".into()],
        Err(_) => vec!["cpu".into()],
    };
    let dtypes = |name: &str| match name {
        "cpu" => vec![DType::F32, DType::BF16],
        _ => vec![DType::F32, DType::F16, DType::BF16],
    };
    let tried = |dtype: &DType| match trial.types {
        Types::All => true,
        Types::F32 => *dtype == DType::F32,
        Types::Halves => *dtype != DType::F32,
    };
    names.into_iter().map(|name| (name.clone(), dtypes(&name).into_iter().filter(tried).collect())).collect()
}

/// A device of its own. The emulator's without the checks, whose margins around each allocation would count as memory:
/// sentinels and NaNs stand for them here, and `tests/kernels` runs the checks.
///
/// # Errors
/// There is no such device.
pub fn open(name: &str) -> Result<Device> {
    #[cfg(feature = "emulator")]
    if name == "emulator" {
        use tasr::device::gpu::emulator;
        return Ok(emulator::open(emulator::Options { check: false, ..Default::default() }));
    }
    Device::open(name)
}

pub fn upload(cx: &Cx, inputs: &[Array]) -> Result<Vec<Tensor>> {
    let one = |input: &Array| {
        let tensor = Tensor::from_f32(cx.device(), &input.to_f32(), shape(&input.shape))?;
        if input.stored == Stored::Plain { Ok(tensor) } else { cast(cx, &tensor, cx.dtype()) }
    };
    inputs.iter().map(one).collect()
}

/// Shape and values of a result.
type Found = (Vec<usize>, Vec<f32>);

fn download(results: &[Tensor]) -> Result<Vec<Found>> {
    results.iter().map(|result| Ok((result.shape().to_vec(), result.to_f32()?))).collect()
}

pub fn pool(threads: usize) -> &'static ThreadPool {
    static POOLS: [OnceLock<ThreadPool>; 2] = [OnceLock::new(), OnceLock::new()];
    POOLS[usize::from(threads > 1)]
        .get_or_init(|| ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool"))
}

const SENTINEL: f32 = 12_345.678;

/// Memory laid out so that the arena's best fit puts each result between two sentinels, into NaNs.
struct Guards(Vec<Tensor>);

impl Guards {
    /// `reserved` bytes is what the op takes in all.
    fn around(device: &Device, results: &[Found], reserved: usize) -> Result<Self> {
        let filled = |value: f32, count: usize| Tensor::from_f32(device, &vec![value; count], [count]);
        let mut guards = vec![filled(SENTINEL, 64)?];
        let mut holes = Vec::new();
        for (shape, _) in results {
            holes.push(filled(f32::NAN, shape.iter().product())?);
            guards.push(filled(SENTINEL, 64)?);
        }
        // What else the op takes is NaN as well: nothing may count on memory that it did not write.
        holes.push(filled(f32::NAN, reserved / 4)?);
        Ok(Guards(guards))
    }

    fn intact(&self) -> Result<bool> {
        for guard in &self.0 {
            if guard.to_f32()?.iter().any(|&v| v != SENTINEL) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Runs `op` and compares with `oracle`.
///
/// Checked are: shapes and memory of the planning device, values against the oracle, sentinels around the
/// results, inputs that stay as they are, and on the CPU the same bits with one and with three threads
/// and values that agree for every unit that multiplies bf16.
///
/// # Panics
/// A check failed: the text names the trial.
pub fn run(
    trial: &Trial,
    op: impl Fn(&Cx, &[Tensor]) -> Result<Vec<Tensor>> + Sync,
    oracle: impl Fn(&[Array]) -> Vec<Array>,
) {
    for (name, dtypes) in targets(trial) {
        for dtype in dtypes {
            let label = format!("{} on {name} in {}", trial.name, dtype.name());
            if let Err(error) = run_on(trial, &label, &name, dtype, &op, &oracle) {
                panic!("{label}: {error}");
            }
        }
    }
}

fn run_on(trial: &Trial, label: &str, device: &str, dtype: DType, op: &Op, oracle: &Oracle) -> Result<()> {
    let inputs: Vec<Array> = trial.inputs.iter().map(|input| input.rounded(dtype)).collect();
    // A fresh device each time, so that its peak is this run's.
    let plain = || -> Result<(Vec<Found>, usize)> {
        let cx = Cx::new(open(device)?, dtype)?;
        let tensors = upload(&cx, &inputs)?;
        let found = download(&op(&cx, &tensors)?)?;
        Ok((found, cx.device().peak()))
    };
    let (found, peak) = pool(1).install(plain)?;
    let (again, _) = pool(3).install(plain)?;
    for (one, three) in found.iter().zip(&again) {
        let differs = one.1.iter().zip(&three.1).position(|(a, b)| a.to_bits() != b.to_bits());
        assert_eq!(differs, None, "{label}: element differs between one and three threads");
    }

    let real = Cx::new(open(device)?, dtype)?;
    let plan = Cx::new(real.device().planned(), dtype)?;
    let planned = download(&op(&plan, &upload(&plan, &inputs)?)?)?;
    assert_eq!(
        planned.iter().map(|result| &result.0).collect::<Vec<_>>(),
        found.iter().map(|result| &result.0).collect::<Vec<_>>(),
        "{label}: the plan has other shapes"
    );
    let reserved = plan.device().peak();
    assert!(reserved >= peak, "{label}: the plan reserves {reserved} bytes, the run took {peak}");

    let tensors = upload(&real, &inputs)?;
    let guards = Guards::around(real.device(), &found, reserved)?;
    let guarded = download(&op(&real, &tensors)?)?;
    assert!(guards.intact()?, "{label}: a result's neighbour was overwritten");
    for (tensor, input) in tensors.iter().zip(&inputs) {
        assert_eq!(tensor.to_f32()?, input.to_f32(), "{label}: an input was overwritten");
    }

    let expected = oracle(&inputs);
    assert_eq!(guarded.len(), expected.len(), "{label}: number of results");
    let tolerance = Tolerance::new(dtype, trial.terms).magnified(trial.magnification);
    let check = |label: &str, found: &[Found]| {
        for (i, ((shape, values), expected)) in found.iter().zip(&expected).enumerate() {
            if let Err(text) = compare(shape, values, expected, tolerance) {
                panic!("{label}: result {i}: {text}");
            }
        }
    };
    check(label, &guarded);
    // Other ways to multiply bf16 that this machine has, so that each is proven wherever the tests run.
    if device == "cpu" && dtype == DType::BF16 {
        // The emulated one is slow, and its layout does not depend on how much there is.
        let products = trial.terms * expected.iter().map(|array| array.values.len()).sum::<usize>();
        let tried = |unit: &&MatrixUnit| match unit {
            MatrixUnit::AmxEmulated => products < 1 << 19,
            unit => **unit != MatrixUnit::best(),
        };
        for unit in MatrixUnit::available().iter().filter(tried) {
            let label = format!("{label} by {}", unit.name());
            let found = pool(3).install(|| -> Result<Vec<Found>> {
                let cx = Cx::new(Device::Cpu(Arc::new(Cpu::with_unit(*unit)?)), dtype)?;
                download(&op(&cx, &upload(&cx, &inputs)?)?)
            })?;
            check(&label, &found);
        }
    }
    Ok(())
}
