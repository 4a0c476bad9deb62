//! The calls of ops that a run makes, found by running its shapes on the planning device.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use clap::ValueEnum;

use crate::cli::bench::parts::Setup;
use crate::device::{Device, Target};
use crate::error::{Error, Result};
use crate::models::clip::{ClipConfig, ClipVisual};
use crate::models::{SwinConfig, SwinIr};
use crate::nn::Scope;
use crate::ops::Cx;
use crate::ops::calls::Noted;
use crate::pipeline::progress::Silent;
use crate::pipeline::{NoTrace, Options, Pipeline, Weights};
use crate::sampler::noise::Seeded;
use crate::tensor::{DType, Tensor};
use crate::weights::SyntheticSource;

/// What is run to see its calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Whose {
    /// The whole system, from the small picture to the large one
    Upscale,
    /// The network that cleans the pictures of a training
    Swinir,
    /// The image tower of the metric that a training is rewarded by
    Clipiqa,
}

/// A call and how often one run makes it.
pub struct Counted {
    pub noted: Noted,
    pub count: usize,
}

/// Side of the small picture for one pixel of the large one.
const SCALE: usize = 4;

/// Every distinct call of a run of `setup` on a GPU whose networks store `dtype`, in the order of the first.
///
/// # Errors
/// Sizes that the networks cannot take.
pub fn calls(whose: Whose, setup: &Setup, dtype: DType) -> Result<Vec<Counted>> {
    match whose {
        Whose::Upscale => of_steps(setup, dtype),
        Whose::Swinir => distinct(dtype, |cx| {
            let network = SwinIr::load(&Scope::new(cx, &SyntheticSource, ""), &SwinConfig::default())?;
            network.forward(cx, &image(cx, setup, setup.size)?).map(drop)
        }),
        Whose::Clipiqa => distinct(dtype, |cx| {
            let scope = Scope::new(cx, &SyntheticSource, "").sub("visual");
            let network = ClipVisual::load(&scope, &ClipConfig::default())?;
            network.forward(cx, &image(cx, setup, setup.size)?).map(drop)
        }),
    }
}

/// A batch of pictures of `side` pixels, of which only the shape matters.
fn image(cx: &Cx, setup: &Setup, side: usize) -> Result<Tensor> {
    Tensor::from_f32(cx.device(), &[], [setup.batch, side, side, 3])
}

/// The calls of an upscale.
fn of_steps(setup: &Setup, dtype: DType) -> Result<Vec<Counted>> {
    // Two steps and one differ by what a step repeats.
    let (mut found, one) = (upscale(setup, dtype, 2)?, upscale(setup, dtype, 1)?);
    let once: BTreeMap<String, usize> = one.iter().map(|c| (key(&c.noted), c.count)).collect();
    for call in &mut found {
        let once = once.get(&key(&call.noted)).copied().unwrap_or(0);
        let each = call.count.saturating_sub(once);
        call.count = once + each * setup.steps.saturating_sub(1);
    }
    found.retain(|call| call.count > 0);
    Ok(found)
}

/// What tells calls apart.
pub fn key(noted: &Noted) -> String {
    format!("{} {:?}", noted.dtype.name(), noted.call)
}

fn upscale(setup: &Setup, dtype: DType, steps: usize) -> Result<Vec<Counted>> {
    distinct(dtype, |cx| {
        let weights = Weights::synthetic(setup.config.clone(), setup.variant);
        let tokens: Vec<u32> = (1..).take(setup.config.text.length()).collect();
        let tower = weights.load_text(cx)?;
        let rows = || tower.forward(cx, &vec![&tokens[..]; setup.batch]);
        let (positive, negative) = (rows()?, rows()?);
        let system = weights.load(cx)?;
        let low = image(cx, setup, setup.size / SCALE)?;
        let options = Options { steps, ..Options::default() };
        let (mut noise, mut trace) = (Seeded::new(0), NoTrace);
        Pipeline {
            cx,
            system: &system,
            options: &options,
            noise: &mut noise,
            trace: &mut trace,
            progress: &Silent,
        }
        .upscale(&low, &positive, Some(&negative))
        .map(drop)
    })
}

