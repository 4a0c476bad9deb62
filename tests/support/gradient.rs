//! Gradients of an op against central differences of its f64 oracle.

use tasr::autograd::Cx;
use tasr::device::Device;
use tasr::error::Result;
use tasr::tensor::{DType, Tensor};

use super::array::shape;
use super::compare::half_unit;
use super::trial::{Op, Oracle, Trial, open, pool, targets, upload};
use super::{Array, Random, Tolerance};

/// Step of the central differences: their error, about 1e-12 of the third derivative and 1e-9 of the loss, is far
/// below what f32 keeps.
const STEP: f64 = 1e-6;
/// Single elements of each input whose derivative is checked.
const PLACES: usize = 5;

/// The gradient of each input, or what is missing.
type Found = Vec<Option<Vec<f32>>>;

/// Checks the gradient of a random weighted sum of all differentiated results in every input: along random
/// directions and at single elements, against the oracle. The bits must not depend on the number of threads nor
/// on which other inputs are differentiated, and the planning device must count enough memory.
///
/// # Panics
/// A check failed: the text names the trial.
pub fn check_gradients(
    trial: &Trial,
    op: impl Fn(&Cx, &[Tensor]) -> Result<Vec<Tensor>> + Sync,
    oracle: impl Fn(&[Array]) -> Vec<Array>,
) {
    for (name, dtypes) in targets(trial) {
        for dtype in dtypes {
            let label = format!("gradient of {} on {name} in {}", trial.name, dtype.name());
            let inputs: Vec<Array> = trial.inputs.iter().map(|input| input.rounded(dtype)).collect();
            let check = Check { trial, label: &label, device: &name, dtype, inputs: &inputs };
            if let Err(error) = check.run(&op, &oracle) {
                panic!("{label}: {error}");
            }
        }
    }
}

struct Check<'a> {
    trial: &'a Trial,
    label: &'a str,
    device: &'a str,
    dtype: DType,
    inputs: &'a [Array],
}