/// The distinct calls of `run` on the planning device.
fn distinct(dtype: DType, run: impl Fn(&Cx) -> Result<()>) -> Result<Vec<Counted>> {
    let seen: Rc<RefCell<Vec<Noted>>> = Rc::default();
    let keep = seen.clone();
    let cx = Cx::new(Device::plan(Target::Gpu), dtype)?.observed(move |call| {
        if let Some(noted) = call.downcast_ref::<Noted>() {
            keep.borrow_mut().push(noted.clone());
        }
    });
    run(&cx)?;
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut distinct: Vec<Counted> = Vec::new();
    for noted in seen.take() {
        match places.get(&key(&noted)) {
            Some(&place) => distinct[place].count += 1,
            None => {
                places.insert(key(&noted), distinct.len());
                distinct.push(Counted { noted, count: 1 });
            }
        }
    }
    match distinct.is_empty() {
        true => Err(Error::internal("a run made no calls")),
        false => Ok(distinct),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Variant;
    use crate::models::config::SystemConfig;
    use crate::ops::calls::Call;

    fn setup(preset: &str, steps: usize) -> Setup {
        let config = SystemConfig::preset(preset).unwrap();
        Setup { config, variant: Some(Variant::Official), size: 512, batch: 1, steps }
    }

    #[test]
    fn the_calls_of_the_full_size_have_the_arithmetic_of_its_formula() {
        let setup = setup("sd21", 20);
        let calls = calls(Whose::Upscale, &setup, DType::F16).unwrap();
        let counted: f64 = calls.iter().map(|c| c.count as f64 * c.noted.call.flops()).sum();
        let formula = setup.flops(crate::cli::bench::parts::Part::Pipeline);
        // The formula leaves out what is computed once a run: projections of time and text.
        assert!((counted / formula - 1.0).abs() < 0.02, "{counted:e} of {formula:e}");
        assert!(calls.len() > 150, "{} distinct calls", calls.len());
        for op in
            ["linear", "linear_geglu", "conv2d", "adapter_gate", "attention", "group_norm", "layer_norm"]
        {
            assert!(calls.iter().any(|c| c.noted.call.op() == op), "{op}");
        }
        let gates = calls.iter().filter(|c| matches!(c.noted.call, Call::AdapterGate { .. }));
        assert_eq!(gates.map(|c| c.count).sum::<usize>(), 13 * 20);
    }

    #[test]
    fn steps_multiply_what_a_step_repeats_and_nothing_else() {
        let (one, many) = (
            of_steps(&setup("tiny", 1), DType::F16).unwrap(),
            of_steps(&setup("tiny", 7), DType::F16).unwrap(),
        );
        let count = |list: &[Counted], op: &str| -> usize {
            list.iter().filter(|c| c.noted.call.op() == op).map(|c| c.count).sum()
        };
        assert_eq!((count(&one, "adapter_gate"), count(&many, "adapter_gate")), (13, 13 * 7));
        assert_eq!((count(&one, "blur"), count(&many, "blur")), (10, 10));
        assert_eq!((count(&one, "ddpm_step"), count(&many, "ddpm_step")), (1, 7));
    }

    #[test]
    fn networks_of_a_training_have_calls_of_their_own() {
        let count = |whose: Whose, op: &str| -> usize {
            let all = calls(whose, &setup("tiny", 1), DType::F16).unwrap();
            all.iter().filter(|c| c.noted.call.op() == op).map(|c| c.count).sum()
        };
        let blocks = SwinConfig::default().groups * SwinConfig::default().blocks;
        assert_eq!(count(Whose::Swinir, "window_attention"), blocks);
        assert_eq!(count(Whose::Swinir, "pixel_unshuffle"), 1);
        // After the stem, and in both ways through the first block of each later stage.
        assert_eq!(count(Whose::Clipiqa, "average_pool"), 7);
        assert_eq!((count(Whose::Clipiqa, "mean_token"), count(Whose::Clipiqa, "join_tokens")), (1, 1));
    }
}