impl Check<'_> {
    /// Weights of the results' elements in the loss, exact in every element type.
    fn weights(&self, result: usize, count: usize) -> Vec<f64> {
        let mut random = Random::new(900 + result as u64);
        (0..count).map(|_| (random.normal() * 8.0).round() / 8.0).collect()
    }

    /// Gradients of the inputs that `wanted` marks, which results were differentiated, and the memory taken.
    fn gradients(
        &self,
        device: Device,
        wanted: impl Fn(usize) -> bool,
        op: &Op,
    ) -> Result<(Found, Vec<bool>, usize)> {
        let cx = Cx::new(device, self.dtype)?.with_tape();
        let tape = cx.tape().expect("a tape").clone();
        let tensors: Vec<Tensor> = upload(&cx, self.inputs)?
            .iter()
            .enumerate()
            .map(|(i, tensor)| if wanted(i) { tape.variable(tensor) } else { tensor.clone() })
            .collect();
        // NaNs in what the backward is given to write: nothing may count on memory that it did not write.
        drop(Tensor::from_f32(cx.device(), &vec![f32::NAN; 1 << 16], [1 << 16])?);
        let results = op(&cx, &tensors)?;
        let mut seeds = Vec::new();
        for (i, result) in results.iter().enumerate().filter(|(_, result)| cx.tracks(&[*result])) {
            let weights: Vec<f32> =
                self.weights(i, result.shape().count()).iter().map(|&v| v as f32).collect();
            let purpose = tasr::device::Purpose::Activation;
            let seed = Tensor::from_f32_as(cx.device(), &weights, result.shape(), result.dtype(), purpose)?;
            seeds.push((result, seed));
        }
        let found = tape.backward(&cx, seeds)?;
        let read = |tensor: &Tensor| found.of(tensor).map(Tensor::to_f32).transpose();
        let differentiated = results.iter().map(|result| cx.tracks(&[result])).collect();
        Ok((tensors.iter().map(read).collect::<Result<_>>()?, differentiated, cx.device().peak()))
    }

    fn run(&self, op: &Op, oracle: &Oracle) -> Result<()> {
        let label = self.label;
        let all = |_: usize| true;
        let once = || self.gradients(open(self.device)?, all, op);
        let (found, differentiated, peak) = pool(1).install(once)?;
        let (again, ..) = pool(3).install(once)?;
        assert_eq!(bits(&found), bits(&again), "{label}: one and three threads differ");
        for (i, own) in found.iter().enumerate() {
            let (alone, ..) = self.gradients(open(self.device)?, |j| i == j, op)?;
            assert_eq!(
                bits(&alone[i..=i]),
                bits(std::slice::from_ref(own)),
                "{label}: input {i} alone has another gradient"
            );
        }
        let planned = open(self.device)?.planned();
        let (_, _, planned) = self.gradients(planned, all, op)?;
        assert!(planned >= peak, "{label}: the plan reserves {planned} bytes, the run took {peak}");

        let loss = |inputs: &[Array]| -> f64 {
            let results = oracle(inputs);
            let mut sum = 0.0;
            for (i, result) in results.iter().enumerate().filter(|(i, _)| differentiated[*i]) {
                let weights = self.weights(i, result.values.len());
                sum += weights.iter().zip(&result.values).map(|(w, v)| w * v).sum::<f64>();
            }
            sum
        };
        let slope = |i: usize, direction: &dyn Fn(usize) -> f64| {
            let at = |step: f64| {
                let mut moved = self.inputs.to_vec();
                moved[i].values.iter_mut().enumerate().for_each(|(j, v)| *v += step * direction(j));
                loss(&moved)
            };
            (at(STEP) - at(-STEP)) / (2.0 * STEP)
        };
        let tolerance =
            Tolerance::new(self.dtype, self.trial.terms).magnified(self.trial.magnification).relative();
        // A rounded term of order one is off by a half unit at most, by a root of a third of it on average; twice that of a
        // sum of so many is allowed beside what its size allows.
        let elements = oracle(self.inputs).iter().map(|result| result.values.len()).max().unwrap_or(0);
        let rounded = |count: usize| match self.trial.rounds_terms && self.dtype != DType::F32 {
            true if elements > count => {
                2.0 * half_unit(self.dtype) * (elements as f64 / count as f64 / 3.0).sqrt()
            }
            _ => 0.0,
        };
        let mut random = Random::new(77);
        for (i, input) in self.inputs.iter().enumerate() {
            let gradient = found[i].as_ref();
            let gradient = gradient.unwrap_or_else(|| panic!("{label}: input {i} got no gradient"));
            let count = input.values.len();
            assert_eq!(gradient.len(), count, "{label}: input {i} is {:?}", shape(&input.shape));
            assert!(gradient.iter().all(|v| v.is_finite()), "{label}: input {i}: not finite");
            // Seeds and inputs are of order one, and so are the terms of every sum, even where they cancel.
            let largest = gradient.iter().fold(1f64, |a, &v| a.max(f64::from(v).abs()));
            let directions: Vec<f64> = (0..count).map(|_| random.normal()).collect();
            let length = directions.iter().map(|v| v * v).sum::<f64>().sqrt();
            let check = |what: &str, found: f64, expected: f64, allowed: f64| {
                // Written so that NaN fails.
                let close = (found - expected).abs() <= allowed + 1e-8 * (1.0 + expected.abs());
                assert!(close, "{label}: input {i}, {what}: {found} for {expected}, allowed {allowed:.1e}");
            };
            let along: f64 = directions.iter().zip(gradient).map(|(d, &g)| d * f64::from(g)).sum();
            let allowed = 2.0 * tolerance * largest + rounded(count);
            check("a direction", along, slope(i, &|j| directions[j]), allowed * length);
            for place in (0..PLACES.min(count)).map(|_| random.within(0..=count - 1)) {
                let expected = slope(i, &|j| f64::from(u8::from(j == place)));
                let scale = largest.max(expected.abs());
                check(
                    &format!("element {place}"),
                    f64::from(gradient[place]),
                    expected,
                    2.0 * tolerance * scale + rounded(count),
                );
            }
        }
        Ok(())
    }
}

fn bits(found: &[Option<Vec<f32>>]) -> Vec<Option<Vec<u32>>> {
    found.iter().map(|own| own.as_ref().map(|own| own.iter().map(|v| v.to_bits()).collect())).collect()
}
